//! Who cleans up after a process that was killed.
//!
//! A killed process runs no destructors. Namespaces clean up after themselves, but a cgroup, a
//! file or a message queue of the host would stay. So before such a thing is made, a second
//! process is started that does nothing but wait for the end of the first, and then cleans up.
//! After an orderly end there is nothing left for it to do.

use std::{
    hash::{BuildHasher, RandomState},
    os::fd::AsFd,
};

use anyhow::Result;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::CloneFlags,
    sys::{
        signal::{Signal, kill},
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

/// A process that cleans up if the one that holds this value is killed. When this value is dropped,
/// the holder cleans up itself, and the process isn't needed any more.
pub struct Janitor<'a> {
    pid: Pid,
    clean_up: Box<dyn Fn() -> Result<()> + 'a>,
}

impl<'a> Janitor<'a> {
    /// Starts a process that runs `clean_up` if the caller ends without having done it. Hire it
    /// *before* there is something to clean up, so `clean_up` must be content to find nothing, and to
    /// find half of it: the caller may be killed while it cleans up.
    ///
    /// # Errors
    /// `EAGAIN` if there are too many processes, `EMFILE` if there are too many open files.
    ///
    /// Source: [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html).
    #[allow(unsafe_code)]
    pub fn hire(clean_up: impl Fn() -> Result<()> + 'a) -> Result<Self> {
        let employer = pidfd_open(getpid(), PidfdFlags::empty())?;
        signals::hold_back()?;
        // SAFETY: this process has one thread, as spawn demands it as well.
        let clone = || unsafe { sys::clone3(CloneFlags::empty(), None) };
        let pid = call!("clone3"(CloneFlags::empty()) = clone())?;
        if let Some(pid) = pid {
            return Ok(Janitor { pid, clean_up: Box::new(clean_up) });
        }
        explain::change_side("janitor");
        // In a session of its own, for Ctrl-C is sent to all processes of the terminal's group.
        let done = setsid().map_err(Into::into).and_then(|_| {
            let mut end = [PollFd::new(employer.as_fd(), PollFlags::POLLIN)];
            while poll(&mut end, PollTimeout::NONE)? == 0 {}
            clean_up()
        });
        process::end(done.map_or_else(|error| process::report(&error), |()| 0))
    }
}

impl Drop for Janitor<'_> {
    fn drop(&mut self) {
        // The errors of a destructor go nowhere else.
        if let Err(error) = (self.clean_up)() {
            process::report(&error);
        }
        // Only now: whoever is killed before this line still has a janitor.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}
