//! `final run`: from an image to a container that has ended.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use cgroups::{Limits, Location};
use mnt::rootfs::{self, Rootfs};
use overlay::inside;
use user::IdMap;
use uts::{Janitor, explain, unique_name};

use crate::{
    accounts::Accounts,
    cli::{Net, Run},
    console::Console,
    container::{self, Container, Upper},
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
    let id = unique_name("");
    let base = Base::open(options, &store, &ids)?;
    let (limits, location) = limits_here(&options.limits)?;
    let on_disk = options.disk || !inside::memory_keeps_marks();
    let dir = on_disk.then(|| store.container_dir(&id));
    let spec = spec::make(&Plan {
        options,
        limits: &limits,
        name: options.name.as_deref().unwrap_or(&id),
        config: &base.config,
        accounts: Accounts::read(&base.layers)?,
        ids: &ids,
        root: &store.merged(),
        terminal: Console::is_wanted(),
    })?;
    // Before there is anything to clean up, and after what fills memory: two processes share it until one
    // of them changes it, and each page that is changed has to be copied.
    let clean_up =
        || dir.iter().try_for_each(|dir| inside::remove_dir(dir, &ids)).and(location.remove());
    let _janitor = match on_disk || !location.is_empty() {
        true => Some(Janitor::hire(clean_up)?),
        false => None,
    };
    if let Some(dir) = &dir {
        inside::make_dir(dir, &ids)?;
    }
    container::run(&Container {
        spec,
        layers: base.layers,
        foreign: base.foreign,
        upper: match &dir {
            Some(dir) => Upper::Disk(dir.clone()),
            None => Upper::Memory(store.containers()),
        },
        location: &location,
        cable: options.net == Net::Veth,
        net_rate: limits.net_rate,
    })
}

/// How many processes a container may have if nobody says: a fork bomb stops there.
const PIDS: u64 = 4096;

/// The limits and where they are kept. The default one is left out where no control group can be made.
fn limits_here(wanted: &Limits) -> Result<(Limits, Location)> {
    let find = |limits: Limits| Ok((limits.clone(), Location::find_for_limits("final", &limits)?));
    match wanted.pids {
        Some(_) => find(wanted.clone()),
        None => {
            find(Limits { pids: Some(PIDS), ..wanted.clone() }).or_else(|_| find(wanted.clone()))
        }
    }
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
    fn open(options: &Run, store: &Store, ids: &IdMap) -> Result<Self> {
        let Some(reference) = &options.image else {
            let rootfs = rootfs::from_host(ids.root())?;
            let layers = vec![rootfs.to_path_buf()];
            let config = Config::default();
            return Ok(Base { layers, config, foreign: false, _rootfs: Some(rootfs) });
        };
        let name = reference.to_str().context("the name of the image isn't UTF-8")?;
        let (path, tag) = images::split(name)?;
        let (image, layers) = match store.remembered(&path, tag.as_deref())? {
            Some(ready) => ready,
            None => store.unpack(&path, tag.as_deref())?,
        };
        // One that belongs to root inside already was made for containers.
        let foreign = image.kind == Kind::RootfsDirectory
            && fs::metadata(&layers[0])?.uid() != ids.root().0.as_raw();
        Ok(Base { layers, config: image.config, foreign, _rootfs: None })
    }
}
