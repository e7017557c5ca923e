//! The mounts of a spec: those that are begun outside, and all of them inside.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result};
use mnt::mount;
use nix::{mount::MsFlags, unistd::geteuid};
use oci_spec::runtime::Mount;
use uts::process;

/// The mount that a spec asks for with the option `idmap`, begun by root outside, who may shift
/// the owners of the host's files. For a plain user, or on a file system that can't do that, there is none.
fn begin(mount: &Mount, ids: impl FnOnce() -> Result<OwnedFd>) -> Result<Option<OwnedFd>> {
    let wanted = mount.options().iter().flatten().any(|option| option == "idmap");
    match mount.source() {
        Some(source) if wanted => shifted(source, ids),
        _ => Ok(None),
    }
}

/// A detached copy of `source` with its owners shifted, where that is possible; `None` and, if the kernel
/// refused it, a word to the user, where it isn't.
///
/// # Errors
/// As `ids`.
pub fn shifted(source: &Path, ids: impl FnOnce() -> Result<OwnedFd>) -> Result<Option<OwnedFd>> {
    if !geteuid().is_root() {
        return Ok(None); // A user's own files belong to root inside already.
    }
    match mount::detached(source, Some(ids()?.as_fd())) {
        Ok(tree) => Ok(Some(tree)),
        Err(error) => {
            let source = source.display();
            process::note(&format!("the files below {source} belong to nobody inside: {error}"));
            Ok(None)
        }
    }
}

/// Mounts what `mount` asks for below `root`; `begun` is what `begin` gave.
///
/// # Errors
/// As [`mount::mount_new`] and [`mount::bind`].
///
/// Source: [OCI runtime spec, mounts](https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts).
pub fn finish(mount: &Mount, root: &Path, begun: Option<BorrowedFd>) -> Result<()> {
    let at = mount.destination();
    let (flags, data) = options(mount);
    match (mount.typ().as_deref(), begun) {
        (Some("bind"), Some(tree)) => mount::attach(tree, root, at)?,
        (Some("bind"), None) => {
            let source = mount.source().as_deref().context("a bind mount has a source")?;
            mount::bind(source, root, at)?;
        }
        (Some("sysfs"), _) => return mnt::mount_sys(root),
        (Some(fstype), _) => return mount::mount_new(fstype, root, at, flags, data.as_deref()),
        (None, _) => anyhow::bail!("the mount at {} has no type", at.display()),
    }
    // A bind mount takes its flags from where it comes from; they are changed afterwards.
    if flags.contains(MsFlags::MS_RDONLY) {
        mount::make_read_only(root, at)?;
    }
    Ok(())
}

/// The options of a mount: flags, and what its file system itself understands.
fn options(mount: &Mount) -> (MsFlags, Option<String>) {
    let mut flags = MsFlags::empty();
    let mut data: Vec<&str> = Vec::new();
    for option in mount.options().iter().flatten() {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "strictatime" => flags |= MsFlags::MS_STRICTATIME,
            "rw" | "suid" | "dev" | "exec" | "bind" | "rbind" | "idmap" => {}
            own => data.push(own),
        }
    }
    (flags, (!data.is_empty()).then(|| data.join(",")))
}

/// What is begun outside, in the order of the spec's mounts.
pub struct Begun(Vec<Option<OwnedFd>>);

impl Begun {
    /// Begins all of `mounts`. `ids` makes a user namespace with the container's map, when needed.
    ///
    /// # Errors
    /// As [`shifted`].
    pub fn all(mounts: &[Mount], mut ids: impl FnMut() -> Result<OwnedFd>) -> Result<Self> {
        mounts.iter().map(|mount| begin(mount, &mut ids)).collect::<Result<_>>().map(Begun)
    }

    /// Finishes all of `mounts`, inside, and puts the devices into `/dev`.
    ///
    /// # Errors
    /// As [`finish`], with the destination, and [`mnt::dev::add_devices`].
    pub fn finish(&self, mounts: &[Mount], root: &Path) -> Result<()> {
        for (mount, begun) in mounts.iter().zip(&self.0) {
            let at = mount.destination();
            finish(mount, root, begun.as_ref().map(AsFd::as_fd))
                .with_context(|| format!("the mount at {}", at.display()))?;
            if at == Path::new("/dev") {
                mnt::dev::add_devices(root)?; // Before what the user puts there instead.
            }
        }
        Ok(())
    }
}
