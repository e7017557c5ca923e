//! Gives the user namespace of a process its map, as newuidmap(1) and newgidmap(1) do.
//!
//! ```console
//! $ unshare --user sh &
//! $ cargo run -p step04-user --example idmap -- PID 0:1000:1
//! ```

use std::{process::ExitCode, str::FromStr};

use anyhow::{Context, Result};
use clap::Parser;
use nix::unistd::Pid;
use user::{IdMap, map::Range};
use uts::process;

/// Writes a map of users, and the same for groups.
#[derive(Parser)]
struct Args {
    /// A process in the namespace
    pid: i32,
    /// INSIDE:OUTSIDE:COUNT, as often as there are ranges
    #[arg(required = true)]
    ranges: Vec<Triple>,
}

#[derive(Clone)]
struct Triple(Range);

impl FromStr for Triple {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split(':').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        let [inside, outside, count] = numbers[..] else { None.context("INSIDE:OUTSIDE:COUNT")? };
        Ok(Triple(Range { inside, outside, count }))
    }
}

fn main() -> ExitCode {
    process::main(|args: Args| {
        let ranges: Vec<Range> = args.ranges.into_iter().map(|triple| triple.0).collect();
        let map = IdMap { users: ranges.clone(), groups: ranges };
        user::write_id_maps(Pid::from_raw(args.pid), &map)?;
        Ok(ExitCode::SUCCESS)
    })
}
