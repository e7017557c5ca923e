//! The few ways of mounting that the [lab](crate::lab) needs.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    libc,
    mount::{MsFlags, mount},
};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// What may be done with files that are no programs and no devices.
pub const INERT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Mounts a new file system.
pub fn new(fstype: &str, at: &Path, flags: MsFlags, options: Option<&str>) -> Result<()> {
    let mounted = mount(Some(fstype), at, Some(fstype), flags, options);
    mounted.with_context(|| {
        let hint = match mounted {
            Err(Errno::EPERM) => {
                ": the kernel lets a user namespace mount this only where the old one can be seen \
                 whole. Here, parts of it are covered, as in most containers. A real or a virtual \
                 machine is needed, or a container started with --security-opt systempaths=unconfined"
            }
            _ => "",
        };
        format!("can't mount {fstype} at {}{hint}", at.display())
    })
}

/// Changes how mounts spread between namespaces, at `/` and below.
pub fn spread(how: MsFlags) -> Result<()> {
    let all = MsFlags::MS_REC | how;
    mount(None::<&str>, "/", None::<&str>, all, None::<&str>).context("can't change /")
}

/// A folder and all that is mounted below it, kept to be mounted where it can't be seen any more.
pub struct Kept {
    path: PathBuf,
    tree: OwnedFd,
}

impl Kept {
    /// Keeps what is seen at `path` now.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(rustix::fs::CWD, path, flags)
            .with_context(|| format!("can't hold on to {}", path.display()))?;
        Ok(Kept { path: path.to_owned(), tree })
    }

    /// Mounts it at the same path below `root`.
    pub fn restore(&self, root: &Path) -> Result<()> {
        self.restore_at(&root.join(self.path.strip_prefix("/").unwrap_or(&self.path)))
    }

    /// Mounts it at another path.
    pub fn restore_at(&self, at: &Path) -> Result<()> {
        if !at.is_dir() {
            fs::create_dir_all(at).with_context(|| at.display().to_string())?;
        }
        move_mount(&self.tree, "", rustix::fs::CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .with_context(|| format!("can't mount {}", at.display()))
    }

    /// Lets nobody write below it.
    pub fn make_read_only(self) -> Result<Self> {
        set_read_only(self.tree.as_fd().as_raw_fd(), c"")?;
        Ok(self)
    }
}

/// Lets nobody write to `/` nor to what is mounted below it.
pub fn make_all_read_only() -> Result<()> {
    set_read_only(libc::AT_FDCWD, c"/")
}

#[allow(unsafe_code)]
fn set_read_only(folder: i32, path: &std::ffi::CStr) -> Result<()> {
    // struct mount_attr: what to set, what to clear, propagation, a user namespace.
    const READ_ONLY: [u64; 4] = [1, 0, 0, 0];
    let flags = libc::AT_RECURSIVE | if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    // SAFETY: path is a C string, and the attributes have the size that is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            folder,
            path.as_ptr(),
            flags,
            &READ_ONLY,
            size_of_val(&READ_ONLY),
        )
    };
    Errno::result(result).map(drop).context("can't make mounts read-only (mount_setattr)")
}
