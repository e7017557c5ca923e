//! Step 7: limits on memory, CPU and processes, on whichever cgroups the machine has.

use anyhow::{Context, Result, ensure};
use tests::{
    programs::program,
    run::{Finished, finish},
    scenario::{AS_ROOT, HERE, Place, Scenario},
};

use crate::snapshot;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("step07::memory", AS_ROOT, memory),
        Scenario::new("step07::processes", AS_ROOT, processes),
        Scenario::new("step07::cpu", AS_ROOT, cpu),
        Scenario::new("step07::not_delegated", &[Place::User], not_delegated),
        Scenario::new("step07::wrong_limits", HERE, wrong_limits),
    ]
}

fn limited(options: &[&str], command: &[&str]) -> Result<Finished> {
    finish(program("step07-cgroups").args(options).arg("--").args(command))
}

/// The kernel kills whoever wants more, and nobody who doesn't.
fn memory() -> Result<()> {
    let eat = ["tail", "/dev/zero"];
    let killed = limited(&["--memory", "32m"], &eat)?.with_code(137)?;
    ensure!(killed.stderr.contains(" 1 killed for memory"), "{}", killed.stderr);
    let modest = limited(&["--memory", "32m"], &["true"])?.success()?;
    ensure!(modest.stderr.contains(" 0 killed for memory"), "{}", modest.stderr);
    Ok(())
}

fn processes() -> Result<()> {
    let script = "for n in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all";
    let all = limited(&["--pids", "20"], &["sh", "-c", script])?.success()?;
    ensure!(all.stdout == "all\n", "20 are enough: {}", all.stderr);
    let refused = limited(&["--pids", "6"], &["sh", "-c", script])?;
    ensure!(!refused.stdout.contains("all") && refused.code != 0, "6 were enough");
    ensure!(!refused.stderr.contains(" 0 refused by --pids"), "{}", refused.stderr);
    Ok(())
}

/// A tenth of a CPU is soon used up, and then the kernel makes the group wait.
fn cpu() -> Result<()> {
    let busy = ["timeout", "1", "sh", "-c", "while :; do :; done"];
    let throttled = |options| -> Result<u32> {
        let done = limited(options, &busy)?.with_code(124)?;
        let number = done.stderr.split_once("throttled ").context("no statistics")?.1;
        Ok(number.split_whitespace().next().context("no number")?.parse()?)
    };
    ensure!(throttled(&["--cpus", "0.1"])? > 0, "a tenth of a CPU was never used up");
    ensure!(throttled(&["--pids", "100"])? == 0, "throttled without a limit");
    Ok(())
}

/// A limit that can't be kept is refused. It's never ignored.
fn not_delegated() -> Result<()> {
    let refused = limited(&["--memory", "32m"], &["true"])?.with_code(125)?;
    ensure!(
        refused.stderr.contains("delegate") || refused.stderr.contains("need root"),
        "{}",
        refused.stderr
    );
    Ok(())
}

fn wrong_limits() -> Result<()> {
    let mut told = String::new();
    for wrong in
        ["--memory=much", "--memory=0", "--cpus=0", "--pids=0", "--io=sda", "--io=/dev/null=1m"]
    {
        told += &limited(&[wrong], &["true"])?.with_code(125)?.stderr;
    }
    // What kind of file system /dev lies on is this machine's.
    let known: Vec<&str> = told.lines().filter(|line| !line.contains("has number")).collect();
    snapshot::check("step07-error-wrong-limits", &known.join("\n"));
    Ok(())
}
