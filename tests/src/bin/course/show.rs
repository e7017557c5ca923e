//! `hint`, `diff` and `solution`: what can be shown of an exercise and of a step.

use std::{fs, path::Path, process::ExitCode};

use ::tests::{
    exercises::{Id, Manifest},
    programs::STEPS,
};
use anyhow::{Context, Result, ensure};
use book::source;
use similar::{ChangeTag, TextDiff};

use crate::{place, progress::Progress, terminal};

/// Shows a hint: a nudge first, and more each time that you ask.
#[derive(clap::Args)]
pub struct Hint {
    /// The exercise, such as 3.2
    exercise: Id,

    /// Show all hints at once
    #[arg(long)]
    all: bool,
}

/// Shows it, and remembers how much has been told.
pub fn hint(args: &Hint) -> Result<ExitCode> {
    let root = place::workspace()?;
    let manifest = Manifest::read(&root)?;
    let exercise = manifest.find(args.exercise)?;
    let all = exercise.hints.len();
    ensure!(all > 0, "there is no hint for exercise {}", exercise.id);
    let mut progress = Progress::read(&root);
    let told = progress.hints.entry(exercise.id.to_string()).or_default();
    let first = if args.all { 0 } else { (*told).min(all - 1) };
    let last = if args.all { all } else { first + 1 };
    *told = last;
    println!("{}", terminal::bold(format!("{} {}", exercise.id, exercise.title)));
    for (number, hint) in (1..).zip(&exercise.hints).take(last).skip(first) {
        println!("hint {number} of {all}: {hint}");
    }
    progress.write(&root)?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what a step adds: the difference between its main and the one before.
#[derive(clap::Args)]
pub struct Diff {
    /// The step's number
    #[arg(value_parser = clap::value_parser!(u8).range(1..=8))]
    step: u8,
}

/// Prints it as `diff -u` would, with all lines.
pub fn diff(args: &Diff) -> Result<ExitCode> {
    let root = place::workspace()?;
    let main = |step: &str| {
        let file = root.join(step).join("src/main.rs");
        fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))
    };
    let number = usize::from(args.step);
    let new = main(STEPS[number - 1])?;
    let old = if number > 1 { main(STEPS[number - 2])? } else { String::new() };
    for change in TextDiff::from_lines(&old, &new).iter_all_changes() {
        let line = format!("{}{}", change.tag(), change.to_string().trim_end());
        println!(
            "{}",
            match change.tag() {
                ChangeTag::Delete => terminal::red(line),
                ChangeTag::Insert => terminal::green(line),
                ChangeTag::Equal => line,
            }
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the solution of an exercise; only where there is one, in the reference.
#[derive(clap::Args)]
pub struct Solution {
    /// The exercise, such as 3.2
    exercise: Id,
}

/// Prints the functions and the answers that a starter hasn't got.
pub fn solution(args: &Solution) -> Result<ExitCode> {
    let root = place::reference()?;
    let manifest = Manifest::read(&root)?;
    let exercise = manifest.find(args.exercise)?;
    let read = |file: &Path| {
        fs::read_to_string(root.join(file))
            .with_context(|| format!("can't read {}", file.display()))
    };
    for (file, item) in exercise.cuts()? {
        let text = read(file)?;
        let item = source::find(&text, item)?;
        println!("{}\n{}\n", terminal::bold(file.display()), item.code());
    }
    for file in &exercise.blank {
        println!("{}\n{}", terminal::bold(file), read(Path::new(file))?);
    }
    for patch in &exercise.swap {
        println!("{}, the other way round:\n{}", terminal::bold(patch), read(Path::new(patch))?);
    }
    Ok(ExitCode::SUCCESS)
}
