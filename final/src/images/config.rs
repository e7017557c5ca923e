//! The image configuration: what to run, and the names of the layers' contents.
//!
//! Source: [image-spec, config.md](https://github.com/opencontainers/image-spec/blob/main/config.md).
//! Docker's own format is the same but for fields that aren't used here.

use anyhow::{Context, Result};
use oci_spec::image::{Digest, ImageConfiguration};
use serde::{Deserialize, Serialize};

use super::{parse, platform, sha256};

/// What an image says about how to run it. What is empty was left out by the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The environment: `NAME=VALUE` each.
    pub env: Vec<String>,
    /// The program and its first arguments, which a command doesn't replace.
    pub entrypoint: Vec<String>,
    /// The arguments that follow, or the whole command if there is no entrypoint. A command given
    /// by the user takes its place.
    pub cmd: Vec<String>,
    /// The directory that the program starts in.
    pub working_dir: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`, to be looked up in the image's own `/etc/passwd`.
    pub user: Option<String>,
    /// The signal that asks the program to end: a name or a number.
    pub stop_signal: Option<String>,
    /// The ports that the program listens on: `80/tcp`, `53/udp` or `80`, sorted.
    pub exposed_ports: Vec<String>,
    /// The processor that the image is for, by Go's name: `amd64`. Empty for a root file system.
    pub architecture: String,
    /// The operating system that the image is for. Empty for a root file system.
    pub os: String,
}

/// Reads a configuration, and the digests of the layers' plain tars (`diff_ids`) from it.
///
/// # Errors
/// If it doesn't parse, or is for another machine than this.
pub(super) fn read(json: &[u8], name: &str) -> Result<(Config, Vec<Digest>)> {
    let image: ImageConfiguration = parse(json, name)?;
    platform::check(&image)?;
    let diff_ids = image.rootfs().diff_ids().iter().map(|id| {
        let id = Digest::try_from(id.as_str()).with_context(|| format!("a diff_id in {name}"))?;
        sha256(&id)?;
        Ok(id)
    });
    let diff_ids = diff_ids.collect::<Result<_>>()?;
    Ok((honoured(image), diff_ids))
}

/// The parts of a configuration that this runtime honours.
fn honoured(image: ImageConfiguration) -> Config {
    let config = image.config().clone().unwrap_or_default();
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    // Docker writes "" for what isn't set.
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let mut exposed_ports = list(config.exposed_ports());
    exposed_ports.sort();
    Config {
        env: list(config.env()),
        entrypoint: list(config.entrypoint()),
        cmd: list(config.cmd()),
        working_dir: text(config.working_dir()),
        user: text(config.user()),
        stop_signal: text(config.stop_signal()),
        exposed_ports,
        architecture: image.architecture().to_string(),
        os: image.os().to_string(),
    }
}
