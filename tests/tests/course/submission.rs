//! Makes submissions: the reference's steps, changed.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    programs::{self, STEPS, workspace},
    run::finish_within,
    scenario::skip,
};

/// A folder that somebody hands in.
pub struct Submission {
    pub dir: TempDir,
}

impl Submission {
    /// The reference's first steps.
    pub fn of_steps(steps: usize) -> Result<Self> {
        can_build()?;
        let dir = TempDir::new()?;
        for step in &STEPS[..steps] {
            copy(&workspace().join(step), &dir.path().join(step))?;
        }
        Ok(Submission { dir })
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Writes a file into it.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let file = self.path(file);
        fs::create_dir_all(file.parent().context("a file lies in a folder")?)?;
        Ok(fs::write(file, text)?)
    }

    /// Replaces a text in a file of it, which must be there.
    pub fn replace(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let text = fs::read_to_string(self.path(file))?;
        ensure!(text.contains(from), "{file} has no {from:?}");
        self.write(file, &text.replacen(from, to, 1))
    }

    /// Lets step 1 do something else than to set names, whenever it is run.
    pub fn misbehave(&self, code: &str) -> Result<()> {
        let file = "step01-uts/src/lib.rs";
        let start = "pub fn set_names(names: &Names) -> Result<()> {\n";
        self.replace(file, start, &format!("{start}    misbehave();\n"))?;
        let text = fs::read_to_string(self.path(file))?;
        self.write(file, &format!("{text}\nfn misbehave() {{\n{code}\n}}\n"))
    }

    /// Grades it, and demands that nothing of the grader has been changed.
    pub fn grade(&self, steps: &str) -> Result<Grades> {
        self.grade_with(&["--steps", steps])
    }

    /// The same for a submission that may hang, with little patience.
    pub fn grade_soon(&self, steps: &str) -> Result<Grades> {
        self.grade_with(&["--steps", steps, "--seconds", "2"])
    }

    fn grade_with(&self, options: &[&str]) -> Result<Grades> {
        let mut command = course();
        command.args(["grade", "--format", "json"]).args(options).arg(self.dir.path());
        grade(command)
    }
}

/// The program `course`, which can find cargo and rustc.
pub fn course() -> Command {
    let mut command = programs::program("course");
    command.env("PATH", path());
    command
}

/// Where programs are looked for. A scenario's own `PATH` has the system's alone.
pub fn path() -> OsString {
    let home = Path::new(&env::var_os("HOME").unwrap_or_default()).join(".cargo/bin");
    let given = env::var_os("PATH").unwrap_or_default();
    let folders = [home, "/usr/local/cargo/bin".into()].into_iter().chain(env::split_paths(&given));
    env::join_paths(folders.filter(|folder| !folder.to_string_lossy().contains(':')))
        .expect("paths")
}

/// Skips where the tests were built elsewhere.
pub fn can_build() -> Result<()> {
    match env::split_paths(&path()).any(|folder| folder.join("cargo").exists()) {
        true => Ok(()),
        false => skip("there is no cargo to build submissions with"),
    }
}

/// The points of each exercise, and what was said.
pub struct Grades {
    points: BTreeMap<String, (f64, f64)>,
    pub all: Value,
}

/// Runs a command that grades in JSON.
pub fn grade(mut command: Command) -> Result<Grades> {
    let before = grader()?;
    let done = finish_within(Duration::from_secs(170), &mut command)?.success()?;
    ensure!(before == grader()?, "the grader's own files have been changed");
    ensure!(groups().is_empty(), "control groups were left behind: {:?}", groups());
    let all: Value = serde_json::from_str(&done.stdout)?;
    let mut points = BTreeMap::new();
    for exercise in all["exercises"].as_array().context("no exercises")? {
        let number = |key: &str| exercise[key].as_f64().context("no number");
        let id = exercise["id"].as_str().context("no id")?.to_owned();
        points.insert(id, (number("points")?, number("of")?));
    }
    Ok(Grades { points, all })
}

impl Grades {
    /// Demands that all exercises of a step got all points.
    pub fn full(&self, step: usize) -> Result<()> {
        self.each(step, |points, of| points == of)
    }

    /// Demands that the exercises of step 1 that run its program got nothing.
    pub fn nothing_that_runs(&self) -> Result<()> {
        let (points, of) = self.points["1.1"];
        ensure!(points == 0., "1.1 got {points} of {of}: {:#}", self.all);
        Ok(())
    }

    /// Demands that no exercise of a step got anything.
    pub fn nothing(&self, step: usize) -> Result<()> {
        self.each(step, |points, _| points == 0.)
    }

    fn each(&self, step: usize, fits: fn(f64, f64) -> bool) -> Result<()> {
        let start = format!("{step}.");
        let mut of_step = self.points.iter().filter(|(id, _)| id.starts_with(&start)).peekable();
        ensure!(of_step.peek().is_some(), "step {step} has no exercise");
        for (id, &(points, of)) in of_step {
            ensure!(fits(points, of), "{id} got {points} of {of}: {:#}", self.all);
        }
        Ok(())
    }

    /// Demands that the student is told.
    pub fn says(&self, text: &str) -> Result<()> {
        ensure!(self.all.to_string().contains(text), "{text:?} isn't said: {:#}", self.all);
        Ok(())
    }
}

/// The grader's own files: the reference that it builds from, and its programs.
fn grader() -> Result<BTreeMap<PathBuf, (u64, i64, i64)>> {
    let given = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let system = nix::unistd::geteuid().is_root().then(|| PathBuf::from("/var/cache"));
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = given.or(system).or(home).context("no cache")?;
    let mut files = BTreeMap::new();
    for grader in fs::read_dir(cache.join("containers-from-scratch-grader"))? {
        for part in ["base", "harness"] {
            list(
                &grader.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?.path().join(part),
                &mut files,
            )?;
        }
    }
    // Every grading brings this one anew.
    files.retain(|path, _| !path.ends_with("harness/course") && !path.ends_with("course.new"));
    Ok(files)
}

fn list(folder: &Path, files: &mut BTreeMap<PathBuf, (u64, i64, i64)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let data = path.symlink_metadata()?;
        if data.is_dir() {
            list(&path, files)?;
        } else {
            files.insert(path, (data.size(), data.mtime(), data.ctime()));
        }
    }
    Ok(())
}

/// Control groups of gradings that have ended.
fn groups() -> Vec<PathBuf> {
    fn look(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            let grader = name.strip_prefix("course-").and_then(|rest| rest.split('-').next());
            match grader.and_then(|pid| pid.parse::<u32>().ok()) {
                Some(pid) if !Path::new("/proc").join(pid.to_string()).exists() => {
                    found.push(entry.path());
                }
                _ if depth > 0 => look(&entry.path(), depth - 1, found),
                _ => {}
            }
        }
    }
    let mut found = vec![];
    look(Path::new("/sys/fs/cgroup"), 4, &mut found);
    found
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
