//! Sockets that listen: records that are no attempts.

use std::net::{SocketAddr, TcpListener, TcpStream};

use netspy::event::{CloseReason, Direction, Family, Outcome, Protocol, State};
use netspy::stream::Builder;
use netspy::{Connection, ConnectionStream};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::harness::{observes, own_network, shared, v4, watch};

fn listens_at(c: &Connection, at: SocketAddr) -> bool {
    c.outcome == Outcome::Listening
        && c.local.is_some_and(|local| SocketAddr::new(local.ip, local.port) == at)
}

#[test]
fn a_listener_is_shown_from_its_beginning_to_its_end_and_counted_nowhere() {
    let own = Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() };
    let Some(watch) = watch(own) else { return };
    assert!(observes(&watch, "listeners"));
    for (address, family) in [
        ("127.0.0.1:0", Family::Ipv4),
        ("0.0.0.0:0", Family::Ipv4),
        ("[::1]:0", Family::Ipv6),
        ("[::]:0", Family::Ipv6),
    ] {
        let listener = TcpListener::bind(address).unwrap();
        let at = listener.local_addr().unwrap();
        let c = watch.wait("a listener", |c| listens_at(c, at));
        assert_eq!((c.direction, c.state), (Direction::Inbound, State::Listening));
        assert_eq!((c.protocol, c.family), (Protocol::Tcp, family));
        assert!(c.remote.is_none() && c.close.is_none() && !c.preexisting);
        assert_eq!((c.latency_us, c.errno, c.evidence), (None, None, None));
        assert_eq!(c.process.as_ref().unwrap().pid, std::process::id());
        // Once more to the same effect, and connections come and go.
        rustix::net::listen(&listener, 9).unwrap();
        drop(listener);
        let closed = watch.wait("its end", |c| listens_at(c, at) && c.state == State::Closed);
        let close = closed.close.unwrap();
        assert_eq!((closed.id, close.reason), (c.id, CloseReason::OwnerClose));
        assert!(close.duration_us.is_some() && close.time >= c.time);
    }
    let handle = watch.handle.clone();
    let all = watch.stop();
    assert_eq!(all.len(), 8, "{all:#?}");
    let books = handle.accounting();
    assert_eq!((books.attempts - books.filtered, books.delivered, books.pending), (0, 0, 0));
    assert!(books.balances() && books.complete, "{books:?}");
}

#[test]
fn a_socket_that_listens_again_is_another_listener() {
    let Some(watch) = shared() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
    rustix::net::listen(&listener, 8).unwrap();
    // shutdown() gave the port back.
    let later = listener.local_addr().unwrap();
    let report = watch.handle.capabilities();
    if report.features["listeners"].note.is_some() {
        let closed = |c: &Connection| listens_at(c, at) && c.state == State::Closed;
        watch.wait("the first time", closed);
        drop(listener);
        watch.wait("the end", |c| listens_at(c, later) && c.state == State::Closed);
        println!("skipped: the report says that this port is not known before");
        return;
    }
    watch.wait("the second time", |c| listens_at(c, later) && c.state == State::Listening);
    let mut all = watch.records(|c| listens_at(c, at) || listens_at(c, later));
    all.sort_by_key(|c| c.id);
    let states: Vec<_> = all.iter().map(|c| c.state).collect();
    assert_eq!(states, [State::Closed, State::Listening], "{all:#?}");
}

#[test]
fn a_multipath_listener_is_one() {
    let Some(watch) = shared() else { return };
    let mptcp = rustix::net::Protocol::from_raw(262.try_into().unwrap());
    let flags = SocketFlags::CLOEXEC;
    let Ok(socket) = socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(mptcp))
    else {
        println!("skipped: this kernel has no MPTCP");
        return;
    };
    rustix::net::bind(&socket, &v4([127, 0, 0, 1], 0)).unwrap();
    rustix::net::listen(&socket, 8).unwrap();
    let at: SocketAddr = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
    let c = watch.wait("the listener", |c| listens_at(c, at));
    assert_eq!((c.protocol, c.state), (Protocol::Mptcp, State::Listening));
    drop(socket);
    watch.wait("its end", |c| listens_at(c, at) && c.state == State::Closed);
    assert_eq!(watch.records(|c| listens_at(c, at)).len(), 1);
}

#[test]
fn what_comes_in_can_be_left_out() {
    let only_pid = vec![std::process::id()];
    let builder = Builder { no_inbound: true, only_pid, ..ConnectionStream::builder() };
    let Some(watch) = watch(builder) else { return };
    assert!(!observes(&watch, "listeners") && !observes(&watch, "inbound"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let _server = listener.accept().unwrap();
    assert!(watch.records(|c| c.direction == Direction::Inbound).is_empty());
    assert_eq!(watch.records(|c| c.outcome == Outcome::Established).len(), 1);
}

#[test]
fn a_listener_of_another_network_namespace_is_seen_as_such() {
    let own = Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() };
    let Some(watch) = watch(own) else { return };
    let at = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            own_network();
            TcpListener::bind("127.0.0.1:8443").unwrap().local_addr().unwrap()
        });
        other.join().unwrap()
    });
    let here = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let netns = |at| {
        let c = watch.wait("its end", |c| listens_at(c, at) && c.state == State::Closed);
        c.process.unwrap().netns
    };
    assert_ne!(netns(at), netns(here));
}
