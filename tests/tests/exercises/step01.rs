//! The exercises of step 1: a host name of its own.

use std::{
    collections::BTreeSet, fs, fs::Permissions, io::Write, os::unix::fs::PermissionsExt,
    process::Command, time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use tempfile::TempDir;
use tests::{
    answers,
    chance::Chance,
    held::Held,
    programs::{clean, program, workspace},
    run::{finish, finish_within, limit},
    scenario::{IN_LAB, PRIVILEGED, Scenario},
};

use crate::slow_parent;

const STEP: &str = "step01-uts";
const ANSWERS: &str = "step01-uts/exercises/errno.toml";

pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::new("exercises::1.1::host_name", PRIVILEGED, || name("hostname")),
        Scenario::new("exercises::1.1::domain_name", PRIVILEGED, || name("domainname")),
        Scenario::new("exercises::1.1::errors_are_passed_on", PRIVILEGED, errors_are_passed_on),
        Scenario::new("exercises::1.2::a_child_may_be_faster", PRIVILEGED, a_child_may_be_faster),
        Scenario::new(
            "exercises::1.2::a_signal_may_come_early",
            PRIVILEGED,
            a_signal_may_come_early,
        ),
        Scenario::new("exercises::1.3::no_door_is_left_open", PRIVILEGED, no_door_is_left_open),
        Scenario::new("exercises::1.5::namespaces_are_told", PRIVILEGED, namespaces_are_told),
        Scenario::new("exercises::1.6::the_host_is_renamed", IN_LAB, the_host_is_renamed),
        Scenario::new("exercises::1.7::the_name_is_shared", PRIVILEGED, the_name_is_shared),
        Scenario::new("exercises::1.7::nobody_is_there", PRIVILEGED, nobody_is_there),
    ];
    all.extend(QUESTIONS.map(|question| {
        let name = format!("exercises::1.4::{}", question.key);
        Scenario::new(name, IN_LAB, move || question.is_answered(ANSWERS))
    }));
    all
}

/// A name that nobody can have guessed is seen inside; the other one is what it is by default.
fn name(which: &str) -> Result<()> {
    let needle = Chance::new(which).needle();
    let file = format!("/proc/sys/kernel/{which}");
    let before = fs::read_to_string(&file)?;
    let done = finish(program(STEP).args([&format!("--{which}"), &needle, "--", "cat", &file]))?;
    let inside = done.success()?.stdout;
    ensure!(
        inside.trim() == needle,
        "with --{which} {needle}, a program inside reads from {file}:\n  {inside}\
         The name has to be set in the child, by set{which}(2): see `man 2 set{which}`."
    );
    ensure!(before == fs::read_to_string(&file)?, "the host has been renamed to {needle}");
    Ok(())
}

/// The kernel refuses a name of 65 bytes, and whoever called must be told.
fn errors_are_passed_on() -> Result<()> {
    for which in ["hostname", "domainname"] {
        let done =
            finish(program(STEP).args([&format!("--{which}"), &"x".repeat(65), "--", "true"]))?;
        ensure!(
            done.code == 125,
            "the kernel refuses a {which} of 65 bytes, but the program ended with {} and not with \
             125: give the error back with `?`, don't drop it\n{}",
            done.code,
            done.stderr
        );
    }
    Ok(())
}

fn a_child_may_be_faster() -> Result<()> {
    // Not 0: that would be right for a program that ends at once, and runs nothing.
    let code = 1 + Chance::new("exit code").below(100) as u8;
    let script = format!("exit {code}");
    let mut command =
        slow_parent::after_each_call(code, program(STEP).args(["--", "sh", "-c", &script]));
    match finish_within(limit(Duration::from_secs(20)), &mut command) {
        Ok(done) => done.with_code(code.into()).map(drop),
        Err(hang) => bail!(
            "the child ended before its parent began to wait, and now the parent waits for ever.\n\
             SIGCHLD comes once. It is lost if it comes while it isn't held back, so hold it back \
             *before* there is a child, and look whether the child has ended before you sleep.\n\
             Read signalfd(2), and `signals::hold_back`.\n{hang:#}"
        ),
    }
}

