//! The functions of step 7, one at a time, for the tests of the exercises: so that each can be tried
//! before the others are there.
//!
//!   step07-parts settings --memory 64m   say what would be written where, in both generations
//!   step07-parts group NAME --pids 9     make a group with a process in it, and remove both in the end
//!   step07-parts rate LINK 64k           limit what a link sends; needs root, or the lab

use std::{io, process::ExitCode};

use anyhow::{Result, ensure};
use cgroups::{Bytes, Limits, Location, Version, rate, setting};
use clap::Parser;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use uts::{CloneFlags, process};

/// A part of step 7.
#[derive(Parser)]
enum Part {
    Settings {
        #[command(flatten)]
        limits: Limits,
    },
    Group {
        name: String,
        /// Don't make it, remove it only
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        limits: Limits,
    },
    Rate {
        link: String,
        rate: Bytes,
    },
}

fn main() -> ExitCode {
    process::main(|part: Part| {
        match part {
            Part::Settings { limits } => settings(&limits),
            Part::Group { name, remove, limits } => group(&name, remove, &limits),
            Part::Rate { link, rate } => {
                let limits = Limits { net_rate: Some(rate), ..Limits::default() };
                rate::limit_rate(Some(&link), &limits)
            }
        }?;
        Ok(ExitCode::SUCCESS)
    })
}

fn settings(limits: &Limits) -> Result<()> {
    for setting in setting::settings(limits)? {
        for (name, version) in [("v2", Version::V2), ("v1", Version::V1)] {
            println!("{name} {} {}", setting.file(version), setting.value(version));
        }
    }
    Ok(())
}

fn group(name: &str, only_remove: bool, limits: &Limits) -> Result<()> {
    let location = Location::find_for_limits(name, limits)?;
    if only_remove {
        return location.remove();
    }
    let cgroup = location.create(limits)?;
    let child = process::spawn_into(cgroup.directory(), CloneFlags::empty(), || {
        cgroup.enter()?;
        println!("child {}", std::process::id());
        loop {
            nix::unistd::pause();
        }
    })?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    location.remove()?;
    let end = waitpid(child, Some(WaitPidFlag::WNOHANG))?;
    ensure!(end != WaitStatus::StillAlive, "the group is gone, and a process of it still runs");
    println!("removed");
    Ok(())
}
