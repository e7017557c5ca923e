//! A program that was started long after this machine: a time namespace, which no step of the
//! ladder has, shifts the clocks that count from the start of the machine.
//!
//! ```console
//! $ cargo run -p step02-pid --example clock -- 86400 uptime
//! ```

use std::{ffi::OsString, fs, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use nix::sched::unshare;
use uts::{CloneFlags, call, process};

/// Runs a program that sees another time since the start of the machine.
#[derive(Parser)]
struct Args {
    /// How many seconds later it is inside; fewer than none is earlier
    #[arg(allow_negative_numbers = true)]
    seconds: i64,
    /// The program to run, and its arguments
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

/// `CLONE_NEWTIME`, which the crate nix doesn't know.
const NAMESPACE: CloneFlags = CloneFlags::from_bits_retain(0x80);

fn main() -> ExitCode {
    process::main(|args: Args| {
        shift_clocks(args.seconds)?;
        let child = process::spawn(CloneFlags::empty(), || process::exec(&args.command))?;
        process::wait(child)
    })
}

/// Gives the children that this process will make a time namespace of their own, in which the time
/// since boot, and the monotonic clock, are so many seconds later. This process stays where it is.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` and `CAP_SYS_TIME`, `ERANGE` for a time before the start.
///
/// Source: [time_namespaces(7)](https://man7.org/linux/man-pages/man7/time_namespaces.7.html).
fn shift_clocks(seconds: i64) -> Result<()> {
    call!("unshare"(format_args!("CLONE_NEWTIME")) = unshare(NAMESPACE))?;
    // Before the first child: a clock that somebody has seen can't be set any more.
    let (file, offsets) =
        ("/proc/self/timens_offsets", format!("boottime {seconds} 0\nmonotonic {seconds} 0\n"));
    call!("write"(file, &offsets) = fs::write(file, &offsets))?;
    Ok(())
}
