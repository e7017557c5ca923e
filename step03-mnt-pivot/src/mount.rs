//! Mounts below a root that isn't trusted.
//!
//! The root file system of a container may come from anybody. If its `proc` is a symbolic link to
//! `/etc`, then mounting on `ROOT/proc` before the pivot mounts on the *host's* `/etc`. So each
//! place is first opened by `openat2(2)`, which takes the root for `/` while it follows links, and
//! the mount is made on the open directory.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2},
    mount::{MsFlags, mount},
    sys::stat::{Mode, mkdirat},
};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};
use uts::{
    call,
    call::{CallError, Hint},
};

use crate::sys;

/// For file systems that need no programs, no devices and no set-user-id bits.
pub const INERT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Mounts a new file system of type `fstype` at `at` below `root`, with `options` of its own.
/// The directory is made if it isn't there.
///
/// # Errors
/// `EPERM` where the caller may not mount this type; `ENODEV` if the kernel doesn't know it.
///
/// Source: [mount(2)](https://man7.org/linux/man-pages/man2/mount.2.html).
pub fn mount_new(
    fstype: &str,
    root: &Path,
    at: &Path,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<()> {
    let target = directory(root, at)?;
    call!(
        "mount"(fstype, beneath(root, at), fstype, flags, options) =
            mount(Some(fstype), &path_of(&target), Some(fstype), flags, options)
    )
    .hint_with(|errno| why_no_mount(errno, fstype))?;
    Ok(())
}

/// Makes `source`, a file or directory of the host with all that is mounted below it, appear at
/// `at` below `root` too. The place is made if it isn't there.
///
/// # Errors
/// `ENOENT` if there is no `source`; `ENOTDIR` if one of the two is a directory and the other a file.
///
/// Source: [mount(2)](https://man7.org/linux/man-pages/man2/mount.2.html), "Creating a bind mount".
pub fn bind(source: &Path, root: &Path, at: &Path) -> Result<()> {
    let from = open_path(source)?;
    let target = match is_directory(&from)? {
        true => directory(root, at)?,
        false => file(root, at)?,
    };
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    call!(
        "mount"(source, beneath(root, at), None::<&str>, flags, None::<&str>) =
            mount(Some(&path_of(&from)), &path_of(&target), None::<&str>, flags, None::<&str>)
    )
    .hint(Errno::ENOTDIR, ONE_KIND)?;
    Ok(())
}

/// As [`bind`], for a file `source` and a new file `name` in the open directory `parent`, which is shown
/// as `parent_path`: nothing needs to be looked for.
pub(crate) fn bind_new(
    source: &Path,
    parent: &OwnedFd,
    parent_path: &Path,
    name: &str,
) -> Result<()> {
    let shown = parent_path.join(name);
    let target = new_file(parent, name.as_ref(), &shown)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    call!(
        "mount"(source, shown, None::<&str>, flags, None::<&str>) =
            mount(Some(source), &path_of(&target), None::<&str>, flags, None::<&str>)
    )?;
    Ok(())
}

/// A copy of the mount at `source`, which is attached nowhere yet. With `ids`, a user namespace, the
/// owners of its files are shifted by that namespace's map: number 0 on the disk is number 0 inside.
///
/// # Errors
/// `EPERM` unless the caller is root over the file system, `EINVAL` if the file system can't do it.
///
/// Source: [mount_setattr(2)](https://man7.org/linux/man-pages/man2/mount_setattr.2.html), "ID-mapped
/// mounts", [open_tree(2)](https://man7.org/linux/man-pages/man2/open_tree.2.html).
pub fn detached(source: &Path, ids: Option<BorrowedFd>) -> Result<OwnedFd, CallError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = call!(
        "open_tree"(source, format_args!("OPEN_TREE_CLONE|AT_RECURSIVE")) =
            open_tree(CWD, source, flags)
    )?;
    if let Some(ids) = ids {
        call!(
            "mount_setattr"(source, format_args!("MOUNT_ATTR_IDMAP")) =
                sys::map_ids(tree.as_fd(), ids)
        )?;
    }
    Ok(tree)
}

/// Attaches what [`detached`] gave at `at` below `root`. The place is made if it isn't there.
///
/// # Errors
/// As [`bind`].
///
/// Source: [move_mount(2)](https://man7.org/linux/man-pages/man2/move_mount.2.html).
pub fn attach(tree: BorrowedFd, root: &Path, at: &Path) -> Result<()> {
    let target = if is_directory(tree)? { directory(root, at)? } else { file(root, at)? };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    call!("move_mount"(tree, beneath(root, at)) = move_mount(tree, "", &target, "", flags))
        .hint(Errno::EINVAL, ONE_KIND)?;
    Ok(())
}

const ONE_KIND: &str = "one of the two is a directory and the other a file: a directory can only \
    be mounted on a directory, and a file on a file";

/// Changes a property, such as the propagation type, of the mount at `path`.
///
/// # Errors
/// `EINVAL` if `path` isn't a mount point, `EPERM` without `CAP_SYS_ADMIN`.
///
/// Source: [mount(2)](https://man7.org/linux/man-pages/man2/mount.2.html), "Changing the
/// propagation type of an existing mount".
pub fn change(path: &str, flags: MsFlags) -> Result<()> {
    Ok(call!(mount(None::<&str>, path, None::<&str>, flags, None::<&str>))?)
}

