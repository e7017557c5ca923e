//! Which workspace a verb works on: the one that the user stands in, or that this program is from.

use std::{env, path::PathBuf};

use ::tests::{
    exercises::{Manifest, workspace_of},
    programs,
};
use anyhow::{Result, ensure};

/// The workspace to work on.
pub fn workspace() -> Result<PathBuf> {
    let here = env::current_dir().ok().and_then(|here| workspace_of(&here).ok());
    Ok(here.unwrap_or_else(|| programs::workspace().to_owned()))
}

/// The reference: the workspace with all the solutions.
pub fn reference() -> Result<PathBuf> {
    let root = workspace()?;
    ensure!(
        !Manifest::read(&root)?.starter,
        "this is a student's workspace; that can be done only in the reference"
    );
    Ok(root)
}
