//! TCP: what an attempt and its end look like.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use netspy::event::{CloseReason, Direction, Evidence, Family, Outcome, Protocol, State};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketType};

use crate::harness::{
    connect, connect_nonblocking, free_port, goes_to, own_network, shared, v4, writable,
};

#[test]
fn an_established_connection_tells_its_two_ends() {
    let Some(watch) = shared() else { return };
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let remote = listener.local_addr().unwrap();
        let client = TcpStream::connect(remote).unwrap();
        let c = watch.outcome(remote);
        assert_eq!(c.outcome, Outcome::Established);
        assert_eq!((c.errno, c.error.as_deref()), (None, None));
        assert_eq!((c.protocol, c.direction), (Protocol::Tcp, Direction::Outbound));
        let family = if remote.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        assert_eq!((c.family, c.state), (family, State::Open));
        let local = c.local.unwrap();
        assert_eq!(SocketAddr::new(local.ip, local.port), client.local_addr().unwrap());
        assert_eq!((c.evidence, c.syn_retransmits), (Some(Evidence::TcpState), Some(0)));
        assert!(c.latency_us.is_some_and(|us| us < 5_000_000));
        assert!(c.close.is_none() && !c.preexisting);
    }
}

/// What the two ends of a connection carry, and how the client sees it end.
fn exchange(
    upward: usize,
    downward: usize,
    end: impl FnOnce(TcpStream, TcpStream),
) -> (SocketAddr, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(remote).unwrap();
    let local = client.local_addr().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(&vec![1; upward]).unwrap();
    server.read_exact(&mut vec![0; upward]).unwrap();
    server.write_all(&vec![2; downward]).unwrap();
    client.read_exact(&mut vec![0; downward]).unwrap();
    end(client, server);
    (remote, local)
}

#[test]
fn a_close_tells_what_was_carried_and_why_it_ended() {
    let Some(watch) = shared() else { return };
    let closed = |remote| watch.wait("a close", |c| goes_to(c, remote) && c.close.is_some());

    // Whoever closes first, the figures are those of the payload alone.
    let (remote, _) = exchange(1000, 70_000, |client, mut server| {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    });
    let c = closed(remote);
    let close = c.close.unwrap();
    assert_eq!(
        (close.bytes_sent, close.bytes_received),
        (Some(1000), Some(70_000)),
        "client first"
    );
    assert_eq!((close.reason, c.state), (CloseReason::Fin, State::Closed));
    assert!(close.srtt_us.is_some() && close.time >= c.time);
    assert_eq!(c.outcome, Outcome::Established);

    let (remote, _) = exchange(1, 0, |mut client, server| {
        drop(server);
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    });
    let close = closed(remote).close.unwrap();
    assert_eq!((close.bytes_sent, close.bytes_received), (Some(1), Some(0)), "server first");
    assert_eq!(close.reason, CloseReason::Fin);

    // Linger 0 makes close() send a reset.
    let (remote, _) = exchange(10, 20, |mut client, server| {
        set_socket_linger(&server, Some(std::time::Duration::ZERO)).unwrap();
        drop(server);
        client.read(&mut [0; 1]).unwrap_err();
    });
    let close = closed(remote).close.unwrap();
    assert_eq!((close.bytes_sent, close.bytes_received), (Some(10), Some(20)));
    assert_eq!(close.reason, CloseReason::Reset);

    let (remote, _) = exchange(10, 20, |client, _server| {
        set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
    });
    assert_eq!(closed(remote).close.unwrap().reason, CloseReason::Abort);
}

#[test]
fn a_connect_that_does_not_wait_is_one_attempt_however_often_it_is_called() {
    let Some(watch) = shared() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = listener.local_addr().unwrap();
    let (fd, first) = connect_nonblocking(remote);
    assert_eq!(first.unwrap_err().raw_os_error(), Some(115));
    writable(&fd);
    for _ in 0..3 {
        let _ = rustix::net::connect(&fd, &remote);
    }
    let c = watch.only(remote);
    assert_eq!((c.outcome, c.errno), (Outcome::Established, None));
}

#[test]
fn addresses_mapped_into_ipv6_are_one_record_shown_as_ipv4() {
    let Some(watch) = shared() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = listener.local_addr().unwrap();
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", remote.port()).parse().unwrap();
    let (fd, result) = connect(AddressFamily::INET6, SocketType::STREAM, mapped);
    result.unwrap();
    let c = watch.only(remote);
    assert_eq!((c.family, c.outcome), (Family::Ipv4, Outcome::Established));
    assert_eq!(c.local.unwrap().ip, remote.ip());
    assert!(watch.records(|c| goes_to(c, mapped)).is_empty());
    drop(fd);
    let closed_port = free_port("127.0.0.1:0".parse().unwrap());
    let mapped = format!("[::ffff:127.0.0.1]:{}", closed_port.port()).parse().unwrap();
    connect(AddressFamily::INET6, SocketType::STREAM, mapped).1.unwrap_err();
    let c = watch.only(closed_port);
    assert_eq!((c.family, c.outcome, c.errno), (Family::Ipv4, Outcome::Refused, Some(111)));
}

#[test]
fn multipath_tcp_is_one_record() {
    let Some(watch) = shared() else { return };
    let mptcp = rustix::net::Protocol::from_raw(262.try_into().unwrap());
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let open = |p| rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, p);
    let Ok(client) = open(Some(mptcp)) else {
        println!("skipped: this kernel has no MPTCP");
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = listener.local_addr().unwrap();
    rustix::net::connect(&client, &remote).unwrap();
    let c = watch.only(remote);
    assert_eq!((c.protocol, c.outcome), (Protocol::Mptcp, Outcome::Established));
    let closed_port = free_port("127.0.0.1:0".parse().unwrap());
    rustix::net::connect(open(Some(mptcp)).unwrap(), &closed_port).unwrap_err();
    let c = watch.only(closed_port);
    assert_eq!((c.protocol, c.outcome, c.errno), (Protocol::Mptcp, Outcome::Refused, Some(111)));
}

#[test]
fn the_network_namespace_is_that_of_the_socket() {
    let Some(watch) = shared() else { return };
    let remote = std::thread::spawn(|| {
        own_network();
        let remote = v4([127, 0, 0, 1], 9);
        connect(AddressFamily::INET, SocketType::STREAM, remote).1.unwrap_err();
        let link = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        (remote, link.to_string_lossy().into_owned())
    });
    let (remote, link) = remote.join().unwrap();
    let c = watch.wait("the namespace", |c| goes_to(c, remote));
    assert_eq!(format!("net:[{}]", c.process.unwrap().netns), link);
}
