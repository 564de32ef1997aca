//! What existed before capture began: found once, and taken over by what watches from then on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Mutex;

use netspy::event::{CloseReason, Direction, Evidence, Outcome, Protocol, State};
use netspy::stream::Builder;
use netspy::{Connection, ConnectionStream};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::harness::{
    alone, connect_nonblocking, goes_to, held_in, ip, local_of, observes, own_network, v4,
    watch_with_existing,
};
use crate::roles::play;

/// Keeps a thread alive until it is dropped, with what its work made.
struct Kept<T> {
    value: T,
    _end: std::sync::mpsc::Sender<()>,
}

fn keep_in_own_network<T: Send + 'static, K>(
    work: impl FnOnce() -> (T, K) + Send + 'static,
) -> Kept<T> {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        own_network();
        let (value, kept) = work();
        tell.send(value).unwrap();
        let _ = ended.recv();
        drop(kept);
    });
    Kept { value: told.recv().unwrap(), _end: end }
}

fn own_netns() -> u32 {
    let link = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let link = link.to_string_lossy();
    link.trim_start_matches("net:[").trim_end_matches(']').parse().unwrap()
}

#[test]
fn connections_and_listeners_of_every_namespace_are_found_with_their_process() {
    let _alone = alone();
    let mut worlds = Vec::new();
    for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        worlds.push(keep_in_own_network(move || {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let at = if address.contains("::1") { "::1" } else { "127.0.0.1" };
            let server = SocketAddr::new(at.parse().unwrap(), port);
            let client = TcpStream::connect(server).unwrap();
            let accepted = listener.accept().unwrap().0;
            let half = TcpStream::connect(server).unwrap();
            let half_accepted = listener.accept().unwrap().0;
            half.shutdown(std::net::Shutdown::Write).unwrap();
            ip("route add 192.0.2.0/24 dev lo");
            let waiting = connect_nonblocking(v4([192, 0, 2, 9], 80)).0;
            let halves = (half.local_addr().unwrap(), client.local_addr().unwrap());
            let listens = listener.local_addr().unwrap();
            let kept = (listener, client, accepted, half, half_accepted, waiting);
            ((own_netns(), listens, server, halves), kept)
        }));
    }
    let own = Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() };
    let Some(watch) = watch_with_existing(own) else { return };
    if !observes(&watch, "preexisting") {
        assert!(watch.records(|c| c.preexisting).is_empty());
        println!("skipped: the report says that what existed before is not listed");
        return;
    }
    watch.handle.drain();
    for world in &worlds {
        let (netns, listens, server, (half, whole)) = world.value;
        let all = watch.records(|c| {
            c.preexisting && c.process.as_ref().is_some_and(|process| process.netns == netns)
        });
        let own = |c: &&Connection| c.process.as_ref().unwrap().pid == std::process::id();
        assert!(all.iter().all(|c| own(&c)));
        assert!(all.iter().all(|c| c.latency_us.is_none() && c.syn_retransmits.is_none()));
        let one = |what: &str, matches: &dyn Fn(&&Connection) -> bool| {
            let found: Vec<_> = all.iter().filter(matches).collect();
            assert_eq!(found.len(), 1, "{what} at {server} in {all:#?}");
            found[0]
        };
        let listener = one("listener", &|c| c.state == State::Listening);
        assert_eq!(listener.local.map(|l| (l.ip, l.port)), Some((listens.ip(), listens.port())));
        assert_eq!(
            (listener.outcome, listener.direction),
            (Outcome::Listening, Direction::Inbound)
        );
        for client in [half, whole] {
            let out = one("client", &|c| c.local.is_some() && local_of(c) == client);
            assert_eq!((out.direction, out.state), (Direction::Outbound, State::Open));
            assert!(goes_to(out, server));
            let inbound = one("server", &|c| goes_to(c, client));
            assert_eq!((inbound.direction, inbound.state), (Direction::Inbound, State::Open));
            assert_eq!(local_of(inbound), server);
            for c in [out, inbound] {
                assert_eq!(c.outcome, Outcome::Established);
                assert_eq!(c.evidence, Some(Evidence::SocketState));
            }
        }
        let waiting = one("attempt", &|c| c.state == State::Connecting);
        assert!(goes_to(waiting, v4([192, 0, 2, 9], 80)));
        assert_eq!(
            (waiting.outcome, waiting.direction),
            (Outcome::InProgress, Direction::Outbound)
        );
        assert_eq!(all.len(), 6, "{all:#?}");
    }
    let books = watch.handle.accounting();
    assert!(books.balances(), "{books:?}");
}

