//! One process, six acts, and any of the six namespaces: whom does it meet, and who notices?
//!
//! `combine PROBE [NAMESPACE]…`, in a lab. The process inside always tries the same: it renames
//! the host, signals a process of the host, mounts something, reads a file of the host's root, sets
//! up the network, and makes a message queue. Then both sides look around, by the probe and by what
//! they can open. Which of these acts reach the host, and which are refused, depends on the
//! namespaces alone: this is what the book's explorer shows.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, exit},
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use mnt::mount;
use nix::{
    errno::Errno,
    mount::MsFlags,
    mqueue::{MQ_OFlag, MqAttr, mq_open},
    sys::{signal::kill, stat::Mode},
    unistd::{Pid, getpid},
};
use user::Gate;
use uts::{CloneFlags, Names, process};

/// Runs a process in some namespaces and tells what it and the host see.
#[derive(Parser)]
struct Args {
    /// The program that looks around
    probe: PathBuf,

    /// The namespaces that the process has for its own
    on: Vec<Namespace>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Namespace {
    Uts,
    Pid,
    Mnt,
    User,
    Net,
    Ipc,
}

use Namespace::{Ipc, Mnt, Net, Pid as PidNs, User, Uts};

impl Namespace {
    fn flag(self) -> CloneFlags {
        match self {
            Uts => uts::NAMESPACE,
            PidNs => pid::NAMESPACE,
            Mnt => mnt::NAMESPACE,
            User => user::NAMESPACE,
            Net => net::NAMESPACE,
            Ipc => ipc::NAMESPACE,
        }
    }
}

/// The root file system of a process with mounts of its own.
const ROOT: &str = "/tmp/root";
/// A file that only the host's root may read.
const SECRET: &str = "/tmp/secret";
/// Where the process inside mounts something.
const INSIDE: &str = "/tmp/inside";
/// The message queues that each side makes, and both look for.
const QUEUES: [&str; 2] = ["/made-outside", "/made-inside"];

fn main() -> ExitCode {
    process::main(run)
}

fn run(args: Args) -> Result<ExitCode> {
    prepare_host(&args.probe)?;
    let has = |namespace| args.on.contains(&namespace);
    let flags = args.on.iter().fold(CloneFlags::empty(), |flags, on| flags | on.flag());
    let host = getpid();
    let (gate, seen) = (Gate::new()?, Gate::new()?);
    let (mut from_inside, to_host) = std::io::pipe()?;
    // The child drops its copy when all is told, and lives on to be looked at.
    let mut to_host = Some(to_host);
    let child = process::spawn(flags, || {
        gate.wait()?;
        let mut to_host = to_host.take().context("a child has one life")?;
        if has(User) {
            user::become_root()?;
        }
        let probe = if has(Mnt) { Path::new("/probe") } else { &args.probe };
        act(has(Mnt), host, &mut to_host)?;
        look(probe, &mut to_host)?;
        drop(to_host);
        seen.wait()?;
        exit(0)
    })?;
    drop(to_host);
    if has(User) {
        user::write_id_maps(child, &user::map::Ids { ids: None }.choose()?)?;
    }
    net::connect(child)?;
    gate.open()?;
    let mut inside = String::new();
    from_inside.read_to_string(&mut inside)?;
    let mut out = std::io::stdout();
    write!(out, "{inside}[host]\n{}", process_of(child)?)?;
    look(&args.probe, &mut out)?;
    seen.open()?;
    process::wait(child)
}

/// What the host has before anything happens.
fn prepare_host(probe: &Path) -> Result<()> {
    uts::set_hostname("host")?;
    for folder in ["dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(Path::new(ROOT).join(folder))?;
    }
    fs::copy(probe, Path::new(ROOT).join("probe"))?;
    // Root inside may be nobody in particular outside, and makes the folders in /dev.
    for folder in [ROOT, "/tmp/root/dev"] {
        fs::set_permissions(folder, Permissions::from_mode(0o777))?;
    }
    fs::write(SECRET, "")?;
    fs::set_permissions(SECRET, Permissions::from_mode(0o600))?;
    open_queue(QUEUES[0], MQ_OFlag::O_CREAT)
}

/// The six acts, in the order of a container's life, and how each ends.
fn act(own_mounts: bool, host: Pid, out: &mut impl Write) -> Result<()> {
    let names = Names { hostname: "container".into(), domainname: "containers".into() };
    let mut tell = |act: &str, end: Result<()>| -> Result<()> {
        writeln!(out, "{act} {}", end_of(end)?)?;
        Ok(())
    };
    tell("uts", uts::set_names(&names))?;
    tell("pid", kill(host, None).map_err(Into::into))?;
    tell("net", net::configure().map(drop))?;
    if own_mounts {
        exchange_root(Path::new(ROOT))?;
    }
    tell("mnt", mount_inside())?;
    tell("user", fs::read(SECRET).map(drop).map_err(Into::into))?;
    tell("ipc", open_queue(QUEUES[1], MQ_OFlag::O_CREAT))
}

/// As step 3 does it, but where the kernel refuses a new /proc, the host's stays.
fn exchange_root(root: &Path) -> Result<()> {
    let proc = Path::new("/proc");
    mnt::make_private()?;
    mnt::mount_root(root)?;
    match mount::mount_new("proc", root, proc, mount::INERT, None) {
        Err(error) if mount::errno(&error) == Some(Errno::EPERM) => mount::bind(proc, root, proc)?,
        result => result?,
    }
    mnt::mount_sys(root)?;
    mnt::dev::mount_dev(root)?;
    mount::mount_new("tmpfs", root, Path::new("/tmp"), MsFlags::empty(), Some("mode=1777"))?;
    mnt::pivot_into(root)
}

fn mount_inside() -> Result<()> {
    fs::create_dir(INSIDE)?;
    mount::mount_new("tmpfs", Path::new("/"), Path::new(INSIDE), MsFlags::empty(), None)
}

fn open_queue(name: &str, more: MQ_OFlag) -> Result<()> {
    let (flags, mode) = (MQ_OFlag::O_RDONLY | more, Mode::from_bits_truncate(0o644));
    mq_open(name, flags, mode, Some(&MqAttr::new(0, 1, 1, 0)))?;
    Ok(())
}

/// `done`, or the error number: a refusal is an answer here.
fn end_of(end: Result<()>) -> Result<String> {
    let Err(error) = end else { return Ok("done".into()) };
    let of_io = |error: &std::io::Error| error.raw_os_error().map(Errno::from_raw);
    let errno = mount::errno(&error)
        .or_else(|| error.downcast_ref::<Errno>().copied())
        .or_else(|| error.downcast_ref().and_then(of_io));
    Ok(format!("{:?}", errno.ok_or(error)?))
}

/// Tells what is seen from here: which queues can be opened, and all that the probe finds.
fn look(probe: &Path, out: &mut impl Write) -> Result<()> {
    let queues = QUEUES.iter().filter(|name| open_queue(name, MQ_OFlag::empty()).is_ok());
    let queues: Vec<&str> = queues.map(|name| name.trim_start_matches("/made-")).collect();
    writeln!(out, "queues {}", queues.join(" "))?;
    let seen = Command::new(probe).output().with_context(|| format!("{}", probe.display()))?;
    ensure!(seen.status.success(), "{}: {}", probe.display(), seen.status);
    Ok(out.write_all(&seen.stdout)?)
}

/// The process inside, as the host sees it.
fn process_of(child: Pid) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{child}/status"))?;
    let lines =
        status.lines().filter(|line| line.starts_with("Uid:") || line.starts_with("NSpid:"));
    Ok(lines.map(|line| format!("{}\n", line.replace('\t', " "))).collect())
}
