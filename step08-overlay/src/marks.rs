//! Where overlayfs keeps its marks.

use std::os::fd::{AsFd, AsRawFd};

use nix::unistd::geteuid;
use rustix::fs::{getxattr, stat};

/// The family of extended attributes in which overlayfs marks opaque directories.
///
/// `trusted.*` is the safer place, for only the machine's root can see it. Root of a user namespace
/// can't, so since kernel 5.11 there is the mount option `userxattr`. Layers and mount must agree:
/// with the wrong one, what was deleted comes back.
///
/// Source: [overlayfs, "User xattr"](https://docs.kernel.org/filesystems/overlayfs.html#user-xattr),
/// [xattr(7)](https://man7.org/linux/man-pages/man7/xattr.7.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// `trusted.overlay.*`
    Trusted,
    /// `user.overlay.*`, and the mount option `userxattr`.
    User,
}

impl Marks {
    /// Those that this process can set: [`Trusted`](Marks::Trusted) for the machine's root alone.
    pub fn here() -> Self {
        if geteuid().is_root() && is_first_user_namespace() { Marks::Trusted } else { Marks::User }
    }

    /// The attribute of a directory that hides all that layers below have in it, if it is `y`.
    pub(crate) fn opaque(self) -> &'static str {
        match self {
            Marks::Trusted => "trusted.overlay.opaque",
            Marks::User => "user.overlay.opaque",
        }
    }

    /// The rest of the name of an attribute that is overlayfs's own, in either family.
    pub(crate) fn strip(name: &[u8]) -> Option<&[u8]> {
        let families = [b"trusted.overlay.".as_slice(), b"user.overlay."];
        families.iter().find_map(|family| name.strip_prefix(*family))
    }

    /// Whether `dir`, which need not be open for reading, has the mark.
    pub(crate) fn is_opaque(self, dir: impl AsFd) -> bool {
        let path = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
        let mut value = [0; 2];
        getxattr(path, self.opaque(), &mut value[..]) == Ok(1) && value[0] == b'y'
    }
}

/// Whether this is the user namespace that the machine booted with: the kernel gives it a fixed
/// inode number. Its id map alone wouldn't tell, for another may map all ids to themselves.
///
/// Source: `USER_NS_INIT_INO` in
/// [linux/nsfs.h](https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/nsfs.h).
fn is_first_user_namespace() -> bool {
    const USER_NS_INIT_INO: u64 = 0xEFFF_FFFD;
    stat("/proc/self/ns/user").is_ok_and(|stat| stat.st_ino == USER_NS_INIT_INO)
}