#[test]
fn what_was_found_is_taken_over_without_gap_or_duplicate() {
    let _alone = alone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(server).unwrap();
    let from = client.local_addr().unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    client.write_all(&[1; 300]).unwrap();
    accepted.read_exact(&mut [0; 300]).unwrap();
    let own = Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() };
    let Some(watch) = watch_with_existing(own) else { return };
    if !observes(&watch, "preexisting") {
        println!("skipped: the report says that what existed before is not listed");
        return;
    }
    let out = watch.wait("the client's end", |c| goes_to(c, server));
    let inbound = watch.wait("the server's end", |c| goes_to(c, from));
    assert!(out.preexisting && inbound.preexisting);
    accepted.write_all(&[2; 200]).unwrap();
    client.read_exact(&mut [0; 200]).unwrap();
    drop(client);
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    drop((accepted, listener));
    let closed = |what, id| watch.wait(what, |c| c.id == id && c.state == State::Closed);
    let out = closed("the client's close", out.id);
    let inbound = closed("the server's close", inbound.id);
    let (o, i) = (out.close.unwrap(), inbound.close.unwrap());
    // All that it ever carried.
    assert_eq!((o.bytes_sent, o.bytes_received), (Some(300), Some(200)));
    assert_eq!((i.bytes_sent, i.bytes_received), (Some(200), Some(300)));
    assert_eq!((o.duration_us, i.duration_us), (None, None));
    assert!(out.preexisting && inbound.preexisting);
    let listening = watch.wait("the listener's close", |c| {
        c.outcome == Outcome::Listening && c.state == State::Closed
    });
    assert_eq!((listening.preexisting, local_of(&listening)), (true, server));
    let handle = watch.handle.clone();
    watch.settle();
    assert_eq!(held_in(&watch, "conns"), 0);
    watch.stop();
    let books = handle.accounting();
    // The one that settled.
    assert_eq!((books.delivered, books.pending), (1, 0), "{books:?}");
    assert!(books.balances() && books.complete, "{books:?}");
}

#[test]
fn multipath_connections_and_listeners_are_found_once() {
    let _alone = alone();
    let mptcp = rustix::net::Protocol::from_raw(262.try_into().unwrap());
    let open = || {
        let flags = SocketFlags::CLOEXEC;
        socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(mptcp))
    };
    let Ok(listener) = open() else {
        println!("skipped: this kernel has no MPTCP");
        return;
    };
    rustix::net::bind(&listener, &v4([127, 0, 0, 1], 0)).unwrap();
    rustix::net::listen(&listener, 8).unwrap();
    let server: SocketAddr = rustix::net::getsockname(&listener).unwrap().try_into().unwrap();
    let client = open().unwrap();
    rustix::net::connect(&client, &server).unwrap();
    let from: SocketAddr = rustix::net::getsockname(&client).unwrap().try_into().unwrap();
    let accepted = rustix::net::accept(&listener).unwrap();
    let own = Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() };
    let Some(watch) = watch_with_existing(own) else { return };
    let locked_down = std::fs::read_to_string("/sys/kernel/security/lockdown");
    if !observes(&watch, "preexisting") || locked_down.is_ok_and(|l| l.contains("[conf")) {
        assert!(watch.records(|c| c.preexisting && c.protocol == Protocol::Mptcp).is_empty());
        println!("skipped: the report says that what existed before is not listed here");
        return;
    }
    let found = watch.records(|c| c.preexisting);
    assert!(found.iter().all(|c| c.protocol == Protocol::Mptcp), "{found:#?}");
    let mut what: Vec<_> = found.iter().map(|c| (c.direction, c.state, local_of(c))).collect();
    what.sort();
    let expected = [
        (Direction::Outbound, State::Open, from),
        (Direction::Inbound, State::Open, server),
        (Direction::Inbound, State::Listening, server),
    ];
    assert_eq!(what, expected, "{found:#?}");
    drop((client, accepted, listener));
    for c in found {
        let end = |v: &Connection| v.id == c.id && v.state == State::Closed;
        watch.wait("its end", end);
    }
}

