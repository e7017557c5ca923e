//! The control groups of this machine, of either generation, as the tests find them: without the
//! code that is under test.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{AccessFlags, Pid, access, geteuid},
};

use crate::{chance::Chance, scenario::skip};

/// A tree of groups.
struct Tree {
    mount: PathBuf,
    /// The group of this process.
    own: PathBuf,
    is_v2: bool,
    controllers: Vec<String>,
}

/// The trees that are mounted and can be seen.
fn trees() -> Result<Vec<Tree>> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let tree = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mount = PathBuf::from(before.split(' ').nth(4)?);
        let after: Vec<&str> = after.split(' ').collect();
        let is_v2 = after[0] == "cgroup2";
        let controllers = match after[0] {
            "cgroup2" => fs::read_to_string(mount.join("cgroup.controllers")).ok()?,
            "cgroup" => after.get(2)?.replace(',', " "),
            _ => return None,
        };
        let controllers: Vec<_> = controllers.split_whitespace().map(str::to_owned).collect();
        let own = groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let is_here = if is_v2 {
                names.is_empty()
            } else {
                names
                    .split(',')
                    .any(|name| !name.is_empty() && controllers.iter().any(|c| c == name))
            };
            is_here.then(|| mount.join(path.trim_start_matches('/')))
        })?;
        let own = if own.exists() { own } else { mount.clone() };
        Some(Tree { mount, own, is_v2, controllers })
    };
    Ok(mounts.lines().filter_map(tree).collect())
}

impl Tree {
    /// Where a group with `controller` can be made by this user.
    fn place(&self, controller: &str) -> Option<PathBuf> {
        let may_write = |path: &Path| access(path, AccessFlags::W_OK).is_ok();
        if !self.controllers.iter().any(|name| name == controller) {
            return None;
        }
        if !self.is_v2 {
            return may_write(&self.own).then(|| self.own.clone());
        }
        let mut places: Vec<&Path> =
            self.own.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.mount)).collect();
        if geteuid().is_root() {
            places.insert(0, &self.mount);
        }
        let has = |dir: &Path, file: &str| {
            let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
            text.split_whitespace().any(|name| name == controller)
        };
        let usable = |dir: &&&Path| {
            may_write(dir) && may_write(&dir.join("cgroup.procs")) && has(dir, "cgroup.controllers")
        };
        let place = places.iter().find(usable)?;
        if !has(place, "cgroup.subtree_control") {
            fs::write(place.join("cgroup.subtree_control"), format!("+{controller}")).ok()?;
        }
        Some(place.to_path_buf())
    }
}

/// Skips the scenario unless this user can limit all of this here.
///
/// # Errors
/// The skip.
pub fn need(controllers: &[&str]) -> Result<()> {
    let trees = trees()?;
    for controller in controllers {
        if !trees.iter().any(|tree| tree.place(controller).is_some()) {
            return skip(format!(
                "no control group with {controller} is delegated to you; for one: \
                 systemd-run --user --scope -p Delegate=yes -- COMMAND"
            ));
        }
    }
    Ok(())
}

/// All groups, of all trees, whose names begin with `prefix`.
///
/// # Errors
/// If `/proc` can't be read.
pub fn named(prefix: &str) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    let mut folders: Vec<PathBuf> = trees()?.into_iter().map(|tree| tree.mount).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.push(entry.path());
            }
            folders.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes groups of these names when it is dropped, whatever became of the code that should have.
pub enum CleanUp {
    /// Names that nobody else uses: with all that is in them.
    Own(String),
    /// Names that others use too: what is empty, and stays so.
    Left(&'static str),
}

impl Drop for CleanUp {
    fn drop(&mut self) {
        match self {
            CleanUp::Own(prefix) => {
                for group in named(prefix).unwrap_or_default() {
                    let _ = remove(&group);
                }
            }
            CleanUp::Left(prefix) => {
                let is_empty = |group: &PathBuf| {
                    fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|pids| pids.is_empty())
                };
                let mut left = named(prefix).unwrap_or_default();
                left.retain(is_empty);
                if left.is_empty() {
                    return;
                }
                // One that was just made gets its process soon.
                thread::sleep(Duration::from_secs(2));
                for group in left.iter().filter(|group| is_empty(group)) {
                    let _ = fs::remove_dir(group);
                }
            }
        }
    }
}

/// Kills what is in a group and removes it.
fn remove(group: &Path) -> Result<()> {
    let patience = Instant::now() + Duration::from_secs(10);
    while group.exists() && fs::remove_dir(group).is_err() {
        let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if Instant::now() > patience {
            bail!("can't remove {}", group.display());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A group with one controller, made by hand for a test.
pub struct Group {
    /// Its directory.
    pub path: PathBuf,
    /// Whether it is a group of cgroup v2.
    pub is_v2: bool,
    /// The group of this process until then.
    home: PathBuf,
}

impl Group {
    /// Makes it, with a name that nobody uses who has another `topic`.
    ///
    /// # Errors
    /// A skip, if no group can be made here.
    pub fn make(topic: &str, controller: &str) -> Result<Self> {
        need(&[controller])?;
        let place = |tree: &Tree| Some((tree.place(controller)?, tree.own.clone(), tree.is_v2));
        let (place, home, is_v2) = trees()?.iter().find_map(place).context("there was a place")?;
        let path = place.join(Chance::new(topic).needle());
        fs::create_dir(&path).with_context(|| format!("mkdir {}", path.display()))?;
        Ok(Group { path, is_v2, home })
    }

    /// Writes to one of its files.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, file: &str, value: &str) -> std::io::Result<()> {
        fs::write(self.path.join(file), value)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // This process may be in it.
        let _ = fs::write(self.home.join("cgroup.procs"), std::process::id().to_string());
        let _ = remove(&self.path);
    }
}
