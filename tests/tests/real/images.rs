//! Images made by other people's tools, once: they are kept in the target folder.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};
use tests::{programs, run::finish_within, scenario::skip};

/// How long it may take to make one: Debian is installed.
const LIMIT: Duration = Duration::from_secs(170);

/// A small image with a shell, as an OCI layout of two layers.
pub fn small() -> Result<String> {
    Ok(format!("{}/image:small", made("small", include_str!("small.sh"))?.display()))
}

/// Debian with nginx and redis, as an OCI layout of two layers.
pub fn server() -> Result<String> {
    Ok(format!("{}/image:server", made("server", include_str!("server.sh"))?.display()))
}

/// The same as a docker archive.
pub fn server_archive() -> Result<String> {
    Ok(format!("{}/docker.tar", made("server", include_str!("server.sh"))?.display()))
}

/// A store that is kept with the images: in an unoptimised build, to unpack Debian takes half a minute.
pub fn store() -> Result<String> {
    let folder = folder()?;
    // A guest machine sees it through a file system that can't hold layers.
    let shared = statfs(&folder)?.filesystem_type() == FUSE_SUPER_MAGIC;
    Ok(if shared { "/tmp/store".to_owned() } else { format!("{}/store", folder.display()) })
}

/// A root file system with a shell and what `add`, a shell script that runs in it, does to it.
pub fn directory(at: &Path, add: &str) -> Result<()> {
    let busybox = "mkdir bin; cp $(command -v busybox) bin/
        for name in cat chown id ls rm sh stat; do ln -s busybox bin/$name; done";
    fs::create_dir(at)?;
    let script = format!("{busybox}\n{add}");
    let mut sh = programs::clean("sh");
    finish_within(LIMIT, sh.args(["-euc", &script]).current_dir(at))?.success()?;
    Ok(())
}

/// The folder in which a script has made an image. It has a new name when the script changes.
fn made(name: &str, script: &str) -> Result<PathBuf> {
    let mut hash = DefaultHasher::new();
    script.hash(&mut hash);
    let dir = folder()?.join(format!("{name}-{:016x}", hash.finish()));
    if dir.exists() {
        return Ok(dir);
    }
    let new = dir.with_extension("new");
    let _ = fs::remove_dir_all(&new); // Of a run that was killed.
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&new)?;
    let mut sh = programs::clean("sh");
    let run = finish_within(LIMIT, sh.args(["-euc", script]).current_dir(&new))?;
    if run.code == 77 {
        return skip(run.stdout.trim().to_owned());
    }
    run.success().with_context(|| format!("making the image {name}"))?;
    fs::rename(&new, &dir)?;
    Ok(dir)
}

fn folder() -> Result<PathBuf> {
    let bin = programs::bin_dir();
    Ok(bin.parent().context("a target folder has one above")?.join("real-images"))
}
