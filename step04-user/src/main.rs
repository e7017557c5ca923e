//! Step 4: root inside, nobody outside.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use user::{Gate, capabilities};
use uts::{explain, process};

/// Runs a program as root of a container that is nobody outside. Needs no root.
///
///   step04-user -- id
///   step04-user -- cat /proc/self/uid_map
///   sudo step04-user --ids 200000:1000 -- id
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    #[command(flatten)]
    names: uts::Names,
    #[command(flatten)]
    root: mnt::Root,
    #[command(flatten)]
    ids: user::map::Ids,
    #[command(flatten)]
    common: process::Common,
}

fn main() -> ExitCode {
    process::main(run)
}

fn run(args: Args) -> Result<ExitCode> {
    explain::start_if(args.common.explain)?;
    let ids = args.ids.choose()?;
    let root = args.root.open_for(ids.root())?;
    let namespaces = uts::NAMESPACE | pid::NAMESPACE | mnt::NAMESPACE | user::NAMESPACE;
    let gate = Gate::new()?;
    let child = process::spawn(namespaces, || {
        gate.wait()?;
        user::become_root()?;
        uts::set_names(&args.names)?;
        mnt::make_private()?;
        mnt::mount_root(&root)?;
        mnt::mount_system_dirs(&root)?;
        mnt::pivot_into(&root)?;
        if args.root.read_only {
            mnt::make_root_read_only()?;
        }
        user::drop_capabilities(&capabilities::DEFAULT)?;
        user::no_new_privileges()?;
        pid::init(|| process::exec(&args.common.command))
    })?;
    user::write_id_maps(child, &ids)?;
    gate.open()?;
    process::wait(child)
}
