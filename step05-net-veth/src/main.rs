//! Step 5: a network stack with one cable to the host.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use user::{Gate, capabilities};
use uts::{explain, process};

/// Runs a program with a network of its own, and a cable to the host's.
///
/// The container's end of the cable is eth0; `ip route` inside names the host's address. A plain
/// user may not plug a cable into the host: their container has the loopback link alone.
///
///   step05-net-veth -- ip address
///   sudo step05-net-veth -- sh -c 'ping -c 1 $(ip route | cut -d" " -f3 | head -n 1)'
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
    let namespaces =
        uts::NAMESPACE | pid::NAMESPACE | mnt::NAMESPACE | user::NAMESPACE | net::NAMESPACE;
    let gate = Gate::new()?;
    let child = process::spawn(namespaces, || {
        gate.wait()?;
        user::become_root()?;
        uts::set_names(&args.names)?;
        net::configure()?;
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
    net::connect(child)?;
    gate.open()?;
    process::wait(child)
}
