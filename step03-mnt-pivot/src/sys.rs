//! The raw system call that no crate wraps: this crate's only unsafe code.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::{errno::Errno, libc};

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `MOUNT_ATTR_RDONLY` for the mount whose root `mount` is, and perhaps for those below it.
pub fn make_read_only(mount: BorrowedFd, recursive: bool) -> Result<(), Errno> {
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..Default::default() };
    mount_setattr(mount, recursive, &attr)
}

/// `MOUNT_ATTR_IDMAP` for a detached mount and those below it: the map is that of `user_namespace`.
pub fn map_ids(mount: BorrowedFd, user_namespace: BorrowedFd) -> Result<(), Errno> {
    const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
    let userns_fd = user_namespace.as_raw_fd() as u64;
    let attr = MountAttr { attr_set: MOUNT_ATTR_IDMAP, userns_fd, ..Default::default() };
    mount_setattr(mount, true, &attr)
}

fn mount_setattr(mount: BorrowedFd, recursive: bool, attr: &MountAttr) -> Result<(), Errno> {
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, and attr lives until the call returns and has the
    // size that is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(result).map(drop)
}
