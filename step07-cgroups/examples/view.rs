//! Exercise 7.6: a cgroup namespace: a process that sees its own group as the top of the tree.
//!
//! `/proc/self/cgroup` names the groups that a process is in, and so tells a container where in the
//! host's tree it is: under which service, beside whom. A cgroup namespace ends that. It remembers
//! the groups that a process was in *when the namespace was made*, and from then on shows these as `/`.
//!
//! ```text
//!   on the host    0::/user.slice/view-3f2a…
//!   inside         0::/
//! ```
//! Limits need root, or a group that is delegated to you:
//!
//!   cargo course lab -- view cat /proc/self/cgroup

use std::{convert::Infallible, ffi::OsString, process::ExitCode};

use anyhow::Result;
use cgroups::{Cgroup, Limits, Location};
use clap::Parser;
use nix::sched::{CloneFlags, unshare};
use uts::{Janitor, call, process};

/// Runs a program in a control group that it sees as the top of the tree.
#[derive(Parser)]
struct Args {
    /// The program to run, and its arguments
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    process::main(|args: Args| {
        let limits = Limits { pids: Some(100), ..Limits::default() };
        let location = Location::find_for_limits("view", &limits)?;
        let _janitor = Janitor::hire(|| location.remove())?;
        let cgroup = location.create(&limits)?;
        let child = process::spawn_into(cgroup.directory(), CloneFlags::empty(), || {
            live(&cgroup, &args.command)
        })?;
        process::wait(child)
    })
}

/// The life of a process that is in a group, makes that the top of what it sees, and becomes `command`.
fn live(cgroup: &Cgroup, command: &[OsString]) -> Result<Infallible> {
    cgroup.enter()?; // Before the namespace, which shows as / whatever group we are in by then.
    hide_groups()?;
    process::exec(command)
}

/// Gives the calling process a cgroup namespace of its own.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
///
/// Source: [cgroup_namespaces(7)](https://man7.org/linux/man-pages/man7/cgroup_namespaces.7.html).
fn hide_groups() -> Result<()> {
    Ok(call!(unshare(CloneFlags::CLONE_NEWCGROUP))?)
}
