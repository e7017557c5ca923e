//! Step 8: a root made of shared layers and one thin writable one.

use std::process::ExitCode;

use anyhow::Result;
use cgroups::{Limits, Location, rate};
use clap::Parser;
use overlay::StackOptions;
use user::{Gate, capabilities};
use uts::{Janitor, explain, process};

/// Runs a program on shared layers, with a thin writable layer of its own on top.
///
/// What it writes is gone afterwards, or saved as the next layer.
///
///   step08-overlay -- sh -c 'rm /bin/ls; ls'
///   step08-overlay --layer debian.tar.gz --compare -- cat /etc/os-release
///   step08-overlay --layer debian.tar.gz --save changes.tar -- sh -c 'echo hello >/etc/motd'
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    #[command(flatten)]
    names: uts::Names,
    #[command(flatten)]
    stack: StackOptions,
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
    let stack = args.stack.open(&ids)?;
    let root = stack.merged();
    let location = Location::find("step08", &args.limits)?;
    let _janitor = Janitor::hire(|| location.remove().and(stack.remove_dir()))?;
    stack.make_dir()?;
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
        stack.mount()?;
        mnt::mount_system_dirs(&root)?;
        ipc::mount_queues(&root)?;
        mnt::pivot_into(&root)?;
        if args.stack.read_only {
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
    stack.finish(&args.stack)?;
    Ok(end)
}
