//! Accepted connections: what they look like from the side that is connected to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use netspy::event::{CloseReason, Direction, Evidence, Family, Outcome, Protocol, State};
use netspy::stream::Builder;
use netspy::{Connection, ConnectionStream};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept, accept_with, socket_with};

use crate::harness::{Watch, goes_to, held_in, local_of, observes, shared, v4, watch};
use crate::roles::play;

/// Whether a record is of the server's end of a connection from this address.
fn comes_from(c: &Connection, client: SocketAddr) -> bool {
    c.direction == Direction::Inbound && goes_to(c, client)
}

/// Whether the report says that accepted connections are seen; where it does not, none must be.
fn sees_inbound(watch: &Watch) -> bool {
    if observes(watch, "inbound") {
        return true;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let _server = listener.accept().unwrap();
    let accepted = |c: &Connection| c.direction == Direction::Inbound && c.remote.is_some();
    assert!(watch.records(accepted).is_empty());
    println!("skipped: the report says that accepted connections are not seen");
    false
}

/// Whether a record is of a connection that was accepted at this address.
fn comes_in_at(c: &Connection, server: SocketAddr) -> bool {
    c.direction == Direction::Inbound && c.remote.is_some() && local_of(c) == server
}

#[test]
fn an_accepted_connection_tells_its_two_ends_and_who_accepted_it() {
    let Some(watch) = shared() else { return };
    if !sees_inbound(&watch) {
        return;
    }
    for (address, at) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")]
    {
        let listener = TcpListener::bind(address).unwrap();
        let server = SocketAddr::new(at.parse().unwrap(), listener.local_addr().unwrap().port());
        for with_flags in [false, true] {
            let client = TcpStream::connect(server).unwrap();
            let accepted = match with_flags {
                false => accept(&listener),
                true => accept_with(&listener, SocketFlags::CLOEXEC),
            };
            let from = client.local_addr().unwrap();
            let c = watch.wait("what was accepted", |c| comes_from(c, from));
            assert_eq!(local_of(&c), server);
            let family = if server.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
            assert_eq!((c.family, c.protocol), (family, Protocol::Tcp));
            assert_eq!((c.state, c.outcome), (State::Open, Outcome::Established));
            assert_eq!(c.evidence, Some(Evidence::Accept));
            assert_eq!((c.latency_us, c.syn_retransmits, c.errno), (None, None, None));
            let process = c.process.as_ref().unwrap();
            let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
            assert_eq!((process.pid, process.tid), (std::process::id(), tid));
            assert!(!c.preexisting && c.close.is_none());
            // The other end is a record of its own.
            let other = watch.wait("the client's", |c| {
                c.direction == Direction::Outbound && c.local.is_some() && local_of(c) == from
            });
            assert!(other.id != c.id && goes_to(&other, server));
            drop(accepted);
        }
    }
}

#[test]
fn more_threads_in_accept_than_there_are_processors_are_all_seen() {
    const THREADS: usize = 40;
    let Some(watch) = shared() else { return };
    if !sees_inbound(&watch) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let mut tids = std::thread::scope(|scope| {
        let accepting: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let (stream, from) = listener.accept().unwrap();
                    drop(stream);
                    (from, rustix::thread::gettid().as_raw_nonzero().get() as u32)
                })
            })
            .collect();
        let clients: Vec<_> = (0..THREADS).map(|_| TcpStream::connect(server).unwrap()).collect();
        let tids: Vec<_> = accepting.into_iter().map(|thread| thread.join().unwrap()).collect();
        drop(clients);
        tids
    });
    let records = watch.records(|c| comes_in_at(c, server));
    let mut seen: Vec<_> = records
        .iter()
        .map(|c| {
            let remote = c.remote.as_ref().unwrap();
            (SocketAddr::new(remote.ip, remote.port), c.process.as_ref().unwrap().tid)
        })
        .collect();
    tids.sort();
    seen.sort();
    let (books, report) = (watch.handle.accounting(), watch.handle.capabilities());
    assert_eq!(seen, tids, "{books:?} {:?}", report.features["inbound"]);
}

#[test]
fn the_process_is_the_one_that_accepted_not_the_one_that_listened() {
    let Some(watch) = shared() else { return };
    if !sees_inbound(&watch) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let mut worker = play("accept from standard input", server)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .spawn()
        .unwrap();
    let client = TcpStream::connect(server).unwrap();
    let from = client.local_addr().unwrap();
    assert!(worker.wait().unwrap().success());
    let c = watch.wait("what the worker accepted", |c| comes_from(c, from));
    assert_eq!(c.process.unwrap().pid, worker.id());
}

#[test]
fn the_ends_agree_on_what_was_carried() {
    let Some(watch) = shared() else { return };
    if !sees_inbound(&watch) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    for (upward, downward, client_first) in [(1000, 70_000, true), (5, 0, false), (0, 0, true)] {
        let mut client = TcpStream::connect(server).unwrap();
        let from = client.local_addr().unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        client.write_all(&vec![1; upward]).unwrap();
        accepted.read_exact(&mut vec![0; upward]).unwrap();
        accepted.write_all(&vec![2; downward]).unwrap();
        client.read_exact(&mut vec![0; downward]).unwrap();
        let (first, mut second): (TcpStream, TcpStream) =
            if client_first { (client, accepted) } else { (accepted, client) };
        drop(first);
        assert_eq!(second.read(&mut [0]).unwrap(), 0);
        drop(second);
        let c = watch.wait("the server's end", |c| comes_from(c, from) && c.close.is_some());
        let o = watch.wait("the client's end", |c| {
            c.direction == Direction::Outbound && c.close.is_some() && local_of(c) == from
        });
        let (c, o) = ((c.close.unwrap(), c.state), (o.close.unwrap(), o.state));
        assert_eq!((c.1, o.1), (State::Closed, State::Closed));
        let (upward, downward) = (upward as u64, downward as u64);
        assert_eq!((c.0.bytes_received, c.0.bytes_sent), (Some(upward), Some(downward)));
        assert_eq!((o.0.bytes_sent, o.0.bytes_received), (Some(upward), Some(downward)));
        assert_eq!((c.0.reason, o.0.reason), (CloseReason::Fin, CloseReason::Fin));
    }
}

