//! Step 3: a process with a root file system of its own.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use uts::{explain, process};

/// Runs a program in a root file system of its own.
///
/// Without --rootfs, it is one made of this machine's own programs. Needs root.
///
///   sudo step03-mnt-pivot -- ls /
///   sudo step03-mnt-pivot -- ps
///   sudo step03-mnt-pivot --rootfs DIR -- /bin/sh
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    #[command(flatten)]
    names: uts::Names,
    #[command(flatten)]
    root: mnt::Root,
    #[command(flatten)]
    common: process::Common,
}

fn main() -> ExitCode {
    process::main(run)
}

fn run(args: Args) -> Result<ExitCode> {
    explain::start_if(args.common.explain)?;
    let root = args.root.open()?;
    let namespaces = uts::NAMESPACE | pid::NAMESPACE | mnt::NAMESPACE;
    let child = process::spawn(namespaces, || {
        uts::set_names(&args.names)?;
        mnt::make_private()?;
        mnt::mount_root(&root)?;
        mnt::mount_system_dirs(&root)?;
        mnt::pivot_into(&root)?;
        if args.root.read_only {
            mnt::make_root_read_only()?;
        }
        pid::init(|| process::exec(&args.common.command))
    })?;
    process::wait(child)
}
