//! `cargo course grade`: what each submission is worth, and why.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use ::tests::{
    chance,
    exercises::{Exercise, FILE, Kind, Manifest},
    scenario::{Outcome, Verdict},
};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    advice,
    base::Base,
    check, formats,
    formats::Format,
    limits,
    new::steps,
    place,
    trial::{Job, SECONDS, Tried},
};

/// Grades submissions: takes their steps' sources, and brings its own tests.
///
/// Each step is built and tried with the reference's other steps, in a lab without a network, with
/// limits, as nobody. Many folders are graded side by side, one line each; what has been graded
/// already isn't graded again.
///
///   cargo course grade alice
///   cargo course grade submissions/* --results graded --jobs 4
///   cargo course grade alice --format gradescope > results.json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Grade {
    /// The folders that were handed in; without one, only what they have in common is built
    dirs: Vec<PathBuf>,

    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    /// The number that all random needles are made from [default: another each time]
    #[arg(long)]
    seed: Option<u64>,

    /// A folder whose files are put over the reference's: tests and exercises that nobody has seen
    #[arg(long, value_name = "DIR")]
    hidden: Option<PathBuf>,

    /// How many submissions at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,

    /// The steps that count: one, or FIRST-LAST
    #[arg(long, value_name = "STEPS", default_value = "1-8", value_parser = steps)]
    steps: std::ops::RangeInclusive<usize>,

    /// How long a program may take; a test may take six times as long, and a step's tests four times that
    #[arg(long, value_name = "N", default_value_t = SECONDS, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// A folder for one file of results each; what is there already isn't graded again
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

/// What a submission is worth.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Graded {
    /// The folder's name.
    pub name: String,
    /// What it was graded with: another reference, or other files, are graded again.
    #[serde(default)]
    pub key: String,
    /// The seed that repeats it.
    pub seed: u64,
    /// How long it took.
    pub seconds: f64,
    /// What the compiler, or the grader, complains of, for each step.
    pub complaints: BTreeMap<usize, String>,
    /// The exercises.
    pub exercises: Vec<GradedExercise>,
}

/// What a submission's solution of an exercise is worth.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct GradedExercise {
    pub id: String,
    pub title: String,
    pub points: f64,
    pub of: u32,
    pub result: Verdict,
    pub tests: Vec<Outcome>,
}

impl Graded {
    pub fn points(&self) -> f64 {
        self.exercises.iter().map(|exercise| exercise.points).sum()
    }

    pub fn of(&self) -> u32 {
        self.exercises.iter().map(|exercise| exercise.of).sum()
    }
}

