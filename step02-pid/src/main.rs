//! Step 2: a process that sees itself as number 1.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use uts::{explain, process};

/// Runs a program that sees itself as one of the first processes of a machine.
///
/// Process number 1 is an init: it starts the program, reaps orphans and passes signals on.
/// /proc is still the host's, so `ps` still shows the host's processes; step 3 mends it. Needs root.
///
///   sudo step02-pid -- sh -c 'echo $$'
///   sudo step02-pid -- ps
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
    let namespaces = uts::NAMESPACE | pid::NAMESPACE;
    let child = process::spawn(namespaces, || {
        uts::set_names(&args.names)?;
        pid::init(|| process::exec(&args.common.command))
    })?;
    process::wait(child)
}
