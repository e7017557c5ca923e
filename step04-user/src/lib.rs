//! # Step 4: root inside, nobody outside
//!
//! A user namespace has user and group ids of its own, and a *map* says which ids outside they
//! stand for. Number 0 inside may be number 100000 outside, which owns nothing there. And a process
//! that is root inside has all capabilities, but over the things of its own namespaces only: it may
//! rename the container and mount in it, and is refused wherever the host is concerned.
//!
//! So anybody may make one, and inside it, make the other namespaces: from here on, no `sudo`.
//!
//! The map is written from outside, after the child exists and before it goes on. That is what the
//! [`Gate`] is for. [`map`](mod@map) chooses a map and writes it, [`capabilities`] gives up what isn't needed.

pub mod capabilities;
mod gate;
mod inside;
pub mod map;

use std::fs;

use anyhow::Result;
use nix::{
    errno::Errno,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use uts::{CloneFlags, call, call::Hint};

pub use capabilities::{drop_capabilities, no_new_privileges};
pub use gate::Gate;
pub use inside::{as_root_inside, namespace_with};
pub use map::{IdMap, write_id_maps};

/// The flag that gives a new process a user namespace of its own. The kernel makes it before the
/// other namespaces of the same call, and so it owns them.
///
/// Source: [user_namespaces(7)](https://man7.org/linux/man-pages/man7/user_namespaces.7.html).
pub const NAMESPACE: CloneFlags = CloneFlags::CLONE_NEWUSER;

/// Becomes user 0 and group 0 of the user namespace that the caller is in, and a member of no other group.
///
/// Until then the process still has the ids of whoever started it. They may not be in the map at
/// all, and then show as 65534, "nobody".
///
/// # Errors
/// `EPERM` or `EINVAL` if the map hasn't been written yet.
///
/// Source: [setresuid(2)](https://man7.org/linux/man-pages/man2/setresuid.2.html),
/// [user_namespaces(7)](https://man7.org/linux/man-pages/man7/user_namespaces.7.html).
pub fn become_root() -> Result<()> {
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    // Groups first: once the user id is given up, the right to change them may go with it.
    match call!("setgroups"(0, None::<&str>) = setgroups(&[])) {
        // It is denied to a plain user's map, and then there is nothing to give up either.
        Err(error) if error.errno() == Errno::EPERM && setgroups_is_denied()? => {}
        result => result.hint(Errno::EPERM, NO_MAP)?,
    }
    call!("setresgid"(0, 0, 0) = setresgid(group, group, group)).hint(Errno::EINVAL, NO_MAP)?;
    call!("setresuid"(0, 0, 0) = setresuid(user, user, user))?;
    Ok(())
}

/// Whether nobody may change their groups in the caller's user namespace.
///
/// # Errors
/// If there is no `/proc`.
///
/// Source: [user_namespaces(7)](https://man7.org/linux/man-pages/man7/user_namespaces.7.html), "The
/// /proc/pid/setgroups file".
pub fn setgroups_is_denied() -> Result<bool> {
    Ok(fs::read_to_string("/proc/self/setgroups")?.trim() == "deny")
}

const NO_MAP: &str = "the map of ids isn't written yet: wait at the gate until it is";
