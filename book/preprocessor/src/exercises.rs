//! `{{#exercises 3}}`: the exercises of a step, from their manifest.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{block, directive::Directive, pages::Context};

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

impl Exercise {
    fn step(&self) -> &str {
        self.id.split('.').next().unwrap_or_default()
    }

    fn anchor(&self) -> String {
        format!("exercise-{}", self.id.replace('.', "-"))
    }
}

/// `{{#exercises 3}}`: the exercises of step 3, whose ids begin with `3.`; `{{#exercises all}}` is a
/// table of all exercises, with what each step comes to.
///
/// # Errors
/// If the manifest is wrong, or the step has no exercise.
pub fn exercises(directive: &mut Directive, context: &Context) -> Result<String> {
    let step = directive.take("the step's number")?;
    let manifest = context.workspace.read(MANIFEST)?;
    let manifest: Manifest = toml::from_str(&manifest).with_context(|| format!("in {MANIFEST}"))?;
    if step == "all" {
        return Ok(table(&manifest.exercise, context));
    }
    let of_step = |exercise: &&Exercise| exercise.step() == step;
    let mut exercises = manifest.exercise.iter().filter(of_step).peekable();
    ensure!(exercises.peek().is_some(), "{MANIFEST} has no exercise for step {step}");
    Ok(exercises.map(shown).collect())
}

fn shown(exercise: &Exercise) -> String {
    let Exercise { id, title, kind, goal, task, points, minutes, needs, .. } = exercise;
    let anchor = exercise.anchor();
    let facts = [
        kind.clone(),
        counted(*points, "point"),
        format!("about {}", counted(*minutes, "minute")),
        needed(needs),
    ];
    let facts: Vec<String> = facts.iter().map(|fact| format!("<li>{fact}</li>")).collect();
    let mut text = format!(
        "<section class=\"exercise\">\n\n\
         ### Exercise {id}: {title} {{#{anchor}}}\n\n\
         <ul class=\"facts\">{}</ul>\n\n\
         **Goal:** {goal}\n\n{}\n\n{}\n",
        facts.concat(),
        task.trim(),
        block::fenced("console", &format!("$ cargo course check {id}")),
    );
    text += &hints(&exercise.hints, 1);
    text + "\n</section>\n\n"
}

fn table(all: &[Exercise], context: &Context) -> String {
    let steps = all.chunk_by(|one, next| one.step() == next.step());
    let steps: String = steps.map(|exercises| rows(exercises, context)).collect();
    format!(
        "<div class=\"table-wrapper\">\n<table class=\"exercises\">\n\
         <thead><tr><th>exercise</th><th>kind</th><th>points</th><th>minutes</th></tr></thead>\n\
         {steps}</table>\n</div>\n"
    )
}

/// The rows of a step: first of all, what they come to.
fn rows(exercises: &[Exercise], context: &Context) -> String {
    let step = exercises[0].step();
    let chapter = format!("{{{{#exercises {step}}}}}");
    let page = context.pages.iter().find(|page| page.text.contains(&chapter));
    let link = page.map(|page| context.link(page)).unwrap_or_default();
    let points: u32 = exercises.iter().map(|exercise| exercise.points).sum();
    let minutes: u32 = exercises.iter().map(|exercise| exercise.minutes).sum();
    let rows = exercises.iter().map(|exercise| {
        let Exercise { id, title, kind, points, minutes, .. } = exercise;
        format!(
            "<tr><td><a href=\"{link}#{}\">{id} {}</a></td><td>{kind}</td><td>{points}</td>\
             <td>{minutes}</td></tr>\n",
            exercise.anchor(),
            block::html(title)
        )
    });
    format!(
        "<tbody>\n<tr><th colspan=\"2\" scope=\"rowgroup\">Step {step}</th><th>{points}</th>\
         <th>{minutes}</th></tr>\n{}</tbody>\n",
        rows.collect::<String>()
    )
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
