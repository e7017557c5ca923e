//! A limit on network traffic.
//!
//! cgroup v2 has no controller for it (v1's `net_cls` only marked packets for others to sort). But a
//! container has one cable, so a *queueing discipline* at each of its ends does the work: a token
//! bucket, `tbf`. Tokens drop into the bucket at the wished-for rate, a packet needs one for each of
//! its bytes, and waits until they are there. A queue works on what is *sent*, so the host's end
//! limits what the container receives, and the container's end what it sends.

use anyhow::{Result, bail};
use net::netlink;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage, TcOption},
};
use nix::net::if_::if_nametoindex;

use crate::Limits;

/// Limits what `link` sends to `limits.net_rate` bytes per second, if that is given. `None` for the
/// link says that this container has no cable.
///
/// The caller is in the network namespace of the link.
///
/// # Errors
/// If there is a limit and no cable to hold it; `EOPNOTSUPP` if the kernel has no token bucket.
///
/// Source: [tc-tbf(8)](https://man7.org/linux/man-pages/man8/tc-tbf.8.html).
pub fn limit_rate(link: Option<&str>, limits: &Limits) -> Result<()> {
    let Some(rate) = limits.net_rate else { return Ok(()) };
    let Some(link) = link else {
        bail!(
            "--net-rate limits the cable to the host, and this container has none: only root may plug one in"
        );
    };
    let mut message = TcMessage::with_index(if_nametoindex(link)? as i32);
    message.header.parent = TcHandle::ROOT;
    message.attributes = vec![
        TcAttribute::Kind("tbf".to_owned()),
        TcAttribute::Options(token_bucket(rate.0).into_iter().map(TcOption::Other).collect()),
    ];
    let rate = rate.0;
    Ok(netlink::create(
        RouteNetlinkMessage::NewQueueDiscipline(message),
        format_args!("RTM_NEWQDISC dev {link} root tbf rate {rate}bps"),
    )?)
}

/// The options of a token bucket, as linux/pkt_sched.h has them.
fn token_bucket(rate: u64) -> Vec<DefaultNla> {
    const PARMS: u16 = 1; // TCA_TBF_PARMS: struct tc_tbf_qopt
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    const ETHERNET: u8 = 1; // TC_LINKLAYER_ETHERNET: the kernel counts by itself, without a table.

    // Room for 20 ms of tokens, but at least for the largest packet; and a queue of 200 ms.
    let burst = (rate / 50).clamp(64 * 1024, u32::MAX.into()) as u32;
    let limit = (rate / 5).saturating_add(burst.into()).min(u32::MAX.into()) as u32;
    let narrow_rate = rate.min(u32::MAX.into()) as u32;

    let mut parms = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0]; // struct tc_ratespec but for its rate
    parms.extend(narrow_rate.to_ne_bytes());
    parms.extend([0; 12]); // A second, peak rate: none.
    parms.extend(limit.to_ne_bytes());
    parms.extend([0; 8]); // The burst in time, which BURST overrides; the mtu of the peak rate.
    vec![
        DefaultNla::new(PARMS, parms),
        DefaultNla::new(RATE64, rate.to_ne_bytes().to_vec()),
        DefaultNla::new(BURST, burst.to_ne_bytes().to_vec()),
    ]
}
