//! Who reads the terminal, and whom Ctrl-C ends: the foreground process group.

use std::io::stdin;

use nix::unistd::{Pid, getpgrp, setpgid, tcgetpgrp, tcsetpgrp};

/// Whether standard input is a terminal that this process may hand on to a child.
pub(crate) fn is_ours() -> bool {
    tcgetpgrp(stdin()).is_ok_and(|group| group == getpgrp())
}

/// Makes the calling process a group of its own, and the one that has the terminal: the child
/// calls this first, so that a shell inside finds itself in the foreground, although the group of
/// its parent can't be seen from inside a PID namespace.
pub(crate) fn take() {
    // On its own pid as it is seen from here, which may be 1. Neither can fail for a new child,
    // and if one does, a shell says that it has no job control and works without.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let _ = tcsetpgrp(stdin(), getpgrp());
}

/// Takes the terminal back after the child has ended. SIGTTOU, which would stop a background
/// process that does this, is held back by [`Signals`](crate::Signals).
pub(crate) fn take_back() {
    let _ = tcsetpgrp(stdin(), getpgrp());
}
