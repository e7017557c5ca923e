//! The console blocks of the book: commands that really run, and what they print.
//!
//! They stand in `tests/transcripts/*.toml`, by chapter. Each line runs with `sh -c`, with the built
//! programs in `PATH`; what it prints, and how it ends, is a snapshot.

use std::{env, ffi::OsStr, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;
use tests::{
    programs::{self, workspace},
    run::{Finished, finish},
    scenario::{AS_ROOT, IN_LAB, Place, Scenario, skip},
    view,
};

use crate::snapshot;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    transcript: Vec<Transcript>,
}

/// One console block.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transcript {
    name: String,
    #[serde(default)]
    place: Where,
    /// The commands, each as one would type it.
    run: Vec<String>,
    /// What is this machine's in their output, and a name for it.
    #[serde(default)]
    replace: Vec<(String, String)>,
    /// Programs that not every machine has.
    #[serde(default)]
    needs: Vec<String>,
}

/// Where they run.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Where {
    #[default]
    Lab,
    Root,
    User,
}

pub fn scenarios() -> Vec<Scenario> {
    let transcripts = read().unwrap_or_else(|error| panic!("{error:#}"));
    let scenario = |transcript: Transcript| {
        let name = format!("transcripts::{}", transcript.name);
        Scenario::new(name, transcript.places(), move || transcript.check())
    };
    transcripts.into_iter().map(scenario).collect()
}

/// All files, in the order of their names.
fn read() -> Result<Vec<Transcript>> {
    let folder = workspace().join("tests/transcripts");
    if !folder.exists() {
        return Ok(vec![]);
    }
    let files =
        fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
    let mut files: Vec<_> = files.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension() == Some(OsStr::new("toml")));
    files.sort();
    let mut all = vec![];
    for file in files {
        let parse =
            |file: &Path| Ok::<File, anyhow::Error>(toml::from_str(&fs::read_to_string(file)?)?);
        all.extend(parse(&file).with_context(|| file.display().to_string())?.transcript);
    }
    Ok(all)
}

impl Transcript {
    fn places(&self) -> &'static [Place] {
        match self.place {
            Where::Lab => IN_LAB,
            Where::Root => AS_ROOT,
            Where::User => &[Place::User],
        }
    }

    fn check(&self) -> Result<()> {
        if let Some(program) = self.needs.iter().find(|program| !is_there(program)) {
            return skip(format!("there is no {program}"));
        }
        let mut text = String::new();
        for line in &self.run {
            let _ = writeln!(text, "$ {}", line.trim().replace('\n', "\n> "));
            text += &printed(&finish(&mut shell(line))?);
        }
        let replace: Vec<_> = self.replace.iter().map(|(text, name)| (&**text, &**name)).collect();
        snapshot::check(&format!("transcript-{}", self.name), &view::transcript(&text, &replace));
        Ok(())
    }
}

fn is_there(program: &str) -> bool {
    finish(&mut shell(&format!("command -v {program}"))).is_ok_and(|done| done.code == 0)
}

/// A shell that runs `line`: both of its outputs are one, as on a terminal.
fn shell(line: &str) -> std::process::Command {
    let mut shell = programs::clean("sh");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = [programs::bin_dir()].into_iter().chain(env::split_paths(&path));
    shell.env("PATH", env::join_paths(path).unwrap_or_default());
    shell.current_dir("/tmp").args(["-c", &format!("exec 2>&1\n{line}")]);
    shell
}

/// What a command printed, and how it ended if that was no success.
fn printed(done: &Finished) -> String {
    let mut text = done.stdout.clone();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if done.code != 0 {
        let _ = writeln!(text, "[exit code {}]", done.code);
    }
    text
}
