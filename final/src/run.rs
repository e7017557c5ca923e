//! `final run`: from an image to a container that has ended.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use cgroups::Location;
use mnt::rootfs::{self, Rootfs};
use overlay::inside;
use user::IdMap;
use uts::{Janitor, explain};

use crate::{
    accounts::Accounts,
    cli::{Net, Run},
    console::Console,
    container::{self, Container},
    images::{self, Config, Kind},
    spec::{self, Plan},
    store::Store,
};

/// Runs a command in a new container, waits for its end, and removes the container.
///
/// # Errors
/// If the image can't be read, the container can't be made, or there is no such command.
pub fn run(options: &Run, store: Option<PathBuf>) -> Result<ExitCode> {
    explain::start_if(options.explain)?;
    let ids = options.ids.choose()?;
    let store = Store::open(store, &ids)?;
    let id = format!("{:012x}", RandomState::new().hash_one(0) & 0xffff_ffff_ffff);
    let dir = store.container_dir(&id);
    let location = Location::find("final", &options.limits)?;
    // Before there is anything to clean up.
    let _janitor = Janitor::hire(|| {
        location.remove()?;
        inside::remove_dir(&dir, &ids)
    })?;
    inside::make_dir(&dir, &ids)?;
    let base = Base::open(options, &store, &ids, &dir.join("scratch"))?;
    let spec = spec::make(&Plan {
        options,
        name: options.name.as_deref().unwrap_or(&id),
        config: &base.config,
        accounts: Accounts::read(&base.layers)?,
        ids: &ids,
        root: &store.merged(),
        terminal: Console::is_wanted(),
    })?;
    container::run(&Container {
        spec,
        layers: base.layers,
        foreign: base.foreign,
        dir: dir.clone(),
        location: &location,
        cable: options.net == Net::Veth,
        net_rate: options.limits.net_rate,
    })
}

/// What a container is built on.
struct Base {
    /// The directories of its layers, the lowest first.
    layers: Vec<PathBuf>,
    config: Config,
    /// It is a directory of the host's, which may belong to anybody.
    foreign: bool,
    /// Keeps the one that was made of this machine's programs.
    _rootfs: Option<Rootfs>,
}

impl Base {
    fn open(options: &Run, store: &Store, ids: &IdMap, scratch: &Path) -> Result<Self> {
        let Some(reference) = &options.image else {
            let rootfs = rootfs::from_host(ids.root())?;
            let layers = vec![rootfs.to_path_buf()];
            let config = Config::default();
            return Ok(Base { layers, config, foreign: false, _rootfs: Some(rootfs) });
        };
        let name = reference.to_str().context("the name of the image isn't UTF-8")?;
        let (path, tag) = images::split(name)?;
        let image = images::open_cached(&path, tag.as_deref(), &store.images(), scratch)?;
        let layers = store.layers(&image, scratch)?;
        if scratch.exists() {
            fs::remove_dir_all(scratch)?; // Now, and not when the container ends.
        }
        // One that belongs to root inside already was made for containers.
        let foreign = image.kind == Kind::RootfsDirectory
            && fs::metadata(&layers[0])?.uid() != ids.root().0.as_raw();
        Ok(Base { layers, config: image.config, foreign, _rootfs: None })
    }
}
