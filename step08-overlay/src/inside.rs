//! Layers and directories for a container whose ids are shifted.
//!
//! What root inside is to own must belong to another user outside. No number is computed for that:
//! the work is done by a process that *is* root inside, and the kernel shifts the owners. It also
//! means that an archive, whatever is in it, is unpacked with the rights of a plain user.

use std::{
    fs,
    io::{Read, Write, pipe},
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
};

use anyhow::Result;
use nix::{errno::Errno, unistd::geteuid};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use user::{IdMap, as_root_inside};
use uts::{call, unique_name};

use crate::{Expected, Layers, Marks};

/// Makes the directory `path`, which belongs to root of a container with the map `ids`. It is content to
/// find it made.
///
/// # Errors
/// `ENOENT` if there is no directory above it, `ENOSPC` if the disk is full.
pub fn make_dir(path: &Path, ids: &IdMap) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    call!("mkdir"(path) = fs::DirBuilder::new().mode(0o755).create(path))?;
    if geteuid().is_root() {
        let (user, group) = (ids.root().0.as_raw(), ids.root().1.as_raw());
        call!("chown"(path, user, group) = chown(path, Some(user), Some(group)))?;
    }
    Ok(())
}

/// As [`make_dir`], for a directory that several processes may make at once. It gets its name last:
/// whoever finds it must find that it belongs to root inside.
///
/// # Errors
/// As [`make_dir`].
pub fn make_shared_dir(path: &Path, ids: &IdMap) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let new = path.with_extension(unique_name("new-"));
    make_dir(&new, ids)?;
    let flags = RenameFlags::NOREPLACE;
    match call!("renameat2"(&new, path) = renameat_with(CWD, &new, CWD, path, flags)) {
        Err(error) if error.errno() == Errno::EEXIST => Ok(fs::remove_dir(&new)?),
        result => Ok(result?),
    }
}

/// Whether memory (tmpfs) can take a container's own layer: it keeps the marks of overlayfs, which
/// are attributes `user.*` in a user namespace, since Linux 6.6.
///
/// Source: [tmpfs(5)](https://man7.org/linux/man-pages/man5/tmpfs.5.html).
pub fn memory_keeps_marks() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 6)
}

/// Removes the directory `path` and all that a container with the map `ids` wrote there. It is
/// content to find none.
///
/// # Errors
/// As [`remove_dir`](crate::remove_dir()).
pub fn remove_dir(path: &Path, ids: &IdMap) -> Result<()> {
    let alone = ids.users.iter().all(|range| range.count == 1);
    if geteuid().is_root() || alone {
        return crate::remove_dir(path);
    }
    // The files belong to ids that a plain user has inside only.
    as_root_inside(ids, || crate::remove_dir(path))
}

/// The directory in `place` for the layers of containers with the map `ids`: what is somebody's inside
/// must belong to the same user outside, so under another map the same layer has other owners.
pub fn store_for(place: &Path, ids: &IdMap) -> PathBuf {
    let mut ranges = ids.users.clone();
    if ids.groups != ids.users {
        ranges.extend(&ids.groups);
    }
    let outside = ranges.iter().map(|range| format!("-{}+{}", range.outside, range.count));
    place.join(format!("layers{}", outside.collect::<String>()))
}

/// As [`Layers::add`], for containers with the map `ids`: the store is the directory `layers`, which
/// is made by [`make_dir`]. Gives the layer's directory.
///
/// # Errors
/// If it can't be unpacked; the error has been printed then, and names the entry.
pub fn add_layer(
    layers: &Path,
    blob: impl Read + Send,
    expected: &Expected,
    ids: &IdMap,
) -> Result<PathBuf> {
    let (mut answer, mut name) = pipe()?;
    as_root_inside(ids, || {
        let layer = Layers::open(layers, Marks::User)?.add(blob, expected)?;
        Ok(name.write_all(layer.path.as_os_str().as_encoded_bytes())?)
    })?;
    drop(name);
    let mut path = String::new();
    answer.read_to_string(&mut path)?;
    Ok(path.into())
}
