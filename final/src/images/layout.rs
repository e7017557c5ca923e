//! An OCI image layout: a folder (or a tar of it) in which everything is named by its digest.
//!
//! ```text
//!   oci-layout               says which version of the layout this is
//!   index.json               the images in here ──▶ manifest or a further index, by digest
//!   blobs/sha256/<digest>    manifest ──▶ config and layers, by digest
//! ```
//! A *descriptor* points to a blob: its media type, size and digest. Whoever trusts `index.json`
//! can check all the rest by following descriptors, as is done here; the layers are checked by
//! whoever unpacks them, in the same pass.
//!
//! Source: image-spec, [image-layout.md](https://github.com/opencontainers/image-spec/blob/main/image-layout.md),
//! [descriptor.md](https://github.com/opencontainers/image-spec/blob/main/descriptor.md),
//! [image-index.md](https://github.com/opencontainers/image-spec/blob/main/image-index.md),
//! [manifest.md](https://github.com/opencontainers/image-spec/blob/main/manifest.md).

use std::{collections::HashSet, io::Read, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{Descriptor, Digest, ImageIndex, ImageManifest, OciLayout};
use serde::de::DeserializeOwned;

use super::{
    Compression, Config, Layer, MAX_DOCUMENT, Place, archive::Archive, config, digest_of, file,
    parse, platform, sha256, tag,
};

const INDEX: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIG: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// An index may list indexes: two levels are common, more than a few are somebody's joke.
const MAX_DEPTH: usize = 8;

/// Where the files of a layout are.
pub(super) enum Source {
    /// In this directory.
    Directory(PathBuf),
    /// In this tar.
    Archive(Archive),
}

/// Reads the image of a layout that is called `tag` and fits this machine.
///
/// # Errors
/// If there isn't exactly one, if a document is missing, doesn't parse or isn't what its digest
/// says, or if the image is one that can't run here.
pub(super) fn read(source: &Source, tag: Option<&str>) -> Result<(Config, Vec<Layer>)> {
    let layout: OciLayout = parse(&source.document("oci-layout")?, "oci-layout")?;
    let version = layout.image_layout_version();
    ensure!(version.starts_with("1."), "version {version} of the OCI image layout is unknown here");
    let index: ImageIndex = parse(&source.document("index.json")?, "index.json")?;

    let mut manifests = Manifests { source, seen: HashSet::new(), found: vec![] };
    manifests.collect(named(index.manifests(), tag)?, 0)?;
    let manifest: ImageManifest = source.json_blob(platform::choose(&manifests.found)?)?;

    let config = manifest.config();
    let kind = config.media_type().as_ref();
    ensure!(CONFIG.contains(&kind), "it isn't an image: its configuration is of type {kind}");
    let (config, diff_ids) = config::read(&source.blob(config)?, config.digest().as_ref())?;
    let layers = layers(source, manifest.layers(), diff_ids)?;
    Ok((config, layers))
}

/// The entries of `index.json` that are the image called `tag`, or the only image.
fn named<'a>(entries: &'a [Descriptor], tag: Option<&str>) -> Result<Vec<&'a Descriptor>> {
    let images = entries.iter().filter(|entry| is_image(entry)).collect::<Vec<_>>();
    ensure!(!images.is_empty(), "index.json lists no image");
    let chosen = match tag {
        Some(tag) => called(&images, tag),
        None => with_names(&images),
    };
    let digests = chosen.iter().map(|d| d.digest()).collect::<HashSet<_>>();
    let tags = chosen.iter().map(|d| names(d).first().copied()).collect::<HashSet<_>>();
    // An image for several machines is listed here once for each by some tools: then each has a
    // platform, and they share their name.
    let one_name = tag.is_some() || tags.len() == 1;
    let for_machines = one_name && chosen.iter().all(|d| d.platform().is_some());
    if digests.len() == 1 || (digests.len() > 1 && for_machines) {
        return Ok(chosen);
    }
    let all = images.iter().map(|d| names(d).first().map_or(d.digest().as_ref(), |name| name));
    Err(tag::error(tag, all))
}

/// Those that are called `tag`, exactly or at least by another spelling, or have it as digest.
fn called<'a>(images: &[&'a Descriptor], tag: &str) -> Vec<&'a Descriptor> {
    let by = |same: fn(&str, &str) -> bool| -> Vec<&Descriptor> {
        let fits = |d: &Descriptor| names(d).iter().any(|name| same(name, tag));
        images.iter().copied().filter(|d| fits(d) || d.digest().as_ref() == tag).collect()
    };
    let exactly = by(|name, tag| name == tag);
    if exactly.is_empty() { by(tag::same) } else { exactly }
}

/// Those that have names, if any has: what lost its name to a newer image stays in the index.
fn with_names<'a>(images: &[&'a Descriptor]) -> Vec<&'a Descriptor> {
    let named = images.iter().copied().filter(|d| !names(d).is_empty()).collect::<Vec<_>>();
    if named.is_empty() { images.to_vec() } else { named }
}

/// The names of an image in a layout. What docker writes has the full name beside the tag.
///
/// Source: [image-spec, annotations.md](https://github.com/opencontainers/image-spec/blob/main/annotations.md).
fn names(entry: &Descriptor) -> Vec<&str> {
    let Some(annotations) = entry.annotations() else { return vec![] };
    let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    keys.iter().filter_map(|key| Some(annotations.get(*key)?.as_str())).collect()
}

