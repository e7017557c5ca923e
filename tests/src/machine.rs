//! What a program could leave behind on a machine, as a list that can be compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use nix::unistd::{AccessFlags, access};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::{programs, run, scenario::Place};

/// How long what was left may take to vanish: the kernel and the janitors work on after a kill.
const LIMIT: Duration = Duration::from_secs(30);

/// The state of a machine, by topics.
#[derive(PartialEq, Eq)]
pub struct Machine(BTreeMap<&'static str, BTreeSet<String>>);

impl Machine {
    /// Looks at the machine, as this process sees it.
    pub fn now() -> Self {
        Machine(BTreeMap::from([
            ("mounts", mounts()),
            (LINKS, network()),
            ("packet filter", packet_filter()),
            (GROUPS, control_groups()),
            ("settings", settings()),
            (PROCESSES, processes()),
            (FILES, files()),
            ("IPC objects", ipc_objects()),
        ]))
    }

    /// The same with the files that are there now: a program has filled its cache.
    pub fn with_files(mut self) -> Self {
        self.0.insert(FILES, files());
        self
    }

    /// Waits until the machine is again as it was when this state was taken.
    ///
    /// # Errors
    /// What is new and what is missing, if that is not so within half a minute.
    pub fn is_back(&self) -> Result<()> {
        let deadline = Instant::now() + run::limit(LIMIT);
        loop {
            let difference = self.difference(&Machine::now());
            if difference.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("something was left behind:\n{difference}");
            }
            // Nothing tells that a namespace has been torn down, so ask again.
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn difference(&self, now: &Machine) -> String {
        let mut text = String::new();
        for (topic, before) in &self.0 {
            let after = &now.0[topic];
            for gone in before.difference(after).filter(|_| !comes_and_goes(topic)) {
                let _ = writeln!(text, "  {topic}: - {gone}");
            }
            for new in after.difference(before) {
                let _ = writeln!(text, "  {topic}: + {new}");
            }
        }
        text
    }
}

/// Whether others may remove such things, too: on a machine that isn't the scenario's alone.
fn comes_and_goes(topic: &str) -> bool {
    Place::current() != Place::Lab && matches!(topic, PROCESSES | GROUPS | LINKS)
}

const PROCESSES: &str = "processes";
const GROUPS: &str = "control groups";
const FILES: &str = "files";
const LINKS: &str = "links, addresses and routes";

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

fn read(file: impl AsRef<Path>) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// The names in a folder, with their paths.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn mounts() -> BTreeSet<String> {
    lines(&read("/proc/self/mountinfo"))
}

fn network() -> BTreeSet<String> {
    let mut found: BTreeSet<String> =
        entries(Path::new("/sys/class/net")).iter().map(|p| p.display().to_string()).collect();
    for (name, table) in [("link", "dev"), ("IPv4", "route"), ("IPv6", "if_inet6")] {
        let table = read(format!("/proc/self/net/{table}"));
        // The counters of /proc/net/dev go on counting.
        let stable = |line: &str| match name {
            "link" => line.split(':').next().unwrap_or_default().trim().to_owned(),
            _ => line.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        found.extend(table.lines().map(|line| format!("{name} {}", stable(line))));
    }
    found
}

fn packet_filter() -> BTreeSet<String> {
    match run::finish(programs::clean("nft").args(["list", "ruleset"])) {
        Ok(rules) if rules.code == 0 => lines(&rules.stdout),
        _ => BTreeSet::new(), // There is no nft, or this user may not ask.
    }
}

/// All groups of all hierarchies that are mounted.
fn control_groups() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if Place::current() == Place::Lab {
        return found; // They are the machine's, and other labs are busy there.
    }
    let mounts = read("/proc/self/mountinfo");
    let hierarchies = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let mut folders: Vec<PathBuf> =
        hierarchies.filter_map(|line| Some(line.split(' ').nth(4)?.into())).collect();
    while let Some(folder) = folders.pop() {
        folders.extend(entries(&folder).into_iter().filter(|path| path.is_dir()));
        found.insert(folder.display().to_string());
    }
    found
}

/// The settings that concern the whole host and that a container runtime is tempted to change.
fn settings() -> BTreeSet<String> {
    let mut names: Vec<PathBuf> = [
        "kernel/hostname",
        "kernel/domainname",
        "kernel/core_pattern",
        "net/ipv4/ip_forward",
        "net/ipv4/ip_unprivileged_port_start",
        "net/ipv4/ping_group_range",
        "net/ipv6/conf/all/forwarding",
        "user/max_user_namespaces",
    ]
    .map(|name| Path::new("/proc/sys").join(name))
    .into();
    names.extend(
        entries(Path::new("/proc/sys/net/ipv4/conf"))
            .into_iter()
            // A veth link is listed as a link already.
            .filter(|link| !link.to_string_lossy().contains("/veth"))
            .flat_map(|link| [link.join("route_localnet"), link.join("forwarding")]),
    );
    names.iter().map(|file| format!("{} = {}", file.display(), read(file).trim())).collect()
}

/// The processes of this project's programs; in the lab all, since nobody else is there.
fn processes() -> BTreeSet<String> {
    let own = |name: &str| name.starts_with("step0") || name.starts_with("final");
    let lab = Place::current() == Place::Lab;
    let numbers = entries(Path::new("/proc"));
    let names = numbers.iter().filter_map(|path| {
        path.file_name()?.to_str()?.parse::<u32>().ok()?;
        let status = read(path.join("status"));
        let field = |name| status.lines().find_map(|line: &str| line.strip_prefix(name));
        let name = field("Name:\t")?;
        // It has ended, and the machine's init is in no hurry to take note.
        let left_to_init = field("State:\tZ").is_some() && field("PPid:\t") == Some("1");
        ((own(name) || lab) && !left_to_init).then(|| format!("{} {name}", path.display()))
    });
    names.collect()
}

/// The files that a program may have forgotten, in all folders that are made for forgetting.
fn files() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let own = nix::unistd::geteuid().as_raw();
    // The lab's are its own, and so are root's; in a user's look for the user's own.
    let shared = Place::current() == Place::User;
    let mut folders: Vec<PathBuf> =
        ["/tmp", "/var/tmp", "/run", "/dev/shm"].map(PathBuf::from).into();
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    folders.extend([".local/share", ".local/state"].map(|dir| home.join(dir)));
    // In the lab, what is read-only can be changed by others alone.
    folders.retain(|folder| access(folder, AccessFlags::W_OK).is_ok());
    let var = ["/var/lib", "/var/run", "/var/cache"].map(PathBuf::from);
    for path in var.iter().flat_map(|folder| entries(folder)) {
        found.insert(path.display().to_string());
    }
    let kept = programs::bin_dir();
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            let Ok(data) = path.symlink_metadata() else { continue };
            if shared && data.uid() != own {
                continue;
            }
            // The folders of the project itself, which may lie in /tmp, are busy.
            if data.is_dir()
                && !kept.starts_with(&path)
                && !programs::workspace().starts_with(&path)
            {
                folders.push(path.clone());
            }
            found.insert(path.display().to_string());
        }
    }
    found
}

fn ipc_objects() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for kind in ["msg", "sem", "shm"] {
        let table = read(format!("/proc/sysvipc/{kind}"));
        // Key and id: the rest says who used it last.
        let name = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        found.extend(table.lines().skip(1).map(|line| format!("{kind} {}", name(line))));
    }
    found.extend(queues());
    found
}

/// The POSIX message queues, even where nobody has mounted them: many a machine has no `/dev/mqueue`.
fn queues() -> BTreeSet<String> {
    // A mount that has no place, so that nobody else sees it. It takes root.
    let mount = fsopen("mqueue", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    });
    let folder = match &mount {
        Ok(mount) => format!("/proc/self/fd/{}", mount.as_raw_fd()),
        Err(_) => "/dev/mqueue".to_owned(),
    };
    let name = |path: &PathBuf| path.file_name().map(|name| name.display().to_string());
    let all = entries(Path::new(&folder));
    all.iter().filter_map(name).map(|name| format!("message queue /{name}")).collect()
}
