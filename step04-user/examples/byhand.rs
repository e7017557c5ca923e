//! A process in a user namespace whose map somebody else writes: you, by hand, from another shell.
//!
//! ```console
//! # cargo run -p step04-user --example byhand -- id
//! child 4711
//! ```
//! Now write `/proc/4711/uid_map` and `gid_map`, and then press Return.

use std::{ffi::OsString, io, process::ExitCode};

use clap::Parser;
use user::Gate;
use uts::process;

/// Starts a program as root of a user namespace, once you have written the map and pressed Return.
#[derive(Parser)]
struct Args {
    /// The program to run, and its arguments
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    process::main(|args: Args| {
        let gate = Gate::new()?;
        let child = process::spawn(user::NAMESPACE, || {
            gate.wait()?;
            user::become_root()?;
            process::exec(&args.command)
        })?;
        println!("child {child}");
        io::stdin().read_line(&mut String::new())?;
        gate.open()?;
        process::wait(child)
    })
}
