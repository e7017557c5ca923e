//! What both benchmarks do: run contenders in turn, measure them, and print a table.
//!
//! The machine may be busy, and more so in one minute than in the next. So no contender runs all
//! its samples at once: they take turns, and what counts is the ratio of two medians of one run.
//! Nothing passes or fails here.

use std::{
    env,
    fs::{self, File},
    io::{IsTerminal, stderr},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{errno::Errno, libc};
use tempfile::TempDir;

/// Somebody who takes part in a race: a program, with all that it is given.
pub struct Contender {
    name: String,
    prepare: Box<dyn FnMut() -> Result<Command>>,
}

impl Contender {
    /// `prepare` makes the command for one sample; the time that it takes itself isn't measured.
    pub fn new(
        name: impl Into<String>,
        prepare: impl FnMut() -> Result<Command> + 'static,
    ) -> Self {
        Contender { name: name.into(), prepare: Box::new(prepare) }
    }
}

/// One run of a command.
struct Sample {
    ms: f64,
    peak_kib: i64,
}

/// Lets `contenders` run in turn, `rounds` times each after one that isn't counted, and prints a
/// table, with the ratios to those contenders whose names are `yardsticks`.
///
/// A contender that isn't installed or doesn't work here is left out, and the reason is printed.
pub fn race(
    title: &str,
    yardsticks: &[&str],
    rounds: usize,
    contenders: Vec<Contender>,
) -> Result<()> {
    let mut left_out = Vec::new();
    let mut runners: Vec<(Contender, Vec<Sample>)> = Vec::new();
    for mut contender in contenders {
        match sample(&mut contender) {
            Ok(_) => runners.push((contender, Vec::new())),
            Err(why) => left_out.push((contender.name, why)),
        }
    }
    for round in 1..=rounds {
        if stderr().is_terminal() {
            eprint!("\r{title}: {round} of {rounds}\x1b[K\r");
        }
        for (contender, samples) in &mut runners {
            samples.push(sample(contender).with_context(|| contender.name.clone())?);
        }
    }
    print_table(&format!("{title}: {rounds} samples each, in turn"), yardsticks, &runners);
    for (name, why) in left_out {
        println!("\nLeft out: {name}: {why:#}");
    }
    Ok(())
}

fn print_table(title: &str, yardsticks: &[&str], runners: &[(Contender, Vec<Sample>)]) {
    let times = yardsticks.iter().map(|yardstick| format!(" × {yardstick} |")).collect::<String>();
    println!("\n## {title}\n");
    println!("| | median ms |{times} least ms | peak RSS KiB |");
    println!("|---|--:|{}--:|--:|", "--:|".repeat(yardsticks.len()));
    for (Contender { name, .. }, samples) in runners {
        let ms = median(samples);
        let ratio = |yardstick: &&str| {
            let base = runners.iter().find(|(contender, _)| contender.name == *yardstick);
            base.map_or(" – |".to_owned(), |(_, base)| format!(" {:.2} |", ms / median(base)))
        };
        let ratios = yardsticks.iter().map(ratio).collect::<String>();
        let least = samples.iter().map(|sample| sample.ms).fold(f64::INFINITY, f64::min);
        let peak = samples.iter().map(|sample| sample.peak_kib).max().unwrap_or_default();
        println!("| {name} | {ms:.2} |{ratios} {least:.2} | {peak} |");
    }
}

fn median(samples: &[Sample]) -> f64 {
    let mut times: Vec<f64> = samples.iter().map(|sample| sample.ms).collect();
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    match times.len() % 2 {
        0 => (times[middle - 1] + times[middle]) / 2.0,
        _ => times[middle],
    }
}

/// Runs a contender once, from its start to its end. One that fails isn't measured.
fn sample(contender: &mut Contender) -> Result<Sample> {
    let mut command = (contender.prepare)()?;
    // Files and not /dev/null: there are runtimes that change the owner of whatever is their stdin.
    let said = tempfile::NamedTempFile::new()?;
    command.env_remove("RUST_BACKTRACE");
    command.stdin(File::open(said.path())?);
    command.stdout(said.reopen()?).stderr(said.as_file().try_clone()?);
    let (status, sample) = measure(&mut command)?;
    if !status.success() {
        let said = fs::read_to_string(said.path()).unwrap_or_default();
        let last = said.trim().lines().last().unwrap_or("it says nothing");
        bail!("{status}: {last}");
    }
    Ok(sample)
}

/// Runs a command and waits for it. The peak is the largest of the process's and its children's.
#[allow(unsafe_code)]
fn measure(command: &mut Command) -> Result<(ExitStatus, Sample)> {
    // A hook makes std fork. It would use vfork else, and a process that was made by vfork has the
    // memory of its parent at first: its peak would never be below ours.
    // SAFETY: the hook does nothing.
    unsafe { command.pre_exec(|| Ok(())) };
    let begin = Instant::now();
    let child = command
        .spawn()
        .with_context(|| format!("{}: not installed", command.get_program().display()))?;
    let mut status = 0;
    // SAFETY: rusage is plain data, for which all zeroes is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both live until the call returns, and nobody else waits for this child.
    Errno::result(unsafe { libc::wait4(child.id() as i32, &mut status, 0, &mut usage) })?;
    let ms = begin.elapsed().as_secs_f64() * 1000.0;
    Ok((ExitStatus::from_raw(status), Sample { ms, peak_kib: usage.ru_maxrss }))
}

/// A new directory, which a container's root may enter although it is a plain user outside.
///
/// # Errors
/// `ENOSPC` if the disk is full.
pub fn open_dir(within: &Path) -> Result<TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::Permissions::from_mode(0o755);
    Ok(tempfile::Builder::new().prefix("bench-").permissions(mode).tempdir_in(within)?)
}

/// The number that the environment variable `name` holds.
pub fn number(name: &str, default: usize) -> Result<usize> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

/// Runs a program that prepares something; its output is the answer.
///
/// # Errors
/// What it says on standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| program.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", said.trim());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Has cargo build programs of the workspace as users would get them, and says where they lie.
///
/// # Errors
/// What cargo says.
pub fn build(what: &[&str]) -> Result<PathBuf> {
    let target = target_dir()?;
    cargo(&[&["build", "--release"], what].concat(), &target)?;
    Ok(target.join("release"))
}

/// The target folder: a bench lies in `release/deps` of it.
///
/// # Errors
/// If it lies elsewhere.
pub fn target_dir() -> Result<PathBuf> {
    let bench = env::current_exe()?;
    let target = bench.ancestors().nth(3).context("a bench lies in the target folder")?;
    Ok(target.to_owned())
}

/// Runs `cargo ARGS`, so that what it builds goes to the folder `target`.
///
/// # Errors
/// What cargo says.
pub fn cargo(args: &[&str], target: &Path) -> Result<()> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    cargo.args(args).arg("--quiet").arg("--target-dir").arg(target);
    ensure!(cargo.status()?.success(), "cargo can't do {args:?}");
    Ok(())
}

/// Prints what the numbers depend on.
pub fn print_machine() {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let release = read("/proc/sys/kernel/osrelease");
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    println!(
        "\nLinux {}, {cpus} CPUs ({}), load {load}",
        release.trim(),
        model.map_or(env::consts::ARCH, |(_, model)| model)
    );
    if load.parse::<f64>().is_ok_and(|load| load > 0.5 * cpus as f64) {
        println!("\n**The machine is busy: trust the ratios, not the times.**");
    }
}
