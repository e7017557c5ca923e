//! A directory that keeps layers: each is unpacked once, however many images and containers use it.
//!
//! ```text
//!    lock                       held while a layer on its way is made, gets its name, or is swept
//!    sha256-<diff id>/          a layer: it got this name only when its digest was verified
//!    blob-sha256-<digest>       a link to the layer that this blob, maybe compressed, holds
//!    new-<number>/              a layer on its way, locked by the process that unpacks it
//!    unsynced-sha256-<diff id>  a link to the *boot id* in which the layer was unpacked
//! ```
//!
//! What a killed process leaves is a `new-…` that nobody locks; whoever comes next removes it.
//!
//! A power failure is worse: what was written last exists in memory alone, and after the next boot a
//! layer may be full of empty files, with the right name. To wait for the disk (`syncfs(2)`) takes
//! ten times as long as to unpack. So nobody waits: the layer is noted to be good for this boot, and
//! after another it is unpacked again, unless [`Layers::sync`] was called in between.
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

    /// The layer of this `diff_id` (`sha256:…`), if it is in the store and whole. Ask anew before
    /// each use: after a boot, the answer may be another.
    pub fn get(&self, diff_id: &str) -> Option<Layer> {
        let name = file_name("", diff_id)?;
        let layer =
            Layer { path: self.dir.join(&name), diff_id: diff_id.to_owned(), left_out: None };
        self.is_whole(&name).then_some(layer)
    }

    fn is_whole(&self, name: &str) -> bool {
        let boot = fs::read_link(self.dir.join(format!("unsynced-{name}")));
        let may_be_lost = match boot {
            Ok(boot) => boot_id().map_or(true, |now| boot != Path::new(&now)),
            Err(_) => false,
        };
        !may_be_lost && self.dir.join(name).is_dir()
    }

    /// Waits until all layers are on the disk, so that they are good after the next boot too.
    /// Call it when nobody is waiting: it may take seconds.
    ///
    /// # Errors
    /// `EIO` and `ENOSPC` if the disk can't take them.
    ///
    /// Source: [syncfs(2)](https://man7.org/linux/man-pages/man2/syncfs.2.html).
    pub fn sync(&self) -> Result<()> {
        let is_note = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Of the layers that are whole: what another boot left is beyond help.
            name.strip_prefix("unsynced-").is_some_and(|layer| self.is_whole(layer))
        };
        let all = fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.path()));
        let notes: Vec<_> =
            all.collect::<io::Result<Vec<_>>>()?.into_iter().filter(is_note).collect();
        if notes.is_empty() {
            return Ok(());
        }
        let dir = File::open(&self.dir)?;
        syncfs(&dir).with_context(|| format!("can't write to {}", self.dir.display()))?;
        for note in notes {
            fs::remove_file(note).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()), // Somebody else was faster.
                _ => Err(error),
            })?;
        }
        Ok(())
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
        let mut new = self.begin()?;
        let unpacked = unpack(blob, &new.path, self.marks, expected)?;
        let (digests, left_out) = (unpacked.digests, unpacked.left_out);
        let name = file_name("", &digests.diff_id).context("a digest has 64 digits")?;
        let path = self.dir.join(&name);
        self.commit(&mut new, &name).with_context(|| format!("can't make {}", path.display()))?;
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

    /// Gives the layer its name, unless one that is whole has it already: that one may be mounted,
    /// so it is never replaced.
    fn commit(&self, new: &mut New, name: &str) -> Result<()> {
        let _held = self.lock()?;
        if self.is_whole(name) {
            return Ok(());
        }
        // The order is such that power may fail between any two lines.
        let path = self.dir.join(name);
        if path.exists() {
            // It goes where the new one was, and is removed from there.
            renameat_with(CWD, &new.path, CWD, &path, RenameFlags::EXCHANGE)?;
            return self.note_boot(name);
        }
        self.note_boot(name)?;
        renameat_with(CWD, &new.path, CWD, &path, RenameFlags::NOREPLACE)?;
        new.is_named = true;
        Ok(())
    }

    fn note_boot(&self, name: &str) -> Result<()> {
        // A link is written at once and whole, where a file could be found empty.
        let link = self.dir.join("note");
        let _ = fs::remove_file(&link); // Of somebody who was killed just here.
        symlink(boot_id()?, &link)?;
        Ok(fs::rename(link, self.dir.join(format!("unsynced-{name}")))?)
    }

    fn lock(&self) -> Result<File> {
        let path = self.dir.join("lock");
        locked(File::create(&path).with_context(|| format!("can't open {}", path.display()))?)
    }

    /// Makes a directory for a layer on its way, after having removed what others left.
    fn begin(&self) -> Result<New<'_>> {
        let _held = self.lock()?;
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
        Ok(New { layers: self, path, is_named: false, _lock: lock })
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
struct New<'a> {
    layers: &'a Layers,
    path: PathBuf,
    is_named: bool,
    _lock: File,
}

impl Drop for New<'_> {
    fn drop(&mut self) {
        // By now the place may be somebody else's.
        if !self.is_named {
            // Nobody may take the place meanwhile. If this fails, the next process will try again.
            let _held = self.layers.lock();
            let _ = remove_dir(&self.path);
        }
    }
}

/// A number that is another after each boot.
///
/// Source: [random(4)](https://man7.org/linux/man-pages/man4/random.4.html), "/proc interfaces".
fn boot_id() -> Result<String> {
    let file = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(file).context(file)?.trim().to_owned())
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
