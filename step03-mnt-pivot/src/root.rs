//! The choice of a root file system, as options of a program.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use nix::unistd::{Gid, Uid, getegid, geteuid};

use crate::rootfs::{self, Rootfs};

/// The root file system that a program runs in.
#[derive(clap::Args)]
pub struct Root {
    /// The root file system [default: one made of this machine's own programs]
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,

    /// Let nothing be written to it
    #[arg(long)]
    pub read_only: bool,
}

impl Root {
    /// The root file system, made if none is given.
    ///
    /// # Errors
    /// If there is no such directory, or as [`rootfs::from_host`].
    pub fn open(&self) -> Result<Rootfs> {
        self.open_for((geteuid(), getegid()))
    }

    /// As [`open`](Root::open); one that is made belongs to `owner`.
    ///
    /// # Errors
    /// As [`open`](Root::open).
    pub fn open_for(&self, owner: (Uid, Gid)) -> Result<Rootfs> {
        let Some(dir) = &self.rootfs else { return rootfs::from_host(owner) };
        let path = fs::canonicalize(dir).with_context(|| format!("--rootfs {}", dir.display()))?;
        ensure!(path.is_dir(), "--rootfs {} isn't a directory", dir.display());
        ensure!(
            path.parent().is_some(),
            "--rootfs / is this machine's own root: give a directory below it"
        );
        Ok(path.into())
    }
}
