//! The program `course`, as learners and instructors use it: see `tests::scenario` for how this runs.

mod formats;
mod starter;
mod submission;
mod submissions;

use std::{env, process::ExitCode};

use anyhow::Result;
use tests::{
    programs::{self, BIN_DIR},
    scenario,
};

fn main() -> ExitCode {
    let files = [starter::scenarios(), submissions::scenarios(), formats::scenarios()];
    let asks = |word| env::args().any(|arg| arg == word);
    let runs = !asks("--inside") && !asks("--list") && !asks("--describe");
    if runs && env::var_os(BIN_DIR).is_none() {
        prepare().unwrap_or_else(|error| eprintln!("the grader can't be prepared: {error:#}"));
    }
    scenario::main(&files.into_iter().flatten().collect::<Vec<_>>())
}

/// Builds what all gradings have in common, which takes longer than a scenario may.
fn prepare() -> Result<()> {
    programs::build()?;
    submission::course().arg("grade").status()?;
    submission::course().args(["grade", "--hidden"]).arg(submissions::hidden()?).status()?;
    starter::prepare()
}
