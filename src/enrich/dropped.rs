//! One count of the kernel to one [`DropRecord`].

use std::sync::Arc;

use super::connection::{address, family};
use crate::capture::clock::Clock;
use crate::capture::drops_skel::types::{netspy_drop, netspy_drop_key};
use crate::event::{DropId, DropRecord, Endpoint, Protocol};

/// A key without family is of drops that are counted by their reason alone.
pub(super) fn build(
    id: DropId,
    key: &netspy_drop_key,
    drop: &netspy_drop,
    reason: Arc<str>,
    clock: &Clock,
    host: Arc<str>,
) -> DropRecord {
    let family = family(key.family.into());
    let endpoint = |ip: [u8; 16], port| {
        family.and_then(|family| address(ip, family)).map(|ip| Endpoint { ip, port })
    };
    DropRecord {
        id,
        host,
        time: clock.wall(drop.first_ns),
        last: clock.wall(drop.last_ns.max(drop.first_ns)),
        reason,
        reason_code: key.reason,
        protocol: family.map(|_| protocol(key.protocol)),
        ip_protocol: family.map(|_| key.protocol),
        family,
        source: endpoint(key.source, key.source_port),
        destination: endpoint(key.destination, key.destination_port),
        count: drop.count,
        bytes: drop.bytes,
        netns: (key.netns != 0).then_some(key.netns),
        no_room: false,
        connection: None,
        process: None,
    }
}

/// By the number in the IP header.
fn protocol(number: u8) -> Protocol {
    match i32::from(number) {
        libc::IPPROTO_TCP => Protocol::Tcp,
        libc::IPPROTO_UDP => Protocol::Udp,
        libc::IPPROTO_UDPLITE => Protocol::Udplite,
        libc::IPPROTO_SCTP => Protocol::Sctp,
        libc::IPPROTO_DCCP => Protocol::Dccp,
        libc::IPPROTO_ICMP => Protocol::Icmp,
        libc::IPPROTO_ICMPV6 => Protocol::Icmpv6,
        _ => Protocol::Raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Family;

    fn record(key: netspy_drop_key) -> DropRecord {
        let drop = netspy_drop { count: 3, bytes: 180, first_ns: 5, last_ns: 7, sock: 0 };
        let id = DropId { first_ns: 5, number: 1, boot: 2 };
        build(id, &key, &drop, "NO_SOCKET".into(), &Clock::new(), "web-1".into())
    }

    #[test]
    fn the_flow_is_the_packets_own() {
        let mut key = netspy_drop_key { reason: 3, netns: 42, family: 2, ..<_>::default() };
        (key.protocol, key.source_port, key.destination_port) = (6, 40_000, 443);
        key.source[..4].copy_from_slice(&[10, 0, 0, 5]);
        key.destination[..4].copy_from_slice(&[192, 0, 2, 1]);
        let drop = record(key);
        let at = |text: &str| {
            let at: std::net::SocketAddr = text.parse().unwrap();
            Some(Endpoint { ip: at.ip(), port: at.port() })
        };
        assert_eq!((drop.source, drop.destination), (at("10.0.0.5:40000"), at("192.0.2.1:443")));
        assert_eq!((drop.protocol, drop.ip_protocol), (Some(Protocol::Tcp), Some(6)));
        assert_eq!((drop.family, drop.netns, drop.count), (Some(Family::Ipv4), Some(42), 3));
        assert!(drop.last > drop.time);
    }

    #[test]
    fn what_is_no_ip_packet_has_a_reason_and_no_more() {
        let drop = record(netspy_drop_key { reason: 3, ..<_>::default() });
        assert_eq!((drop.protocol, drop.family, drop.source, drop.netns), (None, None, None, None));
        assert_eq!((drop.reason_code, drop.count, drop.bytes), (3, 3, 180));
    }
}
