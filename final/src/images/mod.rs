//! Images: what is in them, and where their layers are. Nothing is unpacked here.
//!
//! An image is a *configuration* (what to run, in which environment) and a row of *layers*, each a
//! tar of the files that it adds to those below. It comes as one of five things:
//!
//! | what | told by | read by |
//! |---|---|---|
//! | an OCI layout directory | its file `oci-layout` | `layout` |
//! | an OCI archive: a tar of such a directory | the same, inside of the tar | `layout`, through `archive` |
//! | a docker archive: `docker save` | `manifest.json` inside of the tar | `docker` |
//! | a tar of a root file system | neither of them | the tar is the only layer |
//! | a directory that is a root file system | none of the files above | there is no layer |
//!
//! Each tar may be compressed with gzip or zstd. [`open`] reads no more than headers and the small
//! JSON documents. Those are checked against their digests; a layer's digests are handed on, to be
//! checked while it is unpacked, so that it's read once.
//!
//! Source: [OCI image specification](https://github.com/opencontainers/image-spec/blob/main/spec.md).

mod archive;
mod compression;
mod config;
mod docker;
mod file;
mod layout;
mod platform;
mod tag;

pub use compression::Compression;
pub use config::Config;
pub use file::Key;
pub use oci_spec::image::Digest;
pub use tag::split;

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Take},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use archive::{Archive, Contents};
use layout::Source;
use oci_spec::image::DigestAlgorithm;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

/// How large a JSON document may be, in bytes: registries allow manifests of 4 MiB, too.
const MAX_DOCUMENT: u64 = 4 << 20;

/// An image: how to run it, and where its layers are.
///
/// It can be kept as JSON of about a kilobyte; as long as [`Key::of`] gives the same `key`, what it
/// says is true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The state of the file or directory that this was read from.
    pub key: Key,
    /// What the image came as.
    pub kind: Kind,
    /// How to run it; empty for a root file system.
    pub config: Config,
    /// The layers, the lowest first; none for a root file system that is a directory.
    pub layers: Vec<Layer>,
    /// How the archive around it all is compressed.
    compression: Compression,
}

/// What an image comes as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A directory in the OCI image layout.
    OciLayout,
    /// A tar of such a directory.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
    /// A tar of a root file system.
    RootfsArchive,
    /// A directory that is a root file system: [`Key::path`].
    RootfsDirectory,
}

/// A layer: a tar of the files that it adds, changes and removes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The digest of the layer as it is stored, to be checked. Unknown in docker archives.
    pub digest: Option<Digest>,
    /// The digest of the layer's plain tar, to be checked. Unknown for a root file system.
    ///
    /// Source: [image-spec, config.md](https://github.com/opencontainers/image-spec/blob/main/config.md#layer-diffid).
    pub diff_id: Option<Digest>,
    /// The length as it is stored, in bytes.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
    place: Place,
}

/// Where a layer is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// A blob in an OCI layout directory, named by its digest.
    Blob,
    /// A part of the (plain) archive, from this byte on.
    Member { offset: u64 },
    /// The whole file.
    Whole,
}

/// Reads which image is at `path`: the one called `tag`, or the only one.
///
/// `scratch` is a directory of the caller's own. It's made when it's needed, which is for a
/// compressed image archive alone: that's written into it as a plain tar. It may be removed when
/// all layers have been read.
///
/// # Errors
/// For a path that is none of the five kinds of image, or is damaged, or isn't for this machine, or
/// holds no image or several that are called so.
pub fn open(path: &Path, tag: Option<&str>, scratch: &Path) -> Result<Image> {
    let image = || -> Result<Image> {
        let key = Key::of(path, tag)?;
        if key.path().is_dir() { directory(key, tag) } else { file(key, tag, scratch) }
    };
    image().with_context(|| format!("the image {}", path.display()))
}

/// The image at `path`, if it was read before and hasn't changed since: `cache` is where [`open_cached`]
/// remembered it. It costs a stat and one small read.
///
/// # Errors
/// If there is no such file.
pub fn remembered(path: &Path, tag: Option<&str>, cache: &Path) -> Result<Option<Image>> {
    let key = Key::of(path, tag).with_context(|| format!("the image {}", path.display()))?;
    let json = fs::read(memory_of(&key, cache)).ok();
    let known = json.and_then(|json| serde_json::from_slice::<Image>(&json).ok());
    Ok(known.filter(|image| image.key == key))
}

fn memory_of(key: &Key, cache: &Path) -> PathBuf {
    cache.join(key.name()).with_extension("json")
}

/// As [`open`], and remembers the answer as a small file in the directory `cache`.
///
/// # Errors
/// As [`open`], and if the file can't be written.
pub fn open_cached(path: &Path, tag: Option<&str>, cache: &Path, scratch: &Path) -> Result<Image> {
    if let Some(image) = remembered(path, tag, cache)? {
        return Ok(image);
    }
    let image = open(path, tag, scratch)?;
    let file = memory_of(&image.key, cache);
    let new = file.with_extension(format!("{}.new", std::process::id()));
    let write = || -> Result<()> {
        fs::create_dir_all(cache)?;
        fs::write(&new, serde_json::to_vec(&image)?)?;
        // In one step, so that nobody reads half of it.
        Ok(fs::rename(&new, &file)?)
    };
    write().with_context(|| format!("can't write {}", file.display()))?;
    Ok(image)
}

