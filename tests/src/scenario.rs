//! Runs scenarios, each in a process of its own and in all places that fit.
//!
//! libtest runs tests as threads of one process, hides what a passed test prints and knows no way
//! to say "this one can't run here". A scenario needs all three: to enter a namespace, to be
//! killed when it hangs, to be skipped aloud. So a test file has a `main` of its own:
//!
//! ```no_run
//! use tests::scenario::{self, PRIVILEGED, Scenario};
//! fn names() -> anyhow::Result<()> {
//!     Ok(()) // asks a built program, and demands something of it
//! }
//! fn main() -> std::process::ExitCode {
//!     scenario::main(&[Scenario::new("step01::names", PRIVILEGED, names)])
//! }
//! ```
//! The program starts itself once more for each scenario and place: `ladder --inside NAME`, in the
//! lab as `course lab -- ladder --inside NAME`. Arguments are as libtest has them: parts of names
//! to run, `--exact`, `--skip NAME`, `--list`.

use std::{
    collections::HashMap,
    env, fmt,
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use serde::{Deserialize, Serialize};

use crate::{chance, programs, run, terminal};

/// Something to prove, and where that can be done.
pub struct Scenario {
    name: String,
    places: &'static [Place],
    proof: Proof,
}

/// A panic or an error says that it failed, [`Skip`] that it can't be had here.
type Proof = Box<dyn Fn() -> Result<()> + Sync>;

impl Scenario {
    /// A scenario with a unique name such as `step01::names`, that runs in each of `places`.
    pub fn new(
        name: impl Into<String>,
        places: &'static [Place],
        proof: impl Fn() -> Result<()> + Sync + 'static,
    ) -> Self {
        Scenario { name: name.into(), places, proof: Box::new(proof) }
    }

    /// Its name, without a place.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Where a scenario runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the lab, a throw-away host made of namespaces, whoever runs the tests.
    Lab,
    /// On this machine itself, if root runs the tests; only mounts and `/tmp` are the scenario's
    /// own, with `/` shared, as systemd has it.
    Root,
    /// On this machine itself, if a user without privileges runs the tests.
    User,
    /// Wherever the tests run: it asks nothing of the machine.
    Here,
}

/// What needs root: it runs in the lab, and on the machine for root.
pub const PRIVILEGED: &[Place] = &[Place::Lab, Place::Root];
/// What only the machine's own root can do, or sees in full.
pub const AS_ROOT: &[Place] = &[Place::Root];
/// What needs no root.
pub const EVERYWHERE: &[Place] = &[Place::Lab, Place::Root, Place::User];
/// What changes settings of the whole host, or needs one that nobody else is on.
pub const IN_LAB: &[Place] = &[Place::Lab];
/// What asks nothing of the machine.
pub const HERE: &[Place] = &[Place::Here];

impl Place {
    /// The place that this process, a scenario's, is in.
    pub fn current() -> Place {
        match env::var(PLACE).as_deref() {
            Ok("Lab") => Place::Lab,
            Ok("Root") => Place::Root,
            Ok("User") => Place::User,
            _ => Place::Here,
        }
    }

    /// Whether it is a place for who runs the tests.
    fn fits(self) -> bool {
        match self {
            Place::Lab | Place::Here => true,
            Place::Root => nix::unistd::geteuid().is_root(),
            Place::User => !nix::unistd::geteuid().is_root(),
        }
    }

    /// The start of the command that runs a scenario there.
    fn command(self) -> Result<Command, String> {
        if matches!(self, Place::Lab | Place::Root) {
            programs::lab_works().clone().map_err(|reason| format!("there is no lab: {reason}"))?;
        }
        let test = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = match self {
            Place::Lab => programs::program("course"),
            Place::Root => programs::program("course"),
            Place::User | Place::Here => programs::clean(&test),
        };
        match self {
            Place::Lab => command.args(["lab", "--"]).arg(test),
            Place::Root => command.args(["lab", "--this-machine", "--"]).arg(test),
            Place::User | Place::Here => &mut command,
        };
        Ok(command)
    }
}

/// The error that says that a scenario can't run here, and why.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends a scenario that can't run here.
///
/// # Errors
/// Always: [`Skip`], with the reason.
pub fn skip<T>(reason: impl Into<String>) -> Result<T> {
    Err(anyhow!(Skip(reason.into())))
}

/// The environment variable that turns skips into failures.
pub const MUST_RUN: &str = "CONTAINERS_MUST_RUN";
/// The environment variable that lets each scenario run in one place only: on the machine itself, if it may.
/// It is for throw-away machines, where a lab tells little more.
pub const ONCE: &str = "CONTAINERS_ONCE";
/// The environment variable that tells a scenario's process where it is.
pub const PLACE: &str = "CONTAINERS_PLACE";
/// The exit code of a scenario's process that was skipped, as automake and crun have it.
pub const SKIPPED: u8 = 77;
/// How long one scenario may take.
const LIMIT: Duration = Duration::from_secs(180);

/// How a scenario ended in one place.
enum End {
    Passed,
    Skipped(String),
    Failed(String),
}

/// How a scenario ended, for programs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Outcome {
    /// The scenario's name.
    pub name: String,
    /// How it ended.
    pub result: Verdict,
    /// Why it failed or was skipped.
    pub message: String,
}

