//! The exercises: the manifest `tests/exercises.toml`, read.
//!
//! It says what an exercise is called, what a starter leaves out of the reference for it, and which
//! scenarios prove it. The course, the grader and the book all read the same file.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::programs::{self, STEPS};

/// The manifest's file in a workspace.
pub const FILE: &str = "tests/exercises.toml";

/// All exercises, in the order of the book.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Whether the workspace is a student's, with the exercises' solutions left out.
    #[serde(default)]
    pub starter: bool,
    /// The exercises.
    #[serde(default, rename = "exercise")]
    pub exercises: Vec<Exercise>,
}

/// One exercise.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Exercise {
    /// Its step and its number: `3.2`.
    pub id: Id,
    /// A few words.
    pub title: String,
    /// What there is to do.
    pub kind: Kind,
    /// What is learnt, in one sentence.
    pub goal: String,
    /// What to do, as Markdown.
    pub task: String,
    /// What it counts when all its tests pass.
    pub points: u32,
    /// How long it takes.
    pub minutes: u32,
    /// What its tests need of the machine.
    pub needs: Needs,
    /// `FILE ITEM`: functions whose bodies a starter hasn't got.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
    /// Patches that put a bug into the starter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub swap: Vec<String>,
    /// Files for answers, empty in the starter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blank: Vec<String>,
    /// The names of the scenarios that prove it, without their places.
    pub tests: Vec<String>,
    /// Help, from a nudge to nearly everything.
    #[serde(default)]
    pub hints: Vec<String>,
}

/// The number of an exercise: that of its step, and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id {
    /// The number of the step, from 1 on.
    pub step: usize,
    /// Its number in the step, from 1 on.
    pub number: usize,
}

impl FromStr for Id {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('.').map(|(step, number)| (step.parse(), number.parse()));
        match numbers {
            Some((Ok(step), Ok(number))) if (1..=STEPS.len()).contains(&step) && number > 0 => {
                Ok(Id { step, number })
            }
            _ => bail!("an exercise is named by its step and its number, as in 3.2; not {text:?}"),
        }
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for Id {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&format!("{}.{}", self.step, self.number))
    }
}

/// What there is to do in an exercise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A function's body is missing.
    Complete,
    /// There is a bug.
    Repair,
    /// Say what the kernel will do.
    Predict,
    /// Break out of what was built.
    Attack,
    /// Find a number.
    Measure,
    /// Make something new of what is there.
    Build,
}

/// What the tests of an exercise need of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Needs {
    /// The lab.
    Lab,
    /// The machine's own root.
    Root,
    /// Control groups that may be changed.
    Cgroup,
}

impl Exercise {
    /// The folder of its step.
    pub fn folder(&self) -> &'static str {
        STEPS[self.id.step - 1]
    }

    /// The functions to cut: the file of each, and its name there.
    ///
    /// # Errors
    /// If an entry isn't written `FILE ITEM`.
    pub fn cuts<'a>(&'a self) -> Result<Vec<(&'a Path, &'a str)>> {
        let parts = |cut: &'a String| {
            let (file, item) = cut.split_once(' ')?;
            Some((Path::new(file), item.trim()))
        };
        let cut = |cut| parts(cut).with_context(|| format!("{cut:?} isn't `FILE ITEM`"));
        self.cut.iter().map(cut).collect()
    }
}

impl Manifest {
    /// Reads the manifest of the workspace at `root`.
    ///
    /// # Errors
    /// If there is none, or something in it can't be.
    pub fn read(root: &Path) -> Result<Self> {
        let file = root.join(FILE);
        let text = fs::read_to_string(&file)
            .with_context(|| format!("can't read the exercises in {}", file.display()))?;
        Self::parse(&text).with_context(|| file.display().to_string())
    }

