//! `final run` at a terminal.

use anyhow::{Result, ensure};
use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};
use tests::{
    chance::Chance,
    scenario::{Place, Scenario},
    terminal::Session,
};

use crate::{images, running::command};

const MACHINE: &[Place] = &[Place::Root, Place::User];

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("real::terminal::shell", MACHINE, shell),
        Scenario::new("real::terminal::ctrl_c", MACHINE, ctrl_c),
        Scenario::new("real::terminal::output_is_whole", MACHINE, output_is_whole),
        Scenario::new("real::terminal::hangup", MACHINE, hangup),
    ]
}

/// A shell has a terminal of its own and job control, and ends with its own exit code.
fn shell() -> Result<()> {
    let image = images::small()?;
    let mut session = Session::start(&command(&[], &image, &["sh"]))?;
    session.press("tty\n")?;
    session.wait_for("/dev/pts/0")?;
    // The quotes are gone in the answer: so it isn't what was typed. By then, the shell reads no more.
    session.press("echo re''ady; cat\n")?;
    session.wait_for("ready")?;
    session.press("hello\n")?;
    session.wait_for("hello")?;
    session.wait_for("hello")?;
    session.press("\x1a")?;
    session.wait_for("Stopped")?;
    session.press("kill -9 %1; wait; echo back-$((6*7))\n")?;
    session.wait_for("back-42")?;
    // Twice, for a shell that hasn't noticed yet that the job is dead wants to be asked again.
    session.press("exit 5\nexit 5\n")?;
    let (code, screen) = session.end()?;
    ensure!(code == 5, "{code}: {screen}");
    Ok(())
}

fn ctrl_c() -> Result<()> {
    let image = images::small()?;
    let script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 1; done";
    let mut session = Session::start(&command(&[], &image, &["sh", "-c", script]))?;
    session.wait_for("ready")?;
    session.press("\x03")?;
    session.wait_for("caught")?;
    let (code, screen) = session.end()?;
    ensure!(code == 9, "{code}: {screen}");
    Ok(())
}

/// Also the last line of a command that ends at once.
fn output_is_whole() -> Result<()> {
    let image = images::small()?;
    let mut chance = Chance::new("output");
    for _ in 0..10 {
        let needle = chance.needle();
        let (code, screen) = Session::start(&command(&[], &image, &["echo", &needle]))?.end()?;
        ensure!(code == 0 && screen.trim_end().ends_with(&needle), "{code}: {screen:?}");
    }
    let script = "seq 1 50000; echo end";
    let (code, screen) = Session::start(&command(&[], &image, &["sh", "-c", script]))?.end()?;
    let complete = screen.contains("\r\n25000\r\n") && screen.ends_with("50000\r\nend\r\n");
    ensure!(code == 0 && complete, "{code}: {} bytes", screen.len());
    Ok(())
}

/// Who closes the window ends what runs in it.
fn hangup() -> Result<()> {
    let image = images::small()?;
    let mut session = Session::start(&command(&[], &image, &["sh", "-c", "echo up; sleep 20"]))?;
    session.wait_for("up")?;
    let program = Pid::from_raw(session.pid() as i32);
    drop(session);
    let end = waitpid(program, None)?;
    ensure!(end == WaitStatus::Exited(program, 129), "{end:?}");
    Ok(())
}
