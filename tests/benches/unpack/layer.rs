//! The layers that are unpacked: made once, and kept in the target folder.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use tar::{Builder, EntryType, Header};

use crate::shared::{open_dir, run};

/// The size of the made-up layer before it is compressed.
pub const MEGABYTES: usize = 121;

/// An OCI layout with one image of one gzip layer.
pub struct Image(PathBuf);

impl Image {
    /// The layer's file.
    pub fn layer(&self) -> PathBuf {
        self.0.join("layer.tar.gz")
    }

    /// The image, as umoci and skopeo name it.
    pub fn reference(&self) -> String {
        format!("{}:bench", self.0.display())
    }

    /// What it is, in one line.
    pub fn describe(&self) -> Result<String> {
        let size = fs::metadata(self.layer())?.len() / 1_000_000;
        let names = run(Command::new("tar").arg("-tzf").arg(self.layer()))?.lines().count();
        let name = self.0.file_name().unwrap_or_default().display();
        Ok(format!("{name}, {names} entries, {size} MB as gzip"))
    }

    /// The layout called `name` in `dir`, made of the tar that `fill` writes if it isn't there.
    fn get(dir: &Path, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let image = Image(dir.join(name));
        if image.layer().exists() {
            return Ok(image);
        }
        let new = open_dir(dir)?;
        let tar = new.path().join("layer.tar");
        fill(&tar)?;
        let diff_id = sha256(&tar)?;
        run(Command::new("gzip").arg("-n").arg(&tar))?;
        write_layout(new.path(), &diff_id)?;
        fs::rename(new.keep(), &image.0)?;
        Ok(image)
    }
}

/// Puts what an OCI layout has around `layer.tar.gz`.
///
/// Source: [OCI image layout](https://github.com/opencontainers/image-spec/blob/main/image-layout.md).
fn write_layout(dir: &Path, diff_id: &str) -> Result<()> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let add = |file: &Path, kind: &str| -> Result<String> {
        let (digest, size) = (sha256(file)?, fs::metadata(file)?.len());
        fs::hard_link(file, blobs.join(&digest))?;
        let kind = format!("application/vnd.oci.image.{kind}");
        Ok(format!(r#"{{"mediaType": "{kind}", "digest": "sha256:{digest}", "size": {size}"#))
    };
    let layer = add(&dir.join("layer.tar.gz"), "layer.v1.tar+gzip")? + "}";
    let config = dir.join("config");
    let rootfs = format!(r#"{{"type": "layers", "diff_ids": ["sha256:{diff_id}"]}}"#);
    fs::write(
        &config,
        format!(r#"{{"architecture": "amd64", "os": "linux", "rootfs": {rootfs}}}"#),
    )?;
    let config = add(&config, "config.v1+json")? + "}";
    let manifest = dir.join("manifest");
    fs::write(
        &manifest,
        format!(r#"{{"schemaVersion": 2, "config": {config}, "layers": [{layer}]}}"#),
    )?;
    let manifest = add(&manifest, "manifest.v1+json")?
        + r#", "annotations": {"org.opencontainers.image.ref.name": "bench"}}"#;
    fs::write(
        dir.join("index.json"),
        format!(r#"{{"schemaVersion": 2, "manifests": [{manifest}]}}"#),
    )?;
    Ok(fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?)
}

fn sha256(file: &Path) -> Result<String> {
    let said = run(Command::new("sha256sum").arg(file))?;
    Ok(said.split(' ').next().unwrap_or_default().to_owned())
}

/// A minimal Debian.
///
/// # Errors
/// If there is no debootstrap, no network, or the caller isn't root.
pub fn debian(dir: &Path) -> Result<Image> {
    Image::get(dir, "debian-minbase", |tar| {
        let root = open_dir(dir)?;
        eprintln!("debootstrap makes a Debian, once ...");
        run(Command::new("debootstrap").args(["--variant=minbase", "stable"]).arg(root.path()))?;
        // The packages that it was made of, and the lists of others, belong to no image.
        for dir in ["var/cache/apt/archives", "var/lib/apt/lists"] {
            fs::remove_dir_all(root.path().join(dir))?;
        }
        let mut pack = Command::new("tar");
        pack.args(["--numeric-owner", "--sort=name", "-cf"]).arg(tar).arg("-C").arg(root.path());
        run(pack.arg(".")).map(drop)
    })
}

/// A layer with the shape of a minimal Debian, `times` as large; always the same.
///
/// # Errors
/// `ENOSPC` if the disk is full.
pub fn made_up(dir: &Path, times: usize) -> Result<Image> {
    Image::get(dir, &format!("made-up-{times}"), |tar| {
        let mut random = Random(1);
        let words: Vec<_> = (0..2048).map(|_| random.next().to_le_bytes()).collect();
        let mut tar = Builder::new(BufWriter::new(File::create(tar)?));
        for directory in 0..700 * times {
            let name = format!("{:02}/{directory:04}", directory % 40);
            add(&mut tar, EntryType::Directory, &format!("{name}/"), &[])?;
            let mut link = header(EntryType::Symlink, 0);
            tar.append_link(&mut link, format!("{name}/link"), "../none")?;
            for file in 1..=8 {
                let number = directory * 8 + file;
                // Half of the files are small, a quarter twice as large, an eighth four times ...
                let size = 3500 << number.trailing_zeros().min(11);
                let content: Vec<u8> =
                    std::iter::repeat_with(|| &words[random.next() as usize % 2048][..6])
                        .flatten()
                        .copied()
                        .take(size)
                        .collect();
                add(&mut tar, EntryType::Regular, &format!("{name}/{file}"), &content)?;
            }
        }
        Ok(tar.into_inner()?.flush()?)
    })
}

fn add(tar: &mut Builder<impl Write>, kind: EntryType, name: &str, content: &[u8]) -> Result<()> {
    Ok(tar.append_data(&mut header(kind, content.len()), name, content)?)
}

fn header(kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_mtime(1_700_000_000);
    header
}

/// Numbers without a pattern that gzip would find, and the same ones each time (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
