//! Which of an image's builds is for this machine.
//!
//! A build's platform is an operating system, an architecture and, for some, a variant of it
//! (`linux/arm/v7`), by the names that the Go language has for them.
//!
//! Source: [image-spec, image-index.md](https://github.com/opencontainers/image-spec/blob/main/image-index.md#platform-variants).

use std::cmp::Reverse;

use anyhow::{Result, bail, ensure};
use oci_spec::image::{Arch, Descriptor, ImageConfiguration, Os, Platform};

/// What this machine runs.
struct Machine {
    arch: Arch,
    /// The newest variant, where later ones run what earlier ones do.
    variant: u32,
}

/// The platform of this machine, as `linux/amd64`.
pub(super) fn name() -> String {
    format!("{}/{}", Os::Linux, Arch::default())
}

/// Takes the first of the manifests that fit this machine best.
///
/// # Errors
/// If none fits; the error lists what they are for.
pub(super) fn choose(manifests: &[Descriptor]) -> Result<&Descriptor> {
    choose_for(&Machine::this(), manifests)
}

fn choose_for<'a>(machine: &Machine, manifests: &'a [Descriptor]) -> Result<&'a Descriptor> {
    // One without a platform may be for any: its configuration says more. So it's the last choice.
    let rank = |d: &Descriptor| d.platform().as_ref().map_or(Some(0), |p| machine.rank(p));
    let fitting = manifests.iter().filter_map(|d| Some((rank(d)?, d)));
    if let Some((_, best)) = fitting.min_by_key(|(rank, _)| Reverse(*rank)) {
        return Ok(best);
    }
    let all = manifests.iter().filter_map(|d| d.platform().as_ref().map(show)).collect::<Vec<_>>();
    ensure!(!all.is_empty(), "it lists no image");
    bail!("it is for {}, and this machine is {}", all.join(", "), name())
}

/// Checks that an image's own configuration agrees with this machine.
///
/// # Errors
/// If it doesn't; the error names both platforms.
pub(super) fn check(image: &ImageConfiguration) -> Result<()> {
    let (os, arch) = (image.os().to_string(), image.architecture().to_string());
    // Some tools leave them empty.
    let fits = (os.is_empty() || *image.os() == Os::Linux)
        && (arch.is_empty() || *image.architecture() == Arch::default());
    ensure!(fits, "it is for {os}/{arch}, and this machine is {}", name());
    Ok(())
}

impl Machine {
    fn this() -> Self {
        let uname = rustix::system::uname();
        let variant = match uname.machine().to_bytes() {
            // armv7l and the like, as a 32-bit ARM kernel reports it.
            [b'a', b'r', b'm', b'v', digit @ b'5'..=b'9', ..] => u32::from(digit - b'0'),
            b"aarch64" => 8,
            _ => 1,
        };
        Machine { arch: Arch::default(), variant }
    }

    /// How well a build fits: the higher the better. `None` says that it can't run here.
    fn rank(&self, platform: &Platform) -> Option<u32> {
        if *platform.os() != Os::Linux || *platform.architecture() != self.arch {
            return None;
        }
        let variant = platform.variant().as_deref().unwrap_or_default();
        let variant = variant.trim_start_matches('v').parse::<u32>().ok();
        match (&self.arch, variant) {
            // An image for a newer variant dies of SIGILL.
            (Arch::ARM, Some(variant)) => (variant <= self.variant).then_some(variant + 1),
            (Arch::ARM, None) => Some(1),
            // Here the one for all processors of the kind is preferred to one that may not run.
            (_, Some(variant)) if variant > self.variant => Some(1),
            _ => Some(2),
        }
    }
}

fn show(platform: &Platform) -> String {
    let variant = platform.variant().as_ref().map(|v| format!("/{v}")).unwrap_or_default();
    format!("{}/{}{variant}", platform.os(), platform.architecture())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Descriptors for platforms like `linux/arm/v7`, or for none in particular.
    fn manifests(platforms: &[&str]) -> Vec<Descriptor> {
        let json = |name: &&str| {
            let mut parts = name.split('/');
            let (os, arch, variant) = (parts.next(), parts.next(), parts.next());
            serde_json::from_value(json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{}", "0".repeat(64)),
                "size": 1,
                "platform": arch.map(|arch| json!({ "os": os, "architecture": arch, "variant": variant })),
            }))
            .unwrap()
        };
        platforms.iter().map(json).collect()
    }

    fn chosen(arch: Arch, variant: u32, platforms: &[&str]) -> Option<String> {
        let manifests = manifests(platforms);
        let chosen = choose_for(&Machine { arch, variant }, &manifests).ok()?;
        chosen.platform().as_ref().map(show)
    }

    #[test]
    fn the_newest_arm_that_runs_here() {
        let all = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/arm64/v8", "linux/amd64"];
        assert_eq!(chosen(Arch::ARM, 7, &all).unwrap(), "linux/arm/v7");
        assert_eq!(chosen(Arch::ARM, 6, &all).unwrap(), "linux/arm/v6");
        assert_eq!(chosen(Arch::ARM64, 8, &all).unwrap(), "linux/arm64/v8");
        assert_eq!(chosen(Arch::ARM, 4, &all), None);
    }

    #[test]
    fn the_common_denominator_of_others() {
        let all = ["windows/amd64", "linux/amd64/v3", "linux/amd64", "linux/amd64/v2"];
        assert_eq!(chosen(Arch::Amd64, 1, &all).unwrap(), "linux/amd64");
        assert_eq!(chosen(Arch::Amd64, 1, &all[1..2]).unwrap(), "linux/amd64/v3");
        assert_eq!(chosen(Arch::RISCV64, 1, &all), None);
    }

    #[test]
    fn one_for_no_platform_is_the_last_choice() {
        let all = ["", "linux/amd64/v3", "linux/s390x"];
        assert_eq!(chosen(Arch::Amd64, 1, &all).unwrap(), "linux/amd64/v3");
        let all = manifests(&all);
        let chosen = choose_for(&Machine { arch: Arch::RISCV64, variant: 1 }, &all).unwrap();
        assert_eq!(*chosen, all[0]);
    }
}
