//! From an image's configuration and the user's options to an OCI runtime spec: all that
//! [`container`](crate::container) needs to know.
//!
//! Source: [OCI runtime spec, config.md](https://github.com/opencontainers/runtime-spec/blob/main/config.md).

use std::{ffi::OsString, iter, path::Path};

use anyhow::{Context, Result, ensure};
use caps::Capability;
use cgroups::Limits;
use oci_spec::runtime::{
    Capabilities as CapabilitySet, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder,
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, Process, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, User as SpecUser, UserBuilder,
};
use user::{IdMap, map::Range};

use crate::{
    accounts::{Account, Accounts},
    cli::{Capabilities, Net, Run, Volume},
    images::Config,
    resources, security,
};

/// The search path of a container whose image has none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is known of a container before it is made.
pub struct Plan<'a> {
    /// The user's options.
    pub options: &'a Run,
    /// How much of the machine it may use.
    pub limits: &'a Limits,
    /// The container's name.
    pub name: &'a str,
    /// The image's configuration.
    pub config: &'a Config,
    /// The image's users and groups.
    pub accounts: Accounts,
    /// The map of ids.
    pub ids: &'a IdMap,
    /// Where its root file system is mounted, on the host.
    pub root: &'a Path,
    /// Whether it gets a terminal of its own.
    pub terminal: bool,
}

/// Makes the spec of a container.
///
/// # Errors
/// If the image has no command and none is given, or no such user; or the options can't be put into a spec.
pub fn make(plan: &Plan) -> Result<Spec> {
    let options = plan.options;
    let linux = LinuxBuilder::default()
        .namespaces(namespaces(options.net)?)
        .uid_mappings(mappings(&plan.ids.users)?)
        .gid_mappings(mappings(&plan.ids.groups)?)
        .resources(resources::from_limits(plan.limits)?)
        .masked_paths(security::MASKED.map(str::to_owned).to_vec())
        .readonly_paths(security::READ_ONLY.map(str::to_owned).to_vec())
        .build()?;
    let root = RootBuilder::default().path(plan.root).readonly(options.read_only).build()?;
    let mut mounts = system_mounts(plan)?;
    mounts.extend(options.volume.iter().map(volume).collect::<Result<Vec<_>>>()?);
    Ok(SpecBuilder::default()
        .hostname(options.hostname.as_deref().unwrap_or(plan.name))
        .root(root)
        .mounts(mounts)
        .process(process(plan)?)
        .linux(linux)
        .build()?)
}

fn process(plan: &Plan) -> Result<Process> {
    let options = plan.options;
    let wanted = options.user.as_deref().or(plan.config.user.as_deref()).unwrap_or("0");
    let account = plan.accounts.look_up(wanted)?;
    let cwd = options.workdir.as_deref().or(plan.config.working_dir.as_deref()).unwrap_or("/");
    ensure!(cwd.starts_with('/'), "--workdir {cwd}: the path begins with a slash");
    Ok(ProcessBuilder::default()
        .terminal(plan.terminal)
        .args(command(plan)?)
        .env(environment(plan, &account))
        .cwd(cwd)
        .user(user_of(&account)?)
        .capabilities(capabilities(options)?)
        .no_new_privileges(true)
        .build()?)
}

/// Entrypoint and arguments, as docker puts them together.
fn command(plan: &Plan) -> Result<Vec<String>> {
    let options = plan.options;
    let text = |arg: &OsString| {
        arg.to_str()
            .map(str::to_owned)
            .with_context(|| format!("{arg:?} isn't UTF-8, as a spec must be"))
    };
    let given = options.command.iter().map(text).collect::<Result<Vec<_>>>()?;
    let (entrypoint, rest) = match &options.entrypoint {
        // The image's arguments were meant for the image's entrypoint.
        Some(program) => (vec![program.clone()], given),
        None if given.is_empty() => (plan.config.entrypoint.clone(), plan.config.cmd.clone()),
        None => (plan.config.entrypoint.clone(), given),
    };
    let command = [entrypoint, rest].concat();
    Ok(if command.is_empty() { vec!["sh".to_owned()] } else { command })
}

