//! The programs under test, built once per run.
//!
//! Cargo builds a test's own package and the *libraries* that it uses, but no programs of other
//! packages. So the tests ask cargo for them, in the same profile and target folder. Where there
//! is nothing to build with (a guest machine, another user) [`BIN_DIR`] names the folder that holds
//! them all, `probe-static` among them.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, bail, ensure};

/// The environment variable that names the folder with the built programs.
pub const BIN_DIR: &str = "CONTAINERS_BIN_DIR";

/// The ladder, from the first step to the last.
pub const STEPS: [&str; 8] = [
    "step01-uts",
    "step02-pid",
    "step03-mnt-pivot",
    "step04-user",
    "step05-net-veth",
    "step06-ipc",
    "step07-cgroups",
    "step08-overlay",
];

/// The workspace's folder.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace")
}

/// A command that runs a built program, such as `step03-mnt-pivot`, or an example of a step, with
/// nothing of this process's environment but what every test may rely on.
pub fn program(name: &str) -> Command {
    let dir = bin_dir();
    let example = dir.join("examples").join(name);
    clean(if example.exists() { example } else { dir.join(name) })
}

/// A command that runs any program, with the same environment.
pub fn clean(program: impl Into<OsString>) -> Command {
    let mut command = Command::new(program.into());
    command.env_clear().stdin(Stdio::null());
    let kept = ["HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", BIN_DIR, "CONTAINERS_LAB"];
    command.envs(kept.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    command.env("PATH", path).env("LANG", "C.UTF-8").env("TERM", "dumb");
    command
}

/// The folder that holds the built programs.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = env::var_os(BIN_DIR) {
        return dir.into();
    }
    // The programs lie one folder above the tests, which lie in `deps`.
    let test = env::current_exe().expect("Linux knows the running program");
    let deps = test.parent().expect("a program lies in a folder");
    if deps.ends_with("deps") { deps.parent().unwrap_or(deps).into() } else { deps.into() }
}

/// Whether a step's program is more than a placeholder, as it is while the course is being built.
pub fn source_of_main(step: &str) -> Result<String> {
    let file = workspace().join(step).join("src/main.rs");
    std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))
}

/// Builds the programs of the whole ladder and the probe, unless [`BIN_DIR`] says where they are.
///
/// # Errors
/// What cargo and rustc say.
pub fn build() -> Result<()> {
    if env::var_os(BIN_DIR).is_some() {
        return Ok(());
    }
    let there = |part: &&str| workspace().join(part).is_dir();
    let packages: Vec<&str> = ["tests", "final"].into_iter().chain(STEPS).filter(there).collect();
    let status = cargo(&["build", "--quiet", "--bins", "--examples"], &packages)?.status();
    ensure!(status.context("can't run cargo")?.success(), "cargo can't build the programs");
    build_probe(&probe())
}

/// A command of cargo for these packages, in the profile and the target folder of this program.
///
/// # Errors
/// If this program doesn't lie in a target folder.
pub fn cargo(args: &[&str], packages: &[&str]) -> Result<Command> {
    let dir = bin_dir();
    let (Some(target), Some(profile)) = (dir.parent(), dir.file_name()) else {
        bail!("{} isn't a target folder", dir.display())
    };
    let profile = if profile == "debug" { "dev".as_ref() } else { profile };
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args(args);
    cargo.args(packages.iter().flat_map(|package| ["--package", package]));
    cargo.arg("--profile").arg(profile).arg("--target-dir").arg(target);
    Ok(cargo)
}

/// The probe's file name: not that of the dynamic program that cargo builds beside it.
const PROBE: &str = "probe-static";

/// The probe, a static program: it runs also where there is no library at all.
pub fn probe() -> PathBuf {
    bin_dir().join(PROBE)
}

/// Builds [`probe`], if it isn't there.
///
/// # Errors
/// What rustc says.
pub fn make_probe() -> Result<()> {
    build_probe(&probe())
}

/// Builds the probe by hand: cargo can't link one program of a workspace statically and the
/// others not. It needs nothing but the standard library, so that one call does it.
fn build_probe(to: &Path) -> Result<()> {
    let source = workspace().join("tests/src/bin/probe.rs");
    let changed = |file: &Path| file.metadata().and_then(|data| data.modified()).ok();
    if changed(to) > changed(&source) {
        return Ok(());
    }
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static"]);
    rustc.args(["-C", "strip=symbols", "-C", "panic=abort", "-o"]).arg(to).arg(&source);
    let output = rustc.output().context("can't run rustc")?;
    ensure!(
        output.status.success(),
        "rustc can't link the static probe. If the linker found no libc.a, install it: the package \
         is libc6-dev (Debian, Ubuntu), glibc-static (Fedora), musl-dev (Alpine)\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Whether `course lab` works for who runs this test; if not, why.
pub fn lab_works() -> &'static Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(|| {
        let tried = crate::run::finish(program("course").args(["lab", "--", "true"]));
        match tried.map_err(|error| error.to_string())? {
            finished if finished.code == 0 => Ok(()),
            failed => Err(failed.stderr.trim().to_owned()),
        }
    })
}
