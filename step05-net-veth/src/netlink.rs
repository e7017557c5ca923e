//! Netlink: the kernel's networking, asked and changed by messages on a socket.
//!
//! A request is one message with a header (flags) and attributes, and the kernel answers with an
//! error number, zero for success. The crates `netlink-packet-*` know the layout of the messages.
//!
//! Source: [netlink(7)](https://man7.org/linux/man-pages/man7/netlink.7.html).

use std::{fmt, io};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use uts::{call, call::CallError};

/// Creates what `message` describes; `shown` is the request as people read it.
///
/// # Errors
/// `EEXIST` if it is there already, `EPERM` without `CAP_NET_ADMIN`.
pub fn create(message: RouteNetlinkMessage, shown: fmt::Arguments) -> Result<(), CallError> {
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    call!("netlink"(shown) = ask(message, flags).map(drop))
}

/// Changes what `message` names; `shown` is the request as people read it.
///
/// # Errors
/// `ENODEV` if it isn't there, `EPERM` without `CAP_NET_ADMIN`.
pub fn change(message: RouteNetlinkMessage, shown: fmt::Arguments) -> Result<(), CallError> {
    call!("netlink"(shown) = ask(message, NLM_F_ACK).map(drop))
}

/// The number of the other end of the veth link number `index`, as the other namespace counts.
///
/// # Errors
/// `ENODEV` if there is no such link; also if it has no other end.
pub fn peer_of(index: u32) -> Result<u32> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let answer = ask(RouteNetlinkMessage::GetLink(message), 0).context("RTM_GETLINK")?;
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = answer else {
        bail!("RTM_GETLINK was answered with {answer:?}");
    };
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Link(peer) => Some(*peer),
            _ => None,
        })
        .with_context(|| format!("link {index} is no cable: it has no other end"))
}

/// Sends one request and gives the kernel's answer to it.
fn ask(
    message: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<NetlinkPayload<RouteNetlinkMessage>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);

    // A socket belongs to the network namespace in which it was made: so each request has its own.
    let socket = Socket::new(NETLINK_ROUTE)?;
    const KERNEL: u32 = 0;
    socket.send_to(&bytes, &SocketAddr::new(KERNEL, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer =
        NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        payload => Ok(payload),
    }
}
