//! Out of a chroot, to show why step 3 doesn't use one.
//!
//! Inside of a directory that was made the root by chroot(2), as root:
//!
//! ```console
//! # escape ls /
//! ```

use std::{ffi::OsString, fs, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use nix::unistd::{chdir, chroot};
use uts::{call, process};

/// Runs a program outside of the chroot that this one is in.
#[derive(Parser)]
struct Args {
    /// The program to run outside, and its arguments
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    process::main(|args: Args| {
        escape()?;
        match process::exec(&args.command)? {}
    })
}

/// Makes the root of the mount namespace the root of this process again.
///
/// # Errors
/// `EPERM` without `CAP_SYS_CHROOT`.
///
/// Source: [chroot(2)](https://man7.org/linux/man-pages/man2/chroot.2.html).
fn escape() -> Result<()> {
    // chroot changes the root and not the working directory: with the root moved to a directory
    // below, the working directory lies outside of it, and there is nothing to stop `..` there.
    let below = "/below";
    fs::create_dir_all(below)?;
    call!(chdir("/"))?;
    call!(chroot(below))?;
    for _ in 0..64 {
        chdir("..")?; // At the true root, `..` is the same directory.
    }
    call!(chroot("."))?;
    Ok(())
}
