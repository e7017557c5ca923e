//! A service of the host, to try what a container can reach: it listens while a command runs, and says
//! a word to whoever connects.
//!
//! `listen 127.0.0.1:7070 COMMAND`

use std::{
    env,
    io::Write,
    net::TcpListener,
    process::{Command, ExitCode},
    thread,
};

use anyhow::{Context, Result};

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("listen: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let mut args = env::args_os().skip(1);
    let usage = "listen ADDRESS:PORT COMMAND [ARGUMENT]...";
    let address = args.next().and_then(|address| address.into_string().ok()).context(usage)?;
    let program = args.next().context(usage)?;
    // Before the command starts, so that it can connect at once.
    let service = TcpListener::bind(&*address).with_context(|| address.clone())?;
    thread::spawn(move || {
        for mut caller in service.incoming().flatten() {
            let _ = writeln!(caller, "a word from the host");
        }
    });
    let ended = Command::new(&program).args(args).status().context("can't run the command")?;
    Ok(ExitCode::from(ended.code().and_then(|code| code.try_into().ok()).unwrap_or(255)))
}
