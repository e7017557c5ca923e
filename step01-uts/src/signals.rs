//! Signals, received one by one instead of as interruptions.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Result;
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
    },
};

/// The signals that are sent to a process by others, held back to be received one by one.
///
/// They must be held back *before* a child is made: one that ends at once would otherwise send
/// its `SIGCHLD` while nobody is ready for it, and the parent would wait for ever.
///
/// Source: [signalfd(2)](https://man7.org/linux/man-pages/man2/signalfd.2.html).
pub struct Signals(SignalFd);

/// What [`Signals::next`] received.
pub struct Received {
    /// Which signal.
    pub signal: Signal,
    /// Whether the terminal sent it (Ctrl-C). The terminal sends it to all processes of the
    /// foreground group, so whoever passes it on would deliver it twice.
    pub from_terminal: bool,
}

impl Signals {
    /// Holds the signals back, and makes ready to receive them.
    ///
    /// # Errors
    /// `EMFILE` and `ENFILE`, as signalfd(2).
    pub fn receive() -> Result<Self> {
        hold_back()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals(SignalFd::with_flags(&sent_by_others(), flags)?))
    }

    /// Waits for the next signal. `None` says that `or` became readable first.
    ///
    /// # Errors
    /// As poll(2) and read(2).
    pub fn next(&self, or: Option<BorrowedFd>) -> Result<Option<Received>> {
        loop {
            if let Some(received) = self.take()? {
                return Ok(Some(received));
            }
            let fds = [Some(self.as_fd()), or].into_iter().flatten();
            let mut fds: Vec<PollFd> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            if fds.get(1).is_some_and(|fd| fd.any() == Some(true)) {
                return Ok(None);
            }
        }
    }

    /// The next signal if there is one, without waiting.
    ///
    /// # Errors
    /// As read(2).
    pub fn take(&self) -> Result<Option<Received>> {
        let Some(info) = self.0.read_signal()? else { return Ok(None) };
        Ok(Some(Received {
            signal: Signal::try_from(info.ssi_signo as i32)?,
            from_terminal: info.ssi_code == libc::SI_KERNEL,
        }))
    }
}

/// Readable while there is a signal to take.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Holds signals back from this thread and from the children that it makes.
pub(crate) fn hold_back() -> Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_BLOCK, Some(&sent_by_others()), None)?)
}

/// Lets all signals through, with their default actions, as a command expects it.
///
/// # Errors
/// None that the kernel gives.
///
/// Source: [signal(7)](https://man7.org/linux/man-pages/man7/signal.7.html).
#[allow(unsafe_code)]
pub fn let_through() -> Result<()> {
    // Rust's runtime ignores SIGPIPE, and what is ignored stays ignored after execve(2).
    // SAFETY: the default action isn't a handler, so no code of ours runs at a bad moment.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// All signals, but for those that say that this program itself is broken, and those that stop it.
fn sent_by_others() -> SigSet {
    use Signal::*;
    let mut set = SigSet::all();
    for own in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGTSTP] {
        set.remove(own);
    }
    set
}
