//! Nothing is left behind, however a program ends: with success, with a failure, by Ctrl-C, and
//! killed at any moment.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    chance::Chance, machine::Machine, programs::program, run::finish, scenario::Scenario,
    terminal::Session,
};

use crate::steps::{places, steps};

/// How often each step is killed in each place, unless the environment variable
/// `CONTAINERS_KILLS` says otherwise: 200 times for the whole ladder.
const KILLS: u32 = 25;

pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![];
    for (number, name) in steps().chain([(9, FINAL)]) {
        let mut add = |what: &str, proof: fn(&'static str) -> Result<()>| {
            let short = if name == FINAL { FINAL.into() } else { format!("step{number:02}") };
            let scenario = format!("{short}::leaves_nothing::{what}");
            all.push(Scenario::new(scenario, places(number), move || {
                let _store = Store;
                make_shared_store()?;
                proof(name)
            }));
        };
        add("success_and_failure", success_and_failure);
        add("ctrl_c", ctrl_c);
        add("killed", killed);
    }
    all
}

const FINAL: &str = "final";

/// The folder in which `final` keeps images and containers, here and now.
fn store() -> PathBuf {
    PathBuf::from(format!("/tmp/final-store-{}", nix::unistd::geteuid()))
}

/// Makes the store that other scenarios use at the same time, and that stays: it isn't to appear
/// between two looks.
fn make_shared_store() -> Result<()> {
    let command = ["run", "--net", "none", "--", "true"]; // A cable goes a moment after its end.
    finish(program(FINAL).args(command))?.success().map(drop)
}

/// Removes it in the end.
struct Store;

impl Drop for Store {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(store());
    }
}

/// A step or `final`, with these options and this command.
fn with_options(name: &str, options: &[&str], command: &[&str]) -> Command {
    let mut program = program(name);
    if name == FINAL {
        program.arg("--store").arg(store()).arg("run");
    }
    program.args(options).arg("--").args(command);
    program
}

fn step(name: &str, command: &[&str]) -> Command {
    with_options(name, &[], command)
}

fn success_and_failure(name: &str) -> Result<()> {
    let before = Machine::now();
    usual_time(name)?;
    let before = before.with_files();
    finish(&mut step(name, &["true"]))?.success()?;
    before.is_back().context("after success")?;
    finish(&mut step(name, &["sh", "-c", "exit 7"]))?.with_code(7)?;
    before.is_back().context("after a failure of the command")?;
    finish(&mut step(name, &["no-such-program"]))?.with_code(127)?;
    before.is_back().context("after a failure to start the command")?;
    let long = "x".repeat(65);
    finish(&mut with_options(name, &["--hostname", &long], &["true"]))?.with_code(125)?;
    before.is_back().context("after a failure to set up")
}

fn ctrl_c(name: &str) -> Result<()> {
    let before = Machine::now();
    usual_time(name)?;
    let before = before.with_files();
    // An answer that isn't the terminal's echo shows that the command reads.
    let mut session = Session::start(&step(name, &["sed", "s/needle/found/"]))?;
    session.press("needle\n")?;
    session.wait_for("found")?;
    session.press("\x03")?;
    let (code, screen) = session.end()?;
    ensure!(code == 130, "Ctrl-C ended it with {code}: {screen}");
    before.is_back()
}

/// Kills the program at moments from before its first call until after its last.
fn killed(name: &'static str) -> Result<()> {
    let before = Machine::now();
    let usual = usual_time(name)?;
    let before = before.with_files();
    let mut chance = Chance::new(name);
    let kills = env::var("CONTAINERS_KILLS").ok().and_then(|number| number.parse().ok());
    for n in 0..kills.unwrap_or(KILLS) {
        let after = Duration::from_nanos(chance.below(usual.as_nanos() as u64 * 3 / 2));
        let mut command = sleeper(name);
        let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // The one sleep that is meant: the moment of the kill.
        thread::sleep(after);
        running.kill()?;
        running.wait()?;
        before.is_back().with_context(|| format!("kill number {n}, after {after:?}"))?;
    }
    Ok(())
}

/// A step that runs until it is killed, and leaves a grandchild behind if it can.
fn sleeper(name: &str) -> Command {
    match name {
        // Without a PID namespace, the program answers for the command alone.
        "step01-uts" => step(name, &["sleep", "1000"]),
        _ => step(name, &["sh", "-c", "sleep 1000 & sleep 1000"]),
    }
}

/// How long a step takes to run a command, once its cache is filled.
fn usual_time(name: &str) -> Result<Duration> {
    finish(&mut step(name, &["true"]))?.success()?;
    let start = Instant::now();
    finish(&mut step(name, &["true"]))?.success()?;
    Ok(start.elapsed())
}
