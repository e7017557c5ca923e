//! How long it takes to make a root file system out of a layer, and how much memory.
//!
//!   cargo bench --bench unpack -- [SAMPLES]
//!
//! The layer is a minimal Debian (6,000 entries, 120 MB), where `debootstrap` can make one, and
//! else a made-up one of the same shape. Every sample unpacks into a directory of its own: on a file
//! system in which the same files come and go, all get slower by and by. The directory is removed
//! outside of the measured time.
#![allow(missing_docs)]

#[path = "layer.rs"]
mod layer;
#[path = "../shared/mod.rs"]
mod shared;

use std::{env, fs, path::Path, process::Command};

use anyhow::Result;
use layer::Image;
use shared::{Contender, build, number, open_dir, print_machine, race, run};
use tempfile::TempDir;

const TAR: &str = "tar -xzf";

fn main() -> Result<()> {
    let samples = env::args().skip(1).find_map(|arg| arg.parse().ok());
    let samples = samples.map_or_else(|| number("BENCH_SAMPLES", 7), Ok)?;
    let unpack = build(&["--package", "step08-overlay", "--example", "unpack", "--bins"])?;
    let unpack = unpack.join("examples/unpack");
    build(&["--package", "final", "--bins"])?;
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let image = layer::debian(disk).or_else(|why| {
        println!("\nA made-up layer instead of Debian's: {why:#}");
        layer::made_up(disk, 1)
    })?;
    print_machine();
    println!("\nThe layer: {}", image.describe()?);
    let memory = Path::new("/dev/shm");
    for (place, dir) in [("tmpfs", memory), ("disk", disk)] {
        if dir.is_dir() {
            let title = format!("A gzip layer, unpacked on {place}");
            race(&title, &[TAR], samples, unpackers(&unpack, &image, dir)?)?;
        }
    }
    roots(&unpack, &image, disk, samples)?;
    constant_memory(&unpack, disk, if memory.is_dir() { memory } else { disk })
}

fn unpackers(unpack: &Path, image: &Image, dir: &Path) -> Result<Vec<Contender>> {
    let (tar, ours) = (image.layer(), image.layer());
    let (unpack, reference) = (unpack.to_owned(), image.reference());
    let (umoci, skopeo) = (reference.clone(), reference);
    Ok(vec![
        fresh(TAR, dir, move |to| {
            let mut command = Command::new("tar");
            command.arg("-xzf").arg(&tar).arg("-C").arg(to);
            command
        }),
        fresh("step 8, with both digests", dir, move |to| {
            let mut command = Command::new(&unpack);
            command.arg(&ours).arg(to.join("layer"));
            command
        }),
        fresh("umoci raw unpack", dir, move |to| {
            let mut command = Command::new("umoci");
            command.args(["raw", "unpack", "--image", &umoci]).arg(to.join("bundle"));
            command
        }),
        fresh("skopeo copy, into containers-storage", dir, move |to| {
            let (root, temp) = (to.join("root"), to.join("run"));
            let store =
                format!("containers-storage:[overlay@{}+{}]bench", root.display(), temp.display());
            // It leaves a mount behind, which goes with this namespace.
            let mut command = Command::new("unshare");
            command.args(["--mount", "skopeo", "--insecure-policy", "copy"]);
            command.args([&format!("oci:{skopeo}"), &store]);
            command
        }),
    ])
}

/// A contender that gets a new directory for each sample; the one before is removed then.
fn fresh(name: &str, dir: &Path, command: impl Fn(&Path) -> Command + 'static) -> Contender {
    let dir = dir.to_owned();
    let mut last: Option<TempDir> = None;
    Contender::new(name, move || {
        drop(last.take());
        let command = command(last.insert(open_dir(&dir)?).path());
        rustix::fs::sync(); // Nobody pays for what others have left to be written.
        Ok(command)
    })
}

/// A container's own root: what is mounted in no time would be copied otherwise.
fn roots(unpack: &Path, image: &Image, disk: &Path, samples: usize) -> Result<()> {
    let base = open_dir(disk)?;
    let lower = base.path().join("lower");
    run(Command::new(unpack).arg(image.layer()).arg(&lower))?;
    let (below, from) = (lower.clone(), lower);
    race(
        "A container's own root",
        &["cp -a"],
        samples,
        vec![
            fresh("cp -a", disk, move |to| {
                let mut command = Command::new("cp");
                command.arg("-aT").arg(&from).arg(to.join("copy"));
                command
            }),
            fresh("an overlay, mounted and unmounted by mount(8)", disk, move |to| {
                let at = |name: &str| {
                    let dir = to.join(name);
                    let _ = fs::create_dir(&dir);
                    dir.display().to_string()
                };
                let layers = format!(
                    "lowerdir={},upperdir={},workdir={}",
                    below.display(),
                    at("upper"),
                    at("work")
                );
                let mut command = Command::new("unshare");
                command.args(["--mount", "mount", "-t", "overlay", "overlay", "-o", &layers]);
                command.arg(at("merged"));
                command
            }),
        ],
    )
}

/// A layer is read as a stream, so its size is no matter.
fn constant_memory(unpack: &Path, disk: &Path, to: &Path) -> Result<()> {
    let sizes = [1, 4].map(|times| layer::made_up(disk, times));
    let mut contenders = Vec::new();
    for (times, image) in [1, 4].into_iter().zip(sizes) {
        let (unpack, image) = (unpack.to_owned(), image?);
        let name = format!("{times} × {} MB", layer::MEGABYTES);
        contenders.push(fresh(&name, to, move |to| {
            let mut command = Command::new(&unpack);
            command.arg(image.layer()).arg(to.join("layer"));
            command
        }));
    }
    let yardstick = format!("1 × {} MB", layer::MEGABYTES);
    race("Memory to unpack a layer of any size, step 8", &[&yardstick], 1, contenders)
}
