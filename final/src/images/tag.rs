//! The names of images that lie side by side in one layout or archive.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow, bail};

/// Splits what a user wrote, `PATH` or `PATH:TAG`, by which part of it exists: a path may have
/// colons in it, and so may a tag (`save.tar:busybox:latest`).
///
/// # Errors
/// If there is no such file.
pub fn split(reference: &str) -> Result<(PathBuf, Option<String>)> {
    let exists = |path: &str| Path::new(path).symlink_metadata().is_ok();
    if exists(reference) {
        return Ok((reference.into(), None));
    }
    for (colon, _) in reference.match_indices(':') {
        let (path, tag) = (&reference[..colon], &reference[colon + 1..]);
        if exists(path) && !tag.is_empty() {
            return Ok((path.into(), Some(tag.into())));
        }
    }
    bail!(
        "there is no file or directory {reference}. To fetch an image of that name from a \
         registry: skopeo copy docker://{reference} oci-archive:image.tar"
    )
}

/// Whether two names mean the same image: docker writes `docker.io/library/busybox:latest` for
/// what people call `busybox`.
pub(super) fn same(one: &str, other: &str) -> bool {
    full(one) == full(other)
}

fn full(name: &str) -> (&str, &str) {
    let start = ["docker.io/", "library/", "localhost/"];
    let name = start.iter().fold(name, |name, start| name.strip_prefix(start).unwrap_or(name));
    match name.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (name, "latest"),
    }
}

/// What to say when no image was chosen: none has the tag that was `wanted`, or none was wanted
/// and there are several.
pub(super) fn error<'a>(wanted: Option<&str>, all: impl Iterator<Item = &'a str>) -> anyhow::Error {
    let all = all.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ");
    match wanted {
        Some(wanted) => anyhow!("no single image in it is tagged {wanted}; there are: {all}"),
        None => anyhow!("it holds several images, so add one of these after a colon: {all}"),
    }
}
