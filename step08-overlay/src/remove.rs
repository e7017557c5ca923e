//! Removes directories that others filled.
//!
//! No symbolic link is followed, and nothing is removed on another mount. A directory without
//! permissions, as overlayfs makes one itself (`work/work`), is first given some. However deep a
//! tree is, few files are open at a time.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, chmod, fchmod, fstat, openat,
        openat2, renameat, statat, unlinkat,
    },
    io::{Errno, Result as Io},
};
use uts::call::{CallError, Hint, Shown};

/// How deep a tree is walked down with all its directories open. What is deeper is moved up first.
const MAX_DEPTH: usize = 32;

/// Removes `dir` and all that is in it: a container's directory, say, with its `upper` and `work`.
/// There need not be one.
///
/// To remove files that belong to other ids of a user namespace, call it inside.
///
/// # Errors
/// `EXDEV` or `EBUSY` if something is mounted in there; it is left as it is. `EACCES` and `EPERM`
/// if files belong to others.
///
/// Source: [unlinkat(2)](https://man7.org/linux/man-pages/man2/unlinkat.2.html),
/// [openat2(2)](https://man7.org/linux/man-pages/man2/openat2.2.html), `RESOLVE_NO_XDEV`.
pub fn remove_dir(dir: &Path) -> Result<()> {
    let name = dir.file_name().with_context(|| format!("{} has no name", dir.display()))?;
    let above = match dir.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let removed = match openat(CWD, above, flags, Mode::empty()) {
        Ok(above) => remove(&above, std::os::unix::ffi::OsStrExt::as_bytes(name)),
        Err(errno) => Err(errno),
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(CallError::new(&Shown("unlinkat", &[&dir]), errno))
            .hint_with(|errno| why_not(errno).map(str::to_owned))?,
    }
}

fn why_not(errno: nix::errno::Errno) -> Option<&'static str> {
    use nix::errno::Errno;
    match errno {
        Errno::EXDEV | Errno::EBUSY => Some(
            "something is mounted in there, and what is in it isn't this program's to remove: \
             unmount it first",
        ),
        Errno::EACCES | Errno::EPERM => Some(
            "files in there belong to other users: remove it from inside a user namespace that \
             maps them, or as root",
        ),
        _ => None,
    }
}

/// Removes `name` in `parent`, whatever it is.
pub(crate) fn remove(parent: impl AsFd, name: &[u8]) -> Io<()> {
    let parent = parent.as_fd();
    match unlinkat(parent, name, AtFlags::empty()) {
        // POSIX says EPERM for directories, Linux EISDIR.
        Err(Errno::ISDIR | Errno::PERM) if is_dir(parent, name)? => {}
        result => return result,
    }
    let top = open_to_empty(parent, name)?;
    let mut moved = 0;
    while !empty(&top, &top, 0, &mut moved)? {}
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn is_dir(parent: impl AsFd, name: &[u8]) -> Io<bool> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Removes what is in `dir`. `false` says that a directory was too deep and was moved to `top`.
fn empty(dir: &OwnedFd, top: &OwnedFd, depth: usize, moved: &mut u64) -> Io<bool> {
    let mut all = true;
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        match unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) if is_dir(dir, name)? => {}
            result => {
                result?;
                continue;
            }
        }
        let inner = open_to_empty(dir, name)?;
        if depth == MAX_DEPTH {
            move_up(dir, name, top, moved)?;
            all = false;
            continue;
        }
        all &= empty(&inner, top, depth + 1, moved)?;
        unlinkat(dir, name, AtFlags::REMOVEDIR)?;
    }
    Ok(all)
}

fn move_up(dir: &OwnedFd, name: &[u8], top: &OwnedFd, moved: &mut u64) -> Io<()> {
    loop {
        *moved += 1;
        match renameat(dir, name, top, format!("moved-up-{moved}")) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            result => return result,
        }
    }
}

/// Opens a directory, and sees to it that what is in it can be removed.
fn open_to_empty(parent: impl AsFd, name: &[u8]) -> Io<OwnedFd> {
    let parent = parent.as_fd();
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open = |flags| {
        let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(parent, name, flags, Mode::empty(), resolve)
    };
    let dir = match open(OFlags::RDONLY) {
        Err(Errno::ACCESS) => {
            // By its place, for chmod on a name might follow a link that has just taken it.
            let place = open(OFlags::PATH)?;
            chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), Mode::RWXU)?;
            open(OFlags::RDONLY)?
        }
        result => result?,
    };
    if !Mode::from_raw_mode(fstat(&dir)?.st_mode).contains(Mode::RWXU) {
        fchmod(&dir, Mode::RWXU)?;
    }
    Ok(dir)
}

/// Fails if `dir` has anything in it.
pub(crate) fn expect_empty(dir: &OwnedFd, path: &Path) -> Result<()> {
    for entry in Dir::read_from(dir)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            bail!(
                "{} isn't empty: a layer is unpacked into a directory of its own",
                path.display()
            );
        }
    }
    Ok(())
}
