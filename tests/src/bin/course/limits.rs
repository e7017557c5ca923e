//! What code that nobody has read may use: memory, processes, time.
//!
//! A control group limits all of it together, where one can be had: always for root, and for a user
//! to whom the machine has delegated one. Everywhere, resource limits hold for each process.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Result;
use nix::sys::{
    resource::{Resource, setrlimit},
    signal::{Signal, kill},
};
use nix::unistd::Pid;

/// Memory of all processes together.
pub const MEMORY: u64 = 3 << 30;
/// Processes and threads of one lab at a time.
const PROCESSES: u64 = 400;
/// Those of all together: two labs, and the grader itself, which has to be able to go on.
const ALL_PROCESSES: u64 = 2 * PROCESSES + 100;
/// The largest file.
const FILE: u64 = 1 << 30;
/// Seconds of CPU time of one process.
const CPU: u64 = 300;

/// Limits this process and all that come from it, each for itself.
pub fn limit_each() -> Result<()> {
    for (resource, limit) in [
        (Resource::RLIMIT_NPROC, PROCESSES),
        (Resource::RLIMIT_FSIZE, FILE),
        (Resource::RLIMIT_CPU, CPU),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, limit, limit)?;
    }
    Ok(())
}

/// A control group, in each hierarchy that has one of the controllers. Dropped, it is gone.
pub struct Group(Vec<PathBuf>);

impl Group {
    /// Makes one, if that can be had here, and moves this process into it.
    pub fn enter(name: &str) -> Group {
        let mut made = Group(vec![]);
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let settings = [
            ("memory", "memory.max", "memory.limit_in_bytes", MEMORY),
            ("pids", "pids.max", "pids.max", ALL_PROCESSES),
            // Not limited, but to be limited by the steps: on v1 each has a group of its own.
            ("cpu", "cgroup.procs", "cgroup.procs", 0),
            ("cpuacct", "cgroup.procs", "cgroup.procs", 0),
            ("blkio", "cgroup.procs", "cgroup.procs", 0),
        ];
        for (controller, v2, v1, limit) in settings {
            let place = own.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                controllers.split(',').any(|c| c == controller).then_some(path)
            });
            let (top, path, file) = match place {
                Some(path) => (format!("/sys/fs/cgroup/{controller}"), path, v1),
                None => {
                    let unified = own.lines().find_map(|line| line.strip_prefix("0::"));
                    ("/sys/fs/cgroup".into(), unified.unwrap_or("/"), v2)
                }
            };
            made.add(&Path::new(&top).join(path.trim_start_matches('/')), name, file, limit);
        }
        made
    }

    /// Makes a group in the first folder, from `at` upwards, in which this limit can be set.
    fn add(&mut self, at: &Path, name: &str, file: &str, limit: u64) {
        let hierarchy = |folder: &&Path| folder.join("cgroup.procs").exists();
        for parent in at.ancestors().take_while(hierarchy) {
            let group = parent.join(name);
            let known = self.0.contains(&group);
            if !known && fs::create_dir(&group).is_err() {
                continue;
            }
            let limited = fs::OpenOptions::new().write(true).open(group.join(file)).is_ok()
                && fs::write(group.join(file), limit.to_string()).is_ok()
                && fs::write(group.join("cgroup.procs"), "0").is_ok();
            if limited || known {
                self.0.extend((!known).then_some(group));
                return;
            }
            let _ = fs::remove_dir(&group);
        }
    }

    /// Lets a lab make groups of its own below, as systemd delegates one to a user.
    pub fn give_to(&self, owner: u32) {
        for group in &self.0 {
            for file in ["", "cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads"] {
                let _ = std::os::unix::fs::chown(group.join(file), Some(owner), Some(owner));
            }
        }
    }

    /// Whether memory and processes are limited as a whole.
    pub fn holds(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Kills what is in a group of this name, wherever it was made, and removes it.
pub fn remove_group(name: &str) {
    let mut folders = vec![];
    for top in ["", "memory", "pids", "cpu", "cpuacct", "blkio"] {
        let top = Path::new("/sys/fs/cgroup").join(top);
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        for path in own.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
            let at = top.join(path.trim_start_matches('/'));
            folders.extend(at.ancestors().map(|parent| parent.join(name)));
        }
    }
    folders.sort();
    folders.dedup();
    for group in folders.iter().filter(|group| group.join("cgroup.procs").exists()) {
        empty(group);
    }
}

/// Kills what is in a group and in those that were made in it, and removes them all.
fn empty(group: &Path) {
    for _ in 0..100 {
        let inner = fs::read_dir(group).into_iter().flatten().flatten();
        inner
            .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()))
            .for_each(|e| empty(&e.path()));
        let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if fs::remove_dir(group).is_ok() {
            break;
        }
        // A killed process leaves its group when it has ended, which takes a moment.
        thread::sleep(Duration::from_millis(20));
    }
}
