//! Step 4: root inside, nobody outside.

use std::fs;

use anyhow::{Result, ensure};
use tests::{
    programs::program,
    run::finish,
    scenario::{EVERYWHERE, IN_LAB, Place, Scenario},
};

use crate::{
    snapshot,
    steps::{ProbeRoot, step, steps},
};

const STEP: &str = "step04-user";

pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::new("step04::no_user_namespaces", IN_LAB, no_user_namespaces),
        Scenario::new("step04::wrong_ids", EVERYWHERE, wrong_ids),
        Scenario::new("step04::ids_of_others", &[Place::User], ids_of_others),
    ];
    for (number, name) in steps().filter(|(number, _)| *number >= 4) {
        let mut add = |what: &str, proof: fn(&str) -> Result<()>| {
            let scenario = format!("step{number:02}::{what}");
            all.push(Scenario::new(scenario, EVERYWHERE, move || proof(name)));
        };
        add("root_inside_is_nobody_outside", root_inside_is_nobody_outside);
        add("privileges_are_gone", privileges_are_gone);
    }
    all
}

fn root_inside_is_nobody_outside(name: &str) -> Result<()> {
    let done = finish(&mut step(name, &["id", "-u"]))?.success()?;
    ensure!(done.stdout == "0\n", "inside, the user is {}", done.stdout);
    let script = "exec cat /proc/self/uid_map";
    let map = finish(&mut step(name, &["sh", "-c", script]))?.success()?.stdout;
    let outside: u32 = map.split_whitespace().nth(1).unwrap_or_default().parse()?;
    let own = nix::unistd::geteuid().as_raw();
    match Place::current() {
        Place::Root => ensure!(outside != 0, "root inside is root outside: {map}"),
        Place::User => ensure!(outside == own, "root inside isn't the user outside: {map}"),
        _ => {} // The lab of a user may have one id to give, and that is its root's.
    }
    Ok(())
}

fn privileges_are_gone(name: &str) -> Result<()> {
    let script = "
        hostname x 2>&1
        mount -t tmpfs none /mnt 2>/dev/null && echo mounted
        exit 0";
    let done = finish(&mut step(name, &["sh", "-c", script]))?.success()?;
    ensure!(done.stdout.contains("hostname: "), "a new name was taken: {}", done.stdout);
    ensure!(!done.stdout.contains("mounted"), "a mount was made: {}", done.stdout);
    Ok(())
}

fn no_user_namespaces() -> Result<()> {
    fs::write("/proc/sys/user/max_user_namespaces", "0")?;
    let refused = finish(&mut step(STEP, &["true"]))?.with_code(125)?;
    snapshot::check("step04-error-no-user-namespaces", &refused.stderr);
    Ok(())
}

fn wrong_ids() -> Result<()> {
    let mut told = String::new();
    for ids in ["1000", "1000:0", "4294967295:2", "x:y"] {
        let refused = finish(program(STEP).args(["--ids", ids, "--", "true"]))?;
        told += &refused.with_code(125)?.stderr;
    }
    snapshot::check("step04-error-wrong-ids", &told);
    Ok(())
}

fn ids_of_others() -> Result<()> {
    let root = ProbeRoot::new()?;
    let mut command = program(STEP);
    command.args(["--ids", "0:1"]).args(root.command(4)?);
    let refused = finish(&mut command)?.with_code(125)?;
    ensure!(refused.stderr.contains("newuidmap"), "{}", refused.stderr);
    Ok(())
}
