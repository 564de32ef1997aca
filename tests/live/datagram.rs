//! Datagram sockets: each connect() to an address is one record, and sends nothing.

use std::net::{SocketAddr, UdpSocket};

use netspy::ConnectionStream;
use netspy::event::{Family, Outcome, Protocol, SocketType, State};
use rustix::net::AddressFamily;

use crate::harness::{connect, goes_to, v4, watch};

#[test]
fn a_connected_datagram_socket_is_associated_whatever_the_port() {
    let Some(watch) = watch(ConnectionStream::builder()) else { return };
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
    let Some(watch) = watch(ConnectionStream::builder()) else { return };
    let remotes = [v4([127, 0, 0, 21], 4000), v4([127, 0, 0, 22], 4000)];
    let (fd, result) = connect(AddressFamily::INET, rustix::net::SocketType::DGRAM, remotes[0]);
    result.unwrap();
    rustix::net::connect_unspec(&fd).unwrap();
    rustix::net::connect(&fd, &remotes[1]).unwrap();
    rustix::net::connect(&fd, &remotes[1]).unwrap();
    assert_eq!(watch.records(|c| goes_to(c, remotes[0])).len(), 1);
    assert_eq!(watch.records(|c| goes_to(c, remotes[1])).len(), 2);
}

#[test]
fn a_datagram_socket_of_ipv6_with_a_mapped_address_is_shown_as_ipv4() {
    let Some(watch) = watch(ConnectionStream::builder()) else { return };
    let mapped: SocketAddr = "[::ffff:127.0.0.23]:4000".parse().unwrap();
    connect(AddressFamily::INET6, rustix::net::SocketType::DGRAM, mapped).1.unwrap();
    let c = watch.only(v4([127, 0, 0, 23], 4000));
    assert_eq!((c.family, c.outcome), (Family::Ipv4, Outcome::Associated));
}

#[test]
fn broadcasting_without_leave_is_denied() {
    let Some(watch) = watch(ConnectionStream::builder()) else { return };
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
    let Some(watch) = watch(ConnectionStream::builder()) else { return };
    let remote = v4([127, 0, 0, 24], 0);
    let tcp = Some(rustix::net::ipproto::TCP);
    let raw = rustix::net::socket(AddressFamily::INET, rustix::net::SocketType::RAW, tcp).unwrap();
    rustix::net::connect(&raw, &remote).unwrap();
    let c = watch.only(remote);
    assert_eq!((c.protocol, c.outcome), (Protocol::Raw, Outcome::Associated));
}
