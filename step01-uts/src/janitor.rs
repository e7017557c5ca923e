//! Who cleans up after a process that was killed.
//!
//! A killed process runs no destructors. Namespaces clean up after themselves, but a cgroup, a
//! file or a message queue of the host would stay. So before such a thing is made, a second
//! process is started that does nothing but wait for the end of the first, and then cleans up.
//! It does so after an orderly end as well: there is one way to clean up, and it is always used.

use std::{
    hash::{BuildHasher, RandomState},
    os::fd::AsFd,
};

use anyhow::Result;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::CloneFlags,
    sys::{
        eventfd::{EfdFlags, EventFd},
        wait::waitpid,
    },
    unistd::{Pid, setsid},
};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::{call, explain, process, signals, sys};

/// A name that nobody else uses, for something that is made on the host: `prefix` and ten random
/// hexadecimal digits. A process number wouldn't do, since it counts in one PID namespace only.
pub fn unique_name(prefix: &str) -> String {
    let random = RandomState::new().hash_one(std::process::id());
    format!("{prefix}{:010x}", random & 0xff_ffff_ffff)
}

/// A process that cleans up. When this value is dropped, it does so at once, and is waited for; if
/// the process that holds it ends without that, it does so then.
pub struct Janitor {
    pid: Pid,
    now: EventFd,
}

impl Janitor {
    /// Starts a process that runs `clean_up` when the caller ends. Hire it *before* there is
    /// something to clean up, so `clean_up` must be content to find nothing.
    ///
    /// # Errors
    /// `EAGAIN` if there are too many processes, `EMFILE` if there are too many open files.
    ///
    /// Source: [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html).
    #[allow(unsafe_code)]
    pub fn hire(clean_up: impl FnOnce() -> Result<()>) -> Result<Self> {
        let now = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let employer = pidfd_open(getpid(), PidfdFlags::empty())?;
        signals::hold_back()?;
        // SAFETY: this process has one thread, as spawn demands it as well.
        let clone = || unsafe { sys::clone3(CloneFlags::empty(), None) };
        let pid = call!("clone3"(CloneFlags::empty()) = clone())?;
        if let Some(pid) = pid {
            return Ok(Janitor { pid, now });
        }
        explain::change_side("janitor");
        // In a session of its own, for Ctrl-C is sent to all processes of the terminal's group.
        let done = setsid().map_err(Into::into).and_then(|_| {
            let mut either =
                [&employer.as_fd(), &now.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
            while poll(&mut either, PollTimeout::NONE)? == 0 {}
            clean_up()
        });
        process::end(done.map_or_else(|error| process::report(&error), |()| 0))
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        // Neither can fail, and if it did, the janitor would begin a little later: when we end.
        let _ = self.now.write(1);
        let _ = waitpid(self.pid, None);
    }
}