#[test]
fn what_was_reset_before_it_was_accepted_is_shown_as_closed() {
    let Some(watch) = shared() else { return };
    if !sees_inbound(&watch) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let from = client.local_addr().unwrap();
    client.write_all(b"seven!!").unwrap();
    set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    let (_accepted, _) = listener.accept().unwrap();
    watch.settle();
    let all = watch.records(|c| comes_from(c, from));
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!((all[0].state, all[0].outcome), (State::Closed, Outcome::Established));
    let local = all[0].local.unwrap();
    assert_eq!(SocketAddr::new(local.ip, local.port), listener.local_addr().unwrap());
    let close = all[0].close.unwrap();
    assert_eq!((close.reason, close.bytes_received), (CloseReason::Reset, Some(7)));
}

#[test]
fn a_multipath_connection_is_accepted_once() {
    let Some(watch) = shared() else { return };
    if !sees_inbound(&watch) {
        return;
    }
    let mptcp = rustix::net::Protocol::from_raw(262.try_into().unwrap());
    let open = |protocol| {
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, protocol)
    };
    let Ok(listener) = open(Some(mptcp)) else {
        println!("skipped: this kernel has no MPTCP");
        return;
    };
    rustix::net::bind(&listener, &v4([127, 0, 0, 1], 0)).unwrap();
    rustix::net::listen(&listener, 8).unwrap();
    let server: SocketAddr = rustix::net::getsockname(&listener).unwrap().try_into().unwrap();
    // A client that speaks it, and one that does not.
    for (protocol, shown) in [(Some(mptcp), Protocol::Mptcp), (None, Protocol::Tcp)] {
        let client = open(protocol).unwrap();
        rustix::net::connect(&client, &server).unwrap();
        let from: SocketAddr = rustix::net::getsockname(&client).unwrap().try_into().unwrap();
        let accepted = accept(&listener).unwrap();
        rustix::io::write(&client, b"five!").unwrap();
        let mut bytes = [0; 5];
        assert_eq!(rustix::io::read(&accepted, &mut bytes).unwrap(), 5);
        drop((client, accepted));
        let c = watch.wait("its end", |c| comes_from(c, from) && c.close.is_some());
        assert_eq!((c.protocol, c.outcome), (shown, Outcome::Established));
        assert_eq!((c.close.unwrap().bytes_received, local_of(&c)), (Some(5), server));
        assert_eq!(watch.records(|c| comes_from(c, from)).len(), 1);
    }
}

#[test]
fn a_port_filter_means_the_port_that_is_served() {
    let (served, other) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = served.local_addr().unwrap().port();
    let builder = Builder { only_port: vec![port], ..ConnectionStream::builder() };
    let Some(watch) = watch(builder) else { return };
    let sees = observes(&watch, "inbound");
    for listener in [&other, &served] {
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.accept().unwrap();
    }
    let handle = watch.handle.clone();
    let all = watch.stop();
    let inbound: Vec<_> = all.iter().filter(|c| c.direction == Direction::Inbound).collect();
    assert_eq!(!inbound.is_empty(), sees);
    assert!(inbound.iter().all(|c| c.local.unwrap().port == port), "{inbound:#?}");
    assert!(all.iter().any(|c| c.direction == Direction::Outbound));
    assert!(handle.counters().filtered >= if sees { 2 } else { 1 });
}

#[test]
fn accepted_connections_are_in_the_books_and_leave_nothing_behind() {
    const ROUNDS: u64 = 3000;
    let own = Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() };
    let Some(watch) = watch(own) else { return };
    let sees = observes(&watch, "inbound");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    for round in 0..ROUNDS {
        let client = TcpStream::connect(server).unwrap();
        // A reset leaves no socket in TIME_WAIT, of which the kernel allows so many.
        if round % 10 != 0 {
            set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
        }
        let accepted = listener.accept().unwrap();
        match round % 3 {
            0 => drop((client, accepted)),
            _ => drop((accepted, client)),
        }
    }
    drop(listener);
    let handle = watch.handle.clone();
    watch.settle();
    // Socks die a moment after their last packet.
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while held_in(&watch, "conns") > 0 {
        assert!(std::time::Instant::now() < patience, "some socks are still held");
        std::thread::yield_now();
    }
    let all = watch.stop();
    let ids = |direction| {
        let ended = |c: &&Connection| c.state == State::Closed && c.remote.is_some();
        let of = all.iter().filter(|c| c.direction == direction).filter(ended);
        of.map(|c| c.id).collect::<std::collections::HashSet<_>>().len() as u64
    };
    assert_eq!(ids(Direction::Inbound), if sees { ROUNDS } else { 0 });
    // One more settled the stream.
    assert_eq!(ids(Direction::Outbound), ROUNDS + 1);
    let books = handle.accounting();
    assert!(books.balances() && books.complete && books.pending == 0, "{books:?}");
    assert_eq!(books.delivered, ROUNDS + 1 + if sees { ROUNDS } else { 0 });
}
