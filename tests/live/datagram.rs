//! Datagram sockets: each connect() to an address is one record, and sends nothing.

use std::net::{SocketAddr, UdpSocket};

use netspy::ConnectionStream;
use netspy::event::{
    CloseReason, Connection, Evidence, Family, Outcome, Protocol, SocketType, State,
};
use netspy::stream::Builder;
use rustix::net::AddressFamily;

use crate::harness::{Watch, connect, goes_to, shared, v4, watch};

/// Whether the capability report has a feature; says so where it has not.
pub fn has(watch: &Watch, feature: &str) -> bool {
    let report = watch.handle.capabilities();
    let feature_report = &report.features[feature];
    if !feature_report.ok {
        println!("without {feature}: {feature_report:?}");
    }
    feature_report.ok
}

/// Only this process, so that the counts are its own.
pub fn own() -> Builder {
    Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() }
}

fn end(c: &Connection) -> Option<CloseReason> {
    c.close.map(|close| close.reason)
}

#[test]
fn a_connected_datagram_socket_is_associated_whatever_the_port() {
    let Some(watch) = shared() else { return };
    for (remote, family) in [("127.0.0.1:443", Family::Ipv4), ("[::1]:53", Family::Ipv6)] {
        let remote: SocketAddr = remote.parse().unwrap();
        let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(remote).unwrap();
        let ours = |c: &netspy::Connection| {
            goes_to(c, remote) && c.process.as_ref().is_some_and(|p| p.pid == std::process::id())
        };
        let all = watch.records(ours);
        assert_eq!(all.len(), 1);
        let c = &all[0];
        assert_eq!((c.protocol, c.socket_type), (Protocol::Udp, SocketType::Dgram));
        assert_eq!((c.outcome, c.state, c.family), (Outcome::Associated, State::Open, family));
        let local = c.local.unwrap();
        assert_eq!(SocketAddr::new(local.ip, local.port), socket.local_addr().unwrap());
        assert_eq!((c.syn_retransmits, c.errno), (None, None));
    }
}

#[test]
fn each_connect_of_a_datagram_socket_is_a_record_and_taking_the_peer_away_is_none() {
    let Some(watch) = watch(own()) else { return };
    let remotes = [v4([127, 0, 0, 21], 4000), v4([127, 0, 0, 22], 4000)];
    let (fd, result) = connect(AddressFamily::INET, rustix::net::SocketType::DGRAM, remotes[0]);
    result.unwrap();
    rustix::net::connect_unspec(&fd).unwrap();
    rustix::net::connect(&fd, &remotes[1]).unwrap();
    rustix::net::connect(&fd, &remotes[1]).unwrap();
    let first = watch.only(remotes[0]);
    let mut others = watch.records(|c| goes_to(c, remotes[1]));
    others.sort_by_key(|c| c.time);
    let [second, third] = &others[..] else { panic!("{others:#?}") };
    if !has(&watch, "datagram_close") {
        assert!([&first, second, third].iter().all(|c| c.state == State::Open));
        return;
    }
    assert_eq!((first.state, end(&first)), (State::Closed, Some(CloseReason::Disconnect)));
    assert_eq!((second.state, end(second)), (State::Closed, Some(CloseReason::Disconnect)));
    assert_eq!((third.state, end(third)), (State::Open, None));
    drop(fd);
    let closed = watch.wait("the close", |c| c.id == third.id && c.state == State::Closed);
    assert_eq!(end(&closed), Some(CloseReason::OwnerClose));
    assert!(closed.close.unwrap().time > closed.time);
    let books = watch.handle.accounting();
    assert!(books.balances() && books.pending == 0 && books.complete, "{books:?}");
}

#[test]
fn a_failed_connect_leaves_the_peer_that_there_was() {
    let Some(watch) = shared() else { return };
    let (peer, nowhere) = (v4([127, 0, 0, 25], 4000), v4([198, 51, 100, 7], 4000));
    let socket = std::thread::spawn(move || {
        crate::harness::own_network();
        let fd = connect(AddressFamily::INET, rustix::net::SocketType::DGRAM, peer).0;
        assert_eq!(rustix::net::connect(&fd, &nowhere), Err(rustix::io::Errno::NETUNREACH));
        fd
    });
    let fd = socket.join().unwrap();
    assert_eq!(watch.only(nowhere).outcome, Outcome::Unreachable);
    assert_eq!(watch.only(peer).state, State::Open);
    drop(fd);
    let closed = !has(&watch, "datagram_close") || watch.only(peer).state == State::Closed;
    assert!(closed, "{:?}", watch.only(peer));
}

#[test]
fn every_candidate_that_a_look_up_of_names_weighs_is_a_record_of_its_own() {
    let Some(watch) = watch(own()) else { return };
    let candidates: Vec<_> = (31..41).map(|n| v4([127, 0, 0, n], 53)).collect();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    for candidate in &candidates {
        socket.connect(candidate).unwrap();
        rustix::net::connect_unspec(&socket).unwrap();
    }
    drop(socket);
    for candidate in candidates {
        let c = watch.only(candidate);
        assert_eq!((c.outcome, c.evidence), (Outcome::Associated, Some(Evidence::ConnectReturn)));
        if has(&watch, "datagram_close") {
            assert_eq!((c.state, end(&c)), (State::Closed, Some(CloseReason::Disconnect)));
        }
    }
    let books = watch.handle.accounting();
    assert!(books.balances() && books.pending == 0, "{books:?}");
}

