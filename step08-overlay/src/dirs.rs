//! Directories that are opened as places: to be mounted, not to be read.

use std::{os::fd::OwnedFd, path::Path};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, fchmod, fstat, mkdirat, openat};
use uts::call;

const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a directory.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, PLACE, Mode::empty())
        .with_context(|| format!("can't open the directory {}", path.display()))
}

/// Opens the directory `name` in `container`, which is made if it isn't there. A new one looks like
/// the directory `like`: it has its owner and permissions.
pub(crate) fn make_dir(container: &OwnedFd, name: &str, like: Option<&OwnedFd>) -> Result<OwnedFd> {
    let made = match call!(
        "mkdirat"(container, name, 0o755) = mkdirat(container, name, Mode::from_raw_mode(0o755))
    ) {
        Err(error) if error.errno() == nix::errno::Errno::EEXIST => false,
        result => result.map(|()| true)?,
    };
    let dir = openat(container, name, PLACE | OFlags::NOFOLLOW, Mode::empty())
        .with_context(|| format!("can't open {name}"))?;
    if let (true, Some(like)) = (made, like) {
        let stat = fstat(like)?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        // An owner who isn't mapped here can't be given files; then it stays the caller's.
        let _ = chownat(&dir, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH);
        let open = openat(&dir, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        fchmod(&open, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    }
    Ok(dir)
}
