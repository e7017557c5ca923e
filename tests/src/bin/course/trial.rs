//! Builds and tries one step of one submission, with the reference's other steps around it.
//!
//! It is a process of its own, `course try-step`, which reads what to do as JSON and prints what came
//! of it as JSON. Nothing of the student's runs in it: it only prepares what the labs inherit.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, ExitCode, exit},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ::tests::{
    chance,
    programs::{BIN_DIR, STEPS},
    run,
    scenario::{Outcome, PLACE, SKIPPED, Verdict},
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    base::OwnedView,
    limits::Group,
    sandbox::{self, HARNESS, Layer, WORKSPACE},
    submission::Sources,
};

/// What to try.
#[derive(Debug, Deserialize, Serialize)]
pub struct Job {
    pub base: PathBuf,
    pub harness: PathBuf,
    pub stage: PathBuf,
    /// The student's folder.
    pub submission: PathBuf,
    /// The number of the step.
    pub step: usize,
    /// The examples that are the student's.
    pub examples: Vec<PathBuf>,
    /// The packages to build.
    pub packages: Vec<String>,
    /// The tests to run, each with the program that has it.
    pub tests: BTreeMap<String, String>,
    pub seed: u64,
    /// The name of the control group, which whoever started this removes.
    pub group: String,
    /// How many tests at a time.
    pub threads: usize,
    /// How long one program may take, in seconds.
    pub seconds: u64,
}

/// What came of it.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Tried {
    pub outcomes: Vec<Outcome>,
    /// What the compiler says, if not everything could be built; or why nothing was.
    pub complaint: Option<String>,
    /// Whether memory and processes were limited as a whole.
    pub limited: bool,
}

/// How long a build may take.
const BUILD: Duration = Duration::from_secs(180);
/// How long one program that a test runs may take, in seconds, unless said otherwise.
pub const SECONDS: u64 = 10;
/// How many times as long one test may take, and all tests of a step together.
const TEST: u64 = 6;
const TESTS: u64 = 24;
/// MiB of memory for what is written while building.
const SCRATCH: u32 = 2048;

/// `course try-step`: does it.
pub fn main() -> Result<ExitCode> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let job: Job = serde_json::from_str(&text)?;
    let group = Group::enter(&job.group);
    group.give_to(sandbox::ids_of_lab()?.ids.users[0].1);
    let mut tried = Tried { limited: group.holds(), ..Default::default() };
    let sources = match Sources::read(&job.submission, STEPS[job.step - 1]) {
        Ok(sources) => sources,
        Err(error) => {
            tried.complaint = Some(format!("{error:#}"));
            println!("{}", serde_json::to_string(&tried)?);
            return Ok(ExitCode::SUCCESS);
        }
    };
    let view = OwnedView {
        base: job.base.clone(),
        harness: job.harness.clone(),
        stage: job.stage.clone(),
        layer: Layer::Scratch(SCRATCH),
    };
    sandbox::enter(&view.borrow(), &mut || {
        try_it(&job, &sources, &mut tried)?;
        println!("{}", serde_json::to_string(&tried)?);
        exit(0)
    })
}

fn try_it(job: &Job, sources: &Sources, tried: &mut Tried) -> Result<()> {
    let workspace = Path::new(WORKSPACE);
    sources.replace(&workspace.join(STEPS[job.step - 1]), &job.examples)?;
    hide_built(&workspace.join("target/debug"), job.step)?;
    tried.complaint = build(job)?;
    let programs = Path::new("/programs");
    // Those of earlier steps are there to be broken out of.
    let mut built: Vec<&str> = STEPS[..job.step - 1].to_vec();
    built.extend(job.packages.iter().map(String::as_str));
    gather(&workspace.join("target/debug"), programs, &built)?;
    sandbox::cover(&workspace.join("target"))?;
    sandbox::freeze()?;
    tried.outcomes = run_tests(job, programs);
    Ok(())
}

