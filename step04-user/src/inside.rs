//! Work that needs a container's map of ids, but no container.

use std::{convert::Infallible, fs::File, os::fd::OwnedFd, process::exit};

use anyhow::{Result, bail};
use nix::unistd::Pid;
use uts::{let_through, process};

use crate::{Gate, IdMap, NAMESPACE, become_root, write_id_maps};

/// Runs `work` in a process that is root of a user namespace with the map `ids`, and waits for it.
/// What it makes belongs to the ids outside that the map says, and it has no rights over anything else.
///
/// # Errors
/// As [`process::spawn`] and [`write_id_maps`]; if `work` fails, it has printed its error.
///
/// Source: [user_namespaces(7)](https://man7.org/linux/man-pages/man7/user_namespaces.7.html).
pub fn as_root_inside(ids: &IdMap, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (child, gate) = start(ids, || {
        become_root()?;
        process::end_with_parent()?; // Once more, since the user id has changed.
        let_through()?; // Ctrl-C ends it.
        work()?;
        exit(0)
    })?;
    gate.open()?;
    if process::wait(child)? != 0.into() {
        bail!("this didn't work: see above");
    }
    Ok(())
}

/// Makes a user namespace with the map `ids` and gives it as an open file, for what needs the map
/// and not a process: mount_setattr(2) with `MOUNT_ATTR_IDMAP`.
///
/// # Errors
/// As [`process::spawn`] and [`write_id_maps`].
///
/// Source: [namespaces(7)](https://man7.org/linux/man-pages/man7/namespaces.7.html), "The
/// /proc/pid/ns/ directory".
pub fn namespace_with(ids: &IdMap) -> Result<OwnedFd> {
    let (child, gate) = start(ids, || exit(0))?;
    let namespace = File::open(format!("/proc/{child}/ns/user"))?;
    gate.open()?;
    process::wait(child)?;
    Ok(namespace.into())
}

/// Starts a child in a user namespace with the map `ids`, where it waits for the gate to open.
fn start(ids: &IdMap, child: impl FnOnce() -> Result<Infallible>) -> Result<(Pid, Gate)> {
    let gate = Gate::new()?;
    // It doesn't read from the terminal, so Ctrl-C has to reach both.
    let birth = process::Birth { own_terminal: true, ..Default::default() };
    let child = process::bear(birth, NAMESPACE, || {
        gate.wait()?;
        child()
    })?;
    write_id_maps(child, ids)?;
    Ok((child, gate))
}
