//! What all gradings have in common, made once: the reference, built, and the grader's programs.
//!
//! ```text
//!   base/      the reference's sources, as they're seen at /course, and target/ built from them
//!   harness/   course, the test programs, the probe: what grades
//!   stage/     where each grading mounts what it sees; on disk, it stays empty
//! ```

use std::{
    collections::hash_map::DefaultHasher,
    env,
    fs::{self, File},
    hash::{Hash, Hasher},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio, exit},
};

use ::tests::programs::STEPS;
use anyhow::{Context, Result, ensure};
use nix::{
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};

use crate::{
    check,
    sandbox::{self, HARNESS, Layer, View, WORKSPACE},
    starter::Tree,
};

/// The programs of tests that can prove an exercise.
const TESTS: [&str; 2] = ["ladder", "exercises"];

/// The folders, held for as long as somebody grades.
pub struct Base {
    folder: PathBuf,
    /// What it was made from.
    pub key: String,
    _lock: Flock<File>,
}

impl Base {
    pub fn base(&self) -> PathBuf {
        self.folder.join("base")
    }

    pub fn harness(&self) -> PathBuf {
        self.folder.join("harness")
    }

    pub fn stage(&self) -> PathBuf {
        self.folder.join("stage")
    }

    /// The same folders, for a process that was started by who holds them.
    pub fn view(&self, layer: Layer) -> OwnedView {
        OwnedView { base: self.base(), harness: self.harness(), stage: self.stage(), layer }
    }

