//! `cargo course lab`: a throw-away host, made of what the steps teach.
//!
//! Inside, one is root and has every capability over the lab's own mounts, links, names and
//! processes, and over nothing of this machine. So steps 1 to 3 run without sudo, and whatever goes
//! wrong is gone when the lab is left. Two things are the machine's and not the lab's: the files
//! outside of `/tmp` and `/run`, which belong to whom they belonged before (take care if you were
//! root already), and the control groups.
//!
//! Its `/` is a shared mount, as it is on a machine that systemd has started: there a program that
//! forgets to make its mounts private spoils the host, and here it is seen to.

use std::{
    convert::Infallible,
    env,
    ffi::OsString,
    fs::{self, File},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::signal::SigSet,
    unistd::geteuid,
};
use user::{Gate, IdMap};
use uts::{CloneFlags, call, call::Hint, process};

/// Enters a throw-away host, in which you are root and can break nothing.
///
/// Its mounts, links, names, processes and its /tmp and /run are its own, and gone when you leave.
/// Your files are there as usual, and the built steps are in PATH. Needs no root.
///
///   cargo course lab
///   cargo course lab -- step01-uts hostname
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Lab {
    /// Have mounts, /tmp and /run of your own and nothing else; needs root
    #[arg(long, hide = true)]
    this_machine: bool,

    /// The program to run in the lab, and its arguments [default: a shell]
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// The environment variable that says that this is the lab.
const MARK: &str = "CONTAINERS_LAB";

/// Everything of its own but the control groups and the clocks.
const NAMESPACES: CloneFlags = user::NAMESPACE
    .union(mnt::NAMESPACE)
    .union(net::NAMESPACE)
    .union(uts::NAMESPACE)
    .union(ipc::NAMESPACE)
    .union(pid::NAMESPACE);

/// Runs a program in the lab, and waits for its end.
pub fn enter(lab: &Lab) -> Result<ExitCode> {
    if env::var_os(MARK).is_some() {
        bail!("this is the lab already: `exit` leaves it");
    }
    if lab.this_machine {
        let child = process::spawn(mnt::NAMESPACE, || {
            furnish(|| Ok(()))?;
            become_command(&lab.command)
        })?;
        return process::wait(child);
    }
    let ids = ids()?;
    let gate = Gate::new()?;
    let child = process::spawn(NAMESPACES, || {
        gate.wait()?;
        user::become_root()?;
        uts::set_hostname("lab")?;
        furnish(mount_own_views)?;
        net::configure()?;
        pid::init(|| become_command(&lab.command))
    })?;
    user::write_id_maps(child, &ids)?;
    gate.open()?;
    process::wait(child)
}

/// For root all ids stay what they are, so that files keep their owners and all of them can be
/// used; for a user, those that step 4 would take.
fn ids() -> Result<IdMap> {
    if !geteuid().is_root() {
        return user::map::Ids { ids: None }.choose();
    }
    let mapped = |file| -> Result<u32> {
        let map = fs::read_to_string(file)?;
        let fields: Vec<u32> = map.split_whitespace().flat_map(str::parse).collect();
        let first = fields.chunks(3).find(|range| range[0] == 0);
        Ok(first.and_then(|range| range.get(2).copied()).unwrap_or(1))
    };
    let count = mapped("/proc/self/uid_map")?.min(mapped("/proc/self/gid_map")?);
    user::map::Ids { ids: Some(format!("0:{count}").parse()?) }.choose()
}

/// Makes the lab's file system out of the machine's; `own_views` mounts what depends on namespaces.
fn furnish(own_views: fn() -> Result<()>) -> Result<()> {
    mnt::make_private()?;
    let kept = Kept::open()?;
    own_views()?;
    for (folder, mode) in [("/tmp", "mode=1777"), ("/run", "mode=755")] {
        mount_at("tmpfs", folder, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(mode))?;
    }
    kept.restore()?;
    // Last of all: from a shared mount nothing could be moved.
    change("/", MsFlags::MS_REC | MsFlags::MS_SHARED)
}

/// Mounts what shows the lab's processes, links and queues instead of the machine's.
fn mount_own_views() -> Result<()> {
    let inert = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at("proc", "/proc", inert, None)?;
    // A new /sys comes without the control groups, so the machine's are carried over.
    let groups = Path::new("/sys/fs/cgroup");
    let hold = groups.exists().then(|| File::open(groups)).transpose()?;
    mount_at("sysfs", "/sys", inert, None)?;
    if let Some(hold) = hold {
        bind_open(&hold, groups)?;
    }
    mount_at("tmpfs", "/dev/shm", inert, Some("mode=1777"))?;
    if Path::new("/dev/mqueue").exists() {
        mount_at("mqueue", "/dev/mqueue", inert, None)?;
    }
    Ok(())
}

fn mount_at(fstype: &str, at: &str, flags: MsFlags, options: Option<&str>) -> Result<()> {
    call!(mount(Some(fstype), at, Some(fstype), flags, options)).hint(
        Errno::EPERM,
        "the kernel lets a user namespace mount this only where the old one can be seen whole: \
         here, parts of it are covered, as in most containers. The lab needs a real or a virtual \
         machine, or a container started with --security-opt systempaths=unconfined",
    )?;
    Ok(())
}

fn change(at: &str, flags: MsFlags) -> Result<()> {
    Ok(call!(mount(None::<&str>, at, None::<&str>, flags, None::<&str>))?)
}

/// Mounts a directory that was opened before it was covered.
fn bind_open(folder: &File, at: &Path) -> Result<()> {
    let source = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(call!(mount(Some(&source), at, None::<&str>, flags, None::<&str>))?)
}

/// The folders that are to be seen in the lab although they lie in a folder that is covered.
struct Kept(Vec<(PathBuf, File)>);

impl Kept {
    /// Opens them, while they can be seen; but not before the new mount namespace is there, as
    /// nothing can be bound from one to another.
    fn open() -> Result<Self> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned);
        let target = env::current_exe()?.ancestors().nth(2).map(Path::to_owned);
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = env::var_os("HOME").map(PathBuf::from);
        let programs = env::var_os("CONTAINERS_BIN_DIR").map(PathBuf::from);
        let wanted = [workspace, target, programs, cache, home, env::current_dir().ok()];
        let covered = |folder: &PathBuf| {
            ["/tmp", "/run"].iter().any(|top| folder.starts_with(top) && folder != Path::new(top))
        };
        let folders = wanted.into_iter().flatten().filter(covered).filter(|folder| folder.is_dir());
        let open = folders.map(|folder| Ok((folder.clone(), File::open(&folder)?)));
        open.collect::<Result<_>>().map(Kept).context("can't open a folder of the project")
    }

    /// Mounts them where they were.
    fn restore(&self) -> Result<()> {
        for (folder, open) in &self.0 {
            fs::create_dir_all(folder)?;
            bind_open(open, folder)?;
        }
        // The working directory still is the one that was covered.
        if let Ok(here) = env::current_dir() {
            env::set_current_dir(here)?;
        }
        Ok(())
    }
}

/// Becomes `command`, or a shell that says where it is.
fn become_command(command: &[OsString]) -> Result<Infallible> {
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let path = env::join_paths(std::iter::once(programs).chain(env::split_paths(&path)))?;
    let (program, args) = match command.split_first() {
        Some((program, args)) => (program.clone(), args.to_vec()),
        None if Path::new("/bin/bash").exists() => {
            ("/bin/bash".into(), vec!["--norc".into(), "--noprofile".into()])
        }
        None => ("/bin/sh".into(), vec![]),
    };
    // `spawn` held signals back, and what is held back stays so after execve(2).
    SigSet::empty().thread_set_mask()?;
    let mut command = Command::new(&program);
    command.args(args).env(MARK, "1").env("PATH", path).env("PS1", "lab# ");
    let error = command.exec();
    Err(error).with_context(|| format!("can't run {}", program.display()))
}
