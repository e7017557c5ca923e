//! # Step 7: limits on memory, CPU, processes and I/O
//!
//! Namespaces decide what a process can *see*. How much it can *use* is decided by control groups:
//! a tree of groups, shown as directories, in which every process is in one place. A *controller*
//! watches over one resource in every group. A limit is set by writing to a file, and what was used is read from one.
//!
//! There are two generations. In **v2** all controllers share one tree. In **v1** each has a tree of its own,
//! with other file names; [`setting`] shows them side by side. A machine may use both.
//!
//! A process must be in its group *before its first instruction*. One that is moved later may have
//! started others by then, and they escape the limits. In v2 it is born into the group
//! ([`Cgroup::directory`], `CLONE_INTO_CGROUP`); in v1 it moves itself before anything else ([`Cgroup::enter`]).
//!
//! v2 has no controller for the network. There, [`rate`] limits what goes through the cable.

mod hierarchy;
mod limits;
pub mod rate;
pub mod setting;
mod stats;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use uts::{call, call::CallError, call::Hint, unique_name};

pub use hierarchy::Version;
pub use limits::{Bytes, Io, Limits};
pub use stats::Stats;

use crate::hierarchy::Place;

/// Where a container's control group will be. In v1 that is one directory for each controller.
///
/// It is found first, and made later, so that whoever cleans up ([`uts::Janitor`]) can be told before
/// there is something to clean up.
pub struct Location(Vec<Place>);

/// A container's control group.
pub struct Cgroup(Vec<Group>);

/// One directory of a container's control group.
struct Group {
    path: PathBuf,
    version: Version,
    /// v2: the directory, to be born into. v1: the file `tasks`, to write oneself into.
    door: File,
}

impl Location {
    /// Finds where a group with `limits` can be made. Its name begins with `name`.
    ///
    /// Where the caller may make no group and no limit is asked for, there is none, and the user is
    /// told so.
    ///
    /// # Errors
    /// If a limit is asked for that can't be kept here: `EACCES` for a user to whom no group is
    /// delegated, or there is no such controller.
    pub fn find(name: &str, limits: &Limits) -> Result<Self> {
        let counters = setting::controllers(limits).into_iter().chain([("cpuacct", false)]);
        Self::with(name, counters)
    }

    fn with(name: &str, controllers: impl Iterator<Item = (&'static str, bool)>) -> Result<Self> {
        let mut places = hierarchy::places(&controllers.collect::<Vec<_>>())?;
        let name = unique_name(&format!("{name}-"));
        places.iter_mut().for_each(|place| place.path.push(&name));
        Ok(Location(places))
    }

    /// As [`find`](Location::find), with no more controllers than the limits need: less is counted, and
    /// less is made.
    ///
    /// # Errors
    /// As [`find`](Location::find).
    pub fn find_for_limits(name: &str, limits: &Limits) -> Result<Self> {
        Self::with(name, setting::controllers(limits).into_iter().filter(|(_, needed)| *needed))
    }

    /// Whether nothing is limited or counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the group, with `limits`.
    ///
    /// # Errors
    /// `ENOSPC` if there are too many groups; `EINVAL` or `EBUSY` for a limit that can't be set.
    ///
    /// Source: [cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html),
    /// [cgroup v2](https://docs.kernel.org/admin-guide/cgroup-v2.html).
    pub fn create(&self, limits: &Limits) -> Result<Cgroup> {
        let cgroup = Cgroup(self.0.iter().map(Group::create).collect::<Result<_>>()?);
        for setting in setting::settings(limits)? {
            cgroup.set(&setting)?;
        }
        Ok(cgroup)
    }

    /// Kills whatever runs in the group, and removes it. It is content to find none.
    ///
    /// # Errors
    /// `EPERM` for processes of another user.
    pub fn remove(&self) -> Result<()> {
        self.0.iter().try_for_each(|place| remove(&place.path))
    }
}

impl Cgroup {
    /// The directory to give to `spawn_into`: the child is born in this group. `None` where v1 holds
    /// the limits, and the child calls [`enter`](Cgroup::enter).
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.0.iter().find(|group| group.version == Version::V2).map(|group| group.door.as_fd())
    }

