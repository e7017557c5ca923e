//! What holds for every step: its help, its story, what is seen inside; exit codes, signals, the
//! terminal, and what a program inherits.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use similar::TextDiff;
use tests::{
    chance::Chance,
    exercises,
    programs::{self, program, source_of_main},
    run::finish,
    scenario::{AS_ROOT, HERE, PRIVILEGED, Scenario},
    terminal::Session,
    view,
};

use crate::{
    snapshot,
    steps::{ProbeRoot, finish_with_input, places, probe_in, step, steps},
};

pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![];
    let mut before: Option<&str> = None;
    for (number, name) in steps() {
        let mut add = |what: &str, proof: fn(usize, &'static str) -> Result<()>| {
            let scenario = format!("step{number:02}::{what}");
            all.push(Scenario::new(scenario, places(number), move || proof(number, name)));
        };
        add("names", names);
        add("exit_codes", exit_codes);
        add("signals", signals);
        add("ctrl_c", ctrl_c);
        add("ctrl_z", ctrl_z);
        add("standard_streams", standard_streams);
        add("inherits_nothing", inherits_nothing);
        add("ends_with_parent", ends_with_parent);
        // In the lab of a user without privileges, stories are shorter: the snapshots are root's.
        let told = if number < 3 { PRIVILEGED } else { AS_ROOT };
        let seen = if number < 7 { PRIVILEGED } else { AS_ROOT };
        all.push(Scenario::new(format!("step{number:02}::explain"), told, move || {
            explain(number, name)
        }));
        all.push(Scenario::new(format!("step{number:02}::probe"), seen, move || {
            snapshot::check(&format!("step{number:02}-probe"), &probe_in(number, name, &[])?);
            Ok(())
        }));
        all.push(Scenario::new(format!("step{number:02}::help"), HERE, move || help(number, name)));
        // A student's main may be another than ours.
        if let Some(before) = before.filter(|_| !exercises::is_starter()) {
            let proof = move || difference(before, name, number);
            all.push(Scenario::new(format!("step{number:02}::diff"), HERE, proof));
        }
        before = Some(name);
    }
    all
}

fn help(number: usize, name: &str) -> Result<()> {
    let help = finish(program(name).arg("--help"))?.success()?;
    snapshot::check(&format!("step{number:02}-help"), &help.stdout);
    ensure!(help.stderr.is_empty(), "help is an answer and no error: {}", help.stderr);
    Ok(())
}

/// The lesson of a step: the difference between its main and the one before.
fn difference(before: &str, name: &str, number: usize) -> Result<()> {
    let (old, new) = (source_of_main(before)?, source_of_main(name)?);
    let diff = TextDiff::from_lines(&old, &new);
    let mut diff = diff.unified_diff();
    let (old, new) = (format!("{before}/src/main.rs"), format!("{name}/src/main.rs"));
    let diff = diff.context_radius(1000).header(&old, &new);
    snapshot::check(&format!("step{number:02}-diff"), &diff.to_string());
    Ok(())
}

fn explain(number: usize, name: &str) -> Result<()> {
    finish(&mut step(name, &["true"]))?.success()?; // Fills the cache, which is another story.
    let told = finish(program(name).args(["--explain", "--", "true"]))?.success()?;
    // On cgroup v1, the number of groups and their order are this machine's: the story is v2's.
    if told.stderr.contains("/tasks\"") {
        let calls =
            ["mkdir(\"/sys/fs/cgroup/memory", "tasks\", \"0\")", "rmdir(\"/sys/fs/cgroup/memory"];
        for call in calls {
            ensure!(told.stderr.contains(call), "{call} isn't told: {}", told.stderr);
        }
    } else {
        snapshot::check(&format!("step{number:02}-explain"), &view::story(&told.stderr));
    }
    // Told or not, the output is the command's alone.
    ensure!(told.stdout.is_empty(), "the story is no output: {}", told.stdout);
    let silent = finish(&mut step(name, &["true"]))?.success()?;
    ensure!(!silent.stderr.contains("clone3"), "an untold story: {}", silent.stderr);
    Ok(())
}

/// Names that nobody can have guessed are seen inside, and the host keeps its own.
fn names(_: usize, name: &'static str) -> Result<()> {
    let mut chance = Chance::new(name);
    let (host, domain) = (chance.needle(), chance.needle());
    let of_host = || std::fs::read_to_string("/proc/sys/kernel/hostname");
    let before = of_host()?;
    let mut command = program(name);
    command.args(["--hostname", &host, "--domainname", &domain, "--"]);
    command.args(["cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname"]);
    let inside = finish(&mut command)?.success()?;
    ensure!(inside.stdout == format!("{host}\n{domain}\n"), "inside: {}", inside.stdout);
    ensure!(before == of_host()?, "the host has been renamed");
    Ok(())
}

