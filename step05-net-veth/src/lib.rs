//! # Step 5: a network stack with one cable to the host
//!
//! A network namespace has links, addresses, routes, ports and firewall rules of its own. A new
//! one is empty but for the loopback link `lo`, which is down: nobody can reach the container, and
//! the container reaches nobody.
//!
//! A *veth pair* is a cable: two links, and what is sent into one comes out of the other. One end
//! stays with the host, the other is put into the new namespace, where it is called `eth0`.
//!
//! ```text
//!        host                                     container
//!   veth1f…   10.213.0.5/30 ══════════════ 10.213.0.6/30  eth0
//!                 ▲                                         │
//!                 └───────────── default route ─────────────┘
//! ```
//! [`connect`] plugs the cable in, from the host side; [`configure`] sets up the end inside. Both
//! speak to the kernel by [`netlink`], as `ip(8)` does, so no such program is needed.

pub mod netlink;

use std::net::Ipv4Addr;

use anyhow::Result;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::{errno::Errno, net::if_::if_nametoindex, unistd::Pid};
use uts::{CloneFlags, call::Hint, process, unique_name};

/// The flag that gives a new process an empty network namespace of its own.
///
/// Source: [network_namespaces(7)](https://man7.org/linux/man-pages/man7/network_namespaces.7.html).
pub const NAMESPACE: CloneFlags = CloneFlags::CLONE_NEWNET;

/// The name of the container's end of the cable.
pub const LINK: &str = "eth0";

/// Plugs a cable into the network namespace of `child` and sets up the host's end of it. Gives the
/// name of the host's end; `None`, and a word to the user, where the caller may not change the
/// host's links: a plain user's container has `lo` alone.
///
/// The cable needs no clean-up: it goes when the last process of the container's network namespace ends.
///
/// # Errors
/// `EEXIST` if the name is taken, `ENODEV` or `EOPNOTSUPP` if the kernel has no veth.
///
/// Source: [veth(4)](https://man7.org/linux/man-pages/man4/veth.4.html),
/// [rtnetlink(7)](https://man7.org/linux/man-pages/man7/rtnetlink.7.html).
pub fn connect(child: Pid) -> Result<Option<String>> {
    let name = unique_name("veth"); // 14 bytes: a link's name has 15 at most.
    match add_veth(&name, child) {
        Err(error) if error.errno() == Errno::EPERM => {
            process::note(
                "only root may plug a cable into the host's network: this container has the \
                 loopback link lo, and reaches nobody outside",
            );
            return Ok(None);
        }
        result => result?,
    }
    let index = if_nametoindex(&*name)?;
    add_address(&name, index, Cable(index).host())?;
    set_up(&name, index)?;
    Ok(Some(name))
}

/// Sets up the network of the namespace that the caller is in: `lo`, and `eth0` with its address and
/// the default route. Gives the name of that link, or `None` if no cable is plugged in.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` in the user namespace that owns the network namespace.
///
/// Source: [rtnetlink(7)](https://man7.org/linux/man-pages/man7/rtnetlink.7.html).
pub fn configure() -> Result<Option<&'static str>> {
    set_up("lo", if_nametoindex("lo")?)?;
    let Ok(index) = if_nametoindex(LINK) else { return Ok(None) };
    let cable = Cable(netlink::peer_of(index)?);
    add_address(LINK, index, cable.container())?;
    set_up(LINK, index)?; // Before the route: a link that is down takes none.
    add_default_route(cable.host())?;
    Ok(Some(LINK))
}

/// The two addresses of a cable. The kernel numbers the links of a host one by one, and the end
/// inside knows the number of its peer: so both sides derive the same addresses from the number
/// of the host's end, and no two cables share them.
struct Cable(u32);

impl Cable {
    /// 10.213.0.0/16 has room for 16384 networks of four addresses: the network's own, one for
    /// each end (the host's first), and the one to broadcast to.
    const POOL: u32 = u32::from_be_bytes([10, 213, 0, 0]);
    const PREFIX_LEN: u8 = 30;

    fn host(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(Self::POOL + self.0 % 16384 * 4 + 1)
    }

    fn container(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.host().to_bits() + 1)
    }
}

/// `ip link add NAME type veth peer name eth0 netns CHILD`
fn add_veth(name: &str, child: Pid) -> Result<(), uts::call::CallError> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(LINK.to_owned()),
        LinkAttribute::NetNsPid(child.as_raw() as u32),
    ];
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    netlink::create(
        RouteNetlinkMessage::NewLink(link),
        format_args!("RTM_NEWLINK {name} type veth peer {LINK} netns {child}"),
    )
    .hint(Errno::EEXIST, "a link of this name is there already")
    .hint(Errno::ESRCH, "the container has ended already: it has said why")
    .hint(Errno::EOPNOTSUPP, "this kernel has no veth links: load the module veth")
}

/// `ip address add ADDRESS/30 dev NAME`
fn add_address(name: &str, index: u32, address: Ipv4Addr) -> Result<()> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = Cable::PREFIX_LEN;
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
    let prefix_len = Cable::PREFIX_LEN;
    Ok(netlink::create(
        RouteNetlinkMessage::NewAddress(message),
        format_args!("RTM_NEWADDR {address}/{prefix_len} dev {name}"),
    )?)
}

/// `ip link set NAME up`
fn set_up(name: &str, index: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Ok(netlink::change(
        RouteNetlinkMessage::SetLink(message),
        format_args!("RTM_SETLINK {name} up"),
    )
    .hint(
        Errno::EPERM,
        "only root of the user namespace that owns the network namespace may change its links: do \
         it before the capabilities are dropped",
    )?)
}

/// `ip route add default via GATEWAY`
fn add_default_route(gateway: Ipv4Addr) -> Result<()> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = netlink_packet_route::route::RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
    Ok(netlink::create(
        RouteNetlinkMessage::NewRoute(message),
        format_args!("RTM_NEWROUTE default via {gateway}"),
    )?)
}
