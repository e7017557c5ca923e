//! What a group has used.

use std::{fmt, fs, path::Path, time::Duration};

use anyhow::Result;

use crate::{Bytes, Version};

/// What the processes of a container have used, all together, since its group was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// The most memory at any time, file cache included. v2 counts it since Linux 5.19.
    pub memory_peak: Option<Bytes>,
    /// CPU time.
    pub cpu: Duration,
    /// How many periods of 100 ms ended with the quota of CPU time used up.
    pub throttled: u64,
    /// For how long processes had to wait then.
    pub throttled_for: Duration,
    /// How many processes the kernel killed at the limit on memory.
    pub oom_kills: u64,
    /// How often the limit on processes refused a new one.
    pub pids_refused: u64,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.memory_peak {
            Some(peak) => write!(f, "memory {peak} at most")?,
            None => write!(f, "memory unknown (before Linux 5.19)")?,
        }
        write!(f, ", CPU {:.3} s", self.cpu.as_secs_f64())?;
        write!(
            f,
            ", throttled {} times for {:.3} s",
            self.throttled,
            self.throttled_for.as_secs_f64()
        )?;
        write!(f, ", {} killed for memory, {} refused by --pids", self.oom_kills, self.pids_refused)
    }
}

/// Adds up what the groups know. `None` if there is no group.
pub(crate) fn read<'a>(groups: impl Iterator<Item = (&'a Path, Version)>) -> Result<Option<Stats>> {
    let mut stats = None;
    for (path, version) in groups {
        let stats = stats.get_or_insert_with(Stats::default);
        match version {
            Version::V2 => read_v2(path, stats),
            Version::V1 => read_v1(path, stats),
        }
    }
    Ok(stats)
}

/// Source: [cgroup v2, interface files](https://docs.kernel.org/admin-guide/cgroup-v2.html).
fn read_v2(group: &Path, stats: &mut Stats) {
    stats.memory_peak = number(group, "memory.peak").map(Bytes);
    stats.cpu = Duration::from_micros(field(group, "cpu.stat", "usage_usec"));
    stats.throttled = field(group, "cpu.stat", "nr_throttled");
    stats.throttled_for = Duration::from_micros(field(group, "cpu.stat", "throttled_usec"));
    stats.oom_kills = field(group, "memory.events", "oom_kill");
    stats.pids_refused = field(group, "pids.events", "max");
}

/// One of several directories, each of which has only the files of its own controllers.
///
/// Source: [cgroup v1](https://docs.kernel.org/admin-guide/cgroup-v1/index.html).
fn read_v1(group: &Path, stats: &mut Stats) {
    stats.memory_peak = number(group, "memory.max_usage_in_bytes").map(Bytes).or(stats.memory_peak);
    stats.cpu += Duration::from_nanos(number(group, "cpuacct.usage").unwrap_or_default());
    stats.throttled += field(group, "cpu.stat", "nr_throttled");
    stats.throttled_for += Duration::from_nanos(field(group, "cpu.stat", "throttled_time"));
    stats.oom_kills += field(group, "memory.oom_control", "oom_kill");
    stats.pids_refused += field(group, "pids.events", "max");
}

fn number(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

/// The number behind `key` in a file of lines `key number`; 0 if there is none.
fn field(group: &Path, file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(group.join(file)).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
        .unwrap_or_default()
}
