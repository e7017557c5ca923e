//! Step 6: message queues, semaphores and shared memory of its own.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use ipc::demo;
use user::{Gate, capabilities};
use uts::{explain, process};

/// Runs a program with message queues, semaphores and shared memory of its own.
///
/// --demo makes a message queue outside and looks for it from inside, without any program.
///
///   step06-ipc --demo
///   step06-ipc -- ipcs
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    /// Show that a queue which is made outside can't be seen inside
    #[arg(long)]
    demo: bool,
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
    let queue = args.demo.then(demo::Queue::create).transpose()?;
    let namespaces = uts::NAMESPACE
        | pid::NAMESPACE
        | mnt::NAMESPACE
        | user::NAMESPACE
        | net::NAMESPACE
        | ipc::NAMESPACE;
    let gate = Gate::new()?;
    let child = process::spawn(namespaces, || {
        gate.wait()?;
        user::become_root()?;
        uts::set_names(&args.names)?;
        net::configure()?;
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
        pid::init(|| match &queue {
            Some(queue) => queue.look_from_inside(),
            None => process::exec(&args.common.command),
        })
    })?;
    user::write_id_maps(child, &ids)?;
    net::connect(child)?;
    gate.open()?;
    let end = process::wait(child)?;
    queue.map_or(Ok(()), |queue| queue.look_from_outside())?;
    Ok(end)
}