/// How a scenario ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It held.
    Passed,
    /// It doesn't hold.
    Failed,
    /// It can't be tried here.
    Skipped,
}

impl Outcome {
    fn of(name: &str, end: &End) -> Self {
        let (result, message) = match end {
            End::Passed => (Verdict::Passed, ""),
            End::Skipped(reason) => (Verdict::Skipped, &**reason),
            End::Failed(why) => (Verdict::Failed, &**why),
        };
        Outcome { name: name.to_owned(), result, message: message.to_owned() }
    }

    /// Adds it to a file, one line each.
    fn append(&self, file: &Path) -> Result<()> {
        let mut file = File::options().append(true).create(true).open(file)?;
        Ok(file.write_all(format!("{}\n", serde_json::to_string(self)?).as_bytes())?)
    }

    /// Reads them all.
    ///
    /// # Errors
    /// If the file holds something else.
    pub fn read_all(file: &Path) -> Result<Vec<Self>> {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// The whole of a `main`: runs the scenarios that the arguments ask for.
pub fn main(scenarios: &[Scenario]) -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--inside", name] => return inside(scenarios, name),
        ["--describe"] => return describe(scenarios),
        ["--terminal", pts, ..] => return terminal::become_session(pts, &args[2..]),
        _ => {}
    }
    let wanted = Wanted::parse(&args);
    let runs: Vec<_> = scenarios
        .iter()
        .filter(|scenario| is_of_this_workspace(&scenario.name))
        .flat_map(|scenario| wanted.places(scenario).map(move |place| (scenario, place)))
        .filter(|(scenario, place)| wanted.has(&full_name(scenario, *place)))
        .collect();
    if wanted.list {
        for (scenario, place) in runs.iter().filter(|_| !wanted.ignored) {
            println!("{}: test", full_name(scenario, *place));
        }
        return ExitCode::SUCCESS;
    }
    if let Err(error) = programs::build() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let all = scenarios.iter().flat_map(|scenario| scenario.places).filter(|p| p.fits()).count();
    run_all(&runs, all.saturating_sub(runs.len()), wanted.report.as_deref())
}

/// Prints each scenario's name and places, for the course.
fn describe(scenarios: &[Scenario]) -> ExitCode {
    for scenario in scenarios {
        let places: Vec<String> = scenario.places.iter().map(|p| format!("{p:?}")).collect();
        println!("{} {}", scenario.name, places.join(" ").to_lowercase());
    }
    ExitCode::SUCCESS
}

