//! The mistakes that learners make, made on purpose: each runs the steps' own functions with a line
//! missing or in the wrong place, so that the kernel's answer, and our words for it, can be seen.
//!
//! `mistakes NAME`, in the lab or as root.

use std::{convert::Infallible, fs, path::Path, process::ExitCode};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use mnt::mount;
use nix::{
    mount::MsFlags,
    sched::unshare,
    sys::resource::{Resource, setrlimit},
};
use overlay::{Marks, Overlay};
use user::{Gate, IdMap, capabilities, map::Range};
use uts::{CloneFlags, process};

/// Makes a mistake and shows what the kernel says to it.
#[derive(Parser)]
struct Args {
    mistake: Mistake,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mistake {
    /// Step 1: rename the host without the right to.
    NameWithoutRights,
    /// Step 2: a process in a PID namespace whose number 1 has ended.
    InitHasEnded,
    /// Step 3: a new root that isn't a mount point.
    RootIsNoMount,
    /// Step 3: mounts that are shared, as on most machines.
    RootIsShared,
    /// Step 3: exchange the root without the right to.
    PivotWithoutRights,
    /// Step 3: a new /proc for the PID namespace of somebody else.
    ProcOfOthers,
    /// Step 4: become root before anybody wrote the map.
    RootWithoutMap,
    /// Step 4: write the map twice.
    MapTwice,
    /// Step 5: set up the network after the right to was given up.
    LinksWithoutRights,
    /// Step 5: plug a second cable into the same container.
    TwoCables,
    /// Step 5: plug a cable into a container that has ended.
    CableToNobody,
    /// Step 6: show the queues of somebody else's IPC namespace.
    QueuesOfOthers,
    /// Step 7: start one process more than the limit.
    TooManyProcesses,
    /// Step 8: a layer that lies inside of another.
    LayerInLayer,
    /// Step 8: keep a container's own layer on an overlay.
    OverlayOnOverlay,
}

fn main() -> ExitCode {
    process::main(|args: Args| match args.mistake {
        Mistake::NameWithoutRights => inside(CloneFlags::empty(), || {
            user::drop_capabilities(&[])?;
            uts::set_hostname("mine")
        }),
        Mistake::InitHasEnded => {
            // It doesn't move this process: the next child is number 1.
            unshare(pid::NAMESPACE)?;
            inside(CloneFlags::empty(), || Ok(()))?;
            inside(CloneFlags::empty(), || Ok(()))
        }
        Mistake::RootIsNoMount => inside(mnt::NAMESPACE, || {
            mnt::make_private()?;
            mnt::pivot_into(Path::new("/usr"))
        }),
        Mistake::RootIsShared => inside(mnt::NAMESPACE, || {
            mount::change("/", MsFlags::MS_REC | MsFlags::MS_SHARED)?;
            mnt::mount_root(Path::new("/usr"))?;
            mnt::pivot_into(Path::new("/usr"))
        }),
        Mistake::PivotWithoutRights => inside(CloneFlags::empty(), || {
            user::drop_capabilities(&[])?;
            mnt::pivot_into(Path::new("/tmp"))
        }),
        Mistake::ProcOfOthers => in_user_namespace(mnt::NAMESPACE, || {
            user::become_root()?;
            mnt::make_private()?;
            mnt::mount_system_dirs(Path::new("/"))
        }),
        Mistake::RootWithoutMap => inside(user::NAMESPACE, user::become_root),
        Mistake::MapTwice => map_twice(),
        Mistake::LinksWithoutRights => inside(net::NAMESPACE, || {
            user::drop_capabilities(&capabilities::DEFAULT)?;
            net::configure().map(drop)
        }),
        Mistake::TwoCables => two_cables(),
        Mistake::CableToNobody => {
            let child = process::spawn(net::NAMESPACE, || end(|| Ok(())))?;
            process::wait(child)?;
            net::connect(child)?;
            Ok(ExitCode::SUCCESS)
        }
        Mistake::QueuesOfOthers => in_user_namespace(mnt::NAMESPACE, || {
            user::become_root()?;
            mnt::make_private()?;
            ipc::mount_queues(Path::new("/tmp")) // Where the missing directory may be made.
        }),
        Mistake::LayerInLayer => inside(mnt::NAMESPACE, || {
            mnt::make_private()?;
            mount_overlay(&["one", "one/two"], "container")
        }),
        Mistake::OverlayOnOverlay => inside(mnt::NAMESPACE, || {
            mnt::make_private()?;
            mount_overlay(&["one"], "container")?;
            mount_overlay(&["one"], "merged/container")
        }),
        Mistake::TooManyProcesses => {
            setrlimit(Resource::RLIMIT_NPROC, 1, 1)?;
            inside(CloneFlags::empty(), || Ok(()))
        }
    })
}

/// Makes the mistake in a child in new `namespaces`.
fn inside(namespaces: CloneFlags, mistake: impl FnOnce() -> Result<()>) -> Result<ExitCode> {
    process::wait(process::spawn(namespaces, || end(mistake))?)
}

/// As [`inside`], in a user namespace as well, with a map of ids.
fn in_user_namespace(
    namespaces: CloneFlags,
    mistake: impl FnOnce() -> Result<()>,
) -> Result<ExitCode> {
    let gate = Gate::new()?;
    let child = process::spawn(namespaces | user::NAMESPACE, || {
        gate.wait()?;
        end(mistake)
    })?;
    user::write_id_maps(child, &map())?;
    gate.open()?;
    process::wait(child)
}

fn map_twice() -> Result<ExitCode> {
    let gate = Gate::new()?;
    let child = process::spawn(user::NAMESPACE, || {
        gate.wait()?;
        end(|| Ok(()))
    })?;
    user::write_id_maps(child, &map())?;
    user::write_id_maps(child, &map())?;
    gate.open()?;
    process::wait(child)
}

/// The container waits until both cables are there.
fn two_cables() -> Result<ExitCode> {
    let gate = Gate::new()?;
    let child = process::spawn(net::NAMESPACE, || {
        gate.wait()?;
        end(|| Ok(()))
    })?;
    net::connect(child)?;
    net::connect(child)?;
    gate.open()?;
    process::wait(child)
}

/// Stacks `layers` under a layer in `container`: directories in a folder of this mistake's own.
fn mount_overlay(layers: &[&str], container: &str) -> Result<()> {
    let dir = Path::new("/tmp/layers");
    for name in layers.iter().chain(&[container, "merged"]) {
        fs::create_dir_all(dir.join(name))?;
    }
    let layers: Vec<_> = layers.iter().map(|layer| dir.join(layer)).collect();
    Overlay::new(&layers, &dir.join(container), Marks::here())?.mount(&dir.join("merged"))
}

/// Root stays itself: a map that every lab can write, whichever ids it has.
fn map() -> IdMap {
    let root = vec![Range { inside: 0, outside: 0, count: 1 }];
    IdMap { users: root.clone(), groups: root }
}

/// A mistake that the kernel doesn't mind ends the child with 0.
fn end(mistake: impl FnOnce() -> Result<()>) -> Result<Infallible> {
    mistake()?;
    std::process::exit(0)
}
