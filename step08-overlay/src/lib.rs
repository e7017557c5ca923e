//! # Step 8: a root made of shared layers and one thin writable one
//!
//! A container's root file system is hundreds of megabytes, and nearly all of it is the same in
//! every container that is made from one image. So the image is unpacked once, as *layers*:
//! directories that are never written to. overlayfs shows them as one, stacked, with an empty
//! directory of the container's own on top, and that one takes all the changes:
//!
//! ```text
//!    merged/   what the container sees:        /bin/sh   /etc/hosts*   /data*
//!    ─────────────────────────────────────────────────────────────────────────
//!    upper/    the container's own, writable             /etc/hosts*   /data*
//!    layer 2   shared, read-only                         /etc/hosts
//!    layer 1   shared, read-only               /bin/sh
//! ```
//!
//! To write to a file of a layer, the kernel copies it up first. To remove one, it puts a
//! *whiteout* on top: a character device 0:0 of that name. A directory that hides all below is
//! *opaque*: it has an extended attribute that says so. Making a container is then one mount, and
//! what it changed can be [packed](pack) as the next layer.
//!
//! The concept stands in this file. [`Layers`] keeps layers on disk, [`unpack`] makes one out of
//! an archive, [`pack`] the reverse, and [`remove_dir`] removes what a container leaves.
//!
//! Source: [overlayfs](https://docs.kernel.org/filesystems/overlayfs.html).

mod archive;
mod compression;
mod dirs;
pub mod inside;
mod layers;
mod marks;
mod owners;
mod pack;
mod remove;
mod stack;
mod stream;
mod tree;
mod unpack;
mod why;

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use anyhow::{Result, ensure};
use nix::mount::{MsFlags, mount};
use uts::{call, call::Hint};

pub use compression::decode;
pub use layers::Layers;
pub use marks::Marks;
pub use pack::{Packed, pack};
pub use remove::remove_dir;
pub use stack::{Stack, StackOptions};
pub use stream::{Digests, digest_of};
pub use unpack::{Expected, LeftOut, Unpacked, unpack};

use crate::dirs::{make_dir, open_dir};

/// How much mount(2) reads of its options at least, in bytes.
const PAGE: usize = 4096;

/// A stack of directories that is to be seen as one.
pub struct Overlay {
    /// Bottom first.
    layers: Vec<OwnedFd>,
    /// `upper`, which takes the changes, and `work`, where the kernel prepares them.
    writable: Option<(OwnedFd, OwnedFd)>,
    marks: Marks,
    volatile: bool,
}

impl Overlay {
    /// Stacks `layers`, bottom first as images list them, under a writable one of the container's
    /// own: the directories `upper` and `work` in `container`, made if they aren't there. `marks`
    /// says where the layers have theirs.
    ///
    /// The directories are opened here. [`mount`](Overlay::mount) may come later and in a child,
    /// but in the same mount namespace: the kernel takes no directories of another.
    ///
    /// # Errors
    /// `ENOENT` and `EACCES` if a directory isn't there or can't be reached.
    pub fn new(layers: &[impl AsRef<Path>], container: &Path, marks: Marks) -> Result<Self> {
        let overlay = Self::read_only(layers, marks)?;
        let container = open_dir(container)?;
        let top = overlay.layers.last();
        let (upper, work) =
            (make_dir(&container, "upper", top)?, make_dir(&container, "work", None)?);
        Ok(Overlay { writable: Some((upper, work)), ..overlay })
    }

    /// As [`new`](Overlay::new), without a writable layer: nothing in it can be changed.
    ///
    /// # Errors
    /// As [`new`](Overlay::new).
    pub fn read_only(layers: &[impl AsRef<Path>], marks: Marks) -> Result<Self> {
        ensure!(!layers.is_empty(), "a root file system needs at least one layer");
        let open = layers.iter().map(|layer| open_dir(layer.as_ref()));
        let mut layers = open.collect::<Result<Vec<_>>>()?;
        // The kernel looks at the mark on every directory but the root of a layer.
        if let Some(opaque) = layers.iter().rposition(|layer| marks.is_opaque(layer)) {
            layers.drain(..opaque);
        }
        Ok(Overlay { layers, writable: None, marks, volatile: false })
    }

    /// Lets nothing that is written wait for the disk, for a container whose changes are thrown away
    /// at its end: without this, the kernel writes them all to the disk first.
    ///
    /// Source: [overlayfs, "Volatile mount"](https://docs.kernel.org/filesystems/overlayfs.html#volatile-mount).
    pub fn volatile(self) -> Self {
        Overlay { volatile: self.writable.is_some(), ..self }
    }

    /// Shows the stack at the directory `merged`.
    ///
    /// # Errors
    /// `EINVAL` if `upper` is on a file system that can't be written to through overlayfs, such as
    /// another overlay; `EPERM` if the caller isn't root of its user and mount namespace. The
    /// error says more.
    ///
    /// Source: [overlayfs](https://docs.kernel.org/filesystems/overlayfs.html), mount(8) "overlay".
    pub fn mount(&self, merged: &Path) -> Result<()> {
        if let ([layer], None) = (&self.layers[..], &self.writable) {
            // A stack of one isn't a stack for the kernel.
            mnt::mount::bind(path_of(layer).as_ref(), merged, Path::new("/"))?;
            return mnt::mount::make_read_only(merged, Path::new("/"));
        }
        let (fs, flags, options) = (Some("overlay"), MsFlags::empty(), self.options());
        // The kernel would read the first page and mount what it finds there, without an upper.
        ensure!(options.len() < PAGE, "there are more layers than a mount can take (about 200)");
        call!(
            "mount"("overlay", merged, "overlay", flags, options) =
                mount(fs, merged, fs, flags, Some(&*options))
        )
        .hint_with(|errno| why::no_mount(errno, self.writable.as_ref()))?;
        Ok(())
    }

    /// Directories are named by their open files: a path could hold a `:` or a `,`, which mean
    /// something here, and the paths of a hundred layers wouldn't fit into one page.
    fn options(&self) -> String {
        // The kernel wants the top one first.
        let layers: Vec<_> = self.layers.iter().rev().map(path_of).collect();
        let mut options = format!("lowerdir={}", layers.join(":"));
        if let Some((upper, work)) = &self.writable {
            options += &format!(",upperdir={},workdir={}", path_of(upper), path_of(work));
        }
        if self.volatile {
            options += ",volatile";
        }
        if self.marks == Marks::User {
            options += ",userxattr";
        }
        options
    }
}

fn path_of(dir: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", dir.as_raw_fd())
}
