//! `cargo course lab`: a throw-away host, made of what the steps teach.
//!
//! Inside, one is root and has every capability over the lab's own mounts, links, names and
//! processes, and over nothing of this machine. So steps 1 to 3 run without sudo, and whatever goes
//! wrong is gone when the lab is left. What can be written to is the lab's own, `/tmp` and `/run`,
//! the project's folder and its caches; all other files are there to be read. The control groups
//! are the machine's.
//!
//! Its `/` is a shared mount, as it is on a machine that systemd has started: there a program that
//! forgets to make its mounts private spoils the host, and here it is seen to.

use std::{
    convert::Infallible,
    env,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};
use nix::{mount::MsFlags, sched::CloneFlags, unistd::geteuid};

use crate::{
    limits,
    mounts::{self, INERT, Kept},
    namespaces::{self, Ids},
    sandbox,
};

/// Enters a throw-away host, in which you are root and can break nothing.
///
/// Its mounts, links, names, processes and its /tmp and /run are its own, and gone when you leave.
/// Your files are there to be read; the project's folder can be written to as well. The built
/// steps are in PATH. Needs no root.
///
///   cargo course lab
///   cargo course lab -- step01-uts hostname
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Lab {
    /// Have mounts, /tmp and /run of your own and nothing else; needs root
    #[arg(long, hide = true)]
    this_machine: bool,

    /// Be nobody outside, with limits, in a place that was prepared: see sandbox.rs
    #[arg(long, hide = true)]
    sandboxed: bool,

    /// The program to run in the lab, and its arguments [default: a shell]
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// The environment variable that says that this is the lab.
const MARK: &str = "CONTAINERS_LAB";

/// Everything of its own but the control groups and the clocks.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWUSER
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWPID);

/// Runs a program in the lab, and waits for its end.
pub fn enter(lab: &Lab) -> Result<ExitCode> {
    if env::var_os(MARK).is_some() {
        bail!("this is the lab already: `exit` leaves it");
    }
    if lab.this_machine {
        return namespaces::run(
            CloneFlags::CLONE_NEWNS,
            |_| Ok(()),
            |gate| {
                gate.wait()?;
                furnish_machine()?;
                become_command(&lab.command)
            },
        );
    }
    if lab.sandboxed {
        return enter_sandboxed(lab);
    }
    let ids = Ids::own()?;
    namespaces::run(
        NAMESPACES,
        |child| ids.write(child),
        |gate| {
            gate.wait()?;
            move_in()?;
            furnish()?;
            namespaces::live_as_init(command(&lab.command)?)
        },
    )
}

/// As [`enter`], for code that nobody has read.
fn enter_sandboxed(lab: &Lab) -> Result<ExitCode> {
    let ids = sandbox::ids_of_lab()?.ids;
    limits::limit_each()?;
    namespaces::run(
        NAMESPACES,
        |child| ids.write(child),
        |gate| {
            gate.wait()?;
            move_in()?;
            mounts::spread(MsFlags::MS_PRIVATE)?;
            let groups = Path::new("/sys/fs/cgroup");
            let groups = groups.is_dir().then(|| Kept::open(groups)).transpose()?;
            mount_own_views("mode=1777,size=64m")?;
            groups.iter().try_for_each(|groups| groups.restore(Path::new("/")))?;
            for folder in ["/tmp", "/run", "/var/cache", "/var/lib", "/var/tmp", "/root"] {
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                let size =
                    if folder == "/tmp" { "mode=755,size=256m" } else { "mode=755,size=64m" };
                mounts::new("tmpfs", Path::new(folder), flags, Some(size))?;
            }
            fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777))?;
            // As on a machine where the steps have run before.
            fs::create_dir("/var/cache/containers-from-scratch")?;
            mounts::spread(MsFlags::MS_SHARED)?;
            let mut command = command(&lab.command)?;
            // What was asked for, and nothing that belongs to the grader.
            command.env("PATH", env::var_os("PATH").unwrap_or_default());
            namespaces::live_as_init(command)
        },
    )
}

/// Takes the new namespaces into possession.
fn move_in() -> Result<()> {
    namespaces::become_root()?;
    nix::unistd::sethostname("lab")?;
    namespaces::switch_on_loopback()
}

/// Makes the lab's file system out of the machine's.
fn furnish() -> Result<()> {
    mounts::spread(MsFlags::MS_PRIVATE)?;
    let kept = writable().iter().map(|folder| Kept::open(folder)).collect::<Result<Vec<_>>>()?;
    let groups = Path::new("/sys/fs/cgroup");
    // A new /sys comes without the control groups, so the machine's are carried over.
    let groups = groups.is_dir().then(|| Kept::open(groups)).transpose()?;
    let devices = Kept::open(Path::new("/dev"))?;
    mounts::make_all_read_only()?;
    devices.restore(Path::new("/"))?;
    mount_own_views("mode=1777")?;
    mount_scratch()?;
    for folder in kept.iter().chain(&groups) {
        folder.restore(Path::new("/"))?;
    }
    enter_working_directory();
    // Last of all: from a shared mount nothing could be moved.
    mounts::spread(MsFlags::MS_SHARED)
}

