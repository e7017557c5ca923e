//! A process in new namespaces: start it, become the command, wait for its end.
//!
//! ```text
//!   host                          container
//!   spawn ── clone3 ────────────▶ the closure: set up, then
//!     │                             exec(command)
//!   wait  ◀─── its exit code ─────┘
//! ```
//! The two are held together in both directions. `wait` passes signals on to the child and ends as
//! it ended. And if the parent ends first, however that comes, the child ends as well.

use std::{
    convert::Infallible,
    ffi::{CString, OsStr, OsString},
    fmt, fs,
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::CloneFlags,
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{AccessFlags, Pid, access, execve},
};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::{
    Signals, call,
    call::{CallError, Hint},
    explain,
    signals::{self, Received},
    sys, terminal,
};

/// The runtime itself failed; the exit code that docker gives then.
const RUNTIME_FAILED: u8 = 125;

/// The options that every step has.
#[derive(clap::Args)]
pub struct Common {
    /// Tell every system call, in order, as a numbered story
    #[arg(long)]
    pub explain: bool,

    /// The program to run inside, and its arguments
    #[arg(trailing_var_arg = true, default_value = "sh")]
    pub command: Vec<OsString>,
}

/// The whole of a `main`: parses the arguments, runs `life`, and says how it ended.
///
/// The exit code is that of the command (128+n if signal n killed it), or docker's: 125 if the
/// runtime failed, also by wrong arguments, 126 if the command can't be run, 127 if there is none.
pub fn main<A: Parser>(life: impl FnOnce(A) -> Result<ExitCode>) -> ExitCode {
    let args = match A::try_parse() {
        Ok(args) => args,
        Err(answer) => {
            let _ = answer.print();
            return ExitCode::from(if answer.use_stderr() { RUNTIME_FAILED } else { 0 });
        }
    };
    life(args).unwrap_or_else(|error| ExitCode::from(report(&error)))
}

/// Prints an error, once and at the top, and gives the exit code that stands for it.
pub fn report(error: &anyhow::Error) -> u8 {
    say(format_args!("{error:#}"));
    match error.downcast_ref::<CallError>().map(|e| (e.name(), e.errno())) {
        Some(("execve", Errno::ENOENT)) => 127,
        Some(("execve", _)) => 126,
        _ => RUNTIME_FAILED,
    }
}

/// Tells the user, on standard error, what else they should know.
pub fn note(text: &str) {
    say(format_args!("note: {text}"));
}

fn say(text: fmt::Arguments) {
    let program = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy();
    // In one piece; and whoever closed standard error doesn't want to know, so it is no reason to panic.
    let _ = io::stderr().write_all(format!("{program}: {text}\n").as_bytes());
}

/// Starts `child` as a new process in new `namespaces`, and gives its pid as the host sees it.
///
/// `child` never returns: it becomes the command ([`exec`]) or fails, and then prints its error
/// and ends. It is a closure, so that the child can't run on into its parent's code and destructors.
///
/// It runs on a copy of this process, so there must be one thread only.
///
/// # Errors
/// `EPERM` if these namespaces aren't allowed here, `ENOSPC` if there are too many; the error
/// says what the machine's settings are.
///
/// Source: [clone(2)](https://man7.org/linux/man-pages/man2/clone.2.html),
/// [namespaces(7)](https://man7.org/linux/man-pages/man7/namespaces.7.html).
pub fn spawn(namespaces: CloneFlags, child: impl FnOnce() -> Result<Infallible>) -> Result<Pid> {
    spawn_into(None, namespaces, child)
}

/// As [`spawn`], and the child is born inside `cgroup`: the directory of a cgroup v2 group.
///
/// # Errors
/// As [`spawn`], and what clone(2) says of `CLONE_INTO_CGROUP`.
pub fn spawn_into(
    cgroup: Option<BorrowedFd>,
    namespaces: CloneFlags,
    child: impl FnOnce() -> Result<Infallible>,
) -> Result<Pid> {
    bear(Birth { cgroup, own_terminal: false }, namespaces, child)
}

/// How a child is born, besides the namespaces that it is born into.
#[derive(Default)]
pub struct Birth<'a> {
    /// The directory of a cgroup v2 group to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The child will open a terminal of its own, and the one of this process isn't handed on.
    pub own_terminal: bool,
}

/// Ends the calling process at once: nothing runs that was prepared for its end, or for its parent's.
/// The children of [`spawn_command`] may end in no other way.
pub fn end(code: u8) -> ! {
    let _ = io::stdout().flush();
    sys::end(code)
}

