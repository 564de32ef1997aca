//! The books: every attempt is in exactly one term, and every cause of loss is counted.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use netspy::ConnectionStream;
use netspy::event::{Connection, Outcome};
use netspy::stream::Builder;
use rustix::net::{AddressFamily, SocketType};

use crate::harness::{bound_port, connect, goes_to, start, v4, watch};

/// Only this process, so that the counts are its own.
fn own() -> Builder {
    Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() }
}

#[test]
fn a_flood_is_delivered_to_the_last_attempt() {
    // An emulated processor that the reader has to share is given less.
    let each: usize =
        std::env::var("NETSPY_LIVE_FLOOD").map_or(200_000, |text| text.parse().unwrap());
    let Some(watch) = watch(own()) else { return };
    let refused = bound_port();
    let associated = v4([127, 0, 0, 77], 4000);
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    for _ in 0..each {
        connect(AddressFamily::INET, SocketType::STREAM, refused).1.unwrap_err();
    }
    for _ in 0..each {
        socket.connect(associated).unwrap();
    }
    let handle = watch.handle.clone();
    // A sweep may have shown the last association before its end.
    let mut newest = std::collections::HashMap::new();
    // What found a free port listened there.
    let ours = watch.stop().into_iter().filter(|c| c.outcome != Outcome::Listening);
    for version in ours {
        newest.insert(version.id, version);
    }
    let count = |f: &dyn Fn(&&Connection) -> bool| newest.values().filter(f).count();
    assert_eq!(count(&|c| goes_to(c, refused) && c.outcome == Outcome::Refused), each);
    assert_eq!(count(&|c| goes_to(c, associated) && c.outcome == Outcome::Associated), each);
    let books = handle.accounting();
    assert_eq!(books.lost.total(), 0, "{books:?}");
    assert_eq!((books.pending, books.delivered), (0, newest.len() as u64), "{books:?}");
    // Where the kernel preempts programs it skips runs of them, and says so; here others came after.
    assert!(books.balances() && books.complete == (books.missed == 0), "{books:?}");
}

/// Books of a stream that nobody reads while `attempts` are made.
fn unread(builder: Builder, attempts: impl FnOnce()) -> Option<netspy::accounting::Accounting> {
    let probe = watch(own())?;
    let stream = start(builder)?;
    attempts();
    let handle = stream.handle();
    let before = handle.accounting();
    assert!(before.balances(), "while nobody reads: {before:?}");
    handle.stop();
    // A drop that explains an attempt makes a further version of its record.
    let read: HashSet<_> = stream.into_iter().map(|c| c.id).collect();
    let after = handle.accounting();
    assert!(after.balances() && after.pending == 0, "at the end: {after:?}");
    assert_eq!(after.delivered, read.len() as u64, "each delivered record was read: {after:?}");
    drop(probe);
    Some(after)
}

/// More attempts than a stream holds for a reader that does not read: 16 batches of 1,024, and what
/// a small ring has room for.
const FLOOD: u64 = 24_000;

#[test]
fn a_full_ring_is_counted_and_the_books_still_balance() {
    let refused = bound_port();
    let small = Builder { ring_bytes: Some(64 << 10), ..own() };
    let books = unread(small, || {
        // More than the channel, the batch on its way and the ring hold together.
        for _ in 0..FLOOD {
            connect(AddressFamily::INET, SocketType::STREAM, refused).1.unwrap_err();
        }
    });
    let Some(books) = books else { return };
    assert!(books.lost.ring_full > 0 && !books.complete, "{books:?}");
    assert_eq!(books.attempts - books.filtered, FLOOD, "{books:?}");
}

#[test]
fn a_reader_that_is_too_slow_is_counted_where_dropping_was_asked_for() {
    let refused = bound_port();
    let dropping = Builder { drop_when_full: true, ..own() };
    let books = unread(dropping, || {
        for _ in 0..FLOOD {
            connect(AddressFamily::INET, SocketType::STREAM, refused).1.unwrap_err();
        }
    });
    let Some(books) = books else { return };
    assert!(books.lost.slow_consumer > 0 && !books.complete, "{books:?}");
    assert_eq!(books.lost.ring_full, 0, "{books:?}");
}

#[test]
fn a_full_table_of_sockets_is_counted_once_per_attempt() {
    let Some(watch) = watch(Builder { max_sockets: Some(1), ..own() }) else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = listener.local_addr().unwrap();
    let _first = std::net::TcpStream::connect(remote).unwrap();
    let refused = bound_port();
    for _ in 0..100 {
        connect(AddressFamily::INET, SocketType::STREAM, refused).1.unwrap_err();
    }
    // Sockets without a place that got through leave nothing behind for those after them.
    for _ in 0..20 {
        drop(std::net::TcpStream::connect(remote).unwrap());
        let unreachable = v4([255, 255, 255, 255], 80);
        connect(AddressFamily::INET, SocketType::STREAM, unreachable).1.unwrap_err();
    }
    let handle = watch.handle.clone();
    let all = watch.stop();
    assert_eq!(all.iter().filter(|c| c.outcome == Outcome::Unreachable).count(), 20);
    let books = handle.accounting();
    let own = books.attempts - books.filtered;
    assert!(own == 141 && books.lost.map_full >= 120, "{books:?}");
    assert!(books.balances() && books.pending == 0 && !books.complete, "{books:?}");
}

#[test]
fn what_is_pending_is_counted_as_such_and_settles() {
    // A packet that such a route drops makes a version of its own.
    let Some(watch) = watch(Builder { no_drops: true, ..own() }) else { return };
    let remote = v4([192, 0, 2, 77], 80);
    let attempt = std::thread::spawn(move || {
        crate::harness::own_network();
        crate::harness::ip("route add 192.0.2.0/24 dev lo");
        crate::harness::connect_nonblocking(remote).0
    });
    let fd = attempt.join().unwrap();
    let books = watch.handle.accounting();
    assert!(books.balances(), "{books:?}");
    watch.wait("the attempt", |c| goes_to(c, remote));
    drop(fd);
    assert_eq!(watch.outcome(remote).outcome, Outcome::Aborted);
    let handle = watch.handle.clone();
    let all = watch.stop();
    let versions = all.iter().filter(|c| goes_to(c, remote)).count();
    assert_eq!(versions, 2, "in progress, then aborted");
    let books = handle.accounting();
    // The command that sets the route up may connect too, and is left out by the filter.
    assert_eq!((books.delivered, books.pending), (1, 0), "{books:?}");
    assert!(books.balances(), "{books:?}");
}

#[test]
fn dropping_the_stream_leaves_nothing_in_the_kernel() {
    let Some(watch) = watch(ConnectionStream::builder()) else { return };
    let ids: Vec<u32> = watch.handle.capabilities().programs.iter().map(|p| p.id).collect();
    assert!(!ids.is_empty() && ids.iter().all(|id| *id != 0));
    let loaded = || libbpf_rs::query::ProgInfoIter::default().map(|p| p.id).collect::<Vec<_>>();
    assert!(ids.iter().all(|id| loaded().contains(id)));
    let report = watch.handle.capabilities();
    drop(watch);
    // The kernel frees programs after a grace period.
    let patience = Instant::now() + Duration::from_secs(20);
    while ids.iter().any(|id| loaded().contains(id)) {
        assert!(Instant::now() < patience, "still loaded: {report:#?}");
        std::thread::yield_now();
    }
}
