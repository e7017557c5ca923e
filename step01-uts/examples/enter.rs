//! A program in a UTS namespace that is there already: what `docker exec` does, for one namespace.
//!
//! ```console
//! $ cargo run -p step01-uts --example enter -- PID hostname
//! ```

use std::{ffi::OsString, fs::File, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use nix::sched::setns;
use uts::{call, process};

/// Runs a program in the UTS namespace of a process.
#[derive(Parser)]
struct Args {
    /// The process, by its number
    pid: u32,
    /// The program to run there, and its arguments
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    process::main(|args: Args| {
        join(args.pid)?;
        match process::exec(&args.command)? {}
    })
}

/// Moves this process into the UTS namespace that process `pid` is in.
///
/// # Errors
/// `ENOENT` if there is no such process, `EPERM` without `CAP_SYS_ADMIN` in both namespaces.
///
/// Source: [setns(2)](https://man7.org/linux/man-pages/man2/setns.2.html).
fn join(pid: u32) -> Result<()> {
    let file = format!("/proc/{pid}/ns/uts");
    let namespace = File::open(&file).context(file.clone())?;
    call!("setns"(&file, uts::NAMESPACE) = setns(&namespace, uts::NAMESPACE))?;
    Ok(())
}
