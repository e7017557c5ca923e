//! The container's network, made beside its mounts.
//!
//! A network takes the kernel as long as all the mounts of a container together. They don't depend on
//! each other, so two threads do both at once. A thread may be in a network namespace of its own, and
//! the other one follows it there.

use std::{
    fs::File,
    sync::mpsc::{Receiver, Sender, channel},
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
pub struct Network {
    thread: Option<JoinHandle<Result<()>>>,
    /// Comes as soon as there is one, until it is entered.
    namespace: Option<Receiver<File>>,
}

impl Network {
    /// Begins to make one that has `lo` alone, in a second thread.
    ///
    /// Until [`finish`](Network::finish) there are two threads, so no process may be started before, and
    /// no user id or capability be changed.
    ///
    /// # Errors
    /// `EAGAIN` if there are too many threads.
    ///
    /// Source: [unshare(2)](https://man7.org/linux/man-pages/man2/unshare.2.html).
    pub fn begin() -> Result<Self> {
        let (made, namespace) = channel();
        let thread = thread::Builder::new().stack_size(STACK);
        let spawn = || thread.spawn(move || make(&made));
        let thread = call!("clone3"(format_args!("CLONE_THREAD")) = spawn())
            .hint(Errno::EAGAIN, "there are too many processes: a pids limit is reached")?;
        Ok(Network { thread: Some(thread), namespace: Some(namespace) })
    }

    /// Follows there, as soon as it is made; does nothing the second time.
    ///
    /// # Errors
    /// `ENOSPC` if there are too many network namespaces.
    ///
    /// Source: [setns(2)](https://man7.org/linux/man-pages/man2/setns.2.html).
    pub fn enter(&mut self) -> Result<()> {
        let Some(namespace) = self.namespace.take() else { return Ok(()) };
        let Ok(namespace) = namespace.recv() else { return self.finish() }; // It says why.
        call!("setns"(format_args!("fd"), net::NAMESPACE) = setns(namespace, net::NAMESPACE))?;
        Ok(())
    }

    /// Waits until it is set up.
    ///
    /// # Errors
    /// As [`net::configure`].
    pub fn finish(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the thread panicked"))?
    }
}

fn make(made: &Sender<File>) -> Result<()> {
    call!(unshare(net::NAMESPACE))
        .hint(Errno::ENOSPC, "there are too many: see /proc/sys/user/max_net_namespaces")?;
    made.send(File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")?)?;
    net::configure().map(drop)
}