/// Removes what was built of the reference's step and of those that are built from it: nobody
/// can hand in our own program as theirs.
fn hide_built(folder: &Path, step: usize) -> Result<()> {
    let libraries = ["uts", "pid", "mnt", "user", "net", "ipc", "cgroups", "overlay"];
    let later = step - 1..STEPS.len();
    let mut stems: Vec<String> = later
        .flat_map(|n| {
            let (step, library) = (STEPS[n], libraries[n]);
            let under = step.replace('-', "_");
            [
                step.into(),
                under.clone(),
                library.into(),
                format!("lib{library}"),
                format!("lib{under}"),
            ]
        })
        .collect();
    stems.extend(["final", "runtime", "libruntime"].map(String::from));
    let is_theirs = |name: &str| {
        stems.iter().any(|stem| {
            name.strip_prefix(stem.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
        })
    };
    for part in ["", "deps", ".fingerprint", "build"] {
        for entry in fs::read_dir(folder.join(part)).into_iter().flatten().flatten() {
            if is_theirs(&entry.file_name().to_string_lossy()) {
                remove(&entry.path())?;
            }
        }
    }
    // Examples are named as they please; those of earlier steps aren't asked for.
    remove(&folder.join("examples"))?;
    remove(&folder.join("incremental"))
}

fn remove(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(data) if data.is_dir() => Ok(fs::remove_dir_all(path)?),
        Ok(_) => Ok(fs::remove_file(path)?),
        Err(_) => Ok(()),
    }
}

/// Builds the step's programs. Those that don't compile are complained of, the others are there.
fn build(job: &Job) -> Result<Option<String>> {
    let mut cargo = sandbox::lab(&["cargo", "build", "--offline", "--locked", "--quiet"]);
    cargo.args(["--keep-going", "--bins", "--examples"]);
    cargo.args(job.packages.iter().flat_map(|package| ["--package", package]));
    Ok(match run::finish_within(BUILD, &mut cargo) {
        Ok(done) if done.code == 0 => None,
        Ok(done) => Some(shortened(&done.stderr)),
        Err(error) => Some(shortened(&format!("{error:#}"))),
    })
}

/// Puts the built programs, and the grader's own beside them, into the folder that tests look in.
fn gather(built: &Path, to: &Path, packages: &[&str]) -> Result<()> {
    fs::create_dir_all(to.join("examples"))?;
    let copy = |from: &Path, to: &Path| -> Result<()> {
        if from.symlink_metadata().is_ok_and(|data| data.is_file()) {
            fs::copy(from, to).with_context(|| from.display().to_string())?;
            fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    };
    for package in packages {
        copy(&built.join(package), &to.join(package))?;
    }
    for entry in fs::read_dir(built.join("examples")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Cargo keeps each under a second name, with a hash.
        if !name.contains(['.', '-']) || !name.rsplit('-').next().is_some_and(is_hash) {
            copy(&entry.path(), &to.join("examples").join(&name))?;
        }
    }
    for entry in fs::read_dir(HARNESS)?.flatten() {
        symlink(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn is_hash(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Runs the tests, each in a lab of its own.
fn run_tests(job: &Job, programs: &Path) -> Vec<Outcome> {
    let times = |n| Duration::from_secs(n * job.seconds);
    let deadline = Instant::now() + times(TESTS);
    let tests: Vec<(&String, &String)> = job.tests.iter().collect();
    let outcomes = Mutex::new(vec![]);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..job.threads.max(1) {
            scope.spawn(|| {
                while let Some((name, program)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let mut test = test(job, programs, name, program);
                    let outcome = outcome(name, left.min(times(TEST)), &mut test);
                    outcomes.lock().expect("nobody panics with this lock").push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().expect("nobody panics with this lock")
}

fn test(job: &Job, programs: &Path, name: &str, program: &str) -> Command {
    let mut test = sandbox::lab(&[&format!("{HARNESS}/{program}"), "--inside", name]);
    test.env(PLACE, "Lab").env(BIN_DIR, programs).env(chance::SEED, job.seed.to_string());
    test.env("INSTA_UPDATE", "no").env("INSTA_WORKSPACE_ROOT", WORKSPACE).env("CI", "true");
    test.env(run::SECONDS, job.seconds.to_string()).env("RUST_BACKTRACE", "0");
    test
}

/// What a test's exit code says. Nothing else is asked: a program can print what it likes.
fn outcome(name: &str, limit: Duration, test: &mut Command) -> Outcome {
    let (result, message) = match run::finish_within(limit, test) {
        Ok(done) if done.code == 0 => (Verdict::Passed, String::new()),
        Ok(done) if done.code == i32::from(SKIPPED) => {
            (Verdict::Skipped, done.stdout.trim().to_owned())
        }
        Ok(done) => (Verdict::Failed, format!("{}{}", done.stdout, done.stderr)),
        Err(error) => (Verdict::Failed, format!("{error:#}")),
    };
    Outcome { name: name.to_owned(), result, message: shortened(&message) }
}

/// Messages are for reading: a student may print gigabytes.
fn shortened(text: &str) -> String {
    const MOST: usize = 6000;
    let text: String =
        text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}\n… and more", &text[..end]),
        None => text,
    }
}
