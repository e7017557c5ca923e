//! What the scenarios of different steps have in common.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result};
use nix::{
    mqueue::{MQ_OFlag, MqAttr, mq_open, mq_unlink},
    sys::stat::Mode,
};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use tempfile::TempDir;
use tests::{
    chance::Chance,
    programs::{self, STEPS, probe, program},
    run::{Finished, finish},
    scenario::{EVERYWHERE, PRIVILEGED, Place},
    view,
};

/// The steps that are built so far, with their numbers.
pub fn steps() -> impl Iterator<Item = (usize, &'static str)> {
    (1..).zip(STEPS).filter(|(_, step)| {
        programs::source_of_main(step).is_ok_and(|main| main.contains("fn run("))
    })
}

/// Where a step can run: from step 4 on, it needs no root.
pub fn places(number: usize) -> &'static [Place] {
    if number < 4 { PRIVILEGED } else { EVERYWHERE }
}

/// A command that runs `command` inside of a step: `step("step01-uts", &["hostname"])`.
pub fn step<S: AsRef<OsStr>>(name: &str, command: &[S]) -> Command {
    let mut step = program(name);
    step.arg("--").args(command);
    step
}

/// A root file system that holds the probe and nothing else.
pub struct ProbeRoot {
    dir: TempDir,
    layers: TempDir,
}

impl ProbeRoot {
    /// Makes one in `/tmp`.
    pub fn new() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::new()?;
        // Root inside may be nobody in particular outside, and must be able to enter it.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        fs::copy(probe(), dir.path().join("probe"))
            .with_context(|| format!("can't copy {}", probe().display()))?;
        for folder in ["dev", "proc", "sys", "tmp"] {
            fs::create_dir(dir.path().join(folder))?;
        }
        give_away(dir.path())?;
        Ok(ProbeRoot { dir, layers: TempDir::new()? })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The command of a step that runs the probe in here: its options and what to run.
    pub fn command(&self, number: usize) -> Result<Vec<OsString>> {
        Ok(match number {
            ..3 => vec!["--".into(), probe().into()],
            3..8 => vec!["--rootfs".into(), self.path().into(), "--".into(), "/probe".into()],
            _ => vec!["--layer".into(), self.layer()?.into(), "--".into(), "/probe".into()],
        })
    }

    /// The same as a layer. It's the same each time, so that a cache of layers doesn't grow.
    fn layer(&self) -> Result<PathBuf> {
        let file = self.layers.path().join("layer.tar");
        let mut layer = tar::Builder::new(File::create(&file)?);
        layer.mode(tar::HeaderMode::Deterministic);
        for name in ["dev", "probe", "proc", "sys", "tmp"] {
            layer.append_path_with_name(self.path().join(name), name)?;
        }
        layer.into_inner()?;
        Ok(file)
    }
}

/// Lets everybody write to a folder: that whom it belongs to is unknown until a map is chosen.
fn give_away(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for path in [dir.join("dev"), dir.join("proc"), dir.join("sys"), dir.join("tmp"), dir.into()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    }
    Ok(())
}

/// What the probe sees that is a step's own, when the step has these options.
pub fn probe_in(number: usize, name: &str, options: &[&str]) -> Result<String> {
    // So that "none" inside isn't "the host's".
    let _objects = HostObjects::new()?;
    let host = finish(&mut programs::clean(probe()))?.success()?;
    let mut command = program(name);
    command.args(options);
    let root = ProbeRoot::new()?;
    command.args(root.command(number)?);
    let inside = finish(&mut command)?.success()?;
    Ok(view::seen_inside(&host.stdout, &inside.stdout))
}

/// Runs a command without one capability, although root starts it.
pub fn finish_without(capability: CapabilitySet, command: &mut Command) -> Result<Finished> {
    // Capabilities belong to threads, and a child has those of the thread that starts it.
    thread::scope(|scope| {
        let limited = scope.spawn(|| {
            remove_capability_from_bounding_set(capability)?;
            finish(command)
        });
        limited.join().expect("nothing in there panics")
    })
}

/// Runs a command with `input` as its standard input.
pub fn finish_with_input(input: &str, command: &mut Command) -> Result<Finished> {
    let (reader, mut writer) = std::io::pipe()?;
    command.stdin(Stdio::from(reader));
    writer.write_all(input.as_bytes())?;
    drop(writer);
    finish(command)
}

/// Objects of this host that processes meet at: a System V queue, a POSIX queue and shared memory.
pub struct HostObjects {
    name: String,
    queue: String,
}

impl HostObjects {
    /// Makes one of each.
    pub fn new() -> Result<Self> {
        let name = Chance::new(&std::process::id().to_string()).needle();
        // First of all the value that removes them, so that a failure half-way leaves nothing.
        let mut objects = HostObjects { name, queue: String::new() };
        fs::write(Path::new("/dev/shm").join(&objects.name), "")?;
        let made = finish(programs::clean("ipcmk").arg("-Q"))?.success()?.stdout;
        objects.queue = made.split_whitespace().last().unwrap_or_default().to_owned();
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let (flags, one_byte) = (MQ_OFlag::O_CREAT | MQ_OFlag::O_RDWR, MqAttr::new(0, 1, 1, 0));
        let queue = format!("/{}", objects.name);
        mq_open(queue.as_str(), flags, mode, Some(&one_byte)).context("mq_open")?;
        Ok(objects)
    }
}

impl Drop for HostObjects {
    fn drop(&mut self) {
        let _ = fs::remove_file(Path::new("/dev/shm").join(&self.name));
        let _ = finish(programs::clean("ipcrm").args(["-q", &self.queue]));
        let _ = mq_unlink(format!("/{}", self.name).as_str());
    }
}