    /// Makes them of the reference at `root`, with an instructor's `hidden` files in it. Nothing is
    /// built if nothing has changed.
    pub fn make(root: &Path, hidden: Option<&Path>) -> Result<Self> {
        let mut tree = Tree::read(root, STEPS.len())?;
        // They show the differences between mains, and with them solutions.
        let tells = |path: &Path| path.to_string_lossy().ends_with("-diff.snap");
        let is_text =
            |path: &Path| path.starts_with("book") && !path.starts_with("book/preprocessor");
        tree.retain(|path| !tells(path) && !is_text(path));
        if let Some(hidden) = hidden {
            tree.overlay(hidden)?;
        }
        let mut hash = DefaultHasher::new();
        (root, hidden).hash(&mut hash);
        let folder = cache()?.join(format!("grader-{:08x}", hash.finish() as u32));
        let plain = hidden.is_some().then(|| Base::make(root, None)).transpose()?;
        if let Some(plain) = plain.filter(|_| !folder.exists() && geteuid().is_root()) {
            // Most of it is the same, and copied sooner than built.
            fs::create_dir_all(&folder)?;
            Command::new("cp").arg("-a").arg(plain.base()).arg(&folder).status()?;
        }
        for part in ["base/target", "harness", "stage"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let lock = File::create(folder.join("lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        let rustc = Command::new("rustc").arg("-vV").output().context("there is no rustc")?.stdout;
        let key = format!("{:016x}", tree.fingerprint(&rustc));
        let base = Base { folder, key, _lock: lock };
        base.copy_program(&env::current_exe()?, "course")?;
        let made = base.folder.join("key");
        if fs::read_to_string(&made).is_ok_and(|old| old == base.key) {
            return base.shared();
        }
        let _ = fs::remove_file(&made);
        eprintln!("course: building the reference, once, in {}", base.folder.display());
        tree.sync(&base.base(), &["target"])?;
        base.build()?;
        fs::write(made, &base.key)?;
        base.shared()
    }

    /// From here on, others may grade as well.
    fn shared(self) -> Result<Self> {
        let Base { folder, key, _lock } = self;
        // Anew: a lock that is held can't be changed without a moment in which it isn't.
        drop(_lock);
        let lock = File::create(folder.join("lock"))?;
        let _lock = Flock::lock(lock, FlockArg::LockShared).map_err(|(_, errno)| errno)?;
        Ok(Base { folder, key, _lock })
    }

    fn build(&self) -> Result<()> {
        let view = self.view(Layer::Base);
        let code = sandbox::enter(&view.borrow(), &mut || {
            sandbox::give_to_lab(&Path::new(WORKSPACE).join("target"))?;
            build_all()?;
            exit(0)
        })?;
        ensure!(
            code == ExitCode::SUCCESS,
            "the reference can't be built in the sandbox: see above"
        );
        for file in fs::read_dir(self.base().join("target/debug"))?.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let program = file.metadata()?.is_file() && !name.contains('.');
            // Not the steps': those are to be the student's.
            let own = STEPS.contains(&&*name) || name.starts_with("final") || name == "course";
            if program && !own {
                self.copy_program(&file.path(), &name)?;
            }
        }
        for program in TESTS {
            self.copy_program(&self.base().join("target").join(program), program)?;
        }
        Ok(())
    }

    /// All scenarios: each with the program that has it, and the places that it can run in.
    pub fn scenarios(&self) -> Result<Vec<(String, &'static str, String)>> {
        let mut all = vec![];
        for program in TESTS {
            let list = self.base().join("target").join(format!("{program}.list"));
            for line in fs::read_to_string(&list)?.lines() {
                let (name, places) = line.split_once(' ').unwrap_or((line, ""));
                all.push((name.to_owned(), program, places.to_owned()));
            }
        }
        Ok(all)
    }

    fn copy_program(&self, from: &Path, name: &str) -> Result<()> {
        let (new, to) = (self.harness().join(format!("{name}.new")), self.harness().join(name));
        fs::copy(from, &new).with_context(|| from.display().to_string())?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        Ok(fs::rename(new, to)?) // The old one may be running.
    }
}

/// [`View`], with paths of its own.
pub struct OwnedView {
    pub base: PathBuf,
    pub harness: PathBuf,
    pub stage: PathBuf,
    pub layer: Layer,
}

impl OwnedView {
    pub fn borrow(&self) -> View<'_> {
        View {
            stage: &self.stage,
            base: &self.base,
            harness: &self.harness,
            layer: match self.layer {
                Layer::Base => Layer::Base,
                Layer::Scratch(size) => Layer::Scratch(size),
            },
        }
    }
}

/// Builds each step as it will be built for a student, and the tests.
fn build_all() -> Result<()> {
    let build = ["cargo", "build", "--offline", "--locked", "--quiet"];
    for step in STEPS {
        run(&mut sandbox::lab(&[&build[..], &["--bins", "--examples", "-p", step]].concat()))?;
    }
    run(&mut sandbox::lab(&[&build[..], &["--bins", "-p", "tests"]].concat()))?;
    let course = format!("{WORKSPACE}/target/debug/course");
    run(&mut sandbox::lab(&[&course, "make-probe"]))?;
    for program in TESTS {
        let test = ["cargo", "test", "--offline", "--locked", "--quiet", "--no-run", "-p", "tests"];
        let mut test = sandbox::lab(&[&test[..], &["--test", program]].concat());
        test.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
        let done = test.output()?;
        ensure!(done.status.success(), "the tests can't be built");
        let built = check::built_tests(&done.stdout).pop().context("cargo has built no tests")?;
        // Under a name without a hash, and with all that it has: some scenarios are named after
        // what is in the workspace.
        let to = format!("{WORKSPACE}/target/{program}");
        run(&mut sandbox::lab(&["cp", &built.to_string_lossy(), &to]))?;
        run(&mut sandbox::lab(&["sh", "-c", &format!("{to} --describe > {to}.list")]))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("can't run {HARNESS}/course"))?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}

/// Where what is made once is kept.
fn cache() -> Result<PathBuf> {
    let given = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let system = geteuid().is_root().then(|| PathBuf::from("/var/cache"));
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = given.or(system).or(home).context("set XDG_CACHE_HOME to a folder")?;
    Ok(cache.join("containers-from-scratch-grader"))
}
