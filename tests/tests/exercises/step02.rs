//! The exercises of step 2: a process that sees itself as number 1.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};
use tests::{
    chance::Chance,
    held::Held,
    programs::{clean, program},
    run::finish,
    scenario::{IN_LAB, PRIVILEGED, Scenario, skip},
};

use crate::step01::{Question, of_io, script};

const STEP: &str = "step02-pid";
const ANSWERS: &str = "step02-pid/exercises/errno.toml";

pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::new("exercises::2.1::ends_as_the_command", PRIVILEGED, ends_as_the_command),
        Scenario::new("exercises::2.2::ended_together", PRIVILEGED, ended_together),
        Scenario::new("exercises::2.4::the_secret_is_found", PRIVILEGED, the_secret_is_found),
        Scenario::new("exercises::2.5::numbers_outside", PRIVILEGED, numbers_outside),
        Scenario::new("exercises::2.6::another_time", PRIVILEGED, another_time),
    ];
    all.extend(QUESTIONS.map(|question| {
        let name = format!("exercises::2.3::{}", question.key);
        Scenario::new(name, IN_LAB, move || question.is_answered(ANSWERS))
    }));
    all
}

fn ends_as_the_command() -> Result<()> {
    let code = 2 + Chance::new("code").below(120) as i32;
    for (script, expected) in
        [(format!("exit {code}"), code), ("kill -9 $$".into(), 128 + 9), ("exit 0".into(), 0)]
    {
        let done = finish(program(STEP).args(["--", "sh", "-c", &script]))?;
        ensure!(
            done.code == expected,
            "the command was `{script}`, so number 1 has to end with {expected}; it ended with {}. \
             `exit_code` makes the number of what `reap` gives.\n{}",
            done.code,
            done.stderr
        );
    }
    Ok(())
}

/// The children of a process, in the order of their birth.
pub fn children(pid: i32) -> Result<Vec<i32>> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let list = fs::read_to_string(&file).context(file)?;
    Ok(list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// The letter that stands for what a process does: `S` sleeps, `T` is stopped, `Z` is a zombie.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim().chars().next()
}

