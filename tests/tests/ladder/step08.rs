//! Step 8: a root made of shared layers and one thin writable one.

use std::fs;

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::{
    chance::Chance,
    machine::Machine,
    programs::program,
    run::finish,
    scenario::{EVERYWHERE, Scenario},
};

use crate::steps::step;

const STEP: &str = "step08-overlay";

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("step08::changes_are_gone", EVERYWHERE, changes_are_gone),
        Scenario::new("step08::changes_become_a_layer", EVERYWHERE, changes_become_a_layer),
        Scenario::new("step08::no_layer", EVERYWHERE, no_layer),
    ]
}

/// A program that is removed inside is there again the next time, and what was made isn't.
fn changes_are_gone() -> Result<()> {
    let needle = Chance::new("layers").needle();
    let script = format!("echo > /{needle} && rm /usr/bin/cat && ls / /usr/bin");
    let first = finish(&mut step(STEP, &["sh", "-c", &script]))?.success()?.stdout;
    ensure!(first.contains(&needle) && !first.lines().any(|name| name == "cat"), "{first}");
    let second = finish(&mut step(STEP, &["ls", "/", "/usr/bin"]))?.success()?.stdout;
    ensure!(!second.contains(&needle) && second.lines().any(|name| name == "cat"), "{second}");
    Ok(())
}

fn changes_become_a_layer() -> Result<()> {
    let needle = Chance::new("saved").needle();
    let dir = TempDir::new()?;
    let saved = dir.path().join("saved.tar");
    let script = format!("echo {needle} > /file; mkdir /folder; rm /usr/bin/cat");
    let mut command = program(STEP);
    command.arg("--save").arg(&saved).args(["--", "sh", "-c", &script]);
    finish(&mut command)?.success()?;
    let names: Vec<String> = tar::Archive::new(fs::File::open(&saved)?)
        .entries()?
        .map(|entry| Ok(entry?.path()?.display().to_string()))
        .collect::<Result<_>>()?;
    for wanted in ["file", "folder", "usr/bin/.wh.cat"] {
        let is = |name: &String| name.trim_start_matches("./").trim_end_matches('/') == wanted;
        let has = names.iter().any(is);
        ensure!(has, "{wanted} isn't in the saved layer: {names:?}");
    }
    Ok(())
}

fn no_layer() -> Result<()> {
    let before = Machine::now();
    let dir = TempDir::new()?;
    let broken = dir.path().join("broken.tar");
    fs::write(&broken, Chance::new("broken").needle())?;
    for layer in [broken, "/no/such/layer.tar".into()] {
        let refused = finish(program(STEP).arg("--layer").arg(layer).args(["--", "true"]))?;
        ensure!(!refused.with_code(125)?.stderr.contains("panicked"), "it panicked");
    }
    drop(dir);
    before.is_back()
}
