//! The functions of step 5, one at a time, for the tests of the exercises: so that each can be tried
//! before the others are there. Needs root, or the lab.
//!
//!   step05-parts connect            plug a cable into a new network, until standard input ends
//!   step05-parts configure          set up the network that this program was started in
//!   step05-parts provoke QUESTION   do what exercise 5.4 asks about, and show what the kernel says

use std::{
    io,
    net::{Ipv4Addr, TcpStream},
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use net::netlink;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
};
use nix::net::if_::if_nametoindex;
use uts::{call, process};

/// A part of step 5.
#[derive(Parser)]
enum Part {
    Connect,
    Configure,
    Provoke { question: Question },
}

/// What exercise 5.4 asks about.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Question {
    RouteWhileDown,
    NameTaken,
    LoopbackStillDown,
    NobodyListens,
    WithoutCapability,
}

fn main() -> ExitCode {
    process::main(|part: Part| match part {
        Part::Connect => connect(),
        Part::Configure => {
            println!("link {}", net::configure()?.unwrap_or("none"));
            Ok(ExitCode::SUCCESS)
        }
        Part::Provoke { question } => {
            // In a network of its own, so that the host keeps its.
            process::wait(process::spawn(net::NAMESPACE, || {
                provoke(question)?;
                bail!("the kernel had nothing against it")
            })?)
        }
    })
}

fn connect() -> Result<ExitCode> {
    let child = process::spawn(net::NAMESPACE, || {
        loop {
            nix::unistd::pause(); // The kernel ends it together with its parent.
        }
    })?;
    let link = net::connect(child)?;
    println!("child {child}");
    println!("link {}", link.as_deref().unwrap_or("none"));
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(ExitCode::SUCCESS)
}

fn provoke(question: Question) -> Result<()> {
    match question {
        Question::RouteWhileDown => {
            add_veth("eth0")?;
            add_address("eth0")?;
            add_default_route()
        }
        Question::NameTaken => {
            add_veth("cable")?;
            add_veth("cable")
        }
        Question::LoopbackStillDown => call_loopback(),
        Question::NobodyListens => {
            set_up("lo")?;
            call_loopback()
        }
        Question::WithoutCapability => {
            user::drop_capabilities(&[])?;
            add_veth("cable")
        }
    }
}

fn call_loopback() -> Result<()> {
    call!("connect"("127.0.0.1:7") = TcpStream::connect("127.0.0.1:7"))?;
    Ok(())
}

const HERE: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 1);

/// `ip link add NAME type veth`, where the kernel names the other end.
fn add_veth(name: &str) -> Result<()> {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(LinkMessage::default()))),
        ]),
    ];
    let shown = format_args!("RTM_NEWLINK {name} type veth");
    Ok(netlink::create(RouteNetlinkMessage::NewLink(link), shown)?)
}

/// `ip address add 10.9.8.2/30 dev NAME`
fn add_address(name: &str) -> Result<()> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 30;
    message.header.index = if_nametoindex(name)?;
    message.attributes = vec![AddressAttribute::Local(HERE.into())];
    let shown = format_args!("RTM_NEWADDR {HERE}/30 dev {name}");
    Ok(netlink::create(RouteNetlinkMessage::NewAddress(message), shown)?)
}

/// `ip link set NAME up`
fn set_up(name: &str) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = if_nametoindex(name)?;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    let shown = format_args!("RTM_SETLINK {name} up");
    Ok(netlink::change(RouteNetlinkMessage::SetLink(message), shown)?)
}

/// `ip route add default via 10.9.8.1`
fn add_default_route() -> Result<()> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(GATEWAY))];
    let shown = format_args!("RTM_NEWROUTE default via {GATEWAY}");
    Ok(netlink::create(RouteNetlinkMessage::NewRoute(message), shown)?)
}