fn exit_codes(_: usize, name: &str) -> Result<()> {
    let sh = |script| finish(&mut step(name, &["sh", "-c", script]));
    sh("exit 0")?.with_code(0)?;
    sh("exit 7")?.with_code(7)?;
    sh("exit 255")?.with_code(255)?;
    sh("kill -9 $$")?.with_code(128 + 9)?;
    sh("kill -TERM $$")?.with_code(128 + 15)?;
    finish(&mut step(name, &["no-such-program"]))?.with_code(127)?;
    finish(&mut step(name, &["/etc/passwd"]))?.with_code(126)?;
    finish(program(name).arg("--no-such-option"))?.with_code(125)?;
    // A child that ends before its parent has begun to wait.
    for _ in 0..20 {
        finish(&mut step(name, &["true"]))?.success()?;
    }
    Ok(())
}

/// A shell that says when it is ready, answers one signal, and ends with 42.
fn answering(signal: &str) -> [String; 3] {
    let script =
        format!("trap 'echo caught; exit 42' {signal}; echo ready; while :; do sleep 0.05; done");
    ["sh".into(), "-c".into(), script]
}

/// What is sent to the program arrives at the command.
fn signals(_: usize, name: &str) -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
        let mut command = step(name, &answering(signal.as_str().trim_start_matches("SIG")));
        let mut running = command.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(running.stdout.take().context("a pipe")?).lines();
        let mut next = || lines.next().transpose();
        ensure!(next()?.as_deref() == Some("ready"), "no command is ready for {signal}");
        kill(Pid::from_raw(running.id() as i32), signal)?;
        ensure!(next()?.as_deref() == Some("caught"), "{signal} didn't arrive");
        ensure!(next()?.is_none(), "{signal} came twice");
        let code = running.wait()?.code();
        ensure!(code == Some(42), "after {signal} the exit code is {code:?}");
    }
    Ok(())
}

/// Ctrl-C arrives at the command once: the terminal sends it to all, and nobody passes it on.
fn ctrl_c(_: usize, name: &str) -> Result<()> {
    let mut session = Session::start(&step(name, &answering("INT")))?;
    session.wait_for("ready")?;
    session.press("\x03")?;
    session.wait_for("caught")?;
    let (code, screen) = session.end()?;
    ensure!(code == 42 && screen.matches("caught").count() == 1, "{code}: {screen}");
    Ok(())
}

/// Ctrl-Z doesn't leave a stopped process that nobody can continue.
fn ctrl_z(_: usize, name: &str) -> Result<()> {
    let script = "echo ready; read line; echo got $line";
    let mut session = Session::start(&step(name, &["sh", "-c", script]))?;
    session.wait_for("ready")?;
    session.press("\x1a")?;
    session.press("needle\n")?;
    session.wait_for("got needle")?;
    let (code, screen) = session.end()?;
    ensure!(code == 0, "{code}: {screen}");
    Ok(())
}

fn standard_streams(_: usize, name: &'static str) -> Result<()> {
    let needle = Chance::new(name).needle();
    let script = "cat; echo complaint >&2";
    let done = finish_with_input(&needle, &mut step(name, &["sh", "-c", script]))?.success()?;
    ensure!(done.stdout == needle, "what went in doesn't come out: {}", done.stdout);
    // A step may have something to say beside it, in whole lines.
    ensure!(done.stderr.lines().any(|line| line == "complaint"), "stderr: {}", done.stderr);
    // Big enough that it must go through the pipe in pieces.
    let script = "head -c 1000000 /dev/zero";
    let done = finish(&mut step(name, &["sh", "-c", script]))?.success()?;
    ensure!(done.stdout.len() == 1_000_000, "{} bytes of 1000000", done.stdout.len());
    Ok(())
}

/// The command has three open files, and signals act as by default.
fn inherits_nothing(number: usize, name: &str) -> Result<()> {
    let root = ProbeRoot::new()?;
    // A shell opens one more file, and starts the step with it.
    let mut command = programs::clean("sh");
    command.args(["-c", "exec \"$@\" 9</etc/passwd", "sh"]).arg(programs::bin_dir().join(name));
    let seen = finish(command.args(root.command(number)?))?.success()?.stdout;
    ensure!(seen.contains("open files:\n  0\n  1\n  2\nblocked signals: 0\n"), "{seen}");
    let script = "while read -r line; do echo \"$line\"; done </proc/self/status";
    let status = finish(&mut step(name, &["sh", "-c", script]))?.success()?.stdout;
    for field in ["SigBlk:", "SigIgn:"] {
        let set = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        // Signals 1 to 31: those above are the C library's own, and it may ignore two of them.
        let set = u64::from_str_radix(set.trim(), 16).context("a set of signals")? & 0x7fff_ffff;
        ensure!(set == 0, "{field} {set:x}");
    }
    Ok(())
}

/// When the program is killed, so is all that runs inside: the pipe that they hold is closed.
fn ends_with_parent(number: usize, name: &str) -> Result<()> {
    // Without a PID namespace, the program answers for the command alone.
    let script =
        if number == 1 { "echo ready; exec sleep 1000" } else { "sleep 1000 & echo ready; wait" };
    let mut command = step(name, &["sh", "-c", script]);
    let mut running = command.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(running.stdout.take().context("a pipe")?).lines();
    ensure!(lines.next().transpose()?.as_deref() == Some("ready"), "the command isn't ready");
    running.kill()?;
    running.wait()?;
    ensure!(lines.next().is_none(), "something went on to run");
    Ok(())
}
