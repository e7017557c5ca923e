//! A directory that keeps layers: each is unpacked once, however many images and containers use it.
//!
//! ```text
//!    lock                    held while the others in this list are made or swept
//!    sha256-<diff id>/       a layer, whole: it got this name only when its digest was verified
//!    blob-<digest>           a link to the layer that this compressed blob holds
//!    new-<number>/           a layer on its way, locked by the process that unpacks it
//! ```
//!
//! What a crash leaves behind is a `new-…` that nobody locks, and whoever comes next removes it.
//! A layer is on the disk (`syncfs(2)`) before it gets its name, so that power may fail at any
//! moment: else a layer full of empty files would be used ever after.
//!
//! A layer's owners and marks depend on the user namespace that it was unpacked in, so each
//! mapping of ids needs a store of its own.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with, syncfs},
    io::Errno,
};

use crate::{Expected, LeftOut, Marks, remove_dir, stream::digest_of, unpack};

/// A directory of layers.
pub struct Layers {
    dir: PathBuf,
    marks: Marks,
}

/// A layer in the store.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its directory, to be used by [`Overlay`](crate::Overlay) and never written to.
    pub path: PathBuf,
    /// The digest of its plain tar, `sha256:` and 64 hexadecimal digits.
    pub diff_id: String,
    /// What couldn't be as the layer has it; `None` if it was there already.
    pub left_out: Option<LeftOut>,
}

impl Layers {
    /// Opens the store `dir`, which is made, for the caller's eyes alone, if it isn't there.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn open(dir: &Path, marks: Marks) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("can't make the directory {}", dir.display()))?;
        Ok(Layers { dir: dir.to_owned(), marks })
    }

    /// The layer of this `diff_id` (`sha256:…`), if it is in the store.
    pub fn get(&self, diff_id: &str) -> Option<Layer> {
        let path = self.dir.join(file_name("", diff_id)?);
        path.is_dir().then(|| Layer { path, diff_id: diff_id.to_owned(), left_out: None })
    }

    /// Gives the layer that is `expected`; if it isn't there, it is unpacked from `blob`: a tar,
    /// plain or compressed with gzip or zstd. Without any digest, it is unpacked in any case.
    ///
    /// Any number of processes may add layers at once, the same one too.
    ///
    /// # Errors
    /// As [`unpack`](crate::unpack()).
    pub fn add(&self, blob: impl Read + Send, expected: &Expected) -> Result<Layer> {
        match self.find(expected)? {
            Some(layer) => Ok(layer),
            None => self.add_new(blob, expected),
        }
    }

    /// As [`add`](Layers::add), for an archive on disk: its digest is taken first, which is much
    /// faster than unpacking it.
    ///
    /// # Errors
    /// As [`unpack`](crate::unpack()) and open(2).
    pub fn add_file(&self, archive: &Path) -> Result<Layer> {
        let open =
            || File::open(archive).with_context(|| format!("can't open {}", archive.display()));
        let in_file = || archive.display().to_string();
        let blob = digest_of(open()?).with_context(in_file)?;
        let expected = Expected { blob: Some(&blob), diff_id: None };
        self.add(open()?, &expected).with_context(in_file)
    }

    fn find(&self, expected: &Expected) -> Result<Option<Layer>> {
        if let Some(layer) = expected.diff_id.and_then(|diff_id| self.get(diff_id)) {
            return Ok(Some(layer));
        }
        let Some(blob) = expected.blob else { return Ok(None) };
        let link =
            file_name("blob-", blob).context("a digest is `sha256:` and 64 hexadecimal digits")?;
        let Ok(target) = fs::read_link(self.dir.join(link)) else { return Ok(None) };
        let target = target.to_str().and_then(|name| name.strip_prefix("sha256-"));
        let diff_id = target.map(|hex| format!("sha256:{hex}"));
        match (expected.diff_id, diff_id) {
            (Some(should), Some(is)) if should != is => bail!(
                "the layer {blob} has the diff id {is}, and should have {should}: the image \
                 contradicts itself"
            ),
            (_, diff_id) => Ok(diff_id.and_then(|diff_id| self.get(&diff_id))),
        }
    }

    fn add_new(&self, blob: impl Read + Send, expected: &Expected) -> Result<Layer> {
        let new = self.begin()?;
        let unpacked = unpack(blob, &new.path, self.marks, expected)?;
        let (digests, left_out) = (unpacked.digests, unpacked.left_out);
        let name = file_name("", &digests.diff_id).context("a digest has 64 digits")?;
        let path = self.dir.join(&name);
        if !path.is_dir() {
            syncfs(&new.lock).with_context(|| format!("can't write to {}", path.display()))?;
            // Never in the place of another, which may be mounted already, even if it's empty.
            match renameat_with(CWD, &new.path, CWD, &path, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {} // Somebody else was faster.
                result => result.with_context(|| format!("can't make {}", path.display()))?,
            }
        }
        if let Some(link) = file_name("blob-", &digests.blob) {
            match symlink(&name, self.dir.join(link)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).context("can't note the digest of the layer");
                }
                _ => {}
            }
        }
        Ok(Layer { path, diff_id: digests.diff_id, left_out: Some(left_out) })
    }

    /// Makes a directory for a layer on its way, after having removed what others left.
    fn begin(&self) -> Result<New> {
        let path = self.dir.join("lock");
        let lock = File::create(&path).with_context(|| format!("can't open {}", path.display()))?;
        let _held = locked(lock)?;
        let mut number = 0;
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let Some(other) = name.to_str().and_then(|name| name.strip_prefix("new-")) else {
                continue;
            };
            if !self.sweep(&self.dir.join(&name))? {
                number = number.max(other.parse().unwrap_or(0) + 1);
            }
        }
        let path = self.dir.join(format!("new-{number}"));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("can't make {}", path.display()))?;
        let lock = File::open(&path)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(New { path, lock })
    }

    /// Removes a layer on its way whose process is gone. `false` says that it is still at work.
    fn sweep(&self, path: &Path) -> Result<bool> {
        let Ok(dir) = File::open(path) else { return Ok(false) };
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(false);
        }
        // What can't be removed here was left by another user, who can.
        Ok(remove_dir(path).is_ok())
    }
}

/// A layer on its way. Unless it got its name, it is removed when this value is dropped.
struct New {
    path: PathBuf,
    lock: File,
}

impl Drop for New {
    fn drop(&mut self) {
        // Where this fails, the next process will try again.
        let _ = remove_dir(&self.path);
    }
}

fn locked(file: File) -> Result<File> {
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            result => {
                result.context("can't lock the store of layers")?;
                return Ok(file);
            }
        }
    }
}

/// The name by which a digest is filed. `None` says that it isn't a digest, and maybe a path.
fn file_name(prefix: &str, digest: &str) -> Option<String> {
    let hex = digest.strip_prefix("sha256:")?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    (hex.len() == 64 && hex.bytes().all(is_hex)).then(|| format!("{prefix}sha256-{hex}"))
}
