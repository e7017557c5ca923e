//! Starters: they compile, fail with messages that teach, tell no solution, and can be solved.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tests::{
    exercises::Manifest,
    programs::{self, workspace},
    run::{Finished, finish, finish_within},
    scenario::{HERE, Scenario, skip},
};

use crate::submission::{can_build, course, path};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("starter::tells_no_solution", HERE, tells_no_solution),
        Scenario::new("starter::of_some_steps", HERE, of_some_steps),
        Scenario::new("starter::is_failed_and_solved", HERE, is_failed_and_solved),
        Scenario::new("doctor::answers", HERE, doctor),
    ]
}

fn new(dir: &Path, steps: &str) -> Result<Finished> {
    if !workspace().join("tests/exercises.toml").is_file() {
        return skip("there are no exercises");
    }
    let mut command = course();
    finish(command.arg("new").arg(dir).args(["--steps", steps]).current_dir(workspace()))?.success()
}

fn files(folder: &Path, all: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => files(&entry.path(), all)?,
            false => all.push(entry.path()),
        }
    }
    Ok(())
}

/// No line that is particular to what was cut can be found, but where a later step repeats it.
fn tells_no_solution() -> Result<()> {
    let dir = TempDir::new()?;
    let made = new(dir.path(), "1-8")?;
    ensure!(!made.stderr.contains("tells the solution"), "{}", made.stderr);
    for part in [".git", "target", "tests/mutants"] {
        ensure!(!dir.path().join(part).exists(), "{part} is there");
    }
    let manifest = Manifest::read(workspace())?;
    let starter = Manifest::read(dir.path())?;
    ensure!(starter.starter && starter.exercises.len() == manifest.exercises.len());
    for exercise in &manifest.exercises {
        for (file, item) in exercise.cuts()? {
            let (ours, theirs) = (workspace().join(file), dir.path().join(file));
            let text = fs::read_to_string(ours)?;
            let body = book::source::find(&text, item)?.body_code().unwrap_or_default();
            let cut = fs::read_to_string(theirs)?;
            let id = exercise.id;
            ensure!(cut.contains(&format!("todo!(\"exercise {id}: ")), "{id} isn't in {file:?}");
            let long = |line: &&str| line.trim().len() > 30 && !line.trim().starts_with("//");
            // Another function of the file may have some of them as well.
            let lines: Vec<&str> = body.lines().filter(long).collect();
            let left = lines.iter().filter(|line| cut.contains(line.trim())).count();
            ensure!(left * 2 <= lines.len(), "{id}: {file:?} still has {left} lines of {item}");
        }
        for file in &exercise.blank {
            let (ours, theirs) = (workspace().join(file), dir.path().join(file));
            let (ours, theirs) = (fs::read_to_string(ours)?, fs::read_to_string(theirs)?);
            ensure!(ours != theirs, "{file} still has its answers");
        }
    }
    let mut all = vec![];
    files(dir.path(), &mut all)?;
    let remains = |path: &&PathBuf| path.extension().is_some_and(|e| e == "orig" || e == "patch");
    ensure!(!all.iter().any(|path| remains(&path)), "patches are there");
    Ok(())
}

fn of_some_steps() -> Result<()> {
    let dir = TempDir::new()?;
    new(dir.path(), "2-3")?;
    let has = |part: &str| dir.path().join(part).is_dir();
    ensure!(has("step01-uts") && has("step03-mnt-pivot") && !has("step04-user") && !has("final"));
    let steps = Manifest::read(dir.path())?.steps();
    ensure!(steps.iter().all(|step| (2..=3).contains(step)), "exercises of {steps:?}");
    let refused = finish(course().arg("new").arg(dir.path()).current_dir(workspace()))?;
    ensure!(refused.code == 125 && refused.stderr.contains("isn't empty"), "{}", refused.stderr);
    Ok(())
}

/// Makes a starter of step 1, at the same place each time, so that what was built once needn't be
/// built again.
fn fresh() -> Result<PathBuf> {
    let dir = programs::bin_dir().join("starter");
    let kept = dir.join("target");
    for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
        if entry.path() != kept {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
    }
    let fresh = TempDir::new()?;
    new(fresh.path(), "1")?;
    fs::create_dir_all(&dir)?;
    let copied = Command::new("cp").arg("-a").arg(fresh.path().join(".")).arg(&dir).status()?;
    ensure!(copied.success(), "can't copy");
    Ok(dir)
}

fn check(dir: &Path, what: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(dir).args(["course", "check", what]).env_remove("CARGO_TARGET_DIR");
    cargo.env_remove("CONTAINERS_BIN_DIR").env("CARGO_NET_OFFLINE", "true");
    cargo.env("RUST_BACKTRACE", "0").env("PATH", path());
    cargo
}

/// Builds a starter, with all its dependencies: the first time, that takes longer than a scenario may.
pub fn prepare() -> Result<()> {
    if can_build().is_ok() {
        check(&fresh()?, "1").stdout(Stdio::null()).status()?;
    }
    Ok(())
}

/// A whole way: a new workspace compiles, its check fails and says what to do; our solution passes.
fn is_failed_and_solved() -> Result<()> {
    can_build()?;
    let dir = fresh()?;
    let check = || finish_within(Duration::from_secs(170), &mut check(&dir, "1"));
    let failed = check()?.with_code(1)?;
    for wanted in
        ["not yet implemented: exercise 1.1", "still to be written", "cargo course hint 1.1"]
    {
        ensure!(failed.stdout.contains(wanted), "no {wanted:?} in {}", failed.stdout);
    }
    ensure!(!failed.stderr.contains("warning"), "it warns: {}", failed.stderr);
    let solved = |part: &str| -> Result<()> {
        let (from, to) =
            (workspace().join("step01-uts").join(part), dir.join("step01-uts").join(part));
        let mut all = vec![];
        if from.is_dir() {
            files(&from, &mut all)?;
        }
        for file in all {
            let to = to.join(file.strip_prefix(&from)?);
            fs::write(to, fs::read(&file)?).with_context(|| file.display().to_string())?;
        }
        Ok(())
    };
    ["src", "examples", "exercises"].into_iter().try_for_each(solved)?;
    let passed = check()?.success()?;
    ensure!(!passed.stdout.contains('✗'), "{}", passed.stdout);
    Ok(())
}

/// It tells what it found, in both forms, and both say the same.
fn doctor() -> Result<()> {
    let told = finish(course().arg("doctor"))?;
    for what in ["kernel", "user namespaces", "overlay", "control groups", "idmapped mounts"] {
        ensure!(told.stdout.contains(what), "nothing of {what}: {}", told.stdout);
    }
    let mut json = course();
    json.args(["doctor", "--json"]);
    let json = finish(&mut json)?;
    let value: serde_json::Value = serde_json::from_str(&json.stdout)?;
    ensure!(value["ready"] == (told.code == 0), "{} and {}", told.stdout, json.stdout);
    ensure!(told.code == json.code, "{} and {}", told.code, json.code);
    Ok(())
}
