//! Exercise 5.5: two containers on one bridge, as docker connects them.
//!
//! A *bridge* is a switch made of software: a link of the host, to which other links are plugged
//! in. What comes in at one port goes out at the port behind which its receiver is. A cable to each
//! container, with the host's ends in the same bridge, and the two containers are neighbours.
//!
//! ```text
//!        host                             container 1
//!   ┌──────────── veth… ════════════ eth0  10.214.0.2/24
//!   br… 10.214.0.1/24
//!   └──────────── veth… ════════════ eth0  10.214.0.3/24
//! ```
//! It says what it has made, and takes it away when its standard input ends. Needs root, or the lab:
//!
//!   cargo course lab -- bridge

use std::{
    io::{self, Read, Write},
    net::Ipv4Addr,
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Parser;
use net::netlink;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};
use nix::{net::if_::if_nametoindex, unistd::Pid};
use user::Gate;
use uts::{Janitor, process, unique_name};

/// Two containers on one bridge.
#[derive(Parser)]
struct Args {}

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 214, 0, 2), Ipv4Addr::new(10, 214, 0, 3)];
const OF_BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 214, 0, 1);

fn main() -> ExitCode {
    process::main(|_: Args| {
        let bridge = unique_name("br");
        // A bridge belongs to no container, so it doesn't go with one: somebody must remove it.
        let _janitor = Janitor::hire(|| remove(&bridge))?;
        add_bridge(&bridge)?;
        println!("bridge {bridge}");
        for address in ADDRESSES {
            let child = start(address, &bridge)?;
            println!("container {child} {address}");
        }
        io::copy(&mut io::stdin(), &mut io::sink())?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Starts a container that does nothing but be there, with `address` on `bridge`.
fn start(address: Ipv4Addr, bridge: &str) -> Result<Pid> {
    let plugged_in = Gate::new()?;
    let (mut said, mut say) = io::pipe()?;
    let child = process::spawn(net::NAMESPACE, || {
        plugged_in.wait()?;
        set_up_inside(address)?;
        say.write_all(b"!")?;
        loop {
            nix::unistd::pause(); // The kernel ends it together with its parent.
        }
    })?;
    // Step 5's cable has an address at its host end. A port of a bridge needs none.
    if let Some(cable) = net::connect(child)? {
        plug_in(&cable, bridge)?;
    }
    plugged_in.open()?;
    drop(say); // Or a child that failed would be waited for.
    said.read_exact(&mut [0]).context("the container has ended before it was ready")?;
    Ok(child)
}

/// Makes the bridge `name`, gives it [`OF_BRIDGE`], a network of 254 hosts, and sets it up.
fn add_bridge(name: &str) -> Result<()> {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    netlink::create(
        RouteNetlinkMessage::NewLink(link),
        format_args!("RTM_NEWLINK {name} type bridge"),
    )?;
    add_address(name, OF_BRIDGE)?;
    set_up(name)
}

/// Makes the link `port` a port of `bridge`: the bridge is the link's *controller* (once called
/// master). The host's end was set up already.
fn plug_in(port: &str, bridge: &str) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = if_nametoindex(port)?;
    message.attributes = vec![LinkAttribute::Controller(if_nametoindex(bridge)?)];
    Ok(netlink::change(
        RouteNetlinkMessage::SetLink(message),
        format_args!("RTM_SETLINK {port} master {bridge}"),
    )?)
}

/// Sets up the container's end: its address in the bridge's network, and up.
fn set_up_inside(address: Ipv4Addr) -> Result<()> {
    add_address(net::LINK, address)?;
    set_up(net::LINK)
}

/// `ip address add ADDRESS/24 dev NAME`
fn add_address(name: &str, address: Ipv4Addr) -> Result<()> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 24;
    message.header.index = if_nametoindex(name)?;
    message.attributes =
        vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
    Ok(netlink::create(
        RouteNetlinkMessage::NewAddress(message),
        format_args!("RTM_NEWADDR {address}/24 dev {name}"),
    )?)
}

/// `ip link set NAME up`
fn set_up(name: &str) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = if_nametoindex(name)?;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Ok(netlink::change(
        RouteNetlinkMessage::SetLink(message),
        format_args!("RTM_SETLINK {name} up"),
    )?)
}

/// `ip link delete NAME`, content to find none.
fn remove(name: &str) -> Result<()> {
    let Ok(index) = if_nametoindex(name) else { return Ok(()) };
    let mut message = LinkMessage::default();
    message.header.index = index;
    Ok(netlink::change(RouteNetlinkMessage::DelLink(message), format_args!("RTM_DELLINK {name}"))?)
}