#[test]
fn an_answer_that_nobody_is_there_turns_the_record_into_a_refusal() {
    let Some(watch) = shared() else { return };
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(nobody).unwrap();
    let associated = watch.only(nobody);
    assert_eq!((associated.outcome, associated.state), (Outcome::Associated, State::Open));
    socket.send(b"anybody?").unwrap();
    // Over loopback the answer is there when the call returns.
    let error = socket.recv(&mut [0]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    let c = watch.only(nobody);
    assert_eq!((c.id, c.state), (associated.id, State::Open));
    if has(&watch, "datagram_errors") {
        assert_eq!((c.outcome, c.errno), (Outcome::Refused, Some(libc::ECONNREFUSED)));
        assert_eq!(
            (c.error.as_deref(), c.evidence),
            (Some("ECONNREFUSED"), Some(Evidence::SkError))
        );
    } else {
        assert!(matches!(c.outcome, Outcome::Associated | Outcome::Sent), "{c:?}");
    }
    drop(socket);
    let last = watch.only(nobody);
    assert_eq!((last.outcome, last.errno), (c.outcome, c.errno), "the close changes no outcome");
    assert_eq!(last.state == State::Closed, has(&watch, "datagram_close"));
}

#[test]
fn where_there_is_no_room_a_datagram_socket_is_shown_at_once() {
    let Some(watch) = watch(Builder { max_sockets: Some(1), ..own() }) else { return };
    let remotes: Vec<_> = (41..45).map(|n| v4([127, 0, 0, n], 4000)).collect();
    let kind = rustix::net::SocketType::DGRAM;
    let sockets: Vec<_> =
        remotes.iter().map(|remote| connect(AddressFamily::INET, kind, *remote).0).collect();
    drop(sockets);
    let handle = watch.handle.clone();
    let held = has(&watch, "datagram_close");
    let all = watch.stop();
    for remote in remotes {
        let last = all.iter().rfind(|c| goes_to(c, remote)).unwrap();
        assert_eq!(last.outcome, Outcome::Associated);
    }
    let books = handle.accounting();
    assert!(books.balances() && books.lost.total() == 0 && books.pending == 0, "{books:?}");
    // Their ends are not seen.
    assert_eq!(books.updates_lost > 0 && !books.complete, held, "{books:?}");
}

#[test]
fn nothing_of_a_socket_that_is_gone_stays_in_the_kernel() {
    let Some(watch) = watch(own()) else { return };
    for round in 0..2_000_u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(v4([127, 0, 1, 1], 1000 + round)).unwrap();
        if round.is_multiple_of(4) {
            socket.connect(v4([127, 0, 2, 1], 1000 + round)).unwrap();
        }
    }
    let books = watch.handle.accounting();
    let ours = watch.records(|c| c.protocol == Protocol::Udp);
    assert_eq!(ours.len(), 2_500);
    assert!(books.balances() && books.complete, "{books:?}");
    if has(&watch, "datagram_close") {
        assert!(ours.iter().all(|c| c.state == State::Closed));
        assert_eq!(crate::harness::held_in(&watch, "conns"), 0);
    }
}

#[test]
fn a_datagram_socket_of_ipv6_with_a_mapped_address_is_shown_as_ipv4() {
    let Some(watch) = shared() else { return };
    let mapped: SocketAddr = "[::ffff:127.0.0.23]:4000".parse().unwrap();
    connect(AddressFamily::INET6, rustix::net::SocketType::DGRAM, mapped).1.unwrap();
    let c = watch.only(v4([127, 0, 0, 23], 4000));
    assert_eq!((c.family, c.outcome), (Family::Ipv4, Outcome::Associated));
}

#[test]
fn broadcasting_without_leave_is_denied() {
    let Some(watch) = shared() else { return };
    let attempt = std::thread::spawn(|| {
        crate::harness::own_network();
        let remote = v4([127, 255, 255, 255], 4000);
        let kind = rustix::net::SocketType::DGRAM;
        (remote, connect(AddressFamily::INET, kind, remote).1.unwrap_err().raw_os_error())
    });
    let (remote, errno) = attempt.join().unwrap();
    assert_eq!(errno, Some(13));
    let c = watch.only(remote);
    assert_eq!((c.outcome, c.errno, c.protocol), (Outcome::Denied, Some(13), Protocol::Udp));
}

#[test]
fn a_raw_socket_is_none_of_the_protocol_that_it_carries() {
    let Some(watch) = shared() else { return };
    let remote = v4([127, 0, 0, 24], 0);
    let tcp = Some(rustix::net::ipproto::TCP);
    let raw = rustix::net::socket(AddressFamily::INET, rustix::net::SocketType::RAW, tcp).unwrap();
    rustix::net::connect(&raw, &remote).unwrap();
    let c = watch.only(remote);
    assert_eq!((c.protocol, c.outcome), (Protocol::Raw, Outcome::Associated));
}
