//! `cargo course watch`: checks again whenever a file is saved.

use std::{
    fs,
    mem::MaybeUninit,
    path::Path,
    process::{Command, ExitCode},
};

use ::tests::exercises::{Manifest, steps_in};
use anyhow::{Context, Result};
use rustix::fs::inotify;

use crate::{place, progress::Progress, terminal};

/// Checks a step whenever you save a file of it. Ctrl-C ends it.
#[derive(clap::Args)]
pub struct Watch {}

const CHANGES: inotify::WatchFlags = inotify::WatchFlags::CLOSE_WRITE
    .union(inotify::WatchFlags::MOVED_TO)
    .union(inotify::WatchFlags::CREATE);

/// Waits for changes, for ever.
pub fn watch(_: &Watch) -> Result<ExitCode> {
    let root = place::workspace()?;
    let manifest = Manifest::read(&root)?;
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC).context("can't watch files")?;
    let mut watched = vec![];
    for (number, step) in steps_in(&root) {
        for part in ["src", "examples", "exercises"] {
            add(&changes, &root.join(step).join(part), number, &mut watched)?;
        }
    }
    let solved = |id: String| Progress::read(&root).exercises.get(&id).copied();
    let next = manifest.exercises.iter().find(|exercise| {
        solved(exercise.id.to_string()) != Some(::tests::scenario::Verdict::Passed)
    });
    let mut step = next.or(manifest.exercises.first()).map_or(1, |exercise| exercise.id.step);
    loop {
        print!("\x1b[2J\x1b[H");
        // A process of its own, which is built anew if the tests have changed.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut check = Command::new(cargo);
        check.current_dir(&root).args(["course", "check", &step.to_string()]);
        check.status().context("can't run cargo course check")?;
        println!("{}", terminal::faint("\nwaiting for a change; Ctrl-C ends this"));
        step = next_change(&changes, &watched)?;
    }
}

fn add(
    changes: &impl std::os::fd::AsFd,
    folder: &Path,
    step: usize,
    watched: &mut Vec<(i32, usize)>,
) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let watch = inotify::add_watch(changes, folder, CHANGES)
        .with_context(|| format!("can't watch {}", folder.display()))?;
    watched.push((watch, step));
    for entry in fs::read_dir(folder)? {
        add(changes, &entry?.path(), step, watched)?;
    }
    Ok(())
}

/// Waits until a file is saved, and says which step it belongs to.
fn next_change(changes: &impl std::os::fd::AsFd, watched: &[(i32, usize)]) -> Result<usize> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(changes, &mut buffer);
    loop {
        let event = events.next().context("can't watch files")?;
        let step = watched.iter().find(|(watch, _)| *watch == event.wd()).map(|(_, step)| *step);
        // Editors write several files for one; what comes in the same moment is one change.
        if let (Some(step), true) = (step, events.is_buffer_empty()) {
            return Ok(step);
        }
    }
}
