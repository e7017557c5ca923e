//! Where on this machine a group can be made: which controllers are in v2's one tree, which in v1's
//! many, and whose directories the caller may use.
//!
//! Source: [cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html).

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::unistd::{AccessFlags, access, geteuid};
use uts::process;

use crate::write;

/// The generation of a cgroup hierarchy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Version {
    /// One tree for all controllers.
    V2,
    /// A tree for each controller.
    V1,
}

/// A directory in which the container's group is made.
pub(crate) struct Place {
    pub path: PathBuf,
    pub version: Version,
}

/// A mounted tree of groups.
struct Tree {
    /// Where it is mounted.
    mount: PathBuf,
    /// The group of this process, as a path below `mount`.
    own: PathBuf,
    version: Version,
    /// By their names in this version.
    controllers: Vec<String>,
}

/// The places for a group with `wanted` controllers; `true` says that a limit depends on it.
pub(crate) fn places(wanted: &[(&'static str, bool)]) -> Result<Vec<Place>> {
    let trees = trees()?;
    let mut places: Vec<Place> = Vec::new();
    let mut without = Vec::new();
    for &(controller, needed) in wanted {
        let here: Vec<&Tree> = trees.iter().filter(|tree| tree.has(controller)).collect();
        if here.is_empty() && needed {
            bail!(
                "this machine has no controller for {controller}: it isn't among those in \
                /proc/cgroups, or its tree isn't mounted"
            );
        }
        for tree in here {
            match tree.place(controller) {
                Ok(path) if places.iter().any(|place| place.path == path) => {}
                Ok(path) => places.push(Place { path, version: tree.version }),
                Err(error) if needed => return Err(error),
                Err(_) => without.push(controller),
            }
        }
    }
    if places.is_empty() && !without.is_empty() {
        process::note(
            "no control group is delegated to you, so nothing is limited and counted here",
        );
    }
    Ok(places)
}

impl Tree {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == self.name_of(controller))
    }

    /// What this version calls a controller.
    fn name_of<'a>(&self, controller: &'a str) -> &'a str {
        match (self.version, controller) {
            (Version::V1, "io") => "blkio",
            (Version::V2, "cpuacct") => "cpu", // It counts as well.
            _ => controller,
        }
    }

    /// The directory in which to make a group that has `controller`.
    fn place(&self, controller: &str) -> Result<PathBuf> {
        match self.version {
            Version::V1 => self.v1_place(),
            Version::V2 => self.v2_place(self.name_of(controller)),
        }
    }

    /// v1: below the group that we are in, whose limits then hold as well.
    fn v1_place(&self) -> Result<PathBuf> {
        let group = self.mount.join(&self.own);
        let group = if group.exists() { group } else { self.mount.clone() };
        access(&group, AccessFlags::W_OK).with_context(|| {
            format!("{} isn't yours to change: with cgroup v1, limits need root", group.display())
        })?;
        Ok(group)
    }

    /// v2: a group has either processes or children with controllers. So the new one can't be below
    /// our own group, and must be beside it or higher. For root that is the top of the tree.
    fn v2_place(&self, controller: &str) -> Result<PathBuf> {
        let own = self.mount.join(&self.own);
        let mut candidates: Vec<&Path> =
            own.ancestors().skip(1).take_while(|group| group.starts_with(&self.mount)).collect();
        if geteuid().is_root() {
            candidates.retain(|group| *group != self.mount);
            candidates.insert(0, &self.mount);
        }
        // Who moves a process needs permission for the nearest group that is above both places.
        let usable = |group: &Path| {
            access(group, AccessFlags::W_OK).is_ok()
                && access(&group.join("cgroup.procs"), AccessFlags::W_OK).is_ok()
        };
        let group = candidates.into_iter().find(|group| usable(group)).context(
            "no control group is delegated to you; let systemd make one: \
             systemd-run --user --scope -p Delegate=yes -- COMMAND",
        )?;
        enable(group, controller)?;
        Ok(group.to_owned())
    }
}

/// Makes sure that the children of `group` have `controller`.
fn enable(group: &Path, controller: &str) -> Result<()> {
    let has = |file: &str| -> Result<bool> {
        let text = fs::read_to_string(group.join(file))?;
        Ok(text.split_whitespace().any(|name| name == controller))
    };
    if has("cgroup.subtree_control")? {
        return Ok(());
    }
    if !has("cgroup.controllers")? {
        bail!(
            "the controller {controller} isn't delegated to {}; root can do that: systemctl edit \
            user@.service, and there [Service] Delegate=cpu cpuset io memory pids",
            group.display()
        );
    }
    Ok(write(&group.join("cgroup.subtree_control"), &format!("+{controller}"))?)
}

/// The trees that are mounted here. Their type is taken from the list of mounts: a directory
/// with the right name may be on any file system.
fn trees() -> Result<Vec<Tree>> {
    let own = read_at_once("/proc/self/cgroup")?;
    let mounts = read_at_once("/proc/self/mountinfo")?;
    let mut trees: Vec<Tree> = Vec::new();
    for tree in mounts.lines().filter_map(|line| tree(line, &own)) {
        // The same tree may be mounted twice.
        if !trees.iter().any(|t| (t.version, &t.controllers) == (tree.version, &tree.controllers)) {
            trees.push(tree);
        }
    }
    Ok(trees)
}

/// The text of a file in `/proc`. The kernel doesn't say beforehand how long it is, and writes it anew
/// for each read(2): so there is room for all of it at the first.
fn read_at_once(file: &str) -> Result<String> {
    let mut text = String::with_capacity(16 << 10);
    let mut read = || File::open(file)?.read_to_string(&mut text);
    read().with_context(|| file.to_owned())?;
    Ok(text)
}

/// The tree that a line of `/proc/self/mountinfo` describes, if it does, given `/proc/self/cgroup`.
///
/// Source: [proc_pid_mountinfo(5)](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html).
fn tree(mount: &str, own_groups: &str) -> Option<Tree> {
    let (before, after) = mount.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, mount) = (before.next()?, PathBuf::from(before.next()?));
    let mut after = after.split(' ');
    let (version, controllers) = match after.next()? {
        "cgroup2" => (Version::V2, fs::read_to_string(mount.join("cgroup.controllers")).ok()?),
        "cgroup" => (Version::V1, after.nth(1)?.replace(',', " ")),
        _ => return None,
    };
    let controllers: Vec<String> = controllers.split_whitespace().map(str::to_owned).collect();
    // Lines such as `4:memory:/user.slice`, and for v2 `0::/user.slice`.
    let own = own_groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let found = match version {
            Version::V2 => names.is_empty(),
            Version::V1 => {
                !names.is_empty() && names.split(',').all(|n| controllers.iter().any(|c| c == n))
            }
        };
        found.then_some(path)
    })?;
    let own = Path::new(own).strip_prefix(root).unwrap_or(Path::new(""));
    Some(Tree { mount, own: own.to_owned(), version, controllers })
}