/// Grades all that was asked for. The exit code says whether all could be graded, not how well.
pub fn grade(args: &Grade) -> Result<ExitCode> {
    let root = place::reference()?;
    if let Some(results) = &args.results {
        fs::create_dir_all(results).with_context(|| results.display().to_string())?;
    }
    ensure!(
        args.dirs.len() <= 1 || args.format == Format::Text || args.results.is_some(),
        "for more than one submission, name a folder with --results for the {:?} files",
        args.format
    );
    let grader = Grader::new(&root, args.hidden.as_deref(), args.seconds)?;
    let seed = args.seed.unwrap_or_else(chance::seed);
    let failures = AtomicUsize::new(0);
    let next = AtomicUsize::new(0);
    let output = Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..args.jobs.clamp(1, args.dirs.len().max(1)) {
            scope.spawn(|| {
                while let Some(dir) = args.dirs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let graded = grader.grade_once(dir, seed, args);
                    let _one_at_a_time = output.lock().expect("nobody panics with this lock");
                    match graded {
                        Ok(graded) => show(&graded, args),
                        Err(error) => {
                            failures.fetch_add(1, Ordering::Relaxed);
                            eprintln!("course: {} can't be graded: {error:#}", dir.display());
                        }
                    }
                }
            });
        }
    });
    Ok(if failures.into_inner() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(graded: &Graded, args: &Grade) {
    if args.dirs.len() == 1 {
        print!("{}", formats::write(graded, args.format));
    } else {
        println!("{}", formats::line(graded));
    }
}

/// Grades, with all that submissions have in common.
pub struct Grader {
    root: PathBuf,
    base: Base,
    manifest: Manifest,
    /// Which program has a test, and whether it can run in a lab.
    tests: BTreeMap<String, (String, bool)>,
    /// How long a program may take.
    seconds: u64,
}

impl Grader {
    /// Prepares for the reference at `root`.
    pub fn new(root: &Path, hidden: Option<&Path>, seconds: u64) -> Result<Self> {
        let base = Base::make(root, hidden)?;
        let manifest = Manifest::read(&base.base())?;
        let mut tests = BTreeMap::new();
        for (name, program, places) in base.scenarios()? {
            let in_lab = places.split(' ').any(|place| place == "lab" || place == "here");
            tests.insert(name, (program.to_owned(), in_lab));
        }
        for exercise in &manifest.exercises {
            let missing = exercise.tests.iter().find(|test| !tests.contains_key(*test));
            if let Some(test) = missing {
                bail!("exercise {} in {FILE} names {test}, which isn't there", exercise.id);
            }
        }
        Ok(Grader { root: root.to_owned(), base, manifest, tests, seconds })
    }

    /// As [`grade`](Grader::grade), unless that has been done already; keeps the result.
    fn grade_once(&self, dir: &Path, seed: u64, args: &Grade) -> Result<Graded> {
        let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = args.results.as_ref().map(|results| results.join(format!("{name}.json")));
        let key = format!("{} {:?} {:?} {}", self.base.key, args.steps, args.seed, self.seconds);
        let key = format!("{key} {:016x}", content(&dir));
        if let Some(known) = file.as_ref().and_then(|file| fs::read_to_string(file).ok())
            && let Ok(graded) = serde_json::from_str::<Graded>(&known)
            && graded.key == key
        {
            return Ok(graded);
        }
        let chosen = |exercise: &&Exercise| args.steps.contains(&exercise.id.step);
        let exercises: Vec<&Exercise> = self.manifest.exercises.iter().filter(chosen).collect();
        let mut graded = self.grade(&dir, &exercises, seed)?;
        graded.key = key;
        if let Some(file) = file {
            let new = file.with_extension("new");
            fs::write(&new, serde_json::to_string_pretty(&graded)?)?;
            fs::rename(&new, &file)?; // Whole, or not at all: it may be interrupted.
            if args.format == Format::Gradescope || args.format == Format::Classroom {
                let file = file.with_extension(format!("{:?}.json", args.format).to_lowercase());
                fs::write(file, formats::write(&graded, args.format))?;
            } else if args.format == Format::Junit {
                fs::write(file.with_extension("xml"), formats::write(&graded, args.format))?;
            }
        }
        Ok(graded)
    }

    /// Grades some exercises of one submission.
    pub fn grade(&self, dir: &Path, exercises: &[&Exercise], seed: u64) -> Result<Graded> {
        let start = Instant::now();
        let mut graded = Graded {
            name: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            key: String::new(),
            seed,
            seconds: 0.,
            complaints: BTreeMap::new(),
            exercises: vec![],
        };
        let mut steps: Vec<usize> = exercises.iter().map(|exercise| exercise.id.step).collect();
        steps.dedup();
        for step in steps {
            let of_step: Vec<&Exercise> =
                exercises.iter().copied().filter(|e| e.id.step == step).collect();
            let tried = self.try_step(dir, step, &of_step, seed)?;
            graded.exercises.extend(of_step.iter().map(|exercise| score(exercise, &tried)));
            if let Some(complaint) = tried.complaint {
                graded.complaints.insert(step, complaint);
            }
        }
        graded.seconds = start.elapsed().as_secs_f64();
        Ok(graded)
    }

    fn try_step(&self, dir: &Path, step: usize, all: &[&Exercise], seed: u64) -> Result<Tried> {
        let mut tests = BTreeMap::new();
        for test in all.iter().flat_map(|exercise| &exercise.tests) {
            let (program, in_lab) = &self.tests[test];
            if *in_lab {
                tests.insert(test.clone(), program.clone());
            }
        }
        let group = format!("course-{}-{:08x}", std::process::id(), random());
        let view = self.base.view(crate::sandbox::Layer::Base);
        let job = Job {
            base: view.base,
            harness: view.harness,
            stage: view.stage,
            submission: dir.to_owned(),
            step,
            examples: examples(&self.root, all)?,
            packages: check::packages(all).into_iter().map(String::from).collect(),
            tests,
            seed,
            group: group.clone(),
            threads: 2,
            seconds: self.seconds,
        };
        let mut command = Command::new(env::current_exe()?);
        command.arg("try-step").stdin(Stdio::piped()).stdout(Stdio::piped());
        for (name, _) in env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            name.starts_with("INSTA_") || name.starts_with("CONTAINERS_")
        }) {
            command.env_remove(name);
        }
        let mut worker = command.spawn().context("can't run course try-step")?;
        let mut input = worker.stdin.take().context("a pipe")?;
        input.write_all(serde_json::to_string(&job)?.as_bytes())?;
        drop(input);
        let done = worker.wait_with_output();
        limits::remove_group(&group);
        let done = done?;
        // The kernel kills all of it together if it has used up its memory.
        if done.status.signal().or(done.status.code().map(|code| code - 128)) == Some(9) {
            let complaint = "this step was killed: it used up the memory that all of it may have";
            return Ok(Tried { complaint: Some(complaint.to_owned()), ..Tried::default() });
        }
        let text = String::from_utf8_lossy(&done.stdout);
        serde_json::from_str(&text)
            .with_context(|| format!("step {step} ended with {}", done.status))
    }
}

