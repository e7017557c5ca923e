//! `final run`, and containers that go on running meanwhile.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    programs::program,
    run::{Finished, LIMIT, finish},
    scenario::Place,
};

/// `final run OPTIONS IMAGE -- COMMAND`, with a store that belongs to this scenario.
pub fn command(options: &[&str], image: &str, command: &[&str]) -> Command {
    // As root, a scenario has a /tmp of its own.
    let store = match Place::current() {
        Place::User => format!("{}/real-store", std::env::var("HOME").unwrap_or_default()),
        _ => "/tmp/store".to_owned(),
    };
    command_with_store(&store, options, image, command)
}

/// As [`command`], with a store that may be there already.
pub fn command_with_store(store: &str, options: &[&str], image: &str, command: &[&str]) -> Command {
    let mut run = program("final");
    run.args(["--store", store, "run"]).args(options).arg(image);
    if !command.is_empty() {
        run.arg("--").args(command);
    }
    run
}

/// Runs a shell script in a new container to its end.
pub fn sh(options: &[&str], image: &str, script: &str) -> Result<Finished> {
    finish(&mut command(options, image, &["sh", "-c", script]))
}

/// What a shell script that succeeds prints, without the white space around it.
pub fn says(options: &[&str], image: &str, script: &str) -> Result<String> {
    Ok(sh(options, image, script)?.success()?.stdout.trim().to_owned())
}

/// A container that runs until it is stopped.
pub struct Running {
    program: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut program = command.stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(program.stdout.take().context("its output is a pipe")?);
        Ok(Running { program, output })
    }

    /// The next line that the command prints: it has come that far.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "it ended after {line:?}: {:?}", self.program.wait()?);
        Ok(line.trim().to_owned())
    }

    /// Sends a signal to `final`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.program.id() as i32), signal)?)
    }

    /// Waits for the end of `final`, and gives its exit code.
    pub fn end(mut self) -> Result<Option<i32>> {
        Ok(self.program.wait()?.code())
    }
}

/// A scenario that fails leaves no container behind.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// Sends `request` to a server as soon as it takes connections, and gives all that it answers.
pub fn ask(address: &str, port: u16, request: &str) -> Result<Vec<u8>> {
    let deadline = Instant::now() + LIMIT;
    let mut connection = loop {
        match TcpStream::connect((address, port)) {
            Ok(connection) => break connection,
            Err(error) if Instant::now() > deadline => bail!("{address}:{port}: {error}"),
            // Nothing tells that a server in another namespace has begun to listen.
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    connection.set_read_timeout(Some(LIMIT))?;
    connection.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    Ok(answer)
}

/// What a web server answers, with its headers.
pub fn get(address: &str, path: &str) -> Result<String> {
    let answer = ask(address, 80, &format!("GET {path} HTTP/1.0\r\n\r\n"))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What is in the store's folders for containers.
pub fn left_in_store() -> Result<Vec<String>> {
    let mut left = Vec::new();
    for folder in ["containers", "merged"] {
        for entry in Path::new("/tmp/store").join(folder).read_dir()? {
            left.push(format!("{folder}/{}", entry?.file_name().display()));
        }
    }
    Ok(left)
}