/// The image's variables, then the user's, which win, and those that are expected everywhere.
fn environment(plan: &Plan, account: &Account) -> Vec<String> {
    let given = plan.options.env.iter().filter_map(|variable| match variable.contains('=') {
        true => Some(variable.clone()),
        false => std::env::var(variable).ok().map(|value| format!("{variable}={value}")),
    });
    let mut env: Vec<String> = Vec::new();
    for variable in plan.config.env.iter().cloned().chain(given) {
        let name = variable.split('=').next().unwrap_or_default().to_owned() + "=";
        env.retain(|other| !other.starts_with(&name));
        env.push(variable);
    }
    let term = format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned()));
    let mut defaults = vec![PATH.to_owned(), format!("HOME={}", account.home)];
    defaults.extend(plan.terminal.then_some(term));
    for variable in defaults {
        let name = variable.split('=').next().unwrap_or_default().to_owned() + "=";
        if !env.iter().any(|other| other.starts_with(&name)) {
            env.push(variable);
        }
    }
    env
}

fn user_of(account: &Account) -> Result<SpecUser> {
    // The main group as well: else a program that is set-group-id would let go of it, and of what is
    // closed to it (CVE-2022-36109).
    let others = account.groups.iter().filter(|group| **group != account.gid);
    Ok(UserBuilder::default()
        .uid(account.uid)
        .gid(account.gid)
        .additional_gids(iter::once(&account.gid).chain(others).copied().collect::<Vec<_>>())
        .build()?)
}

/// The usual capabilities, less those dropped and more those added. One that is named wins over ALL.
fn capabilities(options: &Run) -> Result<LinuxCapabilities> {
    let has = |list: &[Capabilities], one: Option<Capability>| {
        list.iter().any(|entry| match (entry, one) {
            (Capabilities::All, None) => true,
            (Capabilities::One(entry), Some(one)) => *entry == one,
            _ => false,
        })
    };
    let kept = |capability: &Capability| {
        if has(&options.cap_drop, Some(*capability)) {
            return false;
        }
        let usual = user::capabilities::DEFAULT.contains(capability);
        has(&options.cap_add, Some(*capability))
            || has(&options.cap_add, None)
            || (usual && !has(&options.cap_drop, None))
    };
    let names = caps::all().into_iter().filter(kept);
    // The two crates have a type each for capabilities; they agree on the names.
    let set = names
        .map(|name| name.to_string().trim_start_matches("CAP_").parse().map_err(Into::into))
        .collect::<Result<CapabilitySet>>()?;
    Ok(LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(CapabilitySet::default())
        .ambient(CapabilitySet::default())
        .build()?)
}

fn namespaces(net: Net) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType::{Ipc, Mount, Network, Pid, User, Uts};
    [Uts, Pid, Mount, User, Network, Ipc]
        .into_iter()
        .filter(|kind| *kind != Network || net != Net::Host)
        .map(|kind| Ok(LinuxNamespaceBuilder::default().typ(kind).build()?))
        .collect()
}

fn mappings(ranges: &[Range]) -> Result<Vec<LinuxIdMapping>> {
    ranges
        .iter()
        .map(|range| {
            Ok(LinuxIdMappingBuilder::default()
                .container_id(range.inside)
                .host_id(range.outside)
                .size(range.count)
                .build()?)
        })
        .collect()
}

/// `/proc`, `/dev` and `/sys`, in the order in which they are mounted.
fn system_mounts(plan: &Plan) -> Result<Vec<Mount>> {
    // The group tty, if the map has it.
    let tty = if plan.ids.maps_group(5) { ",gid=5" } else { "" };
    let pts = format!("nosuid,noexec,newinstance,ptmxmode=0666,mode=0620{tty}");
    [
        ("/proc", "proc", "nosuid,nodev,noexec"),
        ("/dev", "tmpfs", "nosuid,mode=755,size=64k"),
        ("/dev/pts", "devpts", &pts),
        ("/dev/shm", "tmpfs", "nosuid,nodev,noexec,mode=1777,size=64m"),
        ("/dev/mqueue", "mqueue", "nosuid,nodev,noexec"),
        ("/sys", "sysfs", "nosuid,nodev,noexec,ro"),
    ]
    .into_iter()
    .map(|(destination, kind, options)| {
        Ok(MountBuilder::default()
            .destination(destination)
            .typ(kind)
            .source(kind)
            .options(options.split(',').map(str::to_owned).collect::<Vec<_>>())
            .build()?)
    })
    .collect()
}

fn volume(volume: &Volume) -> Result<Mount> {
    let access = if volume.read_only { "ro" } else { "rw" };
    // idmap: its files belong inside to the same numbers as outside.
    let options = ["rbind", access, "idmap"].map(str::to_owned).to_vec();
    Ok(MountBuilder::default()
        .destination(&volume.destination)
        .typ("bind")
        .source(&volume.source)
        .options(options)
        .build()?)
}
