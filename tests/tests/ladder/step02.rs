//! Step 2: a process that sees itself as number 1.

use anyhow::{Result, ensure};
use tests::{
    run::finish,
    scenario::{PRIVILEGED, Scenario},
};

use crate::steps::{places, step, steps};

pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![Scenario::new("step02::numbers", PRIVILEGED, numbers)];
    for (number, name) in steps().filter(|(number, _)| *number >= 2) {
        let mut add = |what: &str, proof: fn(&str) -> Result<()>| {
            let scenario = format!("step{number:02}::{what}");
            all.push(Scenario::new(scenario, places(number), move || proof(name)));
        };
        add("init_is_safe_from_inside", init_is_safe_from_inside);
        // It takes a /proc of its own to see the orphans.
        if number >= 3 {
            add("orphans_are_reaped", orphans_are_reaped);
        }
    }
    all
}

fn numbers() -> Result<()> {
    let shell = finish(&mut step("step02-pid", &["sh", "-c", "echo $$ $PPID"]))?.success()?;
    ensure!(shell.stdout == "2 1\n", "the shell's number and its parent's: {}", shell.stdout);
    Ok(())
}

/// The kernel gives number 1 no signal that it has no handler for, not even SIGKILL from inside.
fn init_is_safe_from_inside(name: &str) -> Result<()> {
    let script = "kill -9 1; kill -SEGV 1; echo alive";
    let done = finish(&mut step(name, &["sh", "-c", script]))?.success()?;
    ensure!(done.stdout == "alive\n", "{}", done.stdout);
    Ok(())
}

/// Orphans that have ended don't stay as zombies.
fn orphans_are_reaped(name: &str) -> Result<()> {
    let script = "
        for n in 1 2 3 4 5 6 7 8 9; do (true &) done
        for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            set -- /proc/[0-9]*
            [ $# = 2 ] && echo reaped && exit
            sleep 0.1
        done
        grep -h State: /proc/[0-9]*/status";
    let done = finish(&mut step(name, &["sh", "-c", script]))?.success()?;
    ensure!(done.stdout == "reaped\n", "besides number 1 and the shell: {}", done.stdout);
    Ok(())
}