    /// Puts the calling process into the v1 groups. To be called in the child, before it does or starts anything.
    ///
    /// The files were opened by the parent, and the kernel asks whoever opened them for permission.
    /// And a process that moves itself, as the only thread (`tasks`, not `cgroup.procs`),
    /// needn't wait for the rest of the kernel: that would take 11 ms instead of 0.1.
    ///
    /// # Errors
    /// `ENOSPC` if the group of a controller isn't ready for processes.
    pub fn enter(&self) -> Result<()> {
        for group in self.0.iter().filter(|group| group.version == Version::V1) {
            call!("write"(group.path.join("tasks"), "0") = (&group.door).write_all(b"0"))?;
        }
        Ok(())
    }

    /// Kills all processes in the group.
    ///
    /// # Errors
    /// `EPERM` for processes of another user.
    pub fn kill(&self) -> Result<()> {
        self.0.iter().try_for_each(|group| kill_all(&group.path))
    }

    /// What the processes in the group have used so far. `None` if there is no group.
    ///
    /// # Errors
    /// If a control file can't be read.
    pub fn stats(&self) -> Result<Option<Stats>> {
        stats::read(self.0.iter().map(|group| (&*group.path, group.version)))
    }

    /// Writes one setting into the group that has its controller.
    fn set(&self, setting: &setting::Setting) -> Result<()> {
        for group in &self.0 {
            let path = group.path.join(setting.file(group.version));
            match OpenOptions::new().write(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // Another group has it.
                file => return Ok(write_to(file, &path, &setting.value(group.version))?),
            }
        }
        setting.missing()
    }
}

impl Group {
    fn create(place: &Place) -> Result<Self> {
        let (path, version) = (place.path.clone(), place.version);
        call!("mkdir"(&path) = fs::create_dir(&path))
            .hint(Errno::EEXIST, "a group of this name was left behind by another program")
            .hint(
                Errno::ENOSPC,
                "there are too many groups, or the limit cgroup.max.descendants is reached",
            )?;
        let door = match version {
            Version::V2 => File::open(&path)?,
            Version::V1 => OpenOptions::new().write(true).open(path.join("tasks"))?,
        };
        Ok(Group { path, version, door })
    }
}

/// Writes to a control file. It is never created: on a file system that isn't a cgroup
/// hierarchy, that would make an ordinary file which limits nothing.
fn write(path: &Path, value: &str) -> Result<(), CallError> {
    write_to(OpenOptions::new().write(true).open(path), path, value)
}

fn write_to(file: io::Result<File>, path: &Path, value: &str) -> Result<(), CallError> {
    call!("write"(path, value) = file.and_then(|mut file| file.write_all(value.as_bytes())))
        .hint(Errno::EINVAL, "the kernel doesn't take this value")
        .hint(
            Errno::EBUSY,
            "the group uses more than this already, or has processes and children at once",
        )
}

/// Kills whatever is in the group at `path` and removes it; content to find none.
///
/// A killed process leaves its group only when it has ended, which takes a moment.
fn remove(path: &Path) -> Result<()> {
    let patience = Instant::now() + Duration::from_secs(10);
    let mut pause = Duration::from_micros(100);
    loop {
        match call!("rmdir"(path) = fs::remove_dir(path)) {
            Err(error) if error.errno() == Errno::EBUSY && Instant::now() < patience => {
                kill_all(path)?;
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(error) if error.errno() != Errno::ENOENT => return Err(error.into()),
            _ => return Ok(()),
        }
    }
}

fn kill_all(group: &Path) -> Result<()> {
    if fs::write(group.join("cgroup.kill"), "1").is_ok() {
        return Ok(()); // v2, since Linux 5.14: all at once.
    }
    let pids = match fs::read_to_string(group.join("cgroup.procs")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        pids => pids?,
    };
    for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
