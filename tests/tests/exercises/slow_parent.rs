//! A race whose end is known: a program that is held still after each of the system calls that follow
//! the birth of its child, so that the child is faster, however busy the machine is.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{PidfdFlags, pidfd_open},
};
use tests::scenario;

/// The arguments that make this program the one that holds.
const SLOW: &str = "--slow-parent";
const EARLY: &str = "--early-signal";

/// Within this time, a child that can end has ended, and a parent that makes calls has made one.
const MOMENT: Duration = Duration::from_millis(500);

/// `command`, run many times: each time, its first child comes as far as it can before the parent
/// goes on, which stands still after one more of its system calls. It goes on until the command ends
/// with another code than `right`, or until the parent sleeps before it has made so many calls.
pub fn after_each_call(right: u8, command: &Command) -> Command {
    held(&[SLOW, &right.to_string()], command)
}

/// `command`, run once: the moment that it has made its first child, it is sent SIGTERM.
pub fn early_signal(command: &Command) -> Command {
    held(&[EARLY], command)
}

fn held(options: &[&str], command: &Command) -> Command {
    let mut held = scenario::again();
    held.args(options).arg(command.get_program()).args(command.get_args());
    held
}

/// If these are the arguments that `held` gives, runs the command so, and ends as it ended.
pub fn run_if_asked(args: &[String]) -> Option<ExitCode> {
    let code = match args {
        [option, right, command @ ..] if option == SLOW => run_all(right, command),
        [option, command @ ..] if option == EARLY => {
            hold(0, Some(Signal::SIGTERM), command).map(|(code, _)| code)
        }
        _ => return None,
    };
    Some(match code {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("can't hold {args:?}: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn run_all(right: &str, command: &[String]) -> Result<u8> {
    let right: u8 = right.parse()?;
    for calls in 0.. {
        eprintln!("held still after call {calls} since it has a child");
        let (code, asleep) = hold(calls, None, command)?;
        if code != right || asleep {
            return Ok(code);
        }
    }
    bail!("it never sleeps")
}

/// Runs the command once, held still after so many calls. Gives its exit code, and whether it fell
/// asleep before it had made them. `signal` is sent to it while it stands still.
fn hold(calls: u32, signal: Option<Signal>, command: &[String]) -> Result<(u8, bool)> {
    let (name, args) = command.split_first().context("there is no command")?;
    let mut program = start_traced(Command::new(name).args(args))?;
    let parent = Pid::from_raw(program.id() as i32);
    let child = until_first_child(parent)?;
    // The child is traced as well, and stands still as long.
    let asleep = !makes_calls(parent, calls)?;
    kill(parent, signal)?;
    ptrace::detach(child, None)?;
    until_ended(child)?;
    if asleep {
        waitpid(parent, None)?; // Until the end of the child wakes it, if that ever does.
    }
    ptrace::detach(parent, None)?;
    let end = program.wait()?;
    if let Some(signal) = end.signal() {
        eprintln!("signal {signal} ended the parent");
    }
    Ok((end.code().unwrap_or(1) as u8, asleep))
}

#[allow(unsafe_code)]
fn start_traced(command: &mut Command) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec, this makes one system call and touches no memory.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    Ok(command.spawn()?)
}

/// Lets the process run until it has made a child, which it doesn't know yet.
fn until_first_child(parent: Pid) -> Result<Pid> {
    waitpid(parent, None)?; // A traced process stops when it has become its program.
    let births =
        Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
    ptrace::setoptions(parent, births | Options::PTRACE_O_TRACESYSGOOD)?;
    let mut pass_on: Option<Signal> = None;
    loop {
        ptrace::cont(parent, pass_on)?;
        pass_on = match waitpid(parent, None)? {
            WaitStatus::PtraceEvent(..) => {
                let child = Pid::from_raw(ptrace::getevent(parent)? as i32);
                waitpid(child, None)?; // It begins by standing still.
                return Ok(child);
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            ended => bail!("it made no child: {ended:?}"),
        }
    }
}

/// Lets the process come back from the call that made the child, and from so many others. `false`
/// says that it sleeps in one of them.
fn makes_calls(parent: Pid, calls: u32) -> Result<bool> {
    // At the entry to a call a signal would still be kept, so it is always the way out.
    for _ in 0..1 + 2 * calls {
        ptrace::syscall(parent, None)?;
        let deadline = Instant::now() + MOMENT;
        loop {
            match waitpid(parent, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::PtraceSyscall(_) => break,
                WaitStatus::StillAlive if Instant::now() > deadline => return Ok(false),
                // Nothing but this tells that a process sleeps.
                WaitStatus::StillAlive => thread::sleep(Duration::from_millis(2)),
                other => bail!("it should wait for its child, and is {other:?}"),
            }
        }
    }
    Ok(true)
}

/// Waits for the end of a process; not for ever, as it may have to wait for its parent.
fn until_ended(child: Pid) -> Result<()> {
    let number = rustix::process::Pid::from_raw(child.as_raw()).context("a child has a number")?;
    let ended = pidfd_open(number, PidfdFlags::empty())?;
    let limit = Timespec::try_from(MOMENT)?;
    poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&limit))?;
    Ok(())
}
