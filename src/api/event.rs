//! A record in the form in which the original server showed its events.

use std::net::IpAddr;

use serde::Serialize;

use crate::event::{Connection, ConnectionId, Family, Outcome, Protocol, SocketType, time};

/// `EINPROGRESS`: what connect(2) returned where there is no outcome.
const IN_PROGRESS: i32 = -115;

/// An attempt in the form of the original server.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Event {
    id: ConnectionId,
    r#type: &'static str,
    pub(super) pid: u32,
    command: String,
    time: String,
    timestamp: u64,
    return_code: i32,
    destination: String,
    destination_ip: String,
    destination_port: u16,
    address_family: u16,
    protocol: String,
    socket_type: String,
    raw_ipv4: u32,
    raw_ipv6: [u8; 16],
    raw_protocol: u16,
    raw_socktype: u16,
    /// Added by this project: how the attempt ended.
    outcome: Outcome,
    latency_us: Option<u64>,
}

impl From<&Connection> for Event {
    fn from(c: &Connection) -> Self {
        let remote = c.remote.as_ref().map(|remote| (remote.ip, remote.port));
        let destination = destination(remote);
        Event {
            id: c.id,
            r#type: "connection",
            pid: c.process.as_ref().map_or(0, |p| p.pid),
            command: c.process.as_ref().map_or_else(String::new, |p| p.comm.to_string()),
            time: time::Shown(c.time).to_string(),
            timestamp: c.id.start_ns,
            return_code: return_code(c),
            destination,
            destination_ip: remote.map_or_else(String::new, |(ip, _)| ip.to_string()),
            destination_port: remote.map_or(0, |(_, port)| port),
            address_family: address_family(c.family),
            protocol: c.protocol.as_str().to_uppercase(),
            socket_type: c.socket_type.as_str().to_uppercase(),
            raw_ipv4: match remote {
                Some((IpAddr::V4(ip), _)) => u32::from_le_bytes(ip.octets()),
                _ => 0,
            },
            raw_ipv6: match remote {
                Some((IpAddr::V6(ip), _)) => ip.octets(),
                _ => [0; 16],
            },
            raw_protocol: protocol_number(c.protocol),
            raw_socktype: socket_type_number(c.socket_type),
            outcome: c.outcome,
            latency_us: c.latency_us,
        }
    }
}

/// `10.0.0.1:80`, `[::1]:80`; empty where there is no address.
pub(super) fn destination(end: Option<(IpAddr, u16)>) -> String {
    match end {
        Some((IpAddr::V4(ip), port)) => format!("{ip}:{port}"),
        Some((IpAddr::V6(ip), port)) => format!("[{ip}]:{port}"),
        None => String::new(),
    }
}

/// 0 for an attempt that succeeded, the negative error number of its outcome otherwise; while (or
/// if ever) there was none, `-EINPROGRESS`.
fn return_code(c: &Connection) -> i32 {
    match (c.outcome, c.errno) {
        (Outcome::Established | Outcome::Associated | Outcome::Sent, _) => 0,
        (_, Some(errno)) if errno != 0 => errno.saturating_abs().saturating_neg(),
        _ => IN_PROGRESS,
    }
}

/// `AF_UNIX`, `AF_INET`, `AF_INET6`.
pub(super) fn address_family(family: Family) -> u16 {
    match family {
        Family::Unix => 1,
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    }
}

/// As in `IPPROTO_…`; 0 for UNIX sockets.
pub(super) fn protocol_number(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Unix => 0,
        Protocol::Icmp => 1,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Dccp => 33,
        Protocol::Icmpv6 => 58,
        Protocol::Sctp => 132,
        Protocol::Udplite => 136,
        Protocol::Raw => 255,
        Protocol::Mptcp => 262,
    }
}

/// As in `SOCK_…`.
fn socket_type_number(socket_type: SocketType) -> u16 {
    match socket_type {
        SocketType::Stream => 1,
        SocketType::Dgram => 2,
        SocketType::Raw => 3,
        SocketType::Seqpacket => 5,
    }
}