fn a_signal_may_come_early() -> Result<()> {
    let mut command = slow_parent::early_signal(program(STEP).args(["--", "sleep", "1000"]));
    let done = finish_within(limit(Duration::from_secs(20)), &mut command)?;
    ensure!(
        done.code == 128 + 15,
        "SIGTERM was sent to the parent when its child had just been born. It is meant for the \
         command, which `wait` would have passed it on to; but the parent ended with {}, and not \
         with 143. So hold signals back before the child is made.\n{}",
        done.code,
        done.stderr
    );
    Ok(())
}

/// The command can't read a file that was open outside.
fn no_door_is_left_open() -> Result<()> {
    let needle = Chance::new("door").needle();
    let mut secret = tempfile::NamedTempFile::new()?;
    writeln!(secret, "{needle}")?;
    let mut chance = Chance::new("number");
    for door in [3, 4 + chance.below(5)] {
        let script = format!("exec \"$@\" {door}<{}", secret.path().display());
        let mut command = clean("sh");
        command.args(["-c", &script, "sh"]).arg(program(STEP).get_program());
        command.args(["--", "sh", "-c", &format!("cat <&{door}")]);
        let done = finish(&mut command)?;
        ensure!(
            !done.stdout.contains(&needle),
            "file descriptor {door} was open outside, and the command inside has read the host's \
             secret from it: {}\
             execve(2) keeps open files open. Close what is above standard error, or mark it with \
             close-on-exec: see close_range(2) and `sys::close_on_exec_from`.",
            done.stdout
        );
    }
    let needle = Chance::new("streams").needle();
    let echo = finish(program(STEP).args(["--", "echo", &needle]))?.success()?;
    ensure!(echo.stdout.trim() == needle, "standard output must stay open");
    Ok(())
}

/// What to predict: a question, how to find out, and how the student can see it, too.
pub struct Question {
    pub key: &'static str,
    pub ask: fn() -> Result<(), Errno>,
    pub try_it: &'static str,
}

impl Question {
    /// Asks the kernel, and compares with the answer.
    pub fn is_answered(&self, file: &str) -> Result<()> {
        let seen = match (self.ask)() {
            Ok(()) => "OK".into(),
            Err(errno) => format!("{errno:?}"),
        };
        answers::is(file, self.key, &seen, self.try_it)
    }
}

const QUESTIONS: [Question; 6] = [
    Question {
        key: "name_of_65_bytes",
        ask: || rustix::system::sethostname(&[b'x'; 65]).map_err(errno),
        try_it: "cargo course lab -- hostname $(printf '%065d' 0); man 2 sethostname",
    },
    Question {
        key: "name_of_no_bytes",
        ask: || rustix::system::sethostname(b"").map_err(errno),
        try_it: "man 2 sethostname: it tells how long a name may be, and not how short",
    },
    Question {
        key: "name_without_the_right",
        ask: name_without_the_right,
        try_it: "hostname needle, as a plain user; man 2 sethostname",
    },
    Question {
        key: "one_namespace_too_many",
        ask: || {
            fs::write("/proc/sys/user/max_uts_namespaces", "0").map_err(of_io)?;
            unshare(CloneFlags::CLONE_NEWUTS)
        },
        try_it: "cargo course lab -- sh -c 'echo 0 >/proc/sys/user/max_uts_namespaces; \
                 unshare --uts true'; man 7 namespaces",
    },
    Question {
        key: "no_right_to_execute",
        ask: || execute("#!/bin/sh\n", 0o644),
        try_it: "echo '#!/bin/sh' >script; ./script; man 2 execve",
    },
    Question {
        key: "no_interpreter",
        ask: || execute("#!/no/such/shell\n", 0o755),
        try_it: "echo '#!/no/such/shell' >script; chmod +x script; ./script; man 2 execve",
    },
];

pub fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

pub fn of_io(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

fn name_without_the_right() -> Result<(), Errno> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(errno)?;
    rustix::system::sethostname(b"needle").map_err(errno)
}

/// Executes a file with this text and mode.
fn execute(text: &str, mode: u32) -> Result<(), Errno> {
    let dir = TempDir::new().map_err(of_io)?;
    let file = dir.path().join("script");
    fs::write(&file, text).map_err(of_io)?;
    fs::set_permissions(&file, Permissions::from_mode(mode)).map_err(of_io)?;
    Command::new(&file).status().map(drop).map_err(of_io)
}

