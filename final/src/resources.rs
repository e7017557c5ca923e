//! Limits, from options to a spec and from a spec to control groups.

use anyhow::Result;
use cgroups::{Bytes, Io, Limits};
use oci_spec::runtime::{
    LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
};

/// The time in which a quota of CPU time is counted, in µs.
const PERIOD: u64 = 100_000;

/// The resources of a spec that say what `limits` says. The rate of the network isn't among them:
/// the spec knows only v1's marks on packets.
///
/// # Errors
/// None in practice: the builders could miss nothing.
///
/// Source: [OCI runtime spec, control groups](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups).
pub fn from_limits(limits: &Limits) -> Result<LinuxResources> {
    let mut resources = LinuxResourcesBuilder::default();
    if let Some(Bytes(memory)) = limits.memory {
        // In the spec, swap is the sum of both.
        let both = memory.saturating_add(limits.swap.map_or(0, |swap| swap.0));
        let memory = LinuxMemoryBuilder::default().limit(memory as i64).swap(both as i64);
        resources = resources.memory(memory.build()?);
    }
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(cpus) = limits.cpus {
        cpu = cpu.quota((cpus * PERIOD as f64).round() as i64).period(PERIOD);
    }
    if let Some(weight) = limits.cpu_weight {
        cpu = cpu.shares((weight * 1024 / 100).max(2));
    }
    resources = resources.cpu(cpu.build()?);
    if let Some(pids) = limits.pids {
        resources = resources.pids(LinuxPidsBuilder::default().limit(pids as i64).build()?);
    }
    if !limits.io.is_empty() {
        let devices = limits.io.iter().map(throttle).collect::<Result<Vec<_>>>()?;
        let io = LinuxBlockIoBuilder::default()
            .throttle_read_bps_device(devices.clone())
            .throttle_write_bps_device(devices);
        resources = resources.block_io(io.build()?);
    }
    Ok(resources.build()?)
}

fn throttle(io: &Io) -> Result<LinuxThrottleDevice> {
    let device = LinuxThrottleDeviceBuilder::default()
        .major(io.device.0 as i64)
        .minor(io.device.1 as i64)
        .rate(io.rate.0);
    Ok(device.build()?)
}

/// The limits that the resources of a spec ask for.
///
/// # Errors
/// None so far: what isn't known here isn't limited.
pub fn to_limits(resources: &LinuxResources) -> Limits {
    let memory = resources.memory().as_ref();
    let limit = positive(memory.and_then(|memory| memory.limit()));
    let both = positive(memory.and_then(|memory| memory.swap()));
    let cpu = resources.cpu().as_ref();
    let quota = positive(cpu.and_then(|cpu| cpu.quota()));
    let period = cpu.and_then(|cpu| cpu.period()).unwrap_or(PERIOD).max(1);
    let shares = cpu.and_then(|cpu| cpu.shares());
    Limits {
        memory: limit.map(Bytes),
        swap: limit.zip(both).map(|(limit, both)| Bytes(both.saturating_sub(limit))),
        cpus: quota.map(|quota| quota as f64 / period as f64),
        // Rounded up, so that a weight survives the way to a spec and back.
        cpu_weight: shares.map(|shares| (shares * 100).div_ceil(1024).clamp(1, 10_000)),
        pids: positive(resources.pids().as_ref().map(|pids| pids.limit())),
        io: disks(resources),
        net_rate: None,
    }
}

/// In a spec, no limit is written as -1 or left out.
fn positive(number: Option<i64>) -> Option<u64> {
    number.and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0)
}

fn disks(resources: &LinuxResources) -> Vec<Io> {
    let io = resources.block_io().as_ref();
    let devices = io.and_then(|io| io.throttle_read_bps_device().as_ref());
    devices
        .into_iter()
        .flatten()
        .map(|device| Io {
            device: (device.major() as u64, device.minor() as u64),
            rate: Bytes(device.rate()),
        })
        .collect()
}