/// Starts `child`, which does no more than to become a command, or to [`end`], in the namespaces of
/// this process.
///
/// To copy this process's memory, only for the command to throw it away, would take longer than all the
/// rest. So the child borrows it, and this process stands still until the command runs.
///
/// # Errors
/// As [`spawn`].
///
/// Source: [vfork(2)](https://man7.org/linux/man-pages/man2/vfork.2.html),
/// [clone(2)](https://man7.org/linux/man-pages/man2/clone.2.html), `CLONE_VM`.
#[allow(unsafe_code)]
pub fn spawn_command(child: impl Fn() -> Result<Infallible>) -> Result<Pid> {
    let hand_on_terminal = terminal::is_ours();
    signals::hold_back()?;
    let become_command = || {
        if hand_on_terminal {
            terminal::take();
        }
        let Err(error) = child();
        report(&error)
    };
    // SAFETY: this process has one thread, and a child that only executes a command changes nothing
    // that would be missed afterwards: its terminal, its signals and its open files are its own.
    let clone = || unsafe { sys::clone_for_exec(become_command) };
    let pid = call!("clone"(format_args!("CLONE_VM|CLONE_VFORK")) = clone())
        .hint_with(|errno| why_no_namespaces(errno, CloneFlags::empty()))?;
    Ok(pid)
}

/// As [`spawn`], with all that can be chosen.
///
/// # Errors
/// As [`spawn_into`].
#[allow(unsafe_code)]
pub fn bear(
    birth: Birth,
    namespaces: CloneFlags,
    child: impl FnOnce() -> Result<Infallible>,
) -> Result<Pid> {
    let hand_on_terminal = !birth.own_terminal && terminal::is_ours();
    signals::hold_back()?; // Now: the child may end before the next line.
    let parent = pidfd_open(getpid(), PidfdFlags::empty())?;

    // SAFETY: this process has one thread, as this function's documentation demands.
    let clone = || unsafe { sys::clone3(namespaces, birth.cgroup) };
    let pid = call!("clone3"(namespaces) = clone())
        .hint_with(|errno| why_no_namespaces(errno, namespaces))?;
    if let Some(pid) = pid {
        return Ok(pid);
    }
    if hand_on_terminal {
        terminal::take();
    }
    if !namespaces.is_empty() {
        explain::change_side("container");
    }
    *PARENT.lock().expect("nobody panics with this lock") = Some(parent);
    if end_with_parent().is_err() {
        std::process::exit(RUNTIME_FAILED.into()); // Quietly: the parent has said what was wrong.
    }
    let Err(error) = child();
    // Not by way of main: what the parent has set up isn't the child's to tear down.
    std::process::exit(report(&error).into())
}

/// The parent of this process, if [`spawn`] made it: a pidfd, readable once the parent has ended.
pub fn parent() -> Result<Option<OwnedFd>> {
    let parent = PARENT.lock().expect("nobody panics with this lock");
    Ok(parent.as_ref().map(OwnedFd::try_clone).transpose()?)
}

static PARENT: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Asks the kernel to kill this process when its parent ends: nothing runs on unattended after
/// somebody killed the parent. `spawn` does this for every child.
///
/// The kernel forgets it when a process changes its user ids, as step 4 does. So it has to be asked
/// again then, or the process watches its [`parent`], like step 2's init.
///
/// # Errors
/// If the parent has ended already.
///
/// Source: [PR_SET_PDEATHSIG(2const)](https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html).
pub fn end_with_parent() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let Some(parent) = parent()? else { return Ok(()) };
    // If the parent ended before the first line, no signal will come any more.
    let mut ended = [PollFd::new(parent.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ended, PollTimeout::ZERO)? > 0 {
        bail!("the process that started this one has ended");
    }
    Ok(())
}

/// Becomes `command`: a program, looked up in `PATH` if its name has no slash, and its arguments.
///
/// The command starts like any other: no signal is held back from it, and it inherits standard
/// input, output and error and no other open file.
///
/// # Errors
/// `ENOENT` if there is no such program, `EACCES` if it isn't executable; the program then ends with
/// 127 or 126.
///
/// Source: [execve(2)](https://man7.org/linux/man-pages/man2/execve.2.html).
pub fn exec<S: AsRef<OsStr>>(command: &[S]) -> Result<Infallible> {
    let variable = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        name
    };
    exec_with(command, &std::env::vars_os().map(variable).collect::<Vec<_>>())
}

/// As [`exec`], with `env` as its environment: `NAME=value` each.
///
/// # Errors
/// As [`exec`].
pub fn exec_with<S: AsRef<OsStr>, T: AsRef<OsStr>>(command: &[S], env: &[T]) -> Result<Infallible> {
    let program = command.first().context("there is no command to execute")?.as_ref();
    let path = env.iter().find_map(|variable| variable.as_ref().as_bytes().strip_prefix(b"PATH="));
    let path = OsStr::from_bytes(path.unwrap_or(b"/usr/sbin:/usr/bin:/sbin:/bin"));
    let file = look_up(program, path);
    let (c_file, command, env) = (c_string(&file)?, c_strings(command)?, c_strings(env)?);
    // A file descriptor from outside is a door out of the container.
    sys::close_on_exec_from(3)?;
    signals::let_through()?;
    Ok(call!("execve"(&c_file, &command[..]) = execve(&c_file, &command, &env))
        .hint_with(|errno| why_no_exec(errno, &file, path))?)
}

