//! The container's network, made beside its mounts.
//!
//! A network takes the kernel as long as all the mounts of a container together. They don't depend on
//! each other, so two threads do both at once. A thread may be in a network namespace of its own, and
//! the other one follows it there.

use std::{
    fs::File,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    sched::{setns, unshare},
};
use uts::{call, call::Hint};

/// How large the second thread's stack is, in bytes.
const STACK: usize = 128 << 10;

/// A network namespace that is being made.
pub struct Network(JoinHandle<Result<File>>);

impl Network {
    /// Begins to make one that has `lo` alone, in a second thread.
    ///
    /// Until [`enter`](Network::enter) there are two threads, so no process may be started before, and
    /// no user id or capability be changed.
    ///
    /// # Errors
    /// `EAGAIN` if there are too many threads.
    ///
    /// Source: [unshare(2)](https://man7.org/linux/man-pages/man2/unshare.2.html).
    pub fn begin() -> Result<Self> {
        let thread = thread::Builder::new().stack_size(STACK);
        let thread = call!("clone3"(format_args!("CLONE_THREAD")) = thread.spawn(make))
            .hint(Errno::EAGAIN, "there are too many processes: a pids limit is reached")?;
        Ok(Network(thread))
    }

    /// Follows there, as soon as it is made.
    ///
    /// # Errors
    /// `ENOSPC` if there are too many network namespaces.
    ///
    /// Source: [setns(2)](https://man7.org/linux/man-pages/man2/setns.2.html).
    pub fn enter(self) -> Result<()> {
        let namespace = self.0.join().map_err(|_| anyhow!("the thread panicked"))??;
        call!("setns"(format_args!("fd"), net::NAMESPACE) = setns(namespace, net::NAMESPACE))?;
        Ok(())
    }
}

fn make() -> Result<File> {
    call!(unshare(net::NAMESPACE))
        .hint(Errno::ENOSPC, "there are too many: see /proc/sys/user/max_net_namespaces")?;
    net::configure()?;
    File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
}
