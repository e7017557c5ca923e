//! `/dev`: the few devices that every program expects, and no other of the machine's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use nix::{mount::MsFlags, unistd::symlinkat};
use uts::call;

use crate::mount::{beneath, bind_new, mount_new, resolve};

/// The devices that the OCI runtime spec promises to every container.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// The names by which shells and scripts reach their own open files and terminals.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts `/dev` below `root`: a tmpfs with the standard devices, terminals (`pts`) and POSIX
/// shared memory (`shm`) of its own.
///
/// # Errors
/// As [`mount_new`] and [`add_devices`].
///
/// Source: [OCI runtime spec, default devices](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices),
/// [devpts](https://docs.kernel.org/filesystems/devpts.html).
pub fn mount_dev(root: &Path) -> Result<()> {
    // 755, for in a sticky directory that all may write to, the kernel refuses `>>` to the files
    // of others (fs.protected_regular): the devices belong to the host's root.
    mount_new("tmpfs", root, &at(""), MsFlags::MS_NOSUID, Some("mode=755,size=64k"))?;
    add_devices(root)?;
    let no_programs = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_new("devpts", root, &at("pts"), no_programs, Some(&devpts_options()))?;
    let no_devices = no_programs | MsFlags::MS_NODEV;
    mount_new("tmpfs", root, &at("shm"), no_devices, Some("mode=1777,size=64m"))
}

/// Puts the standard devices and links into the `/dev` that is mounted below `root` and empty.
///
/// # Errors
/// As [`bind`](crate::mount::bind()); `EEXIST` if they are there already.
pub fn add_devices(root: &Path) -> Result<()> {
    let (dev, path) = (resolve(root, &at(""))?, beneath(root, &at("")));
    for node in NODES {
        // Bound and not made: mknod(2) is refused in a user namespace.
        bind_new(&at(node), &dev, &path, node)?;
    }
    for (name, target) in LINKS {
        call!("symlinkat"(target, at(name)) = symlinkat(target, &dev, name))?;
    }
    Ok(())
}

fn at(name: &str) -> PathBuf {
    Path::new("/dev").join(name)
}

/// Terminals belong to the group tty, which is number 5 by convention, if there is a group 5 in
/// this user namespace.
pub fn devpts_options() -> String {
    let options = "newinstance,ptmxmode=0666,mode=620";
    match maps_group(5) {
        true => format!("{options},gid=5"),
        false => options.to_owned(),
    }
}

fn maps_group(gid: u32) -> bool {
    let maps = fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    maps.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(inside)), Some(_), Some(Ok(count))) => {
                (inside..inside.saturating_add(count)).contains(&gid)
            }
            _ => false,
        }
    })
}
