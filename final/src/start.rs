//! The beginning of the program, where the C library is glibc: C's `main` instead of Rust's.
//!
//! Before Rust's `main`, and in each thread, the standard library makes ready to report a stack that
//! overflows. This takes a twentieth of the time of a whole container, and only the report is lost: a
//! page that nobody may touch still ends every stack. What else a runtime needs of that beginning is here.
//! Other C libraries don't tell Rust the arguments of the program in time, so they begin as usual.
//!
//! Source: [std, src/rt.rs and src/sys/pal/unix/mod.rs](https://github.com/rust-lang/rust/tree/master/library/std/src),
//! [sigaltstack(2)](https://man7.org/linux/man-pages/man2/sigaltstack.2.html).

use std::{
    ffi::c_int,
    io::{stderr, stdin, stdout},
    os::fd::{AsFd, IntoRawFd},
    process::ExitCode,
};

use anyhow::Result;
use nix::{
    fcntl::{OFlag, open},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigHandler, Signal, signal},
        stat::Mode,
    },
};
use uts::process;

#[allow(unsafe_code)]
// SAFETY: no other function has this name, and it takes none of the arguments that it is given.
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    let ready = open_standard_files().and_then(|()| ignore_broken_pipes());
    let code = ready.map_or_else(|error| process::report(&error).into(), |()| crate::final_main());
    // An `ExitCode` doesn't tell its number.
    let number = (0..=u8::MAX).find(|number| ExitCode::from(*number) == code);
    process::end(number.unwrap_or(u8::MAX))
}

/// Opens those of the files 0 to 2 that the caller has closed. Otherwise the next file that is opened
/// would get such a number, and the command in the container would inherit it: a door to the outside.
///
/// Source: [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html), `POLLNVAL`.
fn open_standard_files() -> Result<()> {
    let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
    let files = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let mut files = files.map(|file| PollFd::new(file, PollFlags::empty()));
    poll(&mut files, PollTimeout::ZERO)?;
    for file in files {
        if file.revents().is_some_and(|events| events.contains(PollFlags::POLLNVAL)) {
            // The lowest free number is this one's, and it stays open.
            let _ = open("/dev/null", OFlag::O_RDWR, Mode::empty())?.into_raw_fd();
        }
    }
    Ok(())
}

/// Makes a write to a pipe that nobody reads an error instead of the end. The command doesn't inherit
/// this: see [`uts::let_through`].
///
/// Source: [pipe(7)](https://man7.org/linux/man-pages/man7/pipe.7.html), [signal(7)](https://man7.org/linux/man-pages/man7/signal.7.html).
#[allow(unsafe_code)]
fn ignore_broken_pipes() -> Result<()> {
    // SAFETY: to ignore a signal is no handler, so no code of ours runs at a bad moment.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }?;
    Ok(())
}
