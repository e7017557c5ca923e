//! What is written where: v2 and v1 side by side.
//!
//! | limit | v2 | v1 |
//! |---|---|---|
//! | memory | `memory.max` | `memory.limit_in_bytes` |
//! | swap | `memory.swap.max`: swap alone | `memory.memsw.limit_in_bytes`: memory and swap together |
//! | CPU time | `cpu.max`: quota and period | `cpu.cfs_quota_us`, with a period of 100 ms |
//! | CPU weight | `cpu.weight`: 1 to 10000, usually 100 | `cpu.shares`: usually 1024 |
//! | processes | `pids.max` | `pids.max` |
//! | disk | `io.max` | `blkio.throttle.*_bps_device` (buffered writes aren't limited) |

use anyhow::{Result, bail};

use crate::{Limits, Version};

/// The time in which a quota of CPU time is counted, in µs: the kernel's own default.
const PERIOD: u64 = 100_000;

/// A value for one control file, in both generations.
pub struct Setting {
    controller: &'static str,
    v2: (&'static str, String),
    v1: (&'static str, String),
    /// Whether the container can go without it.
    optional: bool,
}

impl Setting {
    /// The name of the control file.
    pub fn file(&self, version: Version) -> &'static str {
        match version {
            Version::V2 => self.v2.0,
            Version::V1 => self.v1.0,
        }
    }

    /// What is written to it.
    pub fn value(&self, version: Version) -> String {
        match version {
            Version::V2 => self.v2.1.clone(),
            Version::V1 => self.v1.1.clone(),
        }
    }

    /// What to do if no group has the control file.
    pub(crate) fn missing(&self) -> Result<()> {
        if self.optional {
            return Ok(());
        }
        bail!(
            "this machine can't limit {}: no control group has the file {}",
            self.controller,
            self.v2.0
        )
    }
}

/// What is to be written for `limits`, in this order.
///
/// # Errors
/// If the limits contradict each other.
///
/// Source: [cgroup v2](https://docs.kernel.org/admin-guide/cgroup-v2.html),
/// [cgroup v1](https://docs.kernel.org/admin-guide/cgroup-v1/index.html).
pub fn settings(limits: &Limits) -> Result<Vec<Setting>> {
    let setting = |controller, v2: (&'static str, String), v1: (&'static str, String)| Setting {
        controller,
        v2,
        v1,
        optional: false,
    };
    let mut settings = Vec::new();
    if let Some(memory) = limits.memory {
        let bytes = memory.0.to_string();
        settings.push(setting(
            "memory",
            ("memory.max", bytes.clone()),
            ("memory.limit_in_bytes", bytes),
        ));
        // After the limit on memory: in v1 the sum may not be below it.
        let swap = limits.swap.map_or(0, |swap| swap.0);
        settings.push(Setting {
            controller: "swap",
            v2: ("memory.swap.max", swap.to_string()),
            v1: ("memory.memsw.limit_in_bytes", (memory.0.saturating_add(swap)).to_string()),
            optional: swap == 0, // A kernel that doesn't count swap, often on a machine without any.
        });
    } else if limits.swap.is_some() {
        bail!("--swap is what may be used beyond --memory: give both");
    }
    if let Some(cpus) = limits.cpus {
        let quota = (cpus * PERIOD as f64).round() as u64;
        settings.push(setting(
            "cpu",
            ("cpu.max", format!("{quota} {PERIOD}")),
            ("cpu.cfs_quota_us", quota.to_string()),
        ));
    }
    if let Some(weight) = limits.cpu_weight {
        let shares = (weight * 1024 / 100).max(2);
        settings.push(setting(
            "cpu",
            ("cpu.weight", weight.to_string()),
            ("cpu.shares", shares.to_string()),
        ));
    }
    if let Some(pids) = limits.pids {
        settings.push(setting(
            "pids",
            ("pids.max", pids.to_string()),
            ("pids.max", pids.to_string()),
        ));
    }
    for io in &limits.io {
        let ((major, minor), rate) = (io.device, io.rate.0);
        let v2 = format!("{major}:{minor} rbps={rate} wbps={rate}");
        let v1 = format!("{major}:{minor} {rate}");
        for v1_file in ["blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"] {
            settings.push(setting("io", ("io.max", v2.clone()), (v1_file, v1.clone())));
        }
    }
    Ok(settings)
}

/// The controllers to have, by their v2 names: those that limits depend on (`true`), and those that
/// only count.
pub(crate) fn controllers(limits: &Limits) -> Vec<(&'static str, bool)> {
    let mut controllers = vec![
        ("memory", limits.memory.is_some()),
        ("cpu", limits.cpus.is_some() || limits.cpu_weight.is_some()),
        ("pids", limits.pids.is_some()),
    ];
    if !limits.io.is_empty() {
        controllers.push(("io", true));
    }
    controllers
}
