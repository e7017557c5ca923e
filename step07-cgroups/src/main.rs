//! Step 7: limits on memory, CPU, processes and I/O.

use std::process::ExitCode;

use anyhow::Result;
use cgroups::{Limits, rate};
use clap::Parser;
use user::{Gate, capabilities};
use uts::{Janitor, explain, process};

/// Runs a program with limits, and says at the end what it used.
///
/// Limits need root, or with cgroup v2 a group that is delegated to you:
/// systemd-run --user --scope -p Delegate=yes -- step07-cgroups ...
///
///   sudo step07-cgroups --memory 64m -- tail /dev/zero
///   sudo step07-cgroups --cpus 0.5 -- sh -c 'while :; do :; done'
///   sudo step07-cgroups --pids 20 --net-rate 1m
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
    limits: Limits,
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
    let location = cgroups::Location::find("step07", &args.limits)?;
    let _janitor = Janitor::hire(|| location.remove())?;
    let cgroup = location.create(&args.limits)?;
    let namespaces = uts::NAMESPACE
        | pid::NAMESPACE
        | mnt::NAMESPACE
        | user::NAMESPACE
        | net::NAMESPACE
        | ipc::NAMESPACE;
    let gate = Gate::new()?;
    let child = process::spawn_into(cgroup.directory(), namespaces, || {
        gate.wait()?;
        cgroup.enter()?;
        user::become_root()?;
        uts::set_names(&args.names)?;
        rate::limit_rate(net::configure()?, &args.limits)?;
        mnt::make_private()?;
        mnt::mount_root(&root)?;
        mnt::mount_system_dirs(&root)?;
        ipc::mount_queues(&root)?;
        mnt::pivot_into(&root)?;
        if args.root.read_only {
            mnt::make_root_read_only()?;
        }
        user::drop_capabilities(&capabilities::DEFAULT)?;
        user::no_new_privileges()?;
        pid::init(|| process::exec(&args.common.command))
    })?;
    user::write_id_maps(child, &ids)?;
    let link = net::connect(child)?;
    rate::limit_rate(link.as_deref(), &args.limits)?;
    gate.open()?;
    let end = process::wait(child)?;
    if let Some(stats) = cgroup.stats()? {
        eprintln!("used: {stats}");
    }
    Ok(end)
}
