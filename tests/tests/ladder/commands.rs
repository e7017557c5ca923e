//! The commands that the README and the book tell readers to type: they run as written.
//!
//! Those in their console blocks run in a lab each. What can't run there stands in [`NOT_HERE`], with
//! the reason. The output that is shown below a command must be in what it prints.

use std::{ffi::OsStr, fs};

use anyhow::{Context, Result};
use tests::{
    programs::{lab_works, program, workspace},
    run::{Finished, finish},
    scenario::{HERE, Scenario, skip},
};

/// How a command begins that isn't run, and why.
const NOT_HERE: &[(&str, &str)] = &[
    ("cargo test", "it is what runs this"),
    ("cargo build", "it takes minutes, and .ci/run does it"),
    ("cargo install", "it needs the network"),
    ("mdbook serve", "it never ends; .ci/book builds the book"),
    ("skopeo", "it needs the network"),
    ("sudo", "it changes the machine, or needs what a command before it has made"),
    ("git", "it needs the network"),
    ("brew", "it belongs to macOS"),
    ("lima", "it belongs to macOS"),
    ("systemd-run", "not every machine has systemd"),
    ("cd", "it only changes where the next one runs"),
    ("cargo course", "they have tests of their own, but for the lab"),
];

pub fn scenarios() -> Vec<Scenario> {
    pages()
        .into_iter()
        .map(|page| Scenario::new(format!("commands::{page}"), HERE, move || all_run(&page)))
        .collect()
}

/// The texts with console blocks of their own, by their paths in the workspace.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned(), ".github/CONTRIBUTING.md".to_owned()];
    for folder in ["book/src", "book/src/start", "book/src/reference"] {
        let files = fs::read_dir(workspace().join(folder)).into_iter().flatten().flatten();
        let files = files.map(|file| file.path());
        let mut files: Vec<_> =
            files.filter(|file| file.extension() == Some(OsStr::new("md"))).collect();
        files.sort();
        pages.extend(files.iter().filter_map(|file| {
            Some(file.strip_prefix(workspace()).ok()?.to_string_lossy().into_owned())
        }));
    }
    pages.retain(|page| {
        fs::read_to_string(workspace().join(page)).is_ok_and(|text| text.contains("```console\n$ "))
    });
    pages
}

fn all_run(page: &str) -> Result<()> {
    if let Err(reason) = lab_works() {
        return skip(format!("there is no lab: {reason}"));
    }
    let text = fs::read_to_string(workspace().join(page))?;
    for shown in blocks(&text).flat_map(shown) {
        shown.check().with_context(|| format!("{page}: `{}`", shown.command))?;
    }
    Ok(())
}

/// What stands in the console blocks of a page.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next())
}

/// A command of a block, and what is shown below it.
struct Shown<'a> {
    command: &'a str,
    output: Vec<&'a str>,
}

fn shown(block: &str) -> Vec<Shown<'_>> {
    let mut all: Vec<Shown> = vec![];
    for line in block.lines() {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (Some(command), _) => {
                // Two spaces and a # begin a remark.
                let command = command.split("  #").next().unwrap_or(command).trim();
                all.push(Shown { command, output: vec![] });
            }
            (None, Some(last)) => last.output.push(line),
            (None, None) => {}
        }
    }
    all
}

impl Shown<'_> {
    fn check(&self) -> Result<()> {
        let inside = self.command.strip_prefix("cargo course lab -- ");
        let not_here = NOT_HERE.iter().any(|(start, _)| self.command.starts_with(start));
        if not_here && inside.is_none() {
            return Ok(());
        }
        let done = run(inside.unwrap_or(self.command))?;
        // 1 is how diff says that there is a difference.
        let right = if self.command.starts_with("diff") { 1 } else { 0 };
        let printed = format!("{}{}", done.stderr, done.stdout);
        done.with_code(right)?;
        if !nix::unistd::geteuid().is_root() {
            return Ok(()); // Stories are shorter for who has one user id: they are shown as root's.
        }
        let mut rest = &*printed;
        for line in self.output.iter().filter(|line| !line.contains('…')) {
            let sign = sign(line);
            let at = rest.find(sign);
            let at = at.with_context(|| format!("`{sign}` isn't in what follows:\n{rest}"))?;
            rest = &rest[at + sign.len()..];
        }
        Ok(())
    }
}

/// What must be the same on all machines: a line up to its first number or parenthesis.
fn sign(line: &str) -> &str {
    let line = line.trim_start_matches(|c: char| c.is_ascii_digit() || c.is_whitespace());
    line.split(['(', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']).next().unwrap_or(line)
}

/// Runs a command in a lab, in the workspace's folder: as cargo would, but with what is built.
fn run(command: &str) -> Result<Finished> {
    let words = command.strip_prefix("cargo run -p ").and_then(|rest| rest.split_once(" -- "));
    let command = match words {
        Some((package, args)) => format!("{package} {args}"),
        None => command.to_owned(),
    };
    let mut lab = program("course");
    finish(lab.current_dir(workspace()).args(["lab", "--", "sh", "-c", &command]))
}