/// Whether there is what a scenario asks: a student's workspace may end with an earlier step.
fn is_of_this_workspace(name: &str) -> bool {
    if name.starts_with("real::") || name.starts_with("final::") {
        return programs::workspace().join("final").is_dir();
    }
    let number = name.strip_prefix("step").or(name.strip_prefix("exercises::"));
    let digits = number.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    let number: Option<usize> = digits.flatten().and_then(|digits| digits.parse().ok());
    let step = number.and_then(|number| programs::STEPS.get(number.checked_sub(1)?));
    step.is_none_or(|step| programs::workspace().join(step).is_dir())
}

/// What the arguments ask for.
struct Wanted {
    parts: Vec<String>,
    /// Names without a place, which then is the first that fits: what the course asks for.
    names: Vec<String>,
    /// A file for what came of it.
    report: Option<PathBuf>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
    ignored: bool,
}

impl Wanted {
    fn parse(args: &[String]) -> Wanted {
        let has = |option: &str| args.iter().any(|arg| arg == option);
        let mut wanted = Wanted {
            parts: vec![],
            names: vec![],
            report: None,
            skip: vec![],
            exact: has("--exact"),
            list: has("--list"),
            ignored: has("--ignored"),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--scenario" => wanted.names.extend(args.next().cloned()),
                "--report" => wanted.report = args.next().map(PathBuf::from),
                "--skip" => wanted.skip.extend(args.next().cloned()),
                "--format" | "--test-threads" | "--color" => drop(args.next()),
                option if option.starts_with("--") => {}
                part => wanted.parts.push(part.to_owned()),
            }
        }
        wanted
    }

    /// The places to run a scenario in.
    fn places(&self, scenario: &Scenario) -> impl Iterator<Item = Place> + use<> {
        let fits = scenario.places.iter().copied().filter(|place| place.fits());
        let mut places: Vec<_> = fits.collect();
        if !self.names.is_empty() {
            places.truncate(self.names.contains(&scenario.name).into());
        } else if env::var_os(ONCE).is_some() {
            places.drain(..places.len().saturating_sub(1)); // The lab comes first.
        }
        places.into_iter()
    }

    fn has(&self, name: &str) -> bool {
        let fits = |part: &String| if self.exact { name == part } else { name.contains(part) };
        (self.parts.is_empty() || self.parts.iter().any(fits)) && !self.skip.iter().any(fits)
    }
}

/// A scenario's name with its place: `step01::names@lab`.
fn full_name(scenario: &Scenario, place: Place) -> String {
    match place {
        Place::Here => scenario.name.clone(),
        place => format!("{}@{}", scenario.name, format!("{place:?}").to_lowercase()),
    }
}

/// Runs scenarios and prints how they end, in libtest's words.
fn run_all(runs: &[(&Scenario, Place)], filtered: usize, report: Option<&Path>) -> ExitCode {
    let start = Instant::now();
    let seed = chance::seed();
    println!("\nrunning {} tests ({}={seed} repeats them)", runs.len(), chance::SEED);
    let ends = Mutex::new(HashMap::new());
    let run_one = |(scenario, place): (&Scenario, Place)| {
        let begin = Instant::now();
        let end = run_at(scenario, place, seed);
        let took = begin.elapsed().as_secs_f32();
        let name = full_name(scenario, place);
        match &end {
            End::Passed if took > 10. => println!("test {name} ... ok, after {took:.0} s"),
            End::Passed => println!("test {name} ... ok"),
            End::Skipped(reason) => println!("SKIP {name}: {reason}"),
            End::Failed(why) => println!("test {name} ... FAILED\n{why}\n"),
        }
        if let Some(file) = report {
            let told = Outcome::of(&scenario.name, &end).append(file);
            told.unwrap_or_else(|error| eprintln!("{}: {error:#}", file.display()));
        }
        ends.lock().expect("nobody panics with this lock").insert(name, end);
    };
    // Labs don't see each other. What runs on the machine itself sees all, so it runs alone.
    let (labs, machine): (Vec<_>, Vec<_>) =
        runs.iter().copied().partition(|(_, place)| matches!(place, Place::Lab | Place::Here));
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some(&run) = labs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run_one(run);
                }
            });
        }
    });
    machine.into_iter().for_each(run_one);
    summary(ends.into_inner().expect("nobody panics with this lock"), filtered, start)
}