fn directory(key: Key, tag: Option<&str>) -> Result<Image> {
    let dir = key.path().to_owned();
    let has = |name: &str| dir.join(name).exists();
    if has("oci-layout") {
        let (config, layers) = layout::read(&Source::Directory(dir), tag)?;
        return Ok(Image::new(key, Kind::OciLayout, config, layers));
    }
    ensure!(!(has("index.json") && has("blobs")), "an OCI layout needs a file oci-layout");
    ensure!(
        !(has("manifest.json") && has("version")),
        "it is in skopeo's own format; to change that: skopeo copy dir:IMAGE oci:NEW"
    );
    ensure!(fs::read_dir(&dir)?.next().is_some(), "the directory is empty");
    no_tag(tag)?;
    Ok(Image::new(key, Kind::RootfsDirectory, Config::default(), vec![]))
}

fn file(key: Key, tag: Option<&str>, scratch: &Path) -> Result<Image> {
    let compression = Compression::at(&key.open()?, 0)?;
    let compressed = compression != Compression::None;
    if compressed && archive::starts_as_rootfs(key.open()?) {
        return rootfs_archive(key, tag, compression);
    }
    let plain = plain(&key, compression, scratch)?;
    let (kind, (config, layers)) = match archive::contents(&plain)? {
        Contents::Rootfs => return rootfs_archive(key, tag, compression),
        Contents::OciLayout => {
            (Kind::OciArchive, layout::read(&Source::Archive(Archive::new(plain)?), tag)?)
        }
        Contents::DockerArchive => (Kind::DockerArchive, docker::read(&Archive::new(plain)?, tag)?),
    };
    Ok(Image { compression, ..Image::new(key, kind, config, layers) })
}

fn rootfs_archive(key: Key, tag: Option<&str>, compression: Compression) -> Result<Image> {
    no_tag(tag)?;
    let size = key.open()?.metadata()?.len();
    let layer = Layer { digest: None, diff_id: None, size, compression, place: Place::Whole };
    Ok(Image::new(key, Kind::RootfsArchive, Config::default(), vec![layer]))
}

fn no_tag(tag: Option<&str>) -> Result<()> {
    match tag {
        Some(tag) => bail!("it is a root file system, which has no images to choose {tag} from"),
        None => Ok(()),
    }
}

/// The archive as a plain tar: itself, or a copy in the scratch directory.
fn plain(key: &Key, compression: Compression, scratch: &Path) -> Result<File> {
    let file = key.open()?;
    if compression == Compression::None {
        return Ok(file);
    }
    fs::create_dir_all(scratch).with_context(|| format!("can't make {}", scratch.display()))?;
    archive::spool(file, &scratch.join(key.id()).with_extension("tar"))
}

impl Image {
    fn new(key: Key, kind: Kind, config: Config, layers: Vec<Layer>) -> Self {
        Image { key, kind, config, layers, compression: Compression::None }
    }

    /// Opens one of the [`layers`](Image::layers), as it is stored, to be read from its start.
    ///
    /// `scratch` is as with [`open`]; if a copy of the archive isn't there any more, it's made again.
    ///
    /// # Errors
    /// If the image has changed since it was read, and as open(2).
    pub fn open_layer(&self, layer: &Layer, scratch: &Path) -> Result<Take<File>> {
        let file = match (&layer.place, &layer.digest) {
            (Place::Member { offset }, _) => {
                let mut archive = plain(&self.key, self.compression, scratch)?;
                archive.seek(SeekFrom::Start(*offset))?;
                Ok(archive)
            }
            (Place::Blob, Some(digest)) => {
                layout::blob_path(digest).and_then(|blob| file::open(&self.key.path().join(blob)))
            }
            _ => self.key.open(),
        };
        let name = layer.digest.as_ref().or(layer.diff_id.as_ref()).map_or("", |d| d.as_ref());
        let file = file.with_context(|| {
            format!("can't read a layer of the image {}: {name}", self.key.path().display())
        })?;
        Ok(file.take(layer.size))
    }
}

/// Parses a JSON document; the error says which and where.
fn parse<T: DeserializeOwned>(json: &[u8], name: &str) -> Result<T> {
    serde_json::from_slice(json).with_context(|| format!("{name} isn't what it should be"))
}

/// The hexadecimal digits of a digest by the one algorithm that is in use.
///
/// Source: [image-spec, descriptor.md](https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests).
fn sha256(digest: &Digest) -> Result<&str> {
    match digest.algorithm() {
        DigestAlgorithm::Sha256 => Ok(digest.digest()),
        other => bail!("{other} digests aren't supported, only sha256 ones are: {digest}"),
    }
}

/// The sha256 of some bytes, in hexadecimal digits.
fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
