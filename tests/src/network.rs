//! What is in a network namespace, asked from inside of it: by a thread that enters it, so that no
//! other program is needed.

use std::{collections::BTreeMap, fs, fs::File, net::Ipv4Addr, thread};

use anyhow::{Context, Result};
use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sched::{CloneFlags, setns},
};

use crate::{held::Held, programs};

/// Runs `work` in the network namespace of the process `pid`.
///
/// # Errors
/// If the process is gone or its network can't be entered; and those of `work`.
pub fn inside<T: Send>(pid: u32, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&file).with_context(|| format!("can't open {file}"))?;
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).context("can't enter a network")?;
            work()
        });
        thread.join().expect("nothing in there panics")
    })
}

/// A process in an empty network of its own, which does nothing else.
///
/// # Errors
/// If there is no unshare(1), or it isn't allowed.
pub fn empty() -> Result<Held> {
    let mut command = programs::clean("unshare");
    let mut held = Held::start(command.args(["--net", "sh", "-c", "echo ready; read end"]))?;
    held.says("ready")?;
    Ok(held)
}

/// A link, as the namespace that this thread is in has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// Whether it is set up.
    pub up: bool,
    /// Its IPv4 addresses, each with the length of its network's prefix.
    pub addresses: Vec<(Ipv4Addr, u32)>,
}

/// All links, by their names.
///
/// # Errors
/// If the kernel can't be asked.
pub fn links() -> Result<BTreeMap<String, Link>> {
    let mut links = BTreeMap::<String, Link>::new();
    for entry in getifaddrs()? {
        let link = links.entry(entry.interface_name).or_default();
        link.up = entry.flags.contains(InterfaceFlags::IFF_UP);
        let ip = |address: Option<nix::sys::socket::SockaddrStorage>| {
            Some(address?.as_sockaddr_in()?.ip())
        };
        if let (Some(address), Some(mask)) = (ip(entry.address), ip(entry.netmask)) {
            link.addresses.push((address, mask.to_bits().count_ones()));
        }
    }
    Ok(links)
}

/// Where packets to the rest of the world go: the gateway of the default route, and its link.
///
/// # Errors
/// If `/proc` can't be read.
pub fn default_route() -> Result<Option<(Ipv4Addr, String)>> {
    let table = fs::read_to_string("/proc/thread-self/net/route")?;
    Ok(table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [link, "00000000", gateway, ..] = fields[..] else { return None };
        // Hexadecimal, in the byte order of the machine.
        let gateway = u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes();
        Some((gateway.into(), link.to_owned()))
    }))
}