/// Waits until it is so. `false` says that it doesn't come to pass.
pub fn comes_true(mut it: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !it() {
        if Instant::now() > deadline {
            return false;
        }
        // Nothing tells when a process changes its state.
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Number 1 stands still while several of its children end, so that one SIGCHLD stands for all.
fn ended_together() -> Result<()> {
    let script = "for n in 1 2 3 4; do (sleep 1000 &) done; echo ready; exec sleep 1000";
    let mut held = Held::start(program(STEP).args(["--", "sh", "-c", script]))?;
    held.says("ready")?;
    let reaped = all_are_reaped(held.pid() as i32);
    if reaped.is_err() {
        held.kill()?; // It wouldn't end by itself.
    }
    reaped?;
    let (end, _) = held.end()?;
    ensure!(
        end.code() == Some(128 + 9),
        "the command was killed by signal 9, the step ended with {end}"
    );
    Ok(())
}

fn all_are_reaped(outside: i32) -> Result<()> {
    let lesson = "Signals don't queue up: one SIGCHLD may stand for several children that have \
                  ended, so call waitpid(2) until nobody is left that has. See signal(7).";
    let init = *children(outside)?.first().context("the step has no child")?;
    let complete = comes_true(|| children(init).is_ok_and(|all| all.len() == 5));
    ensure!(complete, "number 1 is to have the command and four orphans: {:?}", children(init)?);
    let family = children(init)?;
    let (command, orphans) = family.split_first().context("a command")?;
    end_at_once(outside, init, &orphans[..3])?;
    let reaped = comes_true(|| orphans[..3].iter().all(|pid| state(*pid).is_none()));
    ensure!(reaped, "three orphans ended at the same time, and some are zombies still. {lesson}");
    end_at_once(outside, init, &[orphans[3], *command])?;
    let ended = comes_true(|| matches!(state(outside), None | Some('Z')));
    ensure!(ended, "an orphan ended together with the command, and number 1 goes on. {lesson}");
    Ok(())
}

/// Kills some children of `init` while it stands still.
fn end_at_once(outside: i32, init: i32, ending: &[i32]) -> Result<()> {
    // The step would wake number 1, so it has to stand still first.
    for pid in [outside, init] {
        kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
        ensure!(comes_true(|| state(pid) == Some('T')), "{pid} doesn't stop");
    }
    for pid in ending {
        kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
        ensure!(comes_true(|| state(*pid) == Some('Z')), "{pid} doesn't end");
    }
    kill(Pid::from_raw(init), Signal::SIGCONT)?;
    Ok(kill(Pid::from_raw(outside), Signal::SIGCONT)?)
}

const QUESTIONS: [Question; 6] = [
    Question {
        key: "kill_number_1",
        ask: || kill(Pid::from_raw(1), Signal::SIGKILL),
        try_it: "cargo course lab -- sh -c 'kill -9 1; echo $?; ps'; man 7 pid_namespaces",
    },
    Question {
        key: "kill_somebody_outside",
        // Greater than any number that Linux gives: here, nobody has it.
        ask: || kill(Pid::from_raw(4_194_305), Signal::SIGTERM),
        try_it: "cargo course lab -- sh -c 'kill 4194304'; man 2 kill",
    },
    Question {
        key: "number_1_has_ended",
        ask: || {
            unshare(CloneFlags::CLONE_NEWPID)?;
            let child = || Command::new("true").status().map(drop).map_err(of_io);
            child()?;
            child()
        },
        try_it: "cargo course lab -- unshare --pid bash -c '/bin/true; /bin/true; :'; man 7 pid_namespaces",
    },
    Question {
        key: "a_thread_over_there",
        ask: || {
            unshare(CloneFlags::CLONE_NEWPID)?;
            thread::Builder::new().spawn(|| ()).map(drop).map_err(of_io)
        },
        try_it: "man 2 clone, CLONE_THREAD: threads of one process have one PID namespace",
    },
    Question {
        key: "unshare_twice",
        ask: || {
            unshare(CloneFlags::CLONE_NEWPID)?;
            unshare(CloneFlags::CLONE_NEWPID)
        },
        try_it: "cargo course lab -- unshare --pid unshare --pid true; man 2 unshare",
    },
    Question {
        key: "nobody_to_wait_for",
        ask: || waitpid(None, None).map(drop),
        try_it: "man 2 waitpid",
    },
];

fn the_secret_is_found() -> Result<()> {
    let script = script(STEP, "spy.sh")?;
    let needle = Chance::new("secret").needle();
    let mut host = clean("sh");
    let mut host = Held::start(host.args(["-c", "echo ready; read end"]).env("SECRET", &needle))?;
    host.says("ready")?;
    let done = finish(program(STEP).args(["--", "sh", &script]))?;
    ensure!(
        done.stdout.contains(&needle),
        "a process of the host has SECRET={needle} in its environment, and the script inside prints:\
         \n{}{}\nA PID namespace of its own gives new numbers, but the /proc in here is the host's \
         still. See proc_pid_environ(5).",
        done.stdout,
        done.stderr
    );
    Ok(())
}

/// A container with some processes, and the number outside of its number 1.
fn container(processes: u64) -> Result<(Held, i32)> {
    let script = format!(
        "for n in $(seq {processes}); do sleep 1000 & done; echo ready; read end; kill $(jobs -p)"
    );
    let mut held = Held::start(program(STEP).args(["--", "sh", "-c", &script]))?;
    held.says("ready")?;
    let init = *children(held.pid() as i32)?.first().context("the step has no child")?;
    Ok((held, init))
}

/// In two containers there are processes with the same numbers, and each is found.
fn numbers_outside() -> Result<()> {
    let script = script(STEP, "outside.sh")?;
    let mut chance = Chance::new("numbers");
    let containers = [container(2 + chance.below(5))?, container(2 + chance.below(5))?];
    for (_held, init) in &containers {
        let shell = *children(*init)?.first().context("the container has no command")?;
        for outside in children(shell)?.into_iter().chain([shell, *init]) {
            let status = fs::read_to_string(format!("/proc/{outside}/status"))?;
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let inside =
                numbers.and_then(|line| line.split_whitespace().last()).context("NSpid")?;
            let told = finish(clean("sh").args([&script, &init.to_string(), inside]))?;
            ensure!(
                told.stdout.trim() == outside.to_string(),
                "the container whose number 1 is {init} here has a process {inside}, which is \
                 {outside} here; `outside.sh {init} {inside}` prints {:?}. A process has a number \
                 in each PID namespace from its own up to the first: see NSpid in \
                 proc_pid_status(5). Another container may have a number {inside}, too.\n{}",
                told.stdout,
                told.stderr
            );
        }
    }
    Ok(())
}

/// The clock inside is off by a number that nobody can have guessed, and the host's isn't.
fn another_time() -> Result<()> {
    if !Path::new("/proc/self/timens_offsets").exists() {
        return skip("this kernel has no time namespaces (CONFIG_TIME_NS)");
    }
    let uptime = |text: &str| -> Result<f64> {
        let seconds = text.split_whitespace().next().context("no time")?;
        seconds.parse().with_context(|| format!("{text:?} is no time"))
    };
    let mut chance = Chance::new("time");
    for _ in 0..2 {
        let seconds = 1_000 + chance.below(100_000_000);
        let before = uptime(&fs::read_to_string("/proc/uptime")?)?;
        let mut command = program("clock");
        command.args([&seconds.to_string(), "cat", "/proc/uptime"]);
        let inside = uptime(&finish(&mut command)?.success()?.stdout)?;
        let after = uptime(&fs::read_to_string("/proc/uptime")?)?;
        let shift = seconds as f64;
        ensure!(
            (before + shift - 1. ..after + shift + 1.).contains(&inside),
            "the machine has been up for {before} seconds, and inside it should be {seconds} more; \
             there, /proc/uptime says {inside}. unshare(2) with CLONE_NEWTIME moves only the \
             children, and the offsets are written before the first one: see time_namespaces(7)."
        );
    }
    Ok(())
}
