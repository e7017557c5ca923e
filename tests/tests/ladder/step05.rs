//! Step 5: a network stack with one cable to the host.

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use tests::{
    chance::Chance,
    run::finish,
    scenario::{PRIVILEGED, Place, Scenario, skip},
};

use crate::steps::{places, step, steps};

pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::new("step05::a_word_through_the_cable", PRIVILEGED, a_word_through_the_cable),
        Scenario::new("step05::two_at_a_time", PRIVILEGED, two_at_a_time),
        Scenario::new("step05::a_user_has_no_cable", &[Place::User], a_user_has_no_cable),
    ];
    for (number, name) in steps().filter(|(number, _)| *number >= 5) {
        let scenario = format!("step{number:02}::loopback_works");
        all.push(Scenario::new(scenario, places(number), move || loopback_works(name)));
    }
    all
}

const STEP: &str = "step05-net-veth";

/// Who is connected to the host's end of the cable reaches what listens on the host.
fn a_word_through_the_cable() -> Result<()> {
    let needle = Chance::new("cable").needle();
    let host = TcpListener::bind("0.0.0.0:0")?;
    let port = host.local_addr()?.port();
    let script =
        format!("set -- $(ip route show default); exec 3<>/dev/tcp/$3/{port} && echo {needle} >&3");
    let done = finish(&mut step(STEP, &["bash", "-c", &script]))?;
    if done.code == 127 {
        return skip("there is no bash, which can open connections");
    }
    done.success()?;
    // It has ended, so the connection waits already, or there is none.
    host.set_nonblocking(true)?;
    let (mut connection, from) = host.accept().context("nobody has called")?;
    let mut word = String::new();
    connection.set_nonblocking(false)?;
    connection.read_to_string(&mut word)?;
    ensure!(word.trim() == needle, "{from} said {word}");
    ensure!(from.ip().to_string().starts_with("10.213."), "the call came from {from}");
    Ok(())
}

fn two_at_a_time() -> Result<()> {
    let script = "ip -o -4 address show eth0; echo ready; read line";
    let mut both = vec![];
    for _ in 0..2 {
        let mut command = step(STEP, &["sh", "-c", script]);
        let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(running.stdout.take().context("a pipe")?).lines();
        let address = lines.next().transpose()?.context("no address")?;
        ensure!(lines.next().transpose()?.as_deref() == Some("ready"), "not ready: {address}");
        both.push((running, address.split_whitespace().nth(3).map(str::to_owned)));
    }
    ensure!(both[0].1.is_some() && both[0].1 != both[1].1, "both have {:?}", both[0].1);
    for (mut running, _) in both {
        drop(running.stdin.take());
        running.wait()?;
    }
    Ok(())
}

fn loopback_works(name: &str) -> Result<()> {
    let script = "ip -o address show lo; ip -o link show lo";
    let seen = finish(&mut step(name, &["sh", "-c", script]))?.success()?.stdout;
    ensure!(seen.contains("127.0.0.1/8") && seen.contains("LOWER_UP"), "{seen}");
    Ok(())
}

fn a_user_has_no_cable() -> Result<()> {
    let done = finish(&mut step(STEP, &["ip", "-o", "link"]))?.success()?;
    ensure!(done.stdout.lines().count() == 1, "the links are {}", done.stdout);
    ensure!(done.stderr.contains("note: "), "the user isn't told: {}", done.stderr);
    Ok(())
}