    /// Understands the text of a manifest.
    ///
    /// # Errors
    /// As [`read`](Manifest::read).
    pub fn parse(text: &str) -> Result<Self> {
        let manifest: Manifest = toml::from_str(text)?;
        let mut before = None;
        for exercise in &manifest.exercises {
            let id = exercise.id;
            ensure!(before < Some(id), "exercise {id} is out of order, or there twice");
            ensure!(exercise.points > 0, "exercise {id} is worth nothing");
            ensure!(!exercise.tests.is_empty(), "no test proves exercise {id}");
            for (file, _) in exercise.cuts()? {
                ensure!(
                    file.starts_with(exercise.folder()),
                    "exercise {id} cuts {}, which isn't its step's",
                    file.display()
                );
            }
            before = Some(id);
        }
        Ok(manifest)
    }

    /// The exercises of one step.
    pub fn of_step(&self, step: usize) -> impl Iterator<Item = &Exercise> {
        self.exercises.iter().filter(move |exercise| exercise.id.step == step)
    }

    /// The numbers of the steps that have exercises.
    pub fn steps(&self) -> Vec<usize> {
        let mut steps: Vec<usize> = self.exercises.iter().map(|e| e.id.step).collect();
        steps.dedup();
        steps
    }

    /// The exercise with this number.
    ///
    /// # Errors
    /// If there is none; the error lists those of its step.
    pub fn find(&self, id: Id) -> Result<&Exercise> {
        let found = self.exercises.iter().find(|exercise| exercise.id == id);
        found.with_context(|| {
            let others: Vec<String> = self.of_step(id.step).map(|e| e.id.to_string()).collect();
            format!("there is no exercise {id}; step {} has {}", id.step, others.join(", "))
        })
    }
}

/// Whether this program belongs to a student's workspace.
pub fn is_starter() -> bool {
    Manifest::read(programs::workspace()).is_ok_and(|manifest| manifest.starter)
}

/// The folders of the steps that a workspace has, with their numbers.
pub fn steps_in(root: &Path) -> Vec<(usize, &'static str)> {
    (1..).zip(STEPS).filter(|(_, step)| root.join(step).is_dir()).collect()
}

/// The workspace that somebody is in: the next folder above `from` with a manifest of exercises.
///
/// # Errors
/// If there is none.
pub fn workspace_of(from: &Path) -> Result<PathBuf> {
    let found = from.ancestors().find(|folder| folder.join(FILE).is_file());
    found.map(Path::to_owned).with_context(|| format!("{} isn't in a course", from.display()))
}

#[cfg(test)]
mod tests {
    use super::{Id, Manifest};

    const ONE: &str = r#"
        [[exercise]]
        id = "3.2"
        title = "Keep mounts from spreading"
        kind = "complete"
        goal = "Know propagation."
        task = "Do it."
        points = 5
        minutes = 20
        needs = "lab"
        cut = ["step03-mnt-pivot/src/lib.rs make_private"]
        tests = ["step03::mounts_stay_inside"]
        hints = ["a", "b", "c"]
    "#;

    #[test]
    fn a_manifest_is_read() {
        let manifest = Manifest::parse(ONE).unwrap();
        let exercise = manifest.find("3.2".parse().unwrap()).unwrap();
        let (file, item) = exercise.cuts().unwrap()[0];
        assert_eq!((file.to_str(), item), (Some("step03-mnt-pivot/src/lib.rs"), "make_private"));
        assert_eq!(manifest.steps(), [3]);
        assert!(manifest.find("3.1".parse().unwrap()).unwrap_err().to_string().contains("3.2"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (from, to, why) in [
            ("\"3.2\"", "\"9.1\"", "named by its step"),
            ("points = 5", "points = 0", "worth nothing"),
            ("\"step03::mounts_stay_inside\"", "", "no test"),
            ("step03-mnt-pivot/src", "step02-pid/src", "isn't its step's"),
            ("lib.rs make", "lib.rs:make", "FILE ITEM"),
            ("minutes", "hours", "unknown field"),
        ] {
            let error = format!("{:#}", Manifest::parse(&ONE.replace(from, to)).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
        let twice = format!("{ONE}{ONE}");
        assert!(Manifest::parse(&twice).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn ids_are_in_order() {
        let id = |text: &str| text.parse::<Id>().unwrap();
        assert!(id("1.2") < id("1.10") && id("1.10") < id("2.1"));
        assert_eq!(format!("{:>5}|", id("1.2")), "  1.2|");
    }
}
