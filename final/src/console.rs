//! A terminal of the container's own.
//!
//! The command doesn't get the user's terminal, through which it could reach what else runs there.
//! It gets a new pair of terminals, made inside: what is written to one is read from the other. The
//! command has the *slave*; the *master* is handed to the runtime outside, which copies between it
//! and the user's terminal.
//!
//! ```text
//!   the user's terminal ◀──▶ relay ◀──▶ master ◀──▶ slave, /dev/pts/0 inside ◀──▶ the command
//! ```

use std::{
    fs::File,
    io::{IoSlice, IoSliceMut, IsTerminal, Read, Write, stdin, stdout},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
};

use anyhow::{Result, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setsid},
};
use rustix::{
    fs::fchown,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
    process::{Uid, ioctl_tiocsctty},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{OptionalActions, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};
use uts::{Janitor, Received, Signals, call, process};

/// The way on which the master goes from inside to outside.
pub struct Console {
    outside: OwnedFd,
    inside: OwnedFd,
}

impl Console {
    /// Whether the user sits at a terminal, for input and output.
    pub fn is_wanted() -> bool {
        stdin().is_terminal() && stdout().is_terminal()
    }

    /// Makes the way, before there is a container.
    ///
    /// # Errors
    /// `EMFILE` if there are too many open files.
    pub fn new() -> Result<Self> {
        let (outside, inside) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok(Console { outside, inside })
    }

    /// Inside, after the pivot: opens a new terminal, makes it standard input, output and error and
    /// the one that Ctrl-C comes from, gives it to user `uid`, and sends its other end outside.
    ///
    /// # Errors
    /// `ENOENT` if `/dev/ptmx` isn't there.
    ///
    /// Source: [pty(7)](https://man7.org/linux/man-pages/man7/pty.7.html),
    /// [credentials(7)](https://man7.org/linux/man-pages/man7/credentials.7.html), "controlling terminal".
    pub fn open(&self, uid: u32) -> Result<()> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = call!("open"("/dev/ptmx") = openpt(flags | OpenptFlags::CLOEXEC))?;
        unlockpt(&master)?;
        // By the master itself and not by a name, which could be anything by now.
        let slave = call!("ioctl"("TIOCGPTPEER") = ioctl_tiocgptpeer(&master, flags))?;
        fchown(&slave, Some(Uid::from_raw(uid)), None)?;
        send(&self.inside, &master)?;
        setsid()?; // Only who leads a session can have a controlling terminal.
        call!("ioctl"("TIOCSCTTY") = ioctl_tiocsctty(&slave))?;
        dup2_stdin(&slave)?;
        dup2_stdout(&slave)?;
        Ok(dup2_stderr(&slave)?)
    }

    /// Outside: copies between the user's terminal and the container's until `child` has ended, and
    /// gives its exit code.
    ///
    /// # Errors
    /// If the user's terminal or the container's can't be read.
    pub fn relay(self, child: Pid) -> Result<ExitCode> {
        drop(self.inside);
        let signals = Signals::receive()?;
        let Some(master) = receive(&self.outside)? else {
            return process::wait(child); // It failed before it had a terminal, and has said so.
        };
        let master = File::from(master);
        let _raw = Raw::enter()?;
        resize(&master);
        let mut input_open = true;
        loop {
            let mut fds = vec![
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(master.as_fd(), PollFlags::POLLIN),
            ];
            let stdin = stdin();
            if input_open {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
            if ready[1] {
                copy(&master, &mut stdout());
            }
            if ready.get(2) == Some(&true) {
                input_open = copy(&stdin, &mut &master);
            }
            if ready[0]
                && let Some(end) = heed(&signals, child, &master)?
            {
                while copy(&master, &mut stdout()) {} // What it wrote last.
                return Ok(process::exit_code(end).into());
            }
        }
    }
}

/// Acts on the signals that have come; gives the end of `child` if that was one.
fn heed(signals: &Signals, child: Pid, master: &File) -> Result<Option<WaitStatus>> {
    while let Some(Received { signal, .. }) = signals.take()? {
        match signal {
            Signal::SIGCHLD => match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::StillAlive => {}
                end => return Ok(Some(end)),
            },
            Signal::SIGWINCH => resize(master),
            // Also what the user's terminal sent, when it was closed: inside there is another one.
            _ => kill(child, signal)?,
        }
    }
    Ok(None)
}

/// Copies what there is to read. `false` says that there will be no more.
fn copy(mut from: impl Read, to: &mut impl Write) -> bool {
    let mut buffer = [0; 8192];
    match from.read(&mut buffer) {
        // EIO is how a master says that nobody has its slave any more.
        Ok(0) | Err(_) => false,
        Ok(length) => to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_ok(),
    }
}

/// Gives the container's terminal the size of the user's.
fn resize(master: &File) {
    // A terminal that can't tell its size has none to pass on.
    if let Ok(size) = tcgetwinsize(stdin()) {
        let _ = tcsetwinsize(master, size);
    }
}

/// The user's terminal passes every key on, Ctrl-C too, as long as this value lives. It is put back
/// even if this process is killed.
struct Raw {
    _janitor: Janitor<'static>,
}

impl Raw {
    fn enter() -> Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        let janitor =
            Janitor::hire(move || Ok(tcsetattr(stdin(), OptionalActions::Now, &before)?))?;
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw { _janitor: janitor })
    }
}

/// Sends an open file: SCM_RIGHTS of unix(7).
fn send(way: &OwnedFd, file: &OwnedFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    message.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(way, &[IoSlice::new(b"t")], &mut message, SendFlags::empty())?;
    Ok(())
}

/// Receives an open file; `None` if the other side has ended.
fn receive(way: &OwnedFd) -> Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received =
        recvmsg(way, &mut [IoSliceMut::new(&mut byte)], &mut message, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(mut files) = part {
            return Ok(files.next());
        }
    }
    bail!("the container sent no terminal")
}