/// The file that a command's name stands for. A name that isn't found stands for itself.
fn look_up(program: &OsStr, path: &OsStr) -> PathBuf {
    if program.as_bytes().contains(&b'/') {
        return program.into();
    }
    let files =
        || std::env::split_paths(path).map(|dir| dir.join(program)).filter(|file| file.is_file());
    let can_run = |file: &PathBuf| access(file, AccessFlags::X_OK).is_ok();
    files().find(can_run).or(files().next()).unwrap_or(program.into())
}

fn c_strings<S: AsRef<OsStr>>(strings: &[S]) -> Result<Vec<CString>> {
    strings.iter().map(c_string).collect()
}

fn c_string(string: impl AsRef<OsStr>) -> Result<CString> {
    CString::new(string.as_ref().as_bytes()).context("an argument holds a zero byte")
}

/// Waits until `child` has ended, and gives its exit code: 128+n if signal n killed it.
///
/// Meanwhile, what is sent to this process is passed on to the child, so that `kill` and `timeout`
/// do what they should.
///
/// # Errors
/// `ECHILD` if `child` isn't a child of this process.
///
/// Source: [waitpid(2)](https://man7.org/linux/man-pages/man2/waitpid.2.html).
pub fn wait(child: Pid) -> Result<ExitCode> {
    let signals = Signals::receive()?;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED))? {
            WaitStatus::StillAlive => {}
            // Ctrl-Z: no shell in there could ever continue it.
            WaitStatus::Stopped(..) => kill(child, Signal::SIGCONT)?,
            ended => {
                terminal::take_back();
                return Ok(exit_code(ended).into());
            }
        }
        if let Some(Received { signal, from_terminal: false }) = signals.next(None)?
            && signal != Signal::SIGCHLD
        {
            kill(child, signal)?;
        }
    }
}

/// The exit code that tells how a process ended, as shells have it.
pub fn exit_code(end: WaitStatus) -> u8 {
    match end {
        WaitStatus::Exited(_, code) => code as u8,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as u8,
        other => unreachable!("{other:?} isn't the end of a process"),
    }
}

/// Why clone(2) refused new namespaces: the machine's settings know.
fn why_no_namespaces(errno: Errno, namespaces: CloneFlags) -> Option<String> {
    let setting = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
    let is = |name: &str, value: &str| setting(name).is_some_and(|v| v.trim() == value);
    let user = namespaces.contains(CloneFlags::CLONE_NEWUSER);
    Some(match errno {
        Errno::EPERM if !user => "only root may make these namespaces: run it with sudo, or in a \
            throw-away host with `cargo course lab`. From step 4 on, no root is needed"
            .into(),
        Errno::EPERM if is("kernel/unprivileged_userns_clone", "0") => "user namespaces are \
            switched off here; to switch them on until the next boot: \
            sudo sysctl kernel.unprivileged_userns_clone=1"
            .into(),
        Errno::EPERM if is("kernel/apparmor_restrict_unprivileged_userns", "1") => "AppArmor \
            allows user namespaces to none but known programs here (Ubuntu 24.04 and later); to allow \
            them until the next boot: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
            .into(),
        Errno::EPERM => "user namespaces aren't allowed here: this process is in a chroot, or in a \
            container whose seccomp filter forbids them"
            .into(),
        Errno::ENOSPC if is("user/max_user_namespaces", "0") => "user namespaces are switched off \
            here; to switch them on until the next boot: sudo sysctl user.max_user_namespaces=10000"
            .into(),
        Errno::ENOSPC => "there are too many namespaces, or they are nested more than 32 deep: see \
            the limits in /proc/sys/user"
            .into(),
        Errno::EAGAIN => "there are too many processes: a pids limit (step 7) or `ulimit -u` is \
            reached"
            .into(),
        Errno::ENOMEM => "the process number 1 of this PID namespace has ended (step 2), so there \
            can be no other any more; or memory is short"
            .into(),
        _ => return None,
    })
}

/// Why execve(2) refused `file`. ENOENT has two meanings, and only one of them is obvious.
fn why_no_exec(errno: Errno, file: &Path, path: &OsStr) -> Option<String> {
    Some(match errno {
        Errno::ENOENT if file.exists() => {
            "the file is there, but the program that loads it isn't: for a \
            script see its first line, else ask `file` which loader it wants"
                .into()
        }
        Errno::ENOENT => format!("no such program here (PATH={})", path.display()),
        Errno::EACCES => {
            "it isn't an executable file, or a directory above it can't be searched".into()
        }
        Errno::ENOEXEC => {
            "it isn't a program for this machine, or a script without a first line #!".into()
        }
        _ => return None,
    })
}