/// Runs a scenario in a process of its own.
fn run_at(scenario: &Scenario, place: Place, seed: u64) -> End {
    let mut command = match place.command() {
        Ok(command) => command,
        Err(reason) => return skipped(reason),
    };
    command.args(["--inside", &scenario.name]);
    command.env(PLACE, format!("{place:?}")).env(chance::SEED, seed.to_string());
    command.env(programs::BIN_DIR, programs::bin_dir());
    let kept = env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with("INSTA_") || name == "CI" || name == "CONTAINERS_KILLS"
    });
    // The short backtrace of a failed demand says no more than its line does.
    command.envs(kept).env("RUST_BACKTRACE", "0");
    match run::finish_within(LIMIT, &mut command) {
        Ok(done) if done.code == 0 => End::Passed,
        Ok(done) if done.code == i32::from(SKIPPED) => skipped(done.stdout.trim().to_owned()),
        Ok(done) => End::Failed(format!("{}{}exit code {}", done.stdout, done.stderr, done.code)),
        Err(error) => End::Failed(format!("{error:#}")),
    }
}

/// A skip, or a failure where all must run.
fn skipped(reason: String) -> End {
    match env::var(MUST_RUN).is_ok_and(|value| value != "0") {
        true => End::Failed(format!("skipped, and {MUST_RUN} is set: {reason}")),
        false => End::Skipped(reason),
    }
}

/// Prints the closing lines.
fn summary(ends: HashMap<String, End>, filtered: usize, start: Instant) -> ExitCode {
    let count = |kind: fn(&End) -> bool| ends.values().filter(|end| kind(end)).count();
    let passed = count(|end| matches!(end, End::Passed));
    let failed = count(|end| matches!(end, End::Failed(_)));
    let ignored = count(|end| matches!(end, End::Skipped(_)));
    let mut lines: Vec<String> = ends
        .iter()
        .filter_map(|(name, end)| match end {
            End::Passed => None,
            End::Skipped(reason) => Some(format!("SKIP {name}: {reason}")),
            End::Failed(_) => Some(format!("FAILED {name}")),
        })
        .collect();
    lines.sort();
    println!();
    lines.iter().for_each(|line| println!("{line}"));
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; \
         {filtered} filtered out; finished in {:.2}s\n",
        start.elapsed().as_secs_f32(),
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The process of one scenario.
fn inside(scenarios: &[Scenario], name: &str) -> ExitCode {
    let Some(scenario) = scenarios.iter().find(|scenario| scenario.name == name) else {
        eprintln!("there is no scenario {name}");
        return ExitCode::FAILURE;
    };
    heed_signals();
    match (scenario.proof)() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(Skip(reason)) => {
                println!("{reason}");
                ExitCode::from(SKIPPED)
            }
            None => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Takes back what whoever started the tests has set: a shell's background jobs ignore Ctrl-C, and
/// what nohup starts ignores that its terminal is gone. Programs under test would inherit it.
#[allow(unsafe_code)]
fn heed_signals() {
    // Nobody can set the first two; Rust has set the others.
    let fixed = [Signal::SIGKILL, Signal::SIGSTOP];
    let kept = [Signal::SIGPIPE, Signal::SIGSEGV, Signal::SIGBUS];
    for which in Signal::iterator().filter(|s| !fixed.contains(s) && !kept.contains(s)) {
        // SAFETY: no handler is called.
        let _ = unsafe { signal(which, SigHandler::SigDfl) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Runs this program once more with other arguments: for what needs a process of its own.
pub fn again() -> Command {
    let mut command = programs::clean("/proc/self/exe");
    command.arg0("ladder");
    command
}
