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
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio, exit},
};

use ::tests::programs::STEPS;
use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::{
    sandbox::{self, HARNESS, Layer, View, WORKSPACE},
    starter::Tree,
};

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
        tree.retain(|path| !path.to_string_lossy().ends_with("-diff.snap"));
        if let Some(hidden) = hidden {
            tree.overlay(hidden)?;
        }
        let mut hash = DefaultHasher::new();
        (root, hidden).hash(&mut hash);
        let folder = cache()?.join(format!("grader-{:08x}", hash.finish() as u32));
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
        for line in fs::read_to_string(self.base().join("target/tests"))?.lines() {
            let path = Path::new(line).strip_prefix(WORKSPACE)?;
            let name = line.rsplit('/').next().and_then(|name| name.split('-').next());
            self.copy_program(&self.base().join(path), name.unwrap_or_default())?;
        }
        Ok(())
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
    let test = ["cargo", "test", "--offline", "--locked", "--quiet", "--no-run", "-p", "tests"];
    let test = [&test[..], &["--test", "ladder", "--test", "exercises"]].concat();
    let mut test = sandbox::lab(&test);
    test.arg("--message-format=json-render-diagnostics");
    let done = test.stderr(Stdio::inherit()).output()?;
    ensure!(done.status.success(), "the tests can't be built");
    let built = String::from_utf8_lossy(&done.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| Some(format!("{}\n", message["executable"].as_str()?)))
        .collect::<String>();
    run(
        sandbox::lab(&[&format!("{WORKSPACE}/target/debug/course"), "make-probe"]).env_remove("CI")
    )?;
    let mut list = sandbox::lab(&["tee", &format!("{WORKSPACE}/target/tests")]);
    let mut list = list.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    list.stdin.take().context("a pipe")?.write_all(built.as_bytes())?;
    ensure!(list.wait()?.success(), "can't write to the base");
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
    let system = nix::unistd::geteuid().is_root().then(|| PathBuf::from("/var/cache"));
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = given.or(system).or(home).context("set XDG_CACHE_HOME to a folder")?;
    Ok(cache.join("containers-from-scratch-grader"))
}
