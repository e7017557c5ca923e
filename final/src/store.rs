//! What is kept between two runs, and what isn't.
//!
//! ```text
//!   /var/lib/final, or ~/.local/share/final
//!     images/                          what was read from each image's JSON
//!     layers-100000+65536/<diff id>/   the layers, unpacked once, for this map of ids
//!     containers/<id>/                 upper and work of a running container's overlay
//!     merged/                          empty: each container mounts its root here, unseen by others
//! ```

use std::{
    env, fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::unistd::{AccessFlags, eaccess, geteuid};
use overlay::{Expected, Layers, Marks, inside};
use user::IdMap;
use uts::{Janitor, unique_name};

use crate::images::{self, Image, Kind, Layer};

/// The directory where layers and containers are kept.
pub struct Store {
    dir: PathBuf,
    ids: IdMap,
}

impl Store {
    /// Opens the store in `dir`, or where it is by default, for containers with the map `ids`.
    ///
    /// # Errors
    /// If there is no such directory and it can't be made.
    ///
    /// Source: [XDG base directories](https://specifications.freedesktop.org/basedir-spec/latest/).
    pub fn open(dir: Option<PathBuf>, ids: &IdMap) -> Result<Self> {
        let dir = match dir {
            Some(dir) => dir,
            None => default_dir()?,
        };
        // Open to all, as the containers' root is somebody else and must get to their files.
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir.join("images"));
        made.with_context(|| {
            format!("the store {}: choose another with --store DIR", dir.display())
        })?;
        let dir = fs::canonicalize(&dir)?;
        let store = Store { dir, ids: ids.clone() };
        inside::make_shared_dir(&store.layers_dir(), ids)?;
        for dir in [store.containers(), store.merged()] {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        }
        Ok(store)
    }

    /// An image that is ready to run, and the directories of its layers, the lowest first. `None` if it
    /// has to be [unpacked](Store::unpack).
    ///
    /// # Errors
    /// If there is no such file.
    pub fn remembered(
        &self,
        path: &Path,
        tag: Option<&str>,
    ) -> Result<Option<(Image, Vec<PathBuf>)>> {
        let Some(image) = images::remembered(path, tag, &self.images())? else { return Ok(None) };
        if image.kind == Kind::RootfsDirectory {
            let dir = image.key.path().to_owned();
            return Ok(Some((image, vec![dir])));
        }
        let layers = image.layers.iter().enumerate();
        let layers: Option<_> = layers.map(|(n, layer)| self.known(&image, n, layer)).collect();
        Ok(layers.map(|layers| (image, layers)))
    }

    /// Reads an image and unpacks those of its layers that aren't unpacked yet.
    ///
    /// # Errors
    /// If the image can't be read, or a layer can't be unpacked; the error names the entry.
    pub fn unpack(&self, path: &Path, tag: Option<&str>) -> Result<(Image, Vec<PathBuf>)> {
        // A compressed archive is written here as a plain one.
        let scratch = self.dir.join(unique_name("scratch-"));
        let _janitor = Janitor::hire(|| overlay::remove_dir(&scratch))?;
        let image = images::open_cached(path, tag, &self.images(), &scratch)?;
        if image.kind == Kind::RootfsDirectory {
            let dir = image.key.path().to_owned();
            return Ok((image, vec![dir]));
        }
        let layers = image.layers.iter().enumerate();
        let layers = layers.map(|(n, layer)| match self.known(&image, n, layer) {
            Some(dir) => Ok(dir),
            None => self.unpack_layer(&image, n, layer, &scratch),
        });
        let layers = layers.collect::<Result<_>>()?;
        Ok((image, layers))
    }

    /// Where images are remembered.
    fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// Where containers that write to the disk have their directories. Those that write to memory
    /// mount it here.
    pub fn containers(&self) -> PathBuf {
        self.dir.join("containers")
    }

    /// Where a container's directory will be.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// The directory at which every container mounts its root: each in a mount namespace of its own.
    pub fn merged(&self) -> PathBuf {
        self.dir.join("merged")
    }

    fn layers_dir(&self) -> PathBuf {
        inside::store_for(&self.dir, &self.ids)
    }

    /// The directory of a layer, if it is unpacked. Its id is in the image, and a lone tar's was noted
    /// when it was unpacked.
    fn known(&self, image: &Image, number: usize, layer: &Layer) -> Option<PathBuf> {
        let id = match &layer.diff_id {
            Some(id) => id.to_string(),
            None => fs::read_to_string(self.id_note(image, number)).ok()?,
        };
        let layers = Layers::open(&self.layers_dir(), Marks::User).ok()?;
        layers.get(&id).map(|layer| layer.path)
    }

    fn id_note(&self, image: &Image, number: usize) -> PathBuf {
        self.images().join(format!("{}-{number}.id", image.key.id()))
    }

    /// Unpacks a layer as root of a container: the kernel shifts the owners of the files, and
    /// whatever is in the tar, it is written with the rights of a plain user.
    fn unpack_layer(
        &self,
        image: &Image,
        number: usize,
        layer: &Layer,
        scratch: &Path,
    ) -> Result<PathBuf> {
        let blob = image.open_layer(layer, scratch)?;
        let expected = Expected {
            blob: layer.digest.as_ref().map(AsRef::as_ref),
            diff_id: layer.diff_id.as_ref().map(AsRef::as_ref),
        };
        let dir = inside::add_layer(&self.layers_dir(), blob, &expected, &self.ids)
            .with_context(|| format!("layer {} of {}", number + 1, image.key.path().display()))?;
        if layer.diff_id.is_none() {
            let name = dir.file_name().context("a layer has a name")?.to_string_lossy();
            fs::write(self.id_note(image, number), name.replace('-', ":"))?;
        }
        Ok(dir)
    }
}

fn default_dir() -> Result<PathBuf> {
    let system = Path::new("/var/lib/final");
    let folder = if system.exists() { system } else { Path::new("/var/lib") };
    // Root of a user namespace is nobody in the machine's own directories, but has a home.
    if geteuid().is_root() && eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok() {
        return Ok(system.into());
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or(absolute("HOME").map(|home| home.join(".local/share")));
    data.map(|data| data.join("final")).context("there is no HOME: choose a store with --store DIR")
}
