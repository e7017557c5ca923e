//! Exercise 8.8: what a container has changed, as `docker diff` tells it.
//!
//! Nobody keeps a record of changes: they can be read from the upper directory, if one knows the marks.
//!
//! | in `upper` | below it | told as |
//! |---|---|---|
//! | a file or link | nothing of that name | `A path`, added |
//! | a file or link | something of that name | `C path`, changed |
//! | a whiteout | the file or directory that it hides | `D path`, deleted |
//! | a directory | nothing | `A path`, and what is in it |
//! | a directory | a directory | nothing but what is in it |
//! | an opaque directory | a directory | also `D` for each name of the lower one that the upper one hasn't got |
//!
//!   changes LOWER UPPER

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Parser;
use uts::process;

/// Tells how an upper directory changes the lower one that it lies on.
#[derive(Parser)]
struct Args {
    lower: PathBuf,
    upper: PathBuf,
}

fn main() -> ExitCode {
    process::main(|args: Args| {
        let mut changes = Vec::new();
        compare(&args.lower, &args.upper, Path::new("/"), false, &mut changes)?;
        changes.sort();
        changes.iter().for_each(|(path, kind)| println!("{kind} {}", path.display()));
        Ok(ExitCode::SUCCESS)
    })
}

/// Adds the changes in the directory `upper` to `changes`. Inside it is called `at`; `lower` is what
/// lies below it, which may not be there. `hidden` says that a directory above is opaque already.
fn compare(
    lower: &Path,
    upper: &Path,
    at: &Path,
    hidden: bool,
    changes: &mut Vec<(PathBuf, char)>,
) -> Result<()> {
    let hidden = hidden || is_opaque(upper);
    for name in names(upper)? {
        let (below, above, path) = (lower.join(&name), upper.join(&name), at.join(&name));
        let is_below = below.symlink_metadata().is_ok();
        let is_dir = above.symlink_metadata()?.is_dir();
        match is_whiteout(&above)? {
            true if is_below => changes.push((path, 'D')),
            true => {} // It hides nothing.
            false => {
                let both_dirs = is_dir && below.symlink_metadata().is_ok_and(|m| m.is_dir());
                if !both_dirs {
                    changes.push((path.clone(), if is_below { 'C' } else { 'A' }));
                }
                if is_dir {
                    compare(&below, &above, &path, hidden, changes)?;
                }
            }
        }
    }
    if hidden && lower.is_dir() {
        let gone = names(lower)?.into_iter().filter(|n| upper.join(n).symlink_metadata().is_err());
        changes.extend(gone.map(|name| (at.join(name), 'D')));
    }
    Ok(())
}

/// Whether the file at `path` is a whiteout: a character device 0:0.
///
/// Source: [overlayfs, "whiteouts and opaque directories"](https://docs.kernel.org/filesystems/overlayfs.html#whiteouts-and-opaque-directories).
fn is_whiteout(path: &Path) -> Result<bool> {
    let data = path.symlink_metadata().with_context(|| path.display().to_string())?;
    Ok(data.file_type().is_char_device() && data.rdev() == 0)
}

/// Whether the directory at `path` hides all that lies below it: it has the attribute
/// `overlay.opaque` with the value `y`, in the family `trusted` or `user`.
///
/// Source: as [`is_whiteout`].
fn is_opaque(path: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0; 2];
        rustix::fs::lgetxattr(path, *name, &mut value[..]) == Ok(1) && value[0] == b'y'
    })
}

/// The names in a directory.
fn names(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    Ok(entries.map(|entry| Ok(entry?.file_name().into())).collect::<std::io::Result<_>>()?)
}
