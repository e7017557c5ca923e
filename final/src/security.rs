//! What the command may not do, although it may be root inside.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result};
use caps::Capability;
use mnt::mount;
use nix::{
    errno::Errno,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use oci_spec::runtime::{LinuxCapabilities, Process};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, move_mount},
};
use user::capabilities::{shrink_bounding_set, shrink_own_sets};
use uts::call;

/// Files and directories of `/proc` and `/sys` that tell about the machine, or let it be changed.
///
/// Source: what docker and podman hide.
pub const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Directories and files of `/proc` through which the kernel is told what to do.
pub const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Makes the directory `path` and gives it as a mount to cover others with: empty, and it stays so.
///
/// A new file system would be empty, too. But to make and to remove one takes longer than all the rest.
///
/// # Errors
/// `ENOSPC` if the disk is full.
pub fn empty_dir(path: &Path) -> Result<OwnedFd> {
    call!("mkdir"(path) = fs::create_dir(path))?;
    let empty = mount::detached(path, None)?;
    mount::freeze(empty.as_fd(), path)?;
    Ok(empty)
}

/// Covers each of `paths` that is there: a file by `/dev/null`, a directory by `empty`.
///
/// It is called inside the new root, so no link in it can lead out.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` over the mount namespace.
///
/// Source: [OCI runtime spec, masked paths](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#masked-paths).
pub fn mask(paths: &[String], empty: &OwnedFd) -> Result<()> {
    let mut covered: Option<&Path> = None;
    for path in paths.iter().map(Path::new) {
        match (fs::metadata(path), covered) {
            (Err(_), _) => {} // Not on this machine.
            (Ok(place), None) if place.is_dir() => {
                put(empty.as_fd(), path)?;
                covered = Some(path);
            }
            // A mount has one place, so all others get a copy of it.
            (Ok(place), Some(covered)) if place.is_dir() => put_copy(covered, path)?,
            (Ok(_file), _) => put_copy(Path::new("/dev/null"), path)?,
        }
    }
    Ok(())
}

/// Shows at `path` what is at `other`.
fn put_copy(other: &Path, path: &Path) -> Result<()> {
    put(mount::detached(other, None)?.as_fd(), path)
}

/// Attaches a detached mount at `path`, which is there.
fn put(tree: BorrowedFd, path: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(call!("move_mount"(tree, path) = move_mount(tree, "", CWD, path, flags))?)
}

/// Lets nothing be written below each of `paths` that is there.
///
/// # Errors
/// As [`mask`].
///
/// Source: [OCI runtime spec, readonly paths](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#readonly-paths).
pub fn make_read_only(paths: &[String]) -> Result<()> {
    for path in paths.iter().map(Path::new) {
        // A mount of its own has attributes of its own, and it has them before anybody can reach it.
        let copy = match mount::detached(path, None) {
            Err(error) if error.errno() == Errno::ENOENT => continue, // Not on this machine.
            copy => copy?,
        };
        mount::freeze(copy.as_fd(), path)?;
        put(copy.as_fd(), path)?;
    }
    Ok(())
}

/// Becomes the user that `process` names, with no more privileges than it lists.
///
/// The order matters: the bounding set shrinks while `CAP_SETPCAP` is there, then the groups
/// change while `CAP_SETGID` is there, and with the user id, the kernel takes away all
/// capabilities, unless it is 0.
///
/// # Errors
/// `EINVAL` for a user or group that the id map doesn't have.
///
/// Source: [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html), "Effect of
/// user ID changes on capabilities".
pub fn limit_privileges(process: &Process) -> Result<()> {
    let keep = process.capabilities().as_ref().map(kept).transpose()?.unwrap_or_default();
    shrink_bounding_set(&keep)?;
    let user = process.user();
    let groups: Vec<Gid> =
        user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
    match call!("setgroups"(groups.len()) = setgroups(&groups)) {
        // It is denied to a plain user's map, and then there is nothing to give up either.
        Err(error) if error.errno() == Errno::EPERM && user::setgroups_is_denied()? => {}
        result => result?,
    }
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    let unmapped = || format!("user {uid}, group {gid}: is it in the id map (/etc/subuid, --ids)?");
    call!("setresgid"(user.gid(), user.gid(), user.gid()) = setresgid(gid, gid, gid))
        .with_context(unmapped)?;
    call!("setresuid"(user.uid(), user.uid(), user.uid()) = setresuid(uid, uid, uid))
        .with_context(unmapped)?;
    if uid.is_root() {
        shrink_own_sets(&keep)?;
    }
    if process.no_new_privileges() == Some(true) {
        user::no_new_privileges()?;
    }
    Ok(())
}

/// The bounding set of a spec, as the crate that sets it has it.
fn kept(capabilities: &LinuxCapabilities) -> Result<Vec<Capability>> {
    let names = capabilities.bounding().iter().flatten();
    names
        .map(|name| {
            let name = caps::to_canonical(&name.to_string());
            name.parse().ok().with_context(|| format!("this machine knows no capability {name}"))
        })
        .collect()
}
