//! A terminal for a program under test, and a hand on its keyboard.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Child, Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::OFlag,
    pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    run::{LIMIT, limit},
    scenario,
};

/// A program that runs on a terminal of its own, like in a new window.
pub struct Session {
    keyboard: File,
    program: Child,
    screen: String,
    /// Up to where [`Session::wait_for`] has found what it waited for.
    seen: usize,
}

impl Session {
    /// Starts `command` in a new session that has a new terminal; only its program and arguments
    /// are used.
    ///
    /// # Errors
    /// If there is no terminal to be had.
    pub fn start(command: &Command) -> Result<Self> {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let mut starter = scenario::again();
        starter.args(["--terminal", &ptsname_r(&master)?]);
        starter.arg(command.get_program()).args(command.get_args());
        let program = starter.spawn()?;
        let keyboard = File::from(master.as_fd().try_clone_to_owned()?);
        Ok(Session { keyboard, program, screen: String::new(), seen: 0 })
    }

    /// Presses keys: `"\x03"` is Ctrl-C, which sends SIGINT to the foreground process group.
    ///
    /// # Errors
    /// As write(2).
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// Waits until `text` stands on the screen, after what was waited for before.
    ///
    /// # Errors
    /// If it doesn't come, or the program ends before.
    pub fn wait_for(&mut self, text: &str) -> Result<()> {
        loop {
            if let Some(at) = self.screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return Ok(());
            }
            if !self.read()? {
                bail!("the program ended without {text:?}; on the screen:\n{}", self.screen);
            }
        }
    }

    /// The process that runs on the terminal.
    pub fn pid(&self) -> u32 {
        self.program.id()
    }

    /// Waits for the end of the program, and gives its exit code and all that stood on the screen.
    ///
    /// # Errors
    /// If it hangs.
    pub fn end(mut self) -> Result<(i32, String)> {
        while self.read()? {}
        let code = self.program.wait()?.code().unwrap_or(-1);
        Ok((code, self.screen))
    }

    /// Reads more from the screen. `false` says that everybody has left the terminal.
    fn read(&mut self) -> Result<bool> {
        let left = Timespec::try_from(limit(LIMIT))?;
        let mut fds = [PollFd::new(&self.keyboard, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&left)))? == 0 {
            let _ = self.program.kill();
            bail!("the program on the terminal hangs; on its screen:\n{}", self.screen);
        }
        let mut buffer = [0; 4096];
        match self.keyboard.read(&mut buffer) {
            Ok(0) | Err(_) => Ok(false), // EIO: the other end is closed.
            Ok(n) => {
                self.screen.push_str(&String::from_utf8_lossy(&buffer[..n]));
                Ok(true)
            }
        }
    }
}

/// Makes this process the leader of a new session whose terminal is `pts`, and then `command`.
pub fn become_session(pts: &str, command: &[String]) -> ExitCode {
    let Err(error) = try_become_session(pts, command);
    eprintln!("can't start on {pts}: {error:#}");
    ExitCode::FAILURE
}

fn try_become_session(pts: &str, command: &[String]) -> Result<std::convert::Infallible> {
    let (program, args) = command.split_first().context("there is no command")?;
    rustix::process::setsid()?;
    // The first terminal that a session's leader opens becomes the session's.
    let terminal = OpenOptions::new().read(true).write(true).open(pts)?;
    let mut command = Command::new(program);
    command.args(args).stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
    Err(command.exec().into())
}
