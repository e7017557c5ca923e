//! `cargo course calibrate`: whether the grader is fair.
//!
//! The reference gets all points, a starter gets none, and each mutant, which is a wrong solution
//! that students really write, loses points in just the exercises that its header names:
//!
//! ```text
//! # title: mounts stay shared
//! # loses: 3.2, 3.4
//! ```

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use ::tests::{
    exercises::{Exercise, Id, Manifest},
    programs::STEPS,
};
use anyhow::{Context, Result, ensure};

use crate::{grade::Grader, new::steps, place, starter, starter::Tree, trial::SECONDS};

/// Where the mutants are, a folder for each step.
const MUTANTS: &str = "tests/mutants";

/// Tries the grader: the reference, a starter, and wrong solutions, each with the points it deserves.
#[derive(clap::Args)]
pub struct Calibrate {
    /// The steps to try: one, or FIRST-LAST
    #[arg(long, value_name = "STEPS", default_value = "1-8", value_parser = steps)]
    steps: std::ops::RangeInclusive<usize>,

    /// The mutants whose file names contain this, and nothing else
    #[arg(long, value_name = "PART")]
    only: Option<String>,

    /// How many at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

/// What is handed in, and what is expected to become of it.
struct Trial {
    name: String,
    folder: PathBuf,
    step: usize,
    loses: Loses,
}

enum Loses {
    All,
    These(BTreeSet<Id>),
}

/// Runs all trials. The exit code says whether each ended as it should.
pub fn calibrate(args: &Calibrate) -> Result<ExitCode> {
    let root = place::reference()?;
    let manifest = Manifest::read(&root)?;
    let scratch = tempfile::tempdir()?;
    let trials = trials(args, &root, &manifest, scratch.path())?;
    ensure!(!trials.is_empty(), "there is nothing to try");
    let grader = Grader::new(&root, None, SECONDS)?;
    let (next, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let output = Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ended = run(&grader, &manifest, trial);
                    let _one_at_a_time = output.lock().expect("nobody panics with this lock");
                    match ended {
                        Ok(()) => println!("ok      {}", trial.name),
                        Err(why) => {
                            wrong.fetch_add(1, Ordering::Relaxed);
                            println!("WRONG   {}: {why:#}", trial.name);
                        }
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner();
    println!("\n{} as they should be, {wrong} not", trials.len() - wrong);
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn trials(args: &Calibrate, root: &Path, manifest: &Manifest, to: &Path) -> Result<Vec<Trial>> {
    let mut trials = vec![];
    let asked = |name: &str| args.only.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let starter = to.join("starter");
    starter::make(root, &(1..=STEPS.len()))?.write(&starter)?;
    for step in manifest.steps().into_iter().filter(|step| args.steps.contains(step)) {
        for (what, folder, loses) in [
            ("the reference", root.to_owned(), Loses::These(BTreeSet::new())),
            ("a starter", starter.clone(), Loses::All),
        ] {
            let name = format!("step {step}: {what}");
            trials.push(Trial { name, folder, step, loses });
        }
        for patch in patches(&root.join(MUTANTS).join(format!("step{step:02}")))? {
            let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let trial = mutant(root, &patch, step, &to.join(format!("{step}-{name}")))
                .with_context(|| patch.display().to_string())?;
            for id in trial.loses.iter() {
                manifest.find(*id)?;
            }
            trials.push(trial);
        }
    }
    trials.retain(|trial| asked(&trial.name));
    Ok(trials)
}

impl Loses {
    fn iter(&self) -> impl Iterator<Item = &Id> {
        let ids = match self {
            Loses::All => None,
            Loses::These(ids) => Some(ids),
        };
        ids.into_iter().flatten()
    }
}

fn patches(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut patches = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    patches.retain(|file| file.extension().is_some_and(|extension| extension == "patch"));
    patches.sort();
    Ok(patches)
}

/// The reference's step with a mutant's patch applied, as somebody would hand it in.
fn mutant(root: &Path, patch: &Path, step: usize, to: &Path) -> Result<Trial> {
    let text = fs::read_to_string(patch)?;
    let header = text.lines().take_while(|line| !line.starts_with("--- "));
    let (mut title, mut loses) = (None, None);
    for line in header.filter_map(|line| line.strip_prefix('#')) {
        match line.trim().split_once(':') {
            Some(("loses", ids)) => {
                let ids = ids.split(',').map(str::trim).filter(|id| !id.is_empty());
                loses = Some(ids.map(str::parse).collect::<Result<BTreeSet<Id>>>()?);
            }
            _ => title = title.or(Some(line.trim())),
        }
    }
    let title = title.unwrap_or_default().trim_start_matches("title:").trim().to_owned();
    let mut tree = Tree::read(root, STEPS.len())?;
    tree.retain(|path| path.starts_with(STEPS[step - 1]));
    tree.patch(&text)?;
    tree.write(to)?;
    let name = patch.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Trial {
        name: format!("step {step}: {name} ({title})"),
        folder: to.to_owned(),
        step,
        loses: Loses::These(loses.context("there is no line `# loses: …`")?),
    })
}

fn run(grader: &Grader, manifest: &Manifest, trial: &Trial) -> Result<()> {
    let exercises: Vec<&Exercise> = manifest.of_step(trial.step).collect();
    let graded = grader.grade(&trial.folder, &exercises, ::tests::chance::seed())?;
    let mut wrong = vec![];
    for exercise in &graded.exercises {
        let full = exercise.points == f64::from(exercise.of);
        let fits = match &trial.loses {
            Loses::All => exercise.points == 0.,
            Loses::These(ids) => full != ids.contains(&exercise.id.parse()?),
        };
        if !fits {
            let (id, points, of) = (&exercise.id, exercise.points, exercise.of);
            wrong.push(format!("{id} gets {points} of {of}\n{}", crate::grade::message(exercise)));
        }
    }
    if !wrong.is_empty() {
        wrong.extend(graded.complaints.into_values());
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
