//! Opens regular files, and tells whether one has changed.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata},
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::platform;

/// What is put into [`Key::reader`]; to be raised when an [`Image`](super::Image) changes its form.
const FORM: u32 = 1;

/// The state of an image file or directory, got by one stat(2): the same key means the same image.
///
/// It is considered unchanged if the path (resolved), device, inode, size, and the times of the
/// last write and the last change of the inode (both in nanoseconds) are what they were. That's
/// the state of the archive, of an OCI layout's `index.json` (all the rest of a layout is named by
/// its digest), and of the directory itself for a root file system, from which nothing is
/// remembered. The change time can't be set back, so `touch -d` and `cp -p` don't deceive it; but a
/// second write within one tick of the kernel's clock (10 ms or less) that keeps the size could.
///
/// Source: [inode(7)](https://man7.org/linux/man-pages/man7/inode.7.html).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// As `OsString`, since serde refuses a `Path` that isn't UTF-8.
    path: OsString,
    tag: Option<String>,
    state: State,
    /// Which program on which kind of machine chose the image.
    reader: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    written: (i64, i64),
    changed: (i64, i64),
}

impl Key {
    /// The key of the image at `path` that is called `tag`.
    ///
    /// # Errors
    /// If there is no such file, as stat(2).
    pub fn of(path: &Path, tag: Option<&str>) -> Result<Self> {
        let path = path.canonicalize().context("can't find it")?;
        let is_layout = path.join("oci-layout").exists() && path.join("index.json").exists();
        let state = if is_layout { path.join("index.json").metadata() } else { path.metadata() };
        Ok(Key {
            state: State::of(&state?),
            path: path.into(),
            tag: tag.map(str::to_owned),
            reader: format!("{FORM} {}", platform::name()),
        })
    }

    /// The path of the image, resolved.
    pub fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// A name for a file that belongs to the image in this very state: hexadecimal digits.
    pub fn id(&self) -> String {
        short(&format!("{self:?}"))
    }

    /// A name for a file that belongs to the image in whatever state: hexadecimal digits.
    pub fn name(&self) -> String {
        short(&format!("{:?}", (&self.path, &self.tag)))
    }

    /// Opens the file that this is the key of.
    ///
    /// # Errors
    /// If it has changed since, and as [`open`].
    pub(super) fn open(&self) -> Result<File> {
        let file = open(self.path())?;
        let same = State::of(&file.metadata()?) == self.state;
        ensure!(same, "{} has changed while it was in use: start again", self.path().display());
        Ok(file)
    }
}

impl State {
    fn of(file: &Metadata) -> Self {
        State {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            written: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Not a digest: nobody gains by making two of them alike, and this takes no time.
fn short(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Opens a regular file to read it.
///
/// # Errors
/// If it's something else, like a FIFO, which would keep its reader waiting; and as open(2).
pub(super) fn open(path: &Path) -> Result<File> {
    let no_wait = OFlags::NONBLOCK.bits() as i32;
    let file = fs::OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
    ensure!(file.metadata()?.is_file(), "{} isn't a regular file", path.display());
    Ok(file)
}
