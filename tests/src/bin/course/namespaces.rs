//! Starts a process in namespaces of its own, for the [lab](crate::lab).
//!
//! The steps teach all of this, and do it better. But the lab has to work in a student's workspace,
//! where the steps are still to be written: so it calls the kernel itself.
#![allow(unsafe_code)]

use std::{
    convert::Infallible,
    fs,
    io::{self, PipeReader, PipeWriter, Read, Write, stdin},
    process::{Command, ExitCode, exit},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    ioctl_write_ptr_bad, libc,
    sched::{CloneFlags, clone},
    sys::{
        prctl,
        signal::{SigHandler, Signal, kill, signal},
        socket::{AddressFamily, SockFlag, SockType, socket},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Pid, Uid, User, getegid, geteuid, getpgrp, setgroups, setpgid, setresgid},
    unistd::{setresuid, tcgetpgrp, tcsetpgrp},
};
use std::os::fd::AsRawFd;

/// Runs `child` in new namespaces, and waits for its end. The child comes back from `gate` when
/// `prepare`, which is given its pid, has run out here.
pub fn run(
    namespaces: CloneFlags,
    prepare: impl FnOnce(Pid) -> Result<()>,
    mut child: impl FnMut(&mut Gate) -> Result<Infallible>,
) -> Result<ExitCode> {
    let (reader, writer) = io::pipe()?;
    let mut gate = Gate { reader, writer: Some(writer) };
    let terminal = tcgetpgrp(stdin()).is_ok_and(|group| group == getpgrp());
    let born = || -> isize {
        if terminal {
            take_terminal();
        }
        let Err(error) = child(&mut gate);
        eprintln!("course: {error:#}");
        exit(125)
    };
    let mut stack = vec![0; 1 << 20];
    let ended = Some(Signal::SIGCHLD as i32);
    // SAFETY: this process has one thread, and its memory is copied for the child, as by fork(2).
    let pid = unsafe { clone(Box::new(born), &mut stack, namespaces, ended) };
    let pid = pid.map_err(why_not)?;
    prepare(pid).inspect_err(|_| {
        let _ = kill(pid, Signal::SIGKILL);
    })?;
    gate.writer.take().context("the gate is opened once")?.write_all(b"!")?;
    let end = {
        // Ctrl-C is for those inside, and the terminal is taken back without being asked for.
        let _ignored = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTTOU].map(Ignored::new);
        let end = waitpid(pid, None)?;
        if terminal {
            let _ = tcsetpgrp(stdin(), getpgrp());
        }
        end
    };
    Ok(exit_code(end).into())
}

/// A signal that is ignored for a while.
struct Ignored(Signal, Option<SigHandler>);

impl Ignored {
    fn new(which: Signal) -> Self {
        // SAFETY: no handler is called.
        Ignored(which, unsafe { signal(which, SigHandler::SigIgn) }.ok())
    }
}

impl Drop for Ignored {
    fn drop(&mut self) {
        if let Some(before) = self.1 {
            // SAFETY: as before.
            let _ = unsafe { signal(self.0, before) };
        }
    }
}

/// Where the child waits until all that is done outside is done.
pub struct Gate {
    reader: PipeReader,
    writer: Option<PipeWriter>,
}

impl Gate {
    /// Waits for it. If nobody is left to open it, the child ends.
    pub fn wait(&mut self) -> Result<()> {
        drop(self.writer.take());
        if self.reader.read(&mut [0])? == 0 {
            exit(125);
        }
        Ok(())
    }
}

/// Makes the new group of processes the one that reads the terminal.
fn take_terminal() {
    // SAFETY: no handler is called.
    unsafe {
        let _ = signal(Signal::SIGTTOU, SigHandler::SigIgn);
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        let _ = tcsetpgrp(stdin(), getpgrp());
        let _ = signal(Signal::SIGTTOU, SigHandler::SigDfl);
    }
}

/// A run of ids: the first inside, the first outside, how many.
pub type Range = (u32, u32, u32);

/// Which ids of users and of groups a namespace has.
#[derive(Clone, Debug)]
pub struct Ids {
    pub users: Vec<Range>,
    pub groups: Vec<Range>,
}

impl Ids {
    /// The same ids inside as outside for root, so that files keep their owners; for a user, their
    /// own id as 0, and behind it those that the machine's administrator gave them.
    pub fn own() -> Result<Self> {
        if geteuid().is_root() {
            let all = |file| -> Result<Vec<Range>> {
                let map = ranges(&fs::read_to_string(file)?);
                let count = map.iter().find(|range| range.0 == 0).map_or(1, |range| range.2);
                Ok(vec![(0, 0, count)])
            };
            return Ok(Ids {
                users: all("/proc/self/uid_map")?,
                groups: all("/proc/self/gid_map")?,
            });
        }
        let (uid, gid) = (geteuid(), getegid());
        let mut ids = Ids { users: vec![(0, uid.into(), 1)], groups: vec![(0, gid.into(), 1)] };
        if let (Some(users), Some(groups), true) =
            (given("/etc/subuid", uid), given("/etc/subgid", uid), has_helpers())
        {
            ids.users.push((1, users.0, users.1));
            ids.groups.push((1, groups.0, groups.1));
        }
        Ok(ids)
    }

