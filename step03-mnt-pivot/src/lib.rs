//! # Step 3: a root file system of its own
//!
//! A mount namespace holds a list of mounts: which file system is seen at which directory. A new
//! one starts as a copy of its parent's list. From then on, what is mounted inside is seen inside
//! only, provided that [propagation](make_private) is switched off first.
//!
//! Then the root itself is exchanged. `chroot(2)` would only change where a process *begins* to
//! look up names, and root knows how to get out of that. `pivot_root(2)` changes the list of
//! mounts: the new root takes the old one's place, and the old one is unmounted. What isn't in the
//! list can't be reached by any name.
//!
//! The concept stands in this file. [`mount`](mod@mount) places a mount below a root that isn't trusted,
//! [`dev`] builds `/dev`, and [`rootfs`] makes a root out of this machine's own programs.

pub mod dev;
mod loader;
pub mod mount;
mod root;
pub mod rootfs;
mod sys;

use std::path::Path;

use anyhow::Result;
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, umount2},
    unistd::{chdir, pivot_root},
};
use uts::{CloneFlags, call, call::Hint};

pub use root::Root;

use crate::mount::{bind, mount_new};

/// The flag that gives a new process a mount namespace of its own, a copy of its parent's.
///
/// Source: [mount_namespaces(7)](https://man7.org/linux/man-pages/man7/mount_namespaces.7.html).
pub const NAMESPACE: CloneFlags = CloneFlags::CLONE_NEWNS;

/// Keeps what is mounted from now on from being seen outside, and the reverse.
///
/// Most machines make `/` *shared*: a mount in one namespace then appears in all of its copies. A
/// program that forgets this call works where `/` is private, and changes the host everywhere else.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the user namespace that owns the mount namespace.
///
/// Source: [mount_namespaces(7)](https://man7.org/linux/man-pages/man7/mount_namespaces.7.html), "Shared subtrees".
pub fn make_private() -> Result<()> {
    mount::change("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)
}

/// Makes the directory `root` a mount point by binding it onto itself: [`pivot_into`] needs one.
///
/// # Errors
/// `ENOENT` if there is no such directory, `EACCES` if a directory above it can't be searched.
///
/// Source: [mount(2)](https://man7.org/linux/man-pages/man2/mount.2.html), "Creating a bind mount".
pub fn mount_root(root: &Path) -> Result<()> {
    bind(root, root, Path::new("/"))
}

/// Mounts below `root` what programs expect to find besides files: `/proc`, `/sys`, `/dev`, `/tmp`.
///
/// This comes before [`pivot_into`], because the kernel lets a user namespace mount a new `/proc`
/// or `/sys` only as long as an old one can be seen, and because `/dev` borrows the host's devices.
///
/// # Errors
/// `EPERM` if the host's own `/proc` is partly covered, as in many containers.
///
/// Source: [proc(5)](https://man7.org/linux/man-pages/man5/proc.5.html),
/// [sysfs(5)](https://man7.org/linux/man-pages/man5/sysfs.5.html),
/// [tmpfs(5)](https://man7.org/linux/man-pages/man5/tmpfs.5.html).
pub fn mount_system_dirs(root: &Path) -> Result<()> {
    mount_new("proc", root, Path::new("/proc"), mount::INERT, None)?;
    mount_sys(root)?;
    dev::mount_dev(root)?;
    mount_new(
        "tmpfs",
        root,
        Path::new("/tmp"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=1777"),
    )
}

/// Mounts `/sys` read-only: a new one, which shows the links of the caller's own network namespace.
/// A user namespace that shares its parent's network (step 4) may not have a new one, and gets the
/// host's.
///
/// # Errors
/// As [`mount_new`] and [`mount::bind`].
pub fn mount_sys(root: &Path) -> Result<()> {
    let (at, flags) = (Path::new("/sys"), mount::INERT | MsFlags::MS_RDONLY);
    match mount_new("sysfs", root, at, flags, None) {
        Err(error) if mount::errno(&error) == Some(Errno::EPERM) => {
            bind(Path::new("/sys"), root, at)?;
            mount::make_read_only(root, at)
        }
        result => result,
    }
}

/// Exchanges the root file system: `root` becomes `/`, and the old root is gone.
///
/// `root` must be a mount point ([`mount_root`]), and no mount may be shared ([`make_private`]).
///
/// # Errors
/// `EBUSY` and `EINVAL` if one of the two is forgotten.
///
/// Source: [pivot_root(2)](https://man7.org/linux/man-pages/man2/pivot_root.2.html),
/// "pivot_root(".", ".")".
pub fn pivot_into(root: &Path) -> Result<()> {
    call!(chdir(root))?;
    // Both arguments are the same directory, so the old root is mounted on top of the new one:
    // no directory for it (put_old) is needed, and umount2 uncovers the new one.
    call!(pivot_root(".", "."))
        .hint(Errno::EBUSY, "the new root is no mount of its own: bind it onto itself first")
        .hint(
            Errno::EINVAL,
            "a mount is shared (the new root, its parent or the old root): make all private \
             first; or the new root is no mount point: bind it onto itself",
        )
        .hint(Errno::EPERM, "only root of the user namespace that owns the mounts may do this")?;
    call!(umount2(".", MntFlags::MNT_DETACH))?;
    Ok(call!(chdir("/"))?)
}

/// Makes the root mount read-only, after all that had to be created in it is there. Mounts
/// below it, like `/tmp`, stay as they are.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the user namespace that owns the mount namespace.
///
/// Source: [mount_setattr(2)](https://man7.org/linux/man-pages/man2/mount_setattr.2.html).
pub fn make_root_read_only() -> Result<()> {
    mount::make_read_only(Path::new("/"), Path::new("/"))
}
