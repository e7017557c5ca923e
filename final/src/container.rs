//! The life of a container: step 8's story, driven by a spec.

use std::{
    convert::Infallible,
    fs,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use cgroups::{Bytes, Limits, Location, rate};
use mnt::mount;
use nix::{
    mount::MsFlags,
    unistd::{Pid, chdir},
};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Process, Spec};
use overlay::{Marks, Overlay};
use user::{Gate, IdMap, map::Range};
use uts::{CloneFlags, call, process, process::Birth};

use crate::{
    console::Console,
    mounts::{self, Begun},
    resources, security,
};

/// What a container is made of.
pub struct Container<'a> {
    /// All that an OCI spec can say.
    pub spec: Spec,
    /// The directories of its layers, the lowest first.
    pub layers: Vec<PathBuf>,
    /// The lowest layer's files belong to the host's users: inside, to the same numbers.
    pub foreign: bool,
    /// Where it writes to.
    pub upper: Upper,
    /// Where its control group will be.
    pub location: &'a Location,
    /// Whether there is a cable to the host.
    pub cable: bool,
    /// How many bytes per second go through the cable.
    pub net_rate: Option<Bytes>,
}

/// Where a container's own layer is kept.
pub enum Upper {
    /// In this directory, which its root owns.
    Disk(PathBuf),
    /// In memory: a tmpfs that is mounted at this directory inside, and is gone with the container
    /// however that ends.
    Memory(PathBuf),
}

/// Runs a container from its beginning to its end, and gives its exit code.
///
/// # Errors
/// Whatever keeps the container from being made; nothing of it is left then. If it is the command
/// that can't be run, the exit code says so.
pub fn run(container: &Container) -> Result<ExitCode> {
    let spec = &container.spec;
    let linux = spec.linux().as_ref().context("a spec for Linux has a section linux")?;
    let ids = id_map(linux)?;
    let wanted = process_of(spec)?;
    let limits = limits(linux, container.net_rate);

    let cgroup = container.location.create(&limits)?;
    let shift = || user::namespace_with(&ids);
    let begun = Begun::all(spec.mounts().as_deref().unwrap_or_default(), shift)?;
    let lowest = match &container.layers[..] {
        [lowest, ..] if container.foreign => mounts::shifted(lowest, shift)?,
        _ => None,
    };
    let console = (wanted.terminal() == Some(true)).then(Console::new).transpose()?;
    let gate = Gate::new()?;
    let birth = Birth { cgroup: cgroup.directory(), own_terminal: console.is_some() };
    let outside = Outside { begun, lowest, console: &console };
    let child = process::bear(birth, namespaces(linux), || {
        cgroup.enter()?;
        gate.wait()?;
        live(container, linux, &limits, &outside)
    })?;
    user::write_id_maps(child, &ids)?;
    if container.cable {
        plug_in(child, &limits)?;
    }
    gate.open()?;
    match console {
        Some(console) => console.relay(child),
        None => process::wait(child),
    }
}

/// What was made outside for use inside.
struct Outside<'a> {
    begun: Begun,
    /// The lowest layer with its owners shifted.
    lowest: Option<OwnedFd>,
    console: &'a Option<Console>,
}

/// The child's part, up to the command: all of it happens inside.
fn live(
    container: &Container,
    linux: &Linux,
    limits: &Limits,
    outside: &Outside,
) -> Result<Infallible> {
    let spec = &container.spec;
    let wanted = process_of(spec)?;
    let root = spec.root().as_ref().context("a spec has a root")?;
    user::become_root()?;
    if let Some(hostname) = spec.hostname() {
        uts::set_hostname(hostname)?;
    }
    if namespaces(linux).contains(net::NAMESPACE) {
        rate::limit_rate(net::configure()?, limits)?;
    }
    mnt::make_private()?;
    let own_dir = own_dir(&container.upper)?;
    let empty = security::empty_dir(&own_dir.join("empty"))?;
    mount_overlay(container, outside.lowest.as_ref(), own_dir, root.path())?;
    outside.begun.finish(spec.mounts().as_deref().unwrap_or_default(), root.path())?;
    mnt::pivot_into(root.path())?;
    if let Some(console) = outside.console {
        console.open(wanted.user().uid())?;
    }
    security::mask(linux.masked_paths().as_deref().unwrap_or_default(), &empty)?;
    security::make_read_only(linux.readonly_paths().as_deref().unwrap_or_default())?;
    let cwd = make_cwd(wanted)?;
    if root.readonly() == Some(true) {
        mnt::make_root_read_only()?;
    }
    security::limit_privileges(wanted)?;
    call!(chdir(&cwd))?; // As the user: a directory closed to them is closed to the command.
    let (args, env) = (wanted.args().as_deref(), wanted.env().as_deref());
    pid::init(|| process::exec_with(args.unwrap_or_default(), env.unwrap_or_default()))
}