/// Makes the mount at `at` below `root` read-only; at `/sys` also all mounts below it.
///
/// This adds one attribute and keeps the others. `mount(2)` with `MS_REMOUNT` would have to repeat
/// them all, and in a user namespace fails if it leaves one out.
///
/// # Errors
/// `EINVAL` if it isn't a mount point.
///
/// Source: [mount_setattr(2)](https://man7.org/linux/man-pages/man2/mount_setattr.2.html).
pub fn make_read_only(root: &Path, at: &Path) -> Result<()> {
    let recursive = at != Path::new("/");
    set_read_only(resolve(root, at)?.as_fd(), &beneath(root, at), recursive)
}

/// Makes what [`detached`] gave read-only, with all mounts below it. `shown` is where it comes from.
///
/// # Errors
/// As [`make_read_only`].
///
/// Source: [mount_setattr(2)](https://man7.org/linux/man-pages/man2/mount_setattr.2.html).
pub fn freeze(tree: BorrowedFd, shown: &Path) -> Result<()> {
    set_read_only(tree, shown, true)
}

fn set_read_only(mount: BorrowedFd, shown: &Path, recursive: bool) -> Result<()> {
    call!(
        "mount_setattr"(shown, format_args!("MOUNT_ATTR_RDONLY")) =
            sys::make_read_only(mount, recursive)
    )?;
    Ok(())
}

/// The error number of a system call that is behind `error`.
pub fn errno(error: &anyhow::Error) -> Option<Errno> {
    error.downcast_ref::<CallError>().map(CallError::errno)
}

/// Opens `at` below `root`, as a place: not for reading. Links are followed inside `root`.
///
/// # Errors
/// `ENOENT` if it isn't there.
///
/// Source: [openat2(2)](https://man7.org/linux/man-pages/man2/openat2.2.html), `RESOLVE_IN_ROOT`.
pub fn resolve(root: &Path, at: &Path) -> Result<OwnedFd> {
    open_in_root(&open_path(root)?, at)
        .with_context(|| format!("no {} in the root file system", at.display()))
}

/// The directory `at` below `root`, made with all that is missing above it.
pub(crate) fn directory(root: &Path, at: &Path) -> Result<OwnedFd> {
    directory_in(&open_path(root)?, root, at)
}

/// As [`directory`], below the open directory `top`, which is `root`.
fn directory_in(top: &OwnedFd, root: &Path, at: &Path) -> Result<OwnedFd> {
    if let Ok(there) = open_in_root(top, at) {
        return Ok(there); // Nothing to make: nearly always so.
    }
    let mut path = PathBuf::from("/");
    let mut here = open_in_root(top, &path)?;
    for name in names(at)? {
        path.push(name);
        here = match open_in_root(top, &path) {
            Err(Errno::ENOENT) => {
                call!(
                    "mkdirat"(beneath(root, &path)) =
                        mkdirat(&here, name, Mode::from_bits_truncate(0o755))
                )?;
                open_in_root(top, &path)?
            }
            result => {
                result.with_context(|| format!("{} in the root file system", path.display()))?
            }
        };
    }
    Ok(here)
}

/// The file `at` below `root`, made empty if it is missing: a place to bind another file to.
fn file(root: &Path, at: &Path) -> Result<OwnedFd> {
    let top = open_path(root)?;
    if let Ok(there) = open_in_root(&top, at) {
        return Ok(there);
    }
    let parent = directory_in(&top, root, at.parent().context("a file can't be the root")?)?;
    new_file(&parent, at.file_name().context("a file has a name")?, &beneath(root, at))
}

/// A new, empty file in the directory `parent`. `shown` is its path.
fn new_file(parent: &OwnedFd, name: &OsStr, shown: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(call!(
        "openat"(shown, format_args!("O_CREAT|O_EXCL")) =
            openat(parent, name, flags, Mode::from_bits_truncate(0o644))
    )?)
}

/// Opens a place, for others to be looked up from there. Nothing changes by that, so `--explain`
/// doesn't tell it.
fn open_path(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| {
        let hint = match errno {
            Errno::EACCES => {
                "\n  the container's root, who is a plain user outside, can't search a directory above \
                 this: move it to a place that all may enter"
            }
            _ => "",
        };
        anyhow!("{}: {errno:?} ({}){hint}", path.display(), errno.desc())
    })
}

fn open_in_root(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// The names that make up an absolute path; `..` isn't one.
fn names(path: &Path) -> Result<Vec<&OsStr>> {
    path.components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .map(|part| match part {
            Component::Normal(name) => Ok(name),
            _ => bail!("{} leads out of the directories that it names", path.display()),
        })
        .collect()
}

fn is_directory(fd: impl AsFd) -> Result<bool> {
    use nix::sys::stat::{SFlag, fstat};
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// A name for an open file that no link in the root file system can change.
fn path_of(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// `at` below `root`, as it is shown to people.
pub(crate) fn beneath(root: &Path, at: &Path) -> PathBuf {
    match at.strip_prefix("/") {
        Ok(rest) if rest.as_os_str().is_empty() => root.to_owned(),
        Ok(rest) => root.join(rest),
        Err(_) => root.join(at),
    }
}

fn why_no_mount(errno: Errno, fstype: &str) -> Option<String> {
    Some(match errno {
        Errno::EPERM if fstype == "proc" => "the kernel allows a new /proc only where the one that is \
            there can be seen whole, by a process in a PID namespace of its own: in another container \
            it is often partly covered"
            .into(),
        Errno::EPERM if fstype == "mqueue" => "message queues belong to the IPC namespace: only root \
            of the user namespace that owns it may mount them"
            .into(),
        Errno::ENOSPC => "the limit on mounts in one namespace is reached: see \
            /proc/sys/fs/mount-max"
            .into(),
        Errno::ENODEV => format!("this kernel has no file system {fstype}"),
        _ => return None,
    })
}
