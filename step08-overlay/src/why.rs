//! Why the kernel refused an overlay. It says why in its log (`dmesg`), which few may read.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use rustix::fs::{AtFlags, fstatfs, statat};

/// The reason and what to do about it, for a mount whose upper and work directories are
/// `writable`.
pub(crate) fn no_mount(errno: Errno, writable: Option<&(OwnedFd, OwnedFd)>) -> Option<String> {
    let upper = || writable.map(|(upper, _)| kind_of(upper)).unwrap_or_default();
    Some(match errno {
        Errno::EINVAL if writable.is_some_and(was_volatile) => {
            "what the container wrote before didn't wait for the disk (`volatile`), so it may not be \
             used again: begin with a new layer of its own"
                .into()
        }
        Errno::EINVAL => match upper() {
            kind @ ("overlayfs" | "FUSE" | "NFS" | "FAT") => format!(
                "the container's own layer is on {kind}, which can't take overlayfs's marks: put it \
                 on ext4, xfs, btrfs or tmpfs"
            ),
            _ => "the directories were opened in another mount namespace, or the file system of the \
                container's own layer can't take overlayfs's marks: put it on ext4, xfs, btrfs or tmpfs"
                .into(),
        },
        Errno::EPERM => "only root of the user namespace that owns this mount namespace may mount, and \
            overlayfs lets user namespaces do so since kernel 5.11"
            .into(),
        Errno::ENODEV => "this kernel has no overlayfs: try `sudo modprobe overlay`".into(),
        Errno::ENOENT => "there is no directory to mount on, or no /proc, by way of which the layers are named".into(),
        Errno::ELOOP => "one of the directories lies inside of another: keep layers and containers \
            beside each other"
            .into(),
        Errno::EBUSY => "another mount is using the container's own layer: it can take the changes of \
            one at a time"
            .into(),
        Errno::ESTALE => "the container's own layer was used on other layers before: begin with a new one"
            .into(),
        Errno::EROFS => "the container's own layer is on a read-only mount".into(),
        _ => return None,
    })
}

/// Whether a mount with the option `volatile` has used these directories: it leaves a mark.
///
/// Source: [overlayfs, "Volatile mount"](https://docs.kernel.org/filesystems/overlayfs.html#volatile-mount).
fn was_volatile((_, work): &(OwnedFd, OwnedFd)) -> bool {
    statat(work, "work/incompat/volatile", AtFlags::empty()).is_ok()
}

/// The kind of file system that a directory is on, as far as it matters here.
///
/// Source: [statfs(2)](https://man7.org/linux/man-pages/man2/statfs.2.html).
fn kind_of(dir: &OwnedFd) -> &'static str {
    match fstatfs(dir).map(|stat| stat.f_type as u32) {
        Ok(0x794c_7630) => "overlayfs",
        Ok(0x6573_5546) => "FUSE",
        Ok(0x6969) => "NFS",
        Ok(0x4d44) => "FAT",
        _ => "",
    }
}
