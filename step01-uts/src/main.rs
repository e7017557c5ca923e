//! Step 1: a process with a host name of its own.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use uts::{explain, process};

/// Runs a program with a host name and a domain name of its own.
///
/// The names are set in a new UTS namespace, so the machine's own stay as they are. Needs root.
///
///   sudo step01-uts -- hostname
///   sudo step01-uts --hostname box -- uname -n
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    #[command(flatten)]
    names: uts::Names,
    #[command(flatten)]
    common: process::Common,
}

fn main() -> ExitCode {
    process::main(run)
}

fn run(args: Args) -> Result<ExitCode> {
    explain::start_if(args.common.explain)?;
    let child = process::spawn(uts::NAMESPACE, || {
        uts::set_names(&args.names)?;
        process::exec(&args.common.command)
    })?;
    process::wait(child)
}
