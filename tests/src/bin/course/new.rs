//! `cargo course new`: what a student starts with.

use std::{
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::ExitCode,
};

use ::tests::{exercises::Manifest, programs::STEPS};
use anyhow::{Context, Result, bail, ensure};

use crate::{place, starter};

/// Makes a student's workspace: the same crates, with the exercises' solutions left out.
///
/// The steps before the first that is asked for stay solved, those after the last are left out.
///
///   cargo course new ~/containers
///   cargo course new ~/containers --steps 1-4
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct New {
    /// The folder to make
    dir: PathBuf,

    /// The steps to solve: one, or FIRST-LAST
    #[arg(long, value_name = "STEPS", default_value = "1-8", value_parser = steps)]
    steps: RangeInclusive<usize>,
}

/// Reads `3` and `1-4`.
pub fn steps(text: &str) -> Result<RangeInclusive<usize>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let steps: RangeInclusive<usize> = first.parse()?..=last.parse()?;
    if steps.is_empty() || *steps.start() == 0 || *steps.end() > STEPS.len() {
        bail!("the steps are numbered from 1 to {}: write 3, or 1-4", STEPS.len());
    }
    Ok(steps)
}

/// Makes it.
pub fn make(new: &New) -> Result<ExitCode> {
    let root = place::reference()?;
    let is_empty = fs::read_dir(&new.dir).map_or(true, |mut entries| entries.next().is_none());
    ensure!(is_empty, "{} isn't empty: choose a new folder", new.dir.display());
    let tree = starter::make(&root, &new.steps)?;
    for (file, exercise) in tree.leaks() {
        eprintln!("course: {} tells the solution of exercise {exercise}", file.display());
    }
    tree.write(&new.dir)?;
    let readme = readme(&new.dir)?;
    fs::write(new.dir.join("README.md"), readme)?;
    println!("Made {}. Begin with its README.md:", new.dir.display());
    println!("  cd {} && cargo course doctor", new.dir.display());
    Ok(ExitCode::SUCCESS)
}

/// The first page that a student reads, with the exercises in a table.
fn readme(dir: &Path) -> Result<String> {
    let manifest = Manifest::read(dir)?;
    let mut table = String::from("| exercise | | points | minutes |\n|---|---|--:|--:|\n");
    for exercise in &manifest.exercises {
        let (points, minutes) = (exercise.points, exercise.minutes);
        table += &format!("| {} | {} | {points} | {minutes} |\n", exercise.id, exercise.title);
    }
    let text = include_str!("starter.md");
    let (before, after) = text.split_once("EXERCISES\n").context("starter.md has no EXERCISES")?;
    Ok(format!("{before}{table}{after}"))
}
