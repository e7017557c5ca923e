//! Runs a program with a time limit.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{PidfdFlags, pidfd_open},
};

/// How long a program may take; an emulated machine takes ten times as long as a real one.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The environment variable that sets another limit, in seconds.
pub const SECONDS: &str = "CONTAINERS_SECONDS";

/// What a program did.
#[derive(Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// Its exit code; 128+n if signal n killed it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Finished {
    /// Demands that the program succeeded.
    ///
    /// # Errors
    /// All that is known of it, if it didn't.
    pub fn success(self) -> Result<Self> {
        self.with_code(0)
    }

    /// Demands that the program ended with `code`.
    ///
    /// # Errors
    /// All that is known of it, if it didn't.
    pub fn with_code(self, code: i32) -> Result<Self> {
        let Finished { command, code: found, stdout, stderr } = &self;
        ensure!(
            *found == code,
            "`{command}` ended with {found} and not {code}\nstdout: {stdout}\nstderr: {stderr}"
        );
        Ok(self)
    }
}

/// Runs `command` to its end and captures what it prints; its standard input is empty unless set.
///
/// # Errors
/// If it can't be started. If it doesn't end within [`LIMIT`]: then the error tells what it
/// printed so far and which of its processes hang where, and they are killed.
pub fn finish(command: &mut Command) -> Result<Finished> {
    finish_within(limit(LIMIT), command)
}

/// The time that a program may take: `most`, or less where [`SECONDS`] says so.
pub fn limit(most: Duration) -> Duration {
    // Whoever grades hasn't got so much time for each.
    let given = std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok());
    given.map_or(most, |seconds| most.min(Duration::from_secs(seconds)))
}

/// As [`finish`], with a limit of its own.
///
/// # Errors
/// As [`finish`].
pub fn finish_within(limit: Duration, command: &mut Command) -> Result<Finished> {
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shown = shown(command);
    let mut child = command.spawn().with_context(|| format!("can't run `{shown}`"))?;
    let collected =
        collect(child.stdout.take()).and_then(|stdout| Ok((stdout, collect(child.stderr.take())?)));
    let (stdout, stderr) = match collected {
        Ok(both) => both,
        Err(error) => {
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            child.wait()?;
            return Err(error).context("no thread can be had to read what is printed");
        }
    };
    let deadline = Instant::now() + limit;
    let ended = wait_until(deadline, &child)?;
    let hanging = if ended { String::new() } else { family(child.id()) };
    if !ended {
        // The group, since a child that is left alone would keep the pipes open.
        let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    }
    let status = child.wait()?;
    // A descendant that outlives the program holds the pipes: that is a hang as well.
    let complete = stdout.wait_until(deadline) & stderr.wait_until(deadline);
    let (stdout, stderr) = (stdout.text(), stderr.text());
    if !ended {
        bail!("`{shown}` hung for {limit:?}\n{hanging}stdout: {stdout}\nstderr: {stderr}");
    }
    ensure!(complete, "`{shown}` ended, but a process of it lives on and holds its output open");
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(Finished { command: shown, code, stdout, stderr })
}

/// Waits for the end of `child`, but doesn't reap it. `false` says that it still runs.
fn wait_until(deadline: Instant, child: &Child) -> Result<bool> {
    let pid = rustix::process::Pid::from_child(child);
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left)?;
    let mut fds = [PollFd::new(&ended, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| poll(&mut fds, Some(&left)))? > 0)
}

/// The command line as one would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// How much of an output is kept.
const MOST: usize = 64 << 20;

/// What is read from a pipe, while it is being read.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Collected {
    fn wait_until(&self, deadline: Instant) -> bool {
        // At least a moment, for what is in the pipe already.
        let deadline = deadline.max(Instant::now() + Duration::from_secs(1));
        while !self.reader.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        self.reader.is_finished()
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().expect("nobody panics with this lock");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// There may be no thread to be had: among programs that take all the processes they can.
fn collect(pipe: Option<impl Read + Send + 'static>) -> io::Result<Collected> {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let into = bytes.clone();
    let reader = thread::Builder::new().spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            let mut bytes = into.lock().expect("nobody panics with this lock");
            // Who prints without end is read on, so that it isn't held up, but not remembered.
            if bytes.len() < MOST {
                bytes.extend_from_slice(&buffer[..n]);
            }
        }
    })?;
    Ok(Collected { bytes, reader })
}

/// A process and all that descend from it, each with what it waits for.
fn family(root: u32) -> String {
    let mut members = vec![root];
    let mut text = String::new();
    while let Some(pid) = members.pop() {
        let read =
            |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let command = read("cmdline").replace('\0', " ");
        let _ = writeln!(text, "  {pid} `{command}` waits in {}", read("wchan"));
        let children = read(&format!("task/{pid}/children"));
        members.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    text
}
