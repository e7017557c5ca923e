//! A container's root made of layers, as options of a program.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use mnt::rootfs::{self, Rootfs};
use nix::{mount::umount, sched::unshare};
use user::{IdMap, as_root_inside};
use uts::unique_name;

use crate::{Expected, Marks, Overlay, digest_of, inside, pack};

/// The layers of a root file system.
#[derive(clap::Args)]
pub struct StackOptions {
    /// A layer: a tar, also compressed; the lowest comes first [default: this machine's own programs]
    #[arg(long, value_name = "TAR")]
    pub layer: Vec<PathBuf>,

    /// Let nothing be written to the root file system
    #[arg(long)]
    pub read_only: bool,

    /// Afterwards, save what the container wrote as the next layer
    #[arg(long, value_name = "TAR")]
    pub save: Option<PathBuf>,

    /// Show what a copy of the layers would have cost
    #[arg(long)]
    pub compare: bool,
}

/// The layers of a container and its own directory above them.
pub struct Stack {
    layers: Vec<PathBuf>,
    dir: PathBuf,
    ids: IdMap,
    _rootfs: Option<Rootfs>,
}

impl StackOptions {
    /// Unpacks the layers that aren't unpacked yet, for a container with the map `ids`.
    ///
    /// # Errors
    /// If an archive can't be read or unpacked; as [`rootfs::from_host`].
    pub fn open(&self, ids: &IdMap) -> Result<Stack> {
        let cache = rootfs::cache_dir()?;
        let dir = cache.join(unique_name("step08-"));
        let mut stack = Stack { layers: Vec::new(), dir, ids: ids.clone(), _rootfs: None };
        if self.layer.is_empty() {
            let rootfs = rootfs::from_host(ids.root())?;
            stack.layers.push(rootfs.to_path_buf());
            stack._rootfs = Some(rootfs);
        }
        let store = inside::store_for(&cache, ids);
        for archive in &self.layer {
            fs::create_dir_all(&cache)?;
            inside::make_shared_dir(&store, ids)?;
            let layer = add(&store, archive, ids);
            stack.layers.push(layer.with_context(|| format!("--layer {}", archive.display()))?);
        }
        Ok(stack)
    }
}

impl Stack {
    /// Makes the container's own directory.
    ///
    /// # Errors
    /// `ENOSPC` if the disk is full.
    pub fn make_dir(&self) -> Result<()> {
        inside::make_dir(&self.dir, &self.ids)?;
        inside::make_dir(&self.merged(), &self.ids)
    }

    /// Removes the container's own directory; it is content to find none.
    ///
    /// # Errors
    /// As [`inside::remove_dir`].
    pub fn remove_dir(&self) -> Result<()> {
        inside::remove_dir(&self.dir, &self.ids)
    }

    /// Where the root is mounted, in the container's mount namespace.
    pub fn merged(&self) -> PathBuf {
        self.dir.join("merged")
    }

    /// Mounts the root. To be called inside.
    ///
    /// # Errors
    /// As [`Overlay::new`] and [`Overlay::mount`].
    pub fn mount(&self) -> Result<()> {
        Overlay::new(&self.layers, &self.dir, Marks::User)?.mount(&self.merged())
    }

    /// After the container has ended: what the options ask for besides.
    ///
    /// # Errors
    /// As [`pack`](crate::pack()), or if the layers can't be mounted or copied for `--compare`.
    pub fn finish(&self, options: &StackOptions) -> Result<()> {
        if let Some(file) = &options.save {
            self.save(file)?;
        }
        if options.compare { self.compare() } else { Ok(()) }
    }

    /// Writes what the container wrote to `file`, as a layer for others.
    fn save(&self, file: &Path) -> Result<()> {
        let tar = File::create(file).with_context(|| format!("--save {}", file.display()))?;
        as_root_inside(&self.ids, || pack(&self.dir.join("upper"), tar).map(drop))
    }

    /// Says how long a mount of the layers takes, and how long a copy: the reason for all this.
    fn compare(&self) -> Result<()> {
        as_root_inside(&self.ids, || {
            unshare(mnt::NAMESPACE)?;
            mnt::make_private()?;
            let mount = timed(|| self.mount())?;
            umount(&self.merged())?;
            let copy = timed(|| {
                self.layers.iter().try_for_each(|layer| copy(layer, &self.dir.join("copy")))
            })?;
            eprintln!("root: a mount takes {mount:.2} ms, a copy {copy:.2} ms");
            Ok(())
        })
    }
}

/// Adds an archive to the layers in `store`. Its digest is taken first, which is much faster than to
/// unpack it once more.
fn add(store: &Path, archive: &Path, ids: &IdMap) -> Result<PathBuf> {
    let digest = digest_of(File::open(archive)?)?;
    let expected = Expected { blob: Some(&digest), diff_id: None };
    inside::add_layer(store, File::open(archive)?, &expected, ids)
}

/// How many milliseconds `work` takes.
fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64() * 1000.0)
}

fn copy(layer: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").args(["-a", "-T"]).arg(layer).arg(to).status().context("cp")?;
    ensure!(status.success(), "cp -a {} failed", layer.display());
    Ok(())
}