#[test]
fn an_attempt_that_was_under_way_gets_its_outcome() {
    let _alone = alone();
    let world = keep_in_own_network(|| {
        ip("route add 192.0.2.0/24 dev lo");
        let remote = v4([192, 0, 2, 99], 80);
        let socket = connect_nonblocking(remote).0;
        (Mutex::new(Some(socket)), remote)
    });
    let own = Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() };
    let Some(watch) = watch_with_existing(own) else { return };
    if !observes(&watch, "preexisting") {
        println!("skipped: the report says that what existed before is not listed");
        return;
    }
    let remote = v4([192, 0, 2, 99], 80);
    let found = watch.wait("the attempt", |c| goes_to(c, remote));
    assert_eq!((found.state, found.preexisting), (State::Connecting, true));
    world.value.lock().unwrap().take();
    let ended = watch.wait("its end", |c| goes_to(c, remote) && c.state == State::Closed);
    assert_eq!((ended.id, ended.outcome), (found.id, Outcome::Aborted));
    let handle = watch.handle.clone();
    watch.stop();
    let books = handle.accounting();
    assert_eq!((books.delivered, books.pending), (0, 0), "{books:?}");
}

#[test]
fn datagram_sockets_are_found_where_their_end_is_seen() {
    let _alone = alone();
    let world = keep_in_own_network(|| {
        let bound = UdpSocket::bind("127.0.0.1:5353").unwrap();
        let both = UdpSocket::bind("[::1]:5354").unwrap();
        both.connect("[::1]:99").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"x", "127.0.0.1:5353").unwrap();
        (Mutex::new(Some((bound, both))), sender)
    });
    let own = Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() };
    let Some(watch) = watch_with_existing(own) else { return };
    let udp = |c: &Connection| c.protocol == Protocol::Udp;
    let sees = observes(&watch, "preexisting") && observes(&watch, "datagram_close");
    let found = watch.records(udp);
    if !sees {
        assert!(found.is_empty(), "{found:#?}");
        println!("skipped: the report says that no such sockets are listed, or not their end");
        return;
    }
    // What only sends has no port that others would know.
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found.iter().all(|c| c.preexisting && c.latency_us.is_none()));
    let bound = found.iter().find(|c| c.state == State::Listening).unwrap();
    assert_eq!((bound.outcome, bound.direction), (Outcome::Listening, Direction::Inbound));
    assert!(bound.remote.is_none() && local_of(bound) == v4([127, 0, 0, 1], 5353));
    let peer = found.iter().find(|c| c.state == State::Open).unwrap();
    assert_eq!((peer.outcome, peer.direction), (Outcome::Associated, Direction::Outbound));
    assert!(goes_to(peer, "[::1]:99".parse().unwrap()));
    assert_eq!(local_of(peer), "[::1]:5354".parse().unwrap());
    let (bound_socket, both) = world.value.lock().unwrap().take().unwrap();
    // It keeps its own record, and gets another for the time in which it has a peer.
    bound_socket.connect("127.0.0.1:98").unwrap();
    drop((bound_socket, both));
    let new =
        watch.wait("the peer", |c| goes_to(c, v4([127, 0, 0, 1], 98)) && c.state == State::Closed);
    assert!(!new.preexisting);
    for id in [bound.id, peer.id] {
        let closed = watch.wait("its end", |c| c.id == id && c.state == State::Closed);
        let close = closed.close.unwrap();
        assert_eq!((close.reason, close.duration_us), (CloseReason::OwnerClose, None));
        assert_eq!(close.bytes_received, None);
    }
    assert_eq!(watch.records(udp).len(), 3);
    assert_eq!(held_in(&watch, "conns"), 0);
    let handle = watch.handle.clone();
    watch.stop();
    let books = handle.accounting();
    assert!(books.balances() && books.pending == 0 && books.complete, "{books:?}");
}

#[test]
fn the_process_is_the_one_that_holds_the_socket() {
    let _alone = alone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let mut worker = play("accept from standard input and wait", server)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .spawn()
        .unwrap();
    let mut client = TcpStream::connect(server).unwrap();
    let from = client.local_addr().unwrap();
    // It says so when it has accepted.
    client.read_exact(&mut [0; 1]).unwrap();
    let Some(watch) = watch_with_existing(ConnectionStream::builder()) else {
        drop(client);
        worker.wait().unwrap();
        return;
    };
    if observes(&watch, "preexisting") {
        let c = watch.wait("what the worker holds", |c| goes_to(c, from));
        let process = c.process.unwrap();
        assert_eq!((process.pid, process.ppid), (worker.id(), std::process::id()));
        let cmdline = process.cmdline.as_deref().unwrap();
        assert!(cmdline.contains("a_role_is_played"), "{cmdline}");
        let listening = watch.wait("its listener", |c| {
            c.outcome == Outcome::Listening && c.local.is_some_and(|l| l.port == server.port())
        });
        assert_eq!(listening.process.unwrap().pid, worker.id());
        let mine = watch.wait("the client's end", |c| goes_to(c, server));
        assert_eq!(mine.process.unwrap().pid, std::process::id());
    }
    drop(client);
    worker.wait().unwrap();
}