/// What a student's script is called with.
pub fn script(step: &str, name: &str) -> Result<String> {
    let file = workspace().join(step).join("exercises").join(name);
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let command = |line: &str| !line.trim().is_empty() && !line.starts_with('#');
    ensure!(
        text.lines().any(command),
        "{step}/exercises/{name} holds no command yet; its first lines say what it is to do"
    );
    Ok(file.display().to_string())
}

/// A process with a random choice of namespaces of its own: the script tells which.
fn namespaces_are_told() -> Result<()> {
    const ALL: [(&str, &str); 4] =
        [("uts", "--uts"), ("ipc", "--ipc"), ("net", "--net"), ("mnt", "--mount")];
    let script = script(STEP, "namespaces.sh")?;
    let mut chance = Chance::new("namespaces");
    for choice in [1 + chance.below(15), 1 + chance.below(15), 0] {
        let chosen = ALL.iter().enumerate().filter(|(n, _)| choice & (1 << n) != 0);
        let (names, options): (BTreeSet<&str>, Vec<&str>) = chosen.map(|(_, pair)| *pair).unzip();
        let mut command = clean("unshare");
        let mut held =
            Held::start(command.args(&options).args(["sh", "-c", "echo ready; read end"]))?;
        held.says("ready")?;
        let told = finish(clean("sh").args([&script, &held.pid().to_string()]))?.success()?.stdout;
        let told: BTreeSet<&str> = told.split_whitespace().collect();
        ensure!(
            told == names,
            "of a process that was started by `unshare {}` the script tells {told:?} and not \
             {names:?}. The links in /proc/PID/ns name the namespaces: two processes are in the \
             same one if the links are equal. See namespaces(7).",
            options.join(" ")
        );
    }
    Ok(())
}

fn the_host_is_renamed() -> Result<()> {
    let script = script(STEP, "rename-the-host.sh")?;
    let needle = Chance::new("host").needle();
    let done = finish(program(STEP).args(["--", "sh", &script, &needle]))?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    ensure!(
        host.trim() == needle,
        "after `step01-uts -- sh rename-the-host.sh {needle}` the host is still called {host}\
         The script is in a UTS namespace of its own, but it is root, and the host's processes \
         are in its /proc: it may enter the namespace of one of them. See nsenter(1).\n{}",
        done.stderr
    );
    Ok(())
}

/// A container that holds still, and the number of the process in it.
fn container(name: &str) -> Result<(Held, String)> {
    let mut command = program(STEP);
    command.args(["--hostname", name, "--", "sh", "-c", "echo pid $$; read end"]);
    let mut held = Held::start(&mut command)?;
    let pid = held.says("pid")?;
    Ok((held, pid))
}

/// Who enters sees the container's name, and what they change is seen by the others there.
fn the_name_is_shared() -> Result<()> {
    let mut chance = Chance::new("enter");
    let (first, second) = (chance.needle(), chance.needle());
    let (_held, pid) = container(&first)?;
    let enter = |command: &[&str]| finish(program("enter").arg(&pid).args(command));
    let seen = enter(&["hostname"])?.success()?.stdout;
    ensure!(
        seen.trim() == first,
        "`enter {pid} hostname` prints {seen}and the name in there is {first}. setns(2) takes an \
         open file of /proc/{pid}/ns and moves the caller: it has to come before execve(2)."
    );
    enter(&["hostname", &second])?.success()?;
    let seen = enter(&["hostname"])?.success()?.stdout;
    ensure!(seen.trim() == second, "renamed to {second}, it is called {seen}: is it the same one?");
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    ensure!(host.trim() != second, "the host has been renamed to {second}");
    Ok(())
}

fn nobody_is_there() -> Result<()> {
    // Beyond the greatest number that Linux gives to a process.
    let done = finish(program("enter").args(["4194305", "echo", "entered"]))?;
    ensure!(
        done.code == 125 && done.stdout.is_empty(),
        "there is no process 4194305, so `enter` must fail with 125 and run nothing; it ended with \
         {}: {}{}",
        done.code,
        done.stdout,
        done.stderr
    );
    Ok(())
}
