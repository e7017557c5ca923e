//! `{{#exercises 3}}`: the exercises of a step, from their manifest.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{block, directive::Directive, workspace::Workspace};

/// Where the exercises are described.
const MANIFEST: &str = "tests/exercises.toml";

#[derive(Deserialize)]
struct Manifest {
    exercise: Vec<Exercise>,
}

/// What the book shows of an exercise.
#[derive(Deserialize)]
struct Exercise {
    id: String,
    title: String,
    kind: String,
    goal: String,
    task: String,
    points: u32,
    minutes: u32,
    #[serde(default = "lab")]
    needs: String,
    #[serde(default)]
    hints: Vec<String>,
}

fn lab() -> String {
    "lab".into()
}

/// `{{#exercises 3}}`: all exercises whose id begins with `3.`.
///
/// # Errors
/// If the manifest is wrong, or the step has no exercise.
pub fn exercises(directive: &mut Directive, workspace: &Workspace) -> Result<String> {
    let step = directive.take("the step's number")?;
    let manifest: Manifest =
        toml::from_str(&workspace.read(MANIFEST)?).with_context(|| format!("in {MANIFEST}"))?;
    let of_step = |exercise: &&Exercise| exercise.id.split('.').next() == Some(&step);
    let mut exercises = manifest.exercise.iter().filter(of_step).peekable();
    ensure!(exercises.peek().is_some(), "{MANIFEST} has no exercise for step {step}");
    Ok(exercises.map(shown).collect())
}

fn shown(exercise: &Exercise) -> String {
    let Exercise { id, title, kind, goal, task, points, minutes, needs, .. } = exercise;
    let anchor = id.replace('.', "-");
    let facts = [
        kind.clone(),
        counted(*points, "point"),
        format!("about {}", counted(*minutes, "minute")),
        needed(needs),
    ];
    let facts: Vec<String> = facts.iter().map(|fact| format!("<li>{fact}</li>")).collect();
    let mut text = format!(
        "<section class=\"exercise\">\n\n\
         ### Exercise {id}: {title} {{#exercise-{anchor}}}\n\n\
         <ul class=\"facts\">{}</ul>\n\n\
         **Goal:** {goal}\n\n{}\n\n{}\n",
        facts.concat(),
        task.trim(),
        block::fenced("console", &format!("$ cargo course check {id}")),
    );
    text += &hints(&exercise.hints, 1);
    text + "\n</section>\n\n"
}

/// Each hint lies inside of the one before, so that they are opened one by one.
fn hints(all: &[String], number: usize) -> String {
    let Some((first, rest)) = all.split_first() else { return String::new() };
    let mut text = format!("<details class=\"hint\"><summary>Hint {number}</summary>\n\n");
    let _ = write!(text, "{}\n\n{}</details>\n", first.trim(), hints(rest, number + 1));
    text
}

fn counted(number: u32, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

fn needed(needs: &str) -> String {
    match needs {
        "lab" => "runs in the lab".into(),
        "root" => "needs root".into(),
        "cgroup" => "needs control groups".into(),
        other => format!("needs {}", block::escaped(other)),
    }
}