/// Whether an entry of an index can be an image. Others are to be passed over, so says the spec:
/// signatures, and the attestations of how an image was built.
fn is_image(entry: &Descriptor) -> bool {
    let kind = entry.media_type().as_ref();
    let artifact = entry.artifact_type().as_ref().is_some_and(|t| !CONFIG.contains(&t.as_ref()));
    let platform = entry.platform().as_ref();
    let unknown = platform.is_some_and(|p| p.os().to_string() == "unknown");
    (INDEX.contains(&kind) || MANIFEST.contains(&kind)) && !artifact && !unknown
}

/// The manifests that descriptors lead to, by way of indexes.
struct Manifests<'a> {
    source: &'a Source,
    /// Indexes. Without this, 8 small ones of 1000 equal entries each would never end.
    seen: HashSet<Digest>,
    found: Vec<Descriptor>,
}

impl Manifests<'_> {
    fn collect(&mut self, entries: Vec<&Descriptor>, depth: usize) -> Result<()> {
        ensure!(depth <= MAX_DEPTH, "indexes are nested more than {MAX_DEPTH} deep");
        for entry in entries {
            if MANIFEST.contains(&entry.media_type().as_ref()) {
                self.found.push(entry.clone());
            } else if self.seen.insert(entry.digest().clone()) {
                let index: ImageIndex = self.source.json_blob(entry)?;
                let images = index.manifests().iter().filter(|entry| is_image(entry)).collect();
                self.collect(images, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// Finds the layers, the lowest first. A manifest lists them as they are stored, a configuration
/// (`diff_ids`) as they are when unpacked; the two lists must be of the same layers.
fn layers(source: &Source, stored: &[Descriptor], diff_ids: Vec<Digest>) -> Result<Vec<Layer>> {
    ensure!(
        stored.len() == diff_ids.len(),
        "the manifest has {} layers, and the configuration has {} diff_ids",
        stored.len(),
        diff_ids.len()
    );
    let pairs = stored.iter().zip(diff_ids);
    pairs.map(|(stored, diff_id)| layer(source, stored, diff_id)).collect()
}

fn layer(source: &Source, stored: &Descriptor, diff_id: Digest) -> Result<Layer> {
    let digest = stored.digest().clone();
    let compression = compression(stored.media_type().as_ref())?;
    let (place, size) = source.find(&digest)?;
    check_size(stored, size)?;
    Ok(Layer { digest: Some(digest), diff_id: Some(diff_id), size, compression, place })
}

/// Source: [image-spec, layer.md](https://github.com/opencontainers/image-spec/blob/main/layer.md).
fn compression(media_type: &str) -> Result<Compression> {
    Ok(match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        other if other.contains("nondistributable") || other.contains("foreign") => {
            bail!("a layer of it may not be distributed and has to be fetched elsewhere ({other})")
        }
        other => bail!("a layer is of type {other}, which is unknown here"),
    })
}

impl Source {
    /// Reads a small file of the layout whole.
    fn document(&self, name: &str) -> Result<Vec<u8>> {
        match self {
            Source::Archive(archive) => archive.document(name),
            Source::Directory(dir) => {
                let file =
                    file::open(&dir.join(name)).with_context(|| format!("can't open {name}"))?;
                let mut bytes = vec![];
                // One byte more, to tell whether that was all.
                file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
                let size = bytes.len() as u64;
                ensure!(size <= MAX_DOCUMENT, "{name} is larger than {MAX_DOCUMENT} bytes");
                Ok(bytes)
            }
        }
    }

    /// Reads the blob that a descriptor points to, and checks that it's the one that was meant.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = descriptor.digest();
        let bytes = self.document(&blob_path(digest)?)?;
        check_size(descriptor, bytes.len() as u64)?;
        let real = digest_of(&bytes);
        ensure!(real == digest.digest(), "the blob {digest} is damaged: its sha256 is {real}");
        Ok(bytes)
    }

    fn json_blob<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T> {
        parse(&self.blob(descriptor)?, descriptor.digest().as_ref())
    }

    /// Finds a layer, and its size in bytes.
    fn find(&self, digest: &Digest) -> Result<(Place, u64)> {
        let name = blob_path(digest)?;
        match self {
            Source::Directory(dir) => {
                let file =
                    file::open(&dir.join(&name)).with_context(|| format!("can't open {name}"))?;
                Ok((Place::Blob, file.metadata()?.len()))
            }
            Source::Archive(archive) => match archive.find(&name)? {
                Some(extent) => Ok((Place::Member { offset: extent.offset }, extent.size)),
                None => bail!("{name} is missing in the archive"),
            },
        }
    }
}

/// The path of a blob in a layout. A digest has been checked to be 64 hexadecimal digits, so that
/// a hostile one leads nowhere else.
pub(super) fn blob_path(digest: &Digest) -> Result<String> {
    Ok(format!("blobs/sha256/{}", sha256(digest)?))
}

fn check_size(descriptor: &Descriptor, size: u64) -> Result<()> {
    let (digest, expected) = (descriptor.digest(), descriptor.size());
    ensure!(size == expected, "the blob {digest} has {size} bytes instead of {expected}");
    Ok(())
}
