//! Exercise 7.3: a program under limits, without any container around it.
//!
//!   cargo course lab -- limited --pids 30 cat /proc/self/cgroup

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use cgroups::{Limits, Location};
use clap::Parser;
use uts::{CloneFlags, Janitor, process};

/// Runs a program with limits.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    limits: Limits,

    /// The program to run, and its arguments
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    process::main(run)
}

fn run(args: Args) -> Result<ExitCode> {
    let location = Location::find_for_limits("limited", &args.limits)?;
    let _janitor = Janitor::hire(|| location.remove())?;
    let cgroup = location.create(&args.limits)?;
    let child = process::spawn_into(cgroup.directory(), CloneFlags::empty(), || {
        cgroup.enter()?;
        process::exec(&args.command)
    })?;
    process::wait(child)
}