/// As [`furnish`], for this machine itself: with its own processes, links and control groups.
fn furnish_machine() -> Result<()> {
    mounts::spread(MsFlags::MS_PRIVATE)?;
    let covered = |folder: &&PathBuf| is_below_scratch(folder);
    let folders = writable();
    let kept = folders.iter().filter(covered).map(|folder| Kept::open(folder));
    let kept = kept.collect::<Result<Vec<_>>>()?;
    mount_scratch()?;
    kept.iter().try_for_each(|folder| folder.restore(Path::new("/")))?;
    enter_working_directory();
    mounts::spread(MsFlags::MS_SHARED)
}

/// The folders that can be written to besides the lab's own: the project's and its caches.
fn writable() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned);
    let target = env::current_exe().ok().and_then(|exe| Some(exe.ancestors().nth(2)?.to_owned()));
    let of_user = |variable, folder: &str| {
        let home = env::var_os("HOME").map(|home| Path::new(&home).join(folder));
        let folder = env::var_os(variable).map(PathBuf::from).or(home)?;
        // A step would make it at its first use, and can't in there. A home may be nobody's to write to.
        let _ = fs::create_dir_all(&folder);
        Some(folder)
    };
    let programs = env::var_os("CONTAINERS_BIN_DIR").map(PathBuf::from);
    let system =
        ["/var/cache", "/var/lib"].map(|folder| geteuid().is_root().then(|| folder.into()));
    let mut folders = vec![workspace, target, programs];
    folders.push(crate::place::workspace().ok());
    folders.push(of_user("XDG_CACHE_HOME", ".cache"));
    folders.push(of_user("XDG_DATA_HOME", ".local/share"));
    folders.extend(system);
    // What lies in /tmp is covered, and what one stands in should be there.
    folders.push(env::current_dir().ok().filter(|folder| is_below_scratch(folder)));
    folders.push(env::var_os("HOME").map(PathBuf::from).filter(|folder| is_below_scratch(folder)));
    let mut folders: Vec<PathBuf> =
        folders.into_iter().flatten().filter_map(|folder| fs::canonicalize(folder).ok()).collect();
    folders.sort();
    // What lies in another of them comes with that.
    folders.dedup_by(|folder, before| folder.starts_with(before));
    let whole = ["/", "/tmp", "/run"].map(Path::new);
    folders.retain(|folder| folder.is_dir() && !whole.contains(&folder.as_path()));
    folders
}

fn is_below_scratch(folder: &Path) -> bool {
    SCRATCH.iter().any(|(top, _)| folder.starts_with(top) && folder != Path::new(top))
}

/// Mounts what shows the lab's processes, links and queues instead of the machine's.
fn mount_own_views(shared_memory: &str) -> Result<()> {
    mounts::new("proc", Path::new("/proc"), INERT, None)?;
    mounts::new("sysfs", Path::new("/sys"), INERT, None)?;
    mounts::new("tmpfs", Path::new("/dev/shm"), INERT, Some(shared_memory))?;
    if Path::new("/dev/mqueue").exists() {
        mounts::new("mqueue", Path::new("/dev/mqueue"), INERT, None)?;
    }
    Ok(())
}

/// The folders for what nobody keeps.
const SCRATCH: [(&str, &str); 2] = [("/tmp", "mode=1777"), ("/run", "mode=755")];

fn mount_scratch() -> Result<()> {
    for (folder, mode) in SCRATCH {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mounts::new("tmpfs", Path::new(folder), flags, Some(mode))?;
    }
    Ok(())
}

/// The working directory still is the one that was covered.
fn enter_working_directory() {
    let here = env::current_dir().unwrap_or_else(|_| "/".into());
    if env::set_current_dir(here).is_err() {
        let _ = env::set_current_dir("/");
    }
}

/// The program to run, or a shell that says where it is.
fn command(words: &[OsString]) -> Result<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let examples = programs.join("examples");
    let path = env::join_paths([programs, examples].into_iter().chain(env::split_paths(&path)))?;
    let mut command = match words.split_first() {
        Some((program, args)) => {
            let mut command = Command::new(program);
            command.args(args);
            command
        }
        None if Path::new("/bin/bash").exists() => {
            let mut command = Command::new("/bin/bash");
            command.args(["--norc", "--noprofile"]);
            eprintln!(
                "A throw-away host: you are root, and nothing here reaches your machine. `exit` leaves it."
            );
            command
        }
        None => Command::new("/bin/sh"),
    };
    command.env(MARK, "1").env("PATH", path).env("PS1", "lab \\w# ");
    Ok(command)
}

fn become_command(words: &[OsString]) -> Result<Infallible> {
    use std::os::unix::process::CommandExt;
    let mut command = command(words)?;
    let error = command.exec();
    bail!("can't run {}: {error}", command.get_program().display())
}
