//! The limits, as options of a program.

use std::{
    fmt, fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    str::FromStr,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::{major, minor};

/// How much of the machine a container may use. What isn't given isn't limited.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Limits {
    /// Memory, as 64m or 2g; beyond it, the kernel kills (137)
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<Bytes>,

    /// Swap beyond the memory [default: none, if --memory is given]
    #[arg(long, value_name = "BYTES")]
    pub swap: Option<Bytes>,

    /// CPU time per time that passes: 0.5 is half of one CPU
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    pub cpus: Option<f64>,

    /// Share of the CPU when others want it too, from 1 to 10000; a group has 100 by default
    #[arg(long, value_name = "WEIGHT", value_parser = clap::value_parser!(u64).range(1..=10000))]
    pub cpu_weight: Option<u64>,

    /// Number of processes and threads at a time
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub pids: Option<u64>,

    /// Bytes per second from and to a disk: /dev/sda=10m
    #[arg(long, value_name = "DEVICE=RATE")]
    pub io: Vec<Io>,

    /// Bytes per second through the network, in each direction
    #[arg(long, value_name = "RATE")]
    pub net_rate: Option<Bytes>,
}

/// A number of bytes. Written with the suffix k, m, g or t it is counted in powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        let lower = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
        let (number, shift) = match lower.char_indices().last() {
            Some((at, 'k')) => (&lower[..at], 10),
            Some((at, 'm')) => (&lower[..at], 20),
            Some((at, 'g')) => (&lower[..at], 30),
            Some((at, 't')) => (&lower[..at], 40),
            _ => (lower, 0),
        };
        let number: u64 =
            number.parse().ok().context("write a number of bytes, as in 65536, 64k, 10m or 2g")?;
        let bytes =
            number.checked_mul(1 << shift).context("that is more than a number of bytes can be")?;
        ensure!(bytes > 0, "it must be more than nothing");
        Ok(Bytes(bytes))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            bytes if bytes < 1 << 10 => write!(f, "{bytes} B"),
            bytes if bytes < 1 << 20 => write!(f, "{:.1} KiB", bytes as f64 / 1024.0),
            bytes if bytes < 1 << 30 => write!(f, "{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
            bytes => write!(f, "{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        }
    }
}

fn cpus(text: &str) -> Result<f64> {
    let cpus: f64 = text.parse()?;
    // The kernel takes no quota below 1 ms, which is 0.01 of the usual period of 100 ms.
    ensure!((0.01..=100_000.0).contains(&cpus), "write how many CPUs: 0.01 or more");
    Ok(cpus)
}

/// A limit on the traffic between the container and one disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Io {
    /// The numbers of the disk: major and minor.
    pub device: (u64, u64),
    /// Bytes per second, for reading and for writing.
    pub rate: Bytes,
}

impl FromStr for Io {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (device, rate) =
            text.rsplit_once('=').context("write DEVICE=RATE, as in /dev/sda=10m")?;
        Ok(Io { device: whole_disk(device_numbers(device)?)?, rate: rate.parse()? })
    }
}

/// The numbers of a block device that is given by its path, or as MAJOR:MINOR.
fn device_numbers(device: &str) -> Result<(u64, u64)> {
    if let Some((major, minor)) = device.split_once(':')
        && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
    {
        return Ok((major, minor));
    }
    let file = fs::metadata(device).with_context(|| device.to_owned())?;
    if !file.file_type().is_block_device() {
        let below = file.dev();
        bail!(
            "{device} is no disk; the file system that it is on has number {}:{}",
            major(below),
            minor(below)
        );
    }
    Ok((major(file.rdev()), minor(file.rdev())))
}

/// The kernel limits disks, not partitions: the disk that a partition is part of.
fn whole_disk((major, minor): (u64, u64)) -> Result<(u64, u64)> {
    let block = format!("/sys/dev/block/{major}:{minor}");
    if !Path::new(&block).join("partition").exists() {
        return Ok((major, minor));
    }
    let disk = fs::read_to_string(Path::new(&block).join("../dev"))?;
    disk.trim()
        .split_once(':')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .with_context(|| format!("{block}/../dev isn't MAJOR:MINOR"))
}