    /// Gives these ids to the user namespace that `child` is in.
    pub fn write(&self, child: Pid) -> Result<()> {
        let is_root = geteuid().is_root();
        for (helper, file, ids) in
            [("newgidmap", "gid_map", &self.groups), ("newuidmap", "uid_map", &self.users)]
        {
            if is_root || ids.len() == 1 {
                if !is_root && file == "gid_map" {
                    // Before that map, and never after it.
                    fs::write(format!("/proc/{child}/setgroups"), "deny")?;
                }
                let lines: String = ids.iter().map(|(a, b, n)| format!("{a} {b} {n}\n")).collect();
                let file = format!("/proc/{child}/{file}");
                fs::write(&file, &lines).with_context(|| format!("{lines:?} to {file}"))?;
            } else {
                let numbers = ids.iter().flat_map(|(a, b, n)| [a, b, n]).map(u32::to_string);
                let done = Command::new(helper).arg(child.to_string()).args(numbers).status()?;
                ensure!(done.success(), "{helper} refused ({done}): see /etc/subuid, /etc/subgid");
            }
        }
        Ok(())
    }
}

/// The lines of a map of ids.
pub fn ranges(map: &str) -> Vec<Range> {
    let numbers: Vec<u32> = map.split_whitespace().flat_map(str::parse).collect();
    numbers.chunks_exact(3).map(|range| (range[0], range[1], range[2])).collect()
}

/// The first range of ids that a file such as `/etc/subuid` gives to a user, and how many they are.
pub fn given(file: &str, uid: Uid) -> Option<(u32, u32)> {
    let name = User::from_uid(uid).ok()??.name;
    fs::read_to_string(file).ok()?.lines().find_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [owner, first, count] = fields[..] else { return None };
        (owner == name || owner == uid.to_string()).then_some(())?;
        Some((first.parse().ok()?, count.parse().ok()?))
    })
}

/// Whether the two programs are there that give a user more ids than their own.
pub fn has_helpers() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name| std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    found("newuidmap") && found("newgidmap")
}

/// Becomes root of the namespace, and ends when the process outside ends.
pub fn become_root() -> Result<()> {
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    match setgroups(&[]) {
        Err(Errno::EPERM) => {} // A user with one id has no groups to give up.
        result => result?,
    }
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    // Only now: the kernel forgets it when ids change.
    Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
}

/// Lives as process number 1, with `command` as its child, and ends as that ends.
pub fn live_as_init(mut command: Command) -> Result<Infallible> {
    // So that nobody inside opens the host's files through /proc/1/fd.
    prctl::set_dumpable(false)?;
    let name = command.get_program().display().to_string();
    let child = command.spawn().with_context(|| format!("can't run {name}"))?.id() as i32;
    loop {
        match waitpid(None, Some(WaitPidFlag::WUNTRACED)) {
            // Ctrl-Z: nobody in here could ever continue it.
            Ok(WaitStatus::Stopped(pid, _)) => kill(pid, Signal::SIGCONT)?,
            Ok(end) if end.pid() == Some(Pid::from_raw(child)) => exit(exit_code(end).into()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => bail!("waitpid: {errno}"),
        }
    }
}

fn exit_code(end: WaitStatus) -> u8 {
    match end {
        WaitStatus::Exited(_, code) => code as u8,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as u8,
        _ => 125,
    }
}

ioctl_write_ptr_bad!(set_link_flags, libc::SIOCSIFFLAGS, libc::ifreq);

/// Switches on the link `lo`, which a new network namespace has switched off.
pub fn switch_on_loopback() -> Result<()> {
    let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an ifreq is plain numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    (request.ifr_name[0], request.ifr_name[1]) = (b'l' as _, b'o' as _);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the request is a whole ifreq, and lives until the call returns.
    unsafe { set_link_flags(control.as_raw_fd(), &request) }.context("can't switch on lo")?;
    Ok(())
}

/// Why clone(2) refused new namespaces, and what to do.
fn why_not(errno: Errno) -> anyhow::Error {
    anyhow::anyhow!(
        "clone failed: {errno:?} ({}). `cargo course doctor` says what this machine forbids, and how \
         to allow it",
        errno.desc()
    )
}