/// The points of an exercise: none without its first test, which is the one that is its own; a
/// share of the points for each of them otherwise. Predictions are all of one kind, and each counts
/// by itself. What was skipped has not passed.
fn score(exercise: &Exercise, tried: &Tried) -> GradedExercise {
    let outcome = |name: &String| -> Outcome {
        let known = tried.outcomes.iter().find(|outcome| outcome.name == *name).cloned();
        let message = match &tried.complaint {
            Some(_) => "nothing was tried: see what is said of the step",
            None => "it can't run in a lab, so it can't be graded here",
        };
        known.unwrap_or_else(|| Outcome {
            name: name.clone(),
            result: if tried.complaint.is_some() { Verdict::Failed } else { Verdict::Skipped },
            message: message.to_owned(),
        })
    };
    let tests: Vec<Outcome> = exercise.tests.iter().map(outcome).collect();
    let passed = tests.iter().filter(|test| test.result == Verdict::Passed).count();
    let first = tests.first().is_some_and(|test| test.result == Verdict::Passed);
    let own = first || exercise.kind == Kind::Predict;
    let share = if own { passed as f64 / tests.len() as f64 } else { 0. };
    GradedExercise {
        id: exercise.id.to_string(),
        title: exercise.title.clone(),
        points: (share * f64::from(exercise.points) * 100.).floor() / 100.,
        of: exercise.points,
        result: check::verdict(exercise, &tests),
        tests,
    }
}

/// The examples that are the student's: those that an exercise leaves out or breaks. The others are the tests' own.
fn examples(root: &Path, exercises: &[&Exercise]) -> Result<Vec<PathBuf>> {
    let mut all = vec![];
    for exercise in exercises {
        let files = exercise.cuts()?.into_iter().map(|(file, _)| file);
        let files = files.chain(exercise.blank.iter().map(Path::new));
        let broken = broken(root, exercise)?;
        let files = files.chain(broken.iter().map(PathBuf::as_path));
        let in_step = files.filter_map(|file| file.strip_prefix(exercise.folder()).ok());
        all.extend(in_step.filter(|file| file.starts_with("examples")).map(Path::to_owned));
    }
    all.sort();
    all.dedup(); // An exercise may leave out several functions of one file.
    Ok(all)
}

/// The files into which a starter gets a bug.
fn broken(root: &Path, exercise: &Exercise) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    for patch in &exercise.swap {
        let text = fs::read_to_string(root.join(patch)).with_context(|| patch.clone())?;
        let names = text.lines().filter_map(|line| line.strip_prefix("+++ "));
        files.extend(names.map(|name| name.strip_prefix("b/").unwrap_or(name).trim().into()));
    }
    Ok(files)
}

/// What a student is told of an exercise that didn't pass.
pub fn message(exercise: &GradedExercise) -> String {
    let mut text = String::new();
    for test in exercise.tests.iter().filter(|test| test.result != Verdict::Passed) {
        let how = if test.result == Verdict::Skipped { "skipped" } else { "failed" };
        text += &format!("{} {how}\n", test.name);
        text.extend(advice::essence(&test.message).iter().map(|line| format!("  {line}\n")));
        text.extend(advice::on(&test.message).iter().map(|line| format!("  likely: {line}\n")));
    }
    text
}

/// A number that changes with what was handed in.
fn content(dir: &Path) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hash = DefaultHasher::new();
    for step in ::tests::programs::STEPS {
        if let Ok(sources) = crate::submission::Sources::read(dir, step) {
            (step, sources.0).hash(&mut hash);
        }
    }
    hash.finish()
}

fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() as u32
}
