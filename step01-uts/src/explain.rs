//! `--explain`: the system calls of both processes as one numbered story.
//!
//! Every [`call!`](crate::call!) is a [`tracing`] event. A subscriber listens to them in both
//! processes, the one that stays outside ("host") and the one inside ("container"), and prints
//! each as a line: its number, its side, the step whose library makes the call, and the call.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io::{IsTerminal, Seek, SeekFrom, Write, stderr},
    sync::OnceLock,
};

use anyhow::Result;
use nix::sys::memfd::{MFdFlags, memfd_create};
use tracing::{Event, Metadata, Subscriber, field, span};

/// If `wanted`, starts to print the story on standard error, in this process and all that it forks.
///
/// # Errors
/// If the counter can't be made, or a story is being told already.
pub fn start_if(wanted: bool) -> Result<()> {
    if !wanted {
        return Ok(());
    }
    let counter = memfd_create("explain", MFdFlags::MFD_CLOEXEC)?.into();
    tracing::subscriber::set_global_default(Story { counter, colour: stderr().is_terminal() })?;
    Ok(())
}

/// From now on this process tells its part of the story as `side`.
pub(crate) fn change_side(side: &'static str) {
    // A process changes sides once, when it is born into the container.
    let _ = SIDE.set(side);
}

static SIDE: OnceLock<&str> = OnceLock::new();

/// Prints each system call as a line.
struct Story {
    /// An empty file whose *offset* counts the lines: parent and child share it, since a child
    /// inherits its parent's open files and not copies of them.
    counter: File,
    colour: bool,
}

impl Subscriber for Story {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.fields().field("call").is_some()
    }

    fn event(&self, event: &Event) {
        let mut call = Call(String::new());
        event.record(&mut call);
        let number = (&self.counter).seek(SeekFrom::Current(1)).unwrap_or_default();
        let side = SIDE.get().copied().unwrap_or("host");
        let step = event.metadata().target().split("::").next().unwrap_or_default();
        let (on, off) = match side {
            "container" if self.colour => ("\x1b[36m", "\x1b[0m"), // cyan
            _ => ("", ""),
        };
        // In one piece, so that the lines of two processes never mix.
        let line = format!("{on}{number:3}  {side:<9}  {step:<7}  {}{off}\n", call.0);
        let _ = stderr().write_all(line.as_bytes());
    }

    fn new_span(&self, _: &span::Attributes) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Takes the field `call` out of an event.
struct Call(String);

impl field::Visit for Call {
    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        if field.name() == "call" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}
