//! A docker archive: what `docker save` writes, and `docker-archive:` of skopeo, podman and buildah.
//!
//! ```text
//!   manifest.json          [{ "Config": …, "RepoTags": […], "Layers": […] }], names of members
//!   <sha256>.json          the configuration, as in an OCI image
//!   <id>/layer.tar         a layer, or a link to one that another image in here has as well
//! ```
//! Only the configuration has its digest in its name. The layers are held by the configuration's
//! `diff_ids`, which whoever unpacks them checks.
//!
//! Since docker 25 the same tar is an OCI layout too, and then `layout` reads it.
//!
//! Source: [Docker image specification v1.2](https://github.com/moby/docker-image-spec/blob/v1.2.0/v1.2.md#combined-image-json--filesystem-changeset-format).

use anyhow::{Result, ensure};
use oci_spec::image::Digest;
use serde::Deserialize;

use super::{Config, Layer, Place, archive::Archive, config, digest_of, parse, tag};

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// Reads the image called `tag`, or the only one, of a docker archive.
///
/// # Errors
/// If there isn't exactly one, or a member of the archive is missing or isn't what it should be.
pub(super) fn read(archive: &Archive, tag: Option<&str>) -> Result<(Config, Vec<Layer>)> {
    let images: Vec<Entry> = parse(&archive.document("manifest.json")?, "manifest.json")?;
    let image = named(&images, tag)?;
    let json = archive.document(&image.config)?;
    if let Some(digest) = digest_in(&image.config) {
        let real = digest_of(&json);
        ensure!(real == digest, "{} is damaged: its sha256 is {real}", image.config);
    }
    let (config, diff_ids) = config::read(&json, &image.config)?;
    let layers = layers(archive, image.layers.as_deref().unwrap_or_default(), diff_ids)?;
    Ok((config, layers))
}

fn named<'a>(images: &'a [Entry], wanted: Option<&str>) -> Result<&'a Entry> {
    ensure!(!images.is_empty(), "manifest.json lists no image");
    let tags = |image: &'a Entry| image.repo_tags.as_deref().unwrap_or_default();
    let chosen = match wanted {
        Some(wanted) => images
            .iter()
            .find(|image| tags(image).iter().any(|tag| tag == wanted))
            .or_else(|| images.iter().find(|i| tags(i).iter().any(|tag| tag::same(tag, wanted)))),
        None => images.first().filter(|_| images.len() == 1),
    };
    let all = images.iter().flat_map(|i| tags(i).iter().map(String::as_str));
    chosen.ok_or_else(|| tag::error(wanted, all))
}

/// The digest that the name of a configuration holds: `<sha256>.json`, or a blob of that name.
fn digest_in(name: &str) -> Option<&str> {
    let last = name.rsplit('/').next().unwrap_or_default();
    let stem = last.strip_suffix(".json").unwrap_or(last);
    let stem = stem.strip_prefix("sha256:").unwrap_or(stem);
    let is_digest =
        stem.len() == 64 && stem.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_digest.then_some(stem)
}

fn layers(archive: &Archive, names: &[String], diff_ids: Vec<Digest>) -> Result<Vec<Layer>> {
    ensure!(
        names.len() == diff_ids.len(),
        "manifest.json has {} layers, and the configuration has {} diff_ids",
        names.len(),
        diff_ids.len()
    );
    let pairs = names.iter().zip(diff_ids);
    pairs.map(|(name, diff_id)| layer(archive, name, diff_id)).collect()
}

fn layer(archive: &Archive, name: &str, diff_id: Digest) -> Result<Layer> {
    let extent = archive.find(name)?;
    let extent = extent.ok_or_else(|| anyhow::anyhow!("{name} is missing in the archive"))?;
    // Nothing says how a layer is compressed: docker's own aren't, those of other tools may be.
    let compression = archive.compression(extent)?;
    let place = Place::Member { offset: extent.offset };
    Ok(Layer { digest: None, diff_id: Some(diff_id), size: extent.size, compression, place })
}