/// The directory of the container's own, outside of its root: on the disk, or mounted here.
fn own_dir(upper: &Upper) -> Result<&Path> {
    match upper {
        Upper::Disk(dir) => Ok(dir),
        Upper::Memory(dir) => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount::mount_new("tmpfs", dir, Path::new("/"), flags, Some("mode=755"))?;
            Ok(dir)
        }
    }
}

/// Mounts the root file system at `root`; what is written to it goes to `own_dir`.
fn mount_overlay(
    container: &Container,
    lowest: Option<&OwnedFd>,
    own_dir: &Path,
    root: &Path,
) -> Result<()> {
    let mut layers = container.layers.clone();
    if let Some(tree) = lowest {
        mount::attach(tree.as_fd(), own_dir, Path::new("/lowest"))?;
        layers[0] = own_dir.join("lowest");
    }
    let overlay = Overlay::new(&layers, own_dir, Marks::User)?;
    match container.upper {
        Upper::Disk(_) => overlay.volatile().mount(root),
        Upper::Memory(_) => overlay.mount(root),
    }
}

/// The directory to start in, made if the image hasn't got it.
fn make_cwd(wanted: &Process) -> Result<PathBuf> {
    let cwd: &Path = wanted.cwd();
    if !cwd.exists() {
        call!("mkdir"(cwd) = fs::create_dir_all(cwd))?;
    }
    Ok(cwd.to_owned())
}

/// Connects the container with the host, at the speed that is asked for.
fn plug_in(child: Pid, limits: &Limits) -> Result<()> {
    let link = net::connect(child)?;
    rate::limit_rate(link.as_deref(), limits)
}

/// The limits of a spec, and the one that no spec knows.
fn limits(linux: &Linux, net_rate: Option<Bytes>) -> Limits {
    let limits = linux.resources().as_ref().map(resources::to_limits).unwrap_or_default();
    Limits { net_rate, ..limits }
}

fn process_of(spec: &Spec) -> Result<&Process> {
    spec.process().as_ref().context("a spec says which process to run")
}

/// The namespaces of a spec, by step.
fn namespaces(linux: &Linux) -> CloneFlags {
    let kinds = linux.namespaces().iter().flatten().map(|namespace| match namespace.typ() {
        LinuxNamespaceType::Uts => uts::NAMESPACE,
        LinuxNamespaceType::Pid => pid::NAMESPACE,
        LinuxNamespaceType::Mount => mnt::NAMESPACE,
        LinuxNamespaceType::User => user::NAMESPACE,
        LinuxNamespaceType::Network => net::NAMESPACE,
        LinuxNamespaceType::Ipc => ipc::NAMESPACE,
        // Not among the six of the ladder, and not asked for by this runtime's own specs.
        LinuxNamespaceType::Cgroup | LinuxNamespaceType::Time => CloneFlags::empty(),
    });
    kinds.fold(CloneFlags::empty(), CloneFlags::union)
}

/// The map of ids that a spec asks for.
fn id_map(linux: &Linux) -> Result<IdMap> {
    let ranges = |mappings: &Option<Vec<LinuxIdMapping>>| -> Result<Vec<Range>> {
        let mappings = mappings.as_ref().context("a user namespace needs a map of ids")?;
        let range = |m: &LinuxIdMapping| Range {
            inside: m.container_id(),
            outside: m.host_id(),
            count: m.size(),
        };
        Ok(mappings.iter().map(range).collect())
    };
    Ok(IdMap { users: ranges(linux.uid_mappings())?, groups: ranges(linux.gid_mappings())? })
}
