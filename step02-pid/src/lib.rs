//! # Step 2: a process that sees itself as number 1
//!
//! A PID namespace numbers its processes anew. The first one is number 1, and with the number it
//! inherits the duties that the machine's own first process has:
//!
//! - **It reaps.** A process whose parent has ended becomes a child of number 1. Until its parent
//!   calls `wait(2)`, an ended process stays a *zombie* and keeps its number; so number 1 waits
//!   for whoever ends.
//! - **It has no default signal actions.** The kernel doesn't deliver to it a signal that it has no
//!   handler for, so that nobody inside kills it by accident. `SIGTERM` would do nothing, unless
//!   number 1 passes it on to the command.
//! - **When it ends, all end.** The kernel kills every other process of the namespace. This is why
//!   a container leaves no process behind.
//!
//! Few commands know of these duties, so [`init`] takes them on and starts the command as its child.

use std::{convert::Infallible, os::fd::AsFd};

use anyhow::Result;
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpgid, getpgrp},
};
use uts::{
    CloneFlags, Received, Signals, call,
    process::{self, exit_code},
};

/// The flag that gives a new process a PID namespace of its own, in which it is number 1.
///
/// Source: [pid_namespaces(7)](https://man7.org/linux/man-pages/man7/pid_namespaces.7.html).
pub const NAMESPACE: CloneFlags = CloneFlags::CLONE_NEWPID;

/// Lives the life of process number 1, with `command` as its child, and ends as `command` ended:
/// with its exit code, or with 128+n if signal n killed it. It ends also when the process outside
/// that started it has ended.
///
/// # Errors
/// If the command can't be started: what [`process::spawn_command`] says.
///
/// Source: [pid_namespaces(7)](https://man7.org/linux/man-pages/man7/pid_namespaces.7.html), "The
/// namespace init process"; [PR_SET_DUMPABLE(2const)](https://man7.org/linux/man-pages/man2/PR_SET_DUMPABLE.2const.html).
pub fn init(command: impl Fn() -> Result<Infallible>) -> Result<Infallible> {
    // Nobody inside may look into this process: some of its open files are the host's, and through
    // /proc/1/fd they would be doors. It stays so for as long as it executes nothing.
    call!("prctl"(format_args!("PR_SET_DUMPABLE, 0")) = prctl::set_dumpable(false))?;
    // Before the command, so that no signal is lost: it may end at once.
    let signals = Signals::receive()?;
    let outside = process::parent()?;
    let command = process::spawn_command(command)?;
    loop {
        match signals.next(outside.as_ref().map(AsFd::as_fd))? {
            Some(Received { signal: Signal::SIGCHLD, .. }) => {
                if let Some(end) = reap(command)? {
                    process::end(exit_code(end))
                }
            }
            // From the terminal, and the command is in the group that got it as well.
            Some(Received { from_terminal: true, .. })
                if getpgid(Some(command)) == Ok(getpgrp()) => {}
            Some(Received { signal, .. }) => forward(signal, command),
            None => process::end(128 + Signal::SIGKILL as u8), // Nobody is left to wait for us.
        }
    }
}

/// Waits for all that have ended, orphans among them, and says how `command` ended if it did.
fn reap(command: Pid) -> Result<Option<WaitStatus>> {
    let mut end = None;
    // Signals don't queue up: one SIGCHLD may stand for several children.
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(end),
            // Ctrl-Z: no shell in here could ever continue it.
            Ok(WaitStatus::Stopped(pid, _)) => kill(pid, Signal::SIGCONT)?,
            Ok(status) if status.pid() == Some(command) => end = Some(status),
            Ok(_orphan) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Passes a signal on to the command.
fn forward(signal: Signal, command: Pid) {
    // It may have ended a moment ago, or belong to somebody whom nobody here may signal.
    let _ = kill(command, signal);
}
