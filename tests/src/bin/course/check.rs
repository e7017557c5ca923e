//! `cargo course check`: builds what is asked for, tries it, and says what was seen.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    str::FromStr,
};

use ::tests::{
    exercises::{Exercise, Id, Kind, Manifest},
    programs::{self, STEPS},
    scenario::{Outcome, Verdict},
};
use anyhow::{Context, Result, bail, ensure};

use crate::{advice, place, progress::Progress, terminal};

/// Tries your solutions: all of them, those of a step, or one.
///
///   cargo course check
///   cargo course check 3
///   cargo course check 3.2
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Check {
    /// A step, such as 3, or an exercise, such as 3.2
    what: Option<What>,
}

/// What to check.
#[derive(Clone, Copy)]
pub enum What {
    Step(usize),
    Exercise(Id),
}

impl FromStr for What {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(step) if (1..=STEPS.len()).contains(&step) => Ok(What::Step(step)),
            Ok(_) => bail!("the steps are numbered from 1 to {}", STEPS.len()),
            Err(_) => Ok(What::Exercise(text.parse()?)),
        }
    }
}

/// Checks, and says how far one has come. The exit code says whether all is solved.
pub fn check(args: &Check) -> Result<ExitCode> {
    let root = place::workspace()?;
    ensure!(
        root == programs::workspace(),
        "this program belongs to {}; use `cargo course` in {}",
        programs::workspace().display(),
        root.display()
    );
    let solved = check_in(&root, args.what)?;
    Ok(if solved { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As [`check`], in the workspace at `root`.
pub fn check_in(root: &Path, what: Option<What>) -> Result<bool> {
    let manifest = Manifest::read(root)?;
    let wanted: Vec<&Exercise> = match what {
        None => manifest.exercises.iter().collect(),
        Some(What::Step(step)) => manifest.of_step(step).collect(),
        Some(What::Exercise(id)) => vec![manifest.find(id)?],
    };
    ensure!(!wanted.is_empty(), "there is no exercise there");
    let tests = test_programs()?;
    programs::make_probe()?;
    let mut steps: Vec<usize> = wanted.iter().map(|exercise| exercise.id.step).collect();
    steps.dedup();
    let mut all = true;
    let mut progress = Progress::read(root);
    for step in steps {
        let exercises: Vec<&Exercise> =
            wanted.iter().copied().filter(|exercise| exercise.id.step == step).collect();
        println!("{}", terminal::bold(format!("Step {step}: {}", STEPS[step - 1])));
        let outcomes = match build(&exercises)? {
            true => run(&tests, &exercises)?,
            false => {
                println!("  It doesn't compile: see above.\n");
                for exercise in exercises {
                    progress.exercises.insert(exercise.id.to_string(), Verdict::Failed);
                }
                all = false;
                continue;
            }
        };
        for exercise in exercises {
            let verdict = tell(root, exercise, &outcomes);
            all &= verdict == Verdict::Passed;
            progress.exercises.insert(exercise.id.to_string(), verdict);
        }
        println!();
    }
    progress.write(root)?;
    println!("{}", progress.bar(&manifest));
    Ok(all)
}

/// Builds the programs that these exercises' tests run; what doesn't compile is shown.
fn build(exercises: &[&Exercise]) -> Result<bool> {
    let packages = packages(exercises);
    let args = ["build", "--quiet", "--bins", "--examples"];
    let status = programs::cargo(&args, &packages)?.status().context("can't run cargo")?;
    Ok(status.success())
}

/// The steps whose programs the tests of these exercises run.
pub fn packages(exercises: &[&Exercise]) -> Vec<&'static str> {
    let of_test = |test: &String| {
        let number = test.strip_prefix("step").or(test.strip_prefix("exercises::"))?;
        let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
        STEPS.get(digits.parse::<usize>().ok()?.checked_sub(1)?).copied()
    };
    let mut all: Vec<&str> = exercises.iter().map(|exercise| exercise.folder()).collect();
    // What is attacked is the step before: it hasn't got yet what this one defends with.
    let attacks = exercises.iter().filter(|exercise| exercise.kind == Kind::Attack);
    all.extend(attacks.filter_map(|exercise| STEPS.get(exercise.id.step.checked_sub(2)?)));
    all.extend(exercises.iter().flat_map(|exercise| exercise.tests.iter().filter_map(of_test)));
    all.sort_unstable();
    all.dedup();
    all
}

/// Builds the two programs of tests, and says where they are.
pub fn test_programs() -> Result<Vec<PathBuf>> {
    let args = ["test", "--quiet", "--no-run", "--test", "ladder", "--test", "exercises"];
    let mut cargo = programs::cargo(&args, &["tests"])?;
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let done = cargo.output().context("can't run cargo")?;
    ensure!(done.status.success(), "cargo can't build the tests");
    let programs = built_tests(&done.stdout);
    ensure!(programs.len() == 2, "cargo has built {programs:?}");
    Ok(programs)
}

/// The programs of tests that cargo says it has built, in JSON.
pub fn built_tests(messages: &[u8]) -> Vec<PathBuf> {
    String::from_utf8_lossy(messages)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| Some(message["executable"].as_str()?.into()))
        .collect()
}

/// Runs the tests of these exercises, each in the first place that fits.
fn run(tests: &[PathBuf], exercises: &[&Exercise]) -> Result<Vec<Outcome>> {
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report");
    let mut names: Vec<&String> = exercises.iter().flat_map(|e| &e.tests).collect();
    names.sort();
    names.dedup();
    for test in tests {
        let mut command = std::process::Command::new(test);
        command.arg("--report").arg(&report);
        command.args(names.iter().flat_map(|name| ["--scenario", name]));
        command.env(programs::BIN_DIR, programs::bin_dir()).env("INSTA_UPDATE", "no");
        command.env("INSTA_WORKSPACE_ROOT", programs::workspace());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().with_context(|| format!("can't run {}", test.display()))?;
    }
    Outcome::read_all(&report)
}

/// How an exercise ended: passed if all of its tests have, and none was skipped.
pub fn verdict(exercise: &Exercise, outcomes: &[Outcome]) -> Verdict {
    let result = |test: &String| outcomes.iter().find(|o| o.name == *test).map(|o| o.result);
    let results: Vec<Option<Verdict>> = exercise.tests.iter().map(result).collect();
    if results.contains(&Some(Verdict::Failed)) {
        Verdict::Failed
    } else if results.iter().all(|result| *result == Some(Verdict::Passed)) {
        Verdict::Passed
    } else {
        Verdict::Skipped
    }
}

/// Prints how an exercise ended, and what helps.
fn tell(root: &Path, exercise: &Exercise, outcomes: &[Outcome]) -> Verdict {
    let verdict = verdict(exercise, outcomes);
    let points = exercise.points;
    let title = format!("{} {}", exercise.id, exercise.title);
    match verdict {
        Verdict::Passed => println!("  {} {title}: {points} points", terminal::green("✓")),
        Verdict::Skipped => println!("  {} {title}: not tried", terminal::yellow("?")),
        Verdict::Failed => println!("  {} {title}", terminal::red("✗")),
    }
    for test in &exercise.tests {
        match outcomes.iter().find(|outcome| outcome.name == *test) {
            None => println!("      {test} has no place here: it needs {:?}", exercise.needs),
            Some(Outcome { result: Verdict::Passed, .. }) => {}
            Some(Outcome { result: Verdict::Skipped, message, .. }) => {
                println!("      {test} was skipped: {message}");
            }
            Some(Outcome { message, .. }) => {
                println!("      {}", terminal::bold(test));
                for line in advice::essence(message) {
                    println!("        {line}");
                }
                for advice in advice::on(message) {
                    println!("      {} {advice}", terminal::yellow("likely:"));
                }
            }
        }
    }
    if verdict == Verdict::Failed {
        for place in still_to_write(root, exercise) {
            println!("      still to be written: {place}");
        }
        println!("      cargo course hint {}", exercise.id);
    }
    verdict
}

/// Where an exercise's functions still have no body.
fn still_to_write(root: &Path, exercise: &Exercise) -> Vec<String> {
    let mark = format!("exercise {}:", exercise.id);
    let mut files: Vec<&Path> =
        exercise.cuts().unwrap_or_default().into_iter().map(|(file, _)| file).collect();
    files.dedup();
    let mut places = vec![];
    for file in files {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        for (number, line) in (1..).zip(text.lines()) {
            if line.contains("todo!(") && line.contains(&mark) {
                places.push(format!("{}:{number}", file.display()));
            }
        }
    }
    places
}
