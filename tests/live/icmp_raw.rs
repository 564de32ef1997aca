//! ICMP echo and raw sockets: what they send has no ports, and their own protocol.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use netspy::event::{Connection, Family, Outcome, Protocol, SocketType, State};
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendFlags, ipproto, sendto, socket};

use crate::datagram::{has, own};
use crate::harness::{Watch, shared, v4, watch};

/// An echo request (RFC 792, RFC 4443), whose checksum the kernel makes.
const ECHO: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 1];
const ECHO_V6: [u8; 8] = [128, 0, 0, 0, 0, 0, 0, 1];

/// Echo sockets are for the groups in this range; this file belongs to a network namespace.
fn allow_echo() {
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
}

fn echo(family: AddressFamily) -> OwnedFd {
    let protocol = if family == AddressFamily::INET { ipproto::ICMP } else { ipproto::ICMPV6 };
    socket(family, rustix::net::SocketType::DGRAM, Some(protocol)).unwrap()
}

/// Runs in a thread, and so in a network namespace, of its own.
fn elsewhere(what: impl FnOnce() + Send + 'static) {
    let run = || {
        crate::harness::own_network();
        allow_echo();
        what();
    };
    std::thread::spawn(run).join().unwrap();
}

fn only(watch: &Watch, to: SocketAddr) -> Connection {
    let mut all = watch.records(|c| c.remote.as_ref().is_some_and(|r| r.ip == to.ip()));
    assert_eq!(all.len(), 1, "records at {to}: {all:#?}");
    all.pop().unwrap()
}

fn assert_sent(c: &Connection, protocol: Protocol, kind: SocketType, sent: (u64, u64)) {
    assert_eq!((c.protocol, c.socket_type, c.outcome), (protocol, kind, Outcome::Sent), "{c:#?}");
    assert_eq!((c.remote.as_ref().unwrap().port, c.local.map_or(0, |l| l.port)), (0, 0));
    let close = c.close.unwrap();
    assert_eq!((close.datagrams_sent, close.bytes_sent), (Some(sent.0), Some(sent.1)));
    assert_eq!(c.state, State::Closed);
}

#[test]
fn echo_requests_are_one_record_for_each_destination() {
    let Some(watch) = watch(own()) else { return };
    let (to, peer) = (v4([127, 0, 3, 1], 0), v4([127, 0, 3, 2], 0));
    let to_v6: SocketAddr = "[::1]:0".parse().unwrap();
    elsewhere(move || {
        let socket = echo(AddressFamily::INET);
        // What is in the place of a port means nothing.
        let odd = v4([127, 0, 3, 1], 7);
        sendto(&socket, &ECHO, SendFlags::empty(), &to).unwrap();
        sendto(&socket, &ECHO, SendFlags::empty(), &odd).unwrap();
        rustix::net::connect(&socket, &peer).unwrap();
        rustix::net::send(&socket, &ECHO, SendFlags::empty()).unwrap();
        let socket = echo(AddressFamily::INET6);
        sendto(&socket, &ECHO_V6, SendFlags::empty(), &to_v6).unwrap();
    });
    if !has(&watch, "icmp_raw") {
        assert_eq!(only(&watch, peer).outcome, Outcome::Associated);
        let to = [to.ip(), to_v6.ip()];
        let seen = |c: &Connection| {
            let icmp = matches!(c.protocol, Protocol::Icmp | Protocol::Icmpv6);
            icmp && c.remote.as_ref().is_some_and(|r| to.contains(&r.ip))
        };
        assert!(watch.records(seen).is_empty());
        return;
    }
    assert_sent(&only(&watch, to), Protocol::Icmp, SocketType::Dgram, (2, 16));
    assert_sent(&only(&watch, peer), Protocol::Icmp, SocketType::Dgram, (1, 8));
    let icmpv6 = watch.records(|c| c.protocol == Protocol::Icmpv6);
    assert_eq!(icmpv6.len(), 1, "{icmpv6:#?}");
    assert_sent(&icmpv6[0], Protocol::Icmpv6, SocketType::Dgram, (1, 8));
    assert_eq!(
        (icmpv6[0].family, icmpv6[0].remote.as_ref().unwrap().ip),
        (Family::Ipv6, to_v6.ip())
    );
    let books = watch.handle.accounting();
    assert!(books.balances() && books.pending == 0, "{books:?}");
}

#[test]
fn raw_packets_are_one_record_for_each_destination() {
    let Some(watch) = shared() else { return };
    let (to, peer, by_message) =
        (v4([127, 0, 3, 3], 0), v4([127, 0, 3, 4], 0), v4([127, 0, 3, 5], 0));
    let to_v6: SocketAddr = "[::1]:0".parse().unwrap();
    elsewhere(move || {
        // A protocol that nobody speaks (RFC 3692).
        let odd = rustix::net::Protocol::from_raw(253.try_into().unwrap());
        let raw = rustix::net::SocketType::RAW;
        let socket_v4 = socket(AddressFamily::INET, raw, Some(odd)).unwrap();
        sendto(&socket_v4, b"four", SendFlags::empty(), &to).unwrap();
        let parts = [std::io::IoSlice::new(b"sixsix")];
        let nothing = &mut SendAncillaryBuffer::default();
        rustix::net::sendmsg_addr(&socket_v4, &by_message, &parts, nothing, SendFlags::empty())
            .unwrap();
        rustix::net::connect(&socket_v4, &peer).unwrap();
        rustix::net::send(&socket_v4, b"four", SendFlags::empty()).unwrap();
        let socket_v6 = socket(AddressFamily::INET6, raw, Some(odd)).unwrap();
        sendto(&socket_v6, b"four", SendFlags::empty(), &to_v6).unwrap();
    });
    if !has(&watch, "icmp_raw") {
        assert_eq!(only(&watch, peer).outcome, Outcome::Associated);
        return;
    }
    assert_sent(&only(&watch, to), Protocol::Raw, SocketType::Raw, (1, 4));
    assert_sent(&only(&watch, by_message), Protocol::Raw, SocketType::Raw, (1, 6));
    assert_sent(&only(&watch, peer), Protocol::Raw, SocketType::Raw, (1, 4));
    let v6 = watch.records(|c| c.protocol == Protocol::Raw && c.family == Family::Ipv6);
    assert_eq!(v6.len(), 1, "{v6:#?}");
    assert_sent(&v6[0], Protocol::Raw, SocketType::Raw, (1, 4));
}
