//! How far a learner has come, kept in the target folder, and shown as a bar.

use std::{collections::BTreeMap, fs, path::Path};

use ::tests::{exercises::Manifest, scenario::Verdict};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::terminal;

const FILE: &str = "target/course.json";

/// What is remembered.
#[derive(Default, Deserialize, Serialize)]
pub struct Progress {
    /// How each exercise ended when it was checked last.
    #[serde(default)]
    pub exercises: BTreeMap<String, Verdict>,
    /// How many hints of each have been told.
    #[serde(default)]
    pub hints: BTreeMap<String, usize>,
}

impl Progress {
    /// What is known; nothing in a new workspace.
    pub fn read(root: &Path) -> Self {
        let text = fs::read_to_string(root.join(FILE)).ok();
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Remembers it.
    pub fn write(&self, root: &Path) -> Result<()> {
        let file = root.join(FILE);
        let folder = file.parent().context("a file lies in a folder")?;
        fs::create_dir_all(folder)?;
        fs::write(&file, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("can't write {}", file.display()))
    }

    /// A bar for each step and the sum: what was solved when it was checked last.
    pub fn bar(&self, manifest: &Manifest) -> String {
        let mut text = String::new();
        let (mut reached, mut all) = (0, 0);
        for step in manifest.steps() {
            text += &format!("{step} ");
            for exercise in manifest.of_step(step) {
                let verdict = self.exercises.get(&exercise.id.to_string());
                all += exercise.points;
                if verdict == Some(&Verdict::Passed) {
                    reached += exercise.points;
                }
                text += &match verdict {
                    Some(Verdict::Passed) => terminal::green("█"),
                    Some(Verdict::Failed) => terminal::red("▒"),
                    Some(Verdict::Skipped) => terminal::yellow("?"),
                    None => terminal::faint("░"),
                };
            }
            text += "  ";
        }
        format!("{text}{reached} of {all} points")
    }
}
