//! Exercise 6.5: a pod: containers that share an IPC namespace, and nothing else.
//!
//! In Kubernetes, the containers of a pod can talk to each other by message queues and shared
//! memory, although each has a root file system and processes of its own. A namespace lives as long
//! as somebody is in it, so the pod's belongs to a process that does nothing but hold it, known as
//! the *pause* container. The others are born with namespaces of their own and *join* this one, by
//! setns(2).
//!
//! ```text
//!              pause          first           second
//!   IPC        ├───────────────┴────────────────┘
//!   PID, mnt   the host's     own             own
//! ```
//! It runs two shell scripts, one after the other, each in a container. Needs root, or the lab:
//!
//!   cargo course lab -- pod ': >/dev/mqueue/hello' 'ls /dev/mqueue'

use std::{convert::Infallible, fs::File, path::Path, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use nix::{
    sched::{CloneFlags, setns},
    unistd::{Pid, getegid, geteuid},
};
use uts::{call, process};

/// Runs two scripts in two containers that share an IPC namespace.
#[derive(Parser)]
struct Args {
    /// The script that runs first
    first: String,
    /// The script that runs when the first has ended
    second: String,
}

fn main() -> ExitCode {
    process::main(|args: Args| {
        let root = mnt::Root { rootfs: None, read_only: false };
        let root = root.open_for((geteuid(), getegid()))?;
        let pause = hold_namespace()?;
        let pod = File::open(format!("/proc/{pause}/ns/ipc"))?;
        let mut end = ExitCode::SUCCESS;
        for script in [&args.first, &args.second] {
            let namespaces = pid::NAMESPACE | mnt::NAMESPACE;
            let child = process::spawn(namespaces, || live(&pod, &root, script))?;
            end = process::wait(child)?;
        }
        Ok(end)
    })
}

/// Starts the process that holds the pod's IPC namespace. It ends with this one.
fn hold_namespace() -> Result<Pid> {
    process::spawn(ipc::NAMESPACE, || {
        loop {
            nix::unistd::pause();
        }
    })
}

/// The life of a container of the pod: it joins the pod, gets its root and becomes the script.
fn live(pod: &File, root: &Path, script: &str) -> Result<Infallible> {
    join(pod)?; // Before the mount: the queues that are mounted are those of whoever mounts them.
    mnt::make_private()?;
    mnt::mount_root(root)?;
    mnt::mount_system_dirs(root)?;
    ipc::mount_queues(root)?;
    mnt::pivot_into(root)?;
    pid::init(|| process::exec(&["sh", "-c", script]))
}

/// Moves the calling process into the IPC namespace that the open file `pod` stands for.
fn join(pod: &File) -> Result<()> {
    let namespace = CloneFlags::CLONE_NEWIPC;
    Ok(call!("setns"(format_args!("pod"), namespace) = setns(pod, namespace))?)
}
