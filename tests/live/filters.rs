//! In-kernel filters: what is left out is counted, and nothing else is left out.

use std::net::{SocketAddr, TcpListener, TcpStream};

use netspy::event::{Direction, Outcome, Protocol};
use netspy::stream::Builder;
use netspy::{Connection, ConnectionStream};
use rustix::net::{AddressFamily, SocketType};

use crate::harness::{
    alone, bound_port, connect, free_port, newest, observes, v4, watch_with_existing,
};

/// Which records are meant: their direction, and the socket's own end.
type Places = Vec<(Direction, SocketAddr)>;

/// Runs attempts under a filter, and returns what came through and how much was left out.
fn under(builder: Builder, attempts: impl FnOnce()) -> Option<(Vec<Connection>, u64)> {
    let watch = crate::harness::watch(builder)?;
    attempts();
    let handle = watch.handle.clone();
    let all = newest(watch.stop());
    let counters = handle.counters();
    assert_eq!(counters.pending(), 0, "{counters:?}");
    Some((all, counters.filtered))
}

fn refused(remote: std::net::SocketAddr) {
    connect(AddressFamily::INET, SocketType::STREAM, remote).1.unwrap_err();
}

#[test]
fn only_the_named_process_passes() {
    let own = std::fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned();
    let stranger = Builder { only_process: vec!["nobody-else".into()], ..Default::default() };
    let remote = bound_port();
    let Some((all, filtered)) = under(stranger, || refused(remote)) else { return };
    assert!(all.is_empty() && filtered >= 1);
    let me = Builder { only_process: vec![own], ..Default::default() };
    let Some((all, _)) = under(me, || refused(remote)) else { return };
    assert_eq!(all.iter().filter(|c| c.outcome == Outcome::Refused).count(), 1);
}

#[test]
fn only_the_given_ids_pass() {
    let pid = std::process::id();
    let remote = bound_port();
    for (builder, passes) in [
        (Builder { only_pid: vec![pid], ..Default::default() }, true),
        (Builder { only_pid: vec![1], ..Default::default() }, false),
        (Builder { only_uid: vec![0], only_pid: vec![pid], ..Default::default() }, true),
        (Builder { only_uid: vec![4242], ..Default::default() }, false),
        (Builder { only_cgroup: vec![u64::MAX], ..Default::default() }, false),
    ] {
        let what = format!("{builder:?}");
        let Some((all, filtered)) = under(builder, || refused(remote)) else { return };
        assert_eq!(!all.is_empty(), passes, "{what}: {all:#?}");
        assert!(passes || filtered >= 1, "{what}");
    }
}

#[test]
fn only_the_given_networks_and_ports_pass() {
    let builder = Builder {
        only_cidr: vec!["127.0.0.32/28".parse().unwrap(), "::1/128".parse().unwrap()],
        ..ConnectionStream::builder()
    };
    let inside = free_port(v4([127, 0, 0, 33], 0));
    let outside = free_port(v4([127, 0, 0, 48], 0));
    let Some((all, filtered)) = under(builder, || {
        refused(inside);
        refused(outside);
    }) else {
        return;
    };
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(all[0].remote.as_ref().unwrap().ip, inside.ip());
    assert!(filtered >= 1);

    let builder = Builder { only_port: vec![inside.port()], ..ConnectionStream::builder() };
    let Some((all, _)) = under(builder, || {
        refused(inside);
        refused(outside);
    }) else {
        return;
    };
    assert!(all.iter().all(|c| c.remote.as_ref().unwrap().port == inside.port()));
    assert_eq!(all.len(), 1);
}

#[test]
fn loopback_and_unix_sockets_can_be_left_out() {
    let builder = Builder { no_loopback: true, no_unix: true, ..ConnectionStream::builder() };
    let Some((all, filtered)) = under(builder, || {
        refused(bound_port());
        std::os::unix::net::UnixStream::connect("/nowhere.sock").unwrap_err();
    }) else {
        return;
    };
    let ours = all.iter().filter(|c| c.process.as_ref().unwrap().pid == std::process::id());
    assert_eq!(ours.count(), 0);
    assert!(filtered >= 2 && all.iter().all(|c| c.protocol != Protocol::Unix));
}

#[test]
fn filters_hold_for_what_listens_and_for_what_existed_before() {
    let _alone = alone();
    let near = TcpListener::bind("127.0.0.1:0").unwrap();
    let near_at = near.local_addr().unwrap();
    let wide = TcpListener::bind("0.0.0.0:0").unwrap();
    let wide_at = wide.local_addr().unwrap();
    let client = TcpStream::connect(near_at).unwrap();
    let client_at = client.local_addr().unwrap();
    let _accepted = near.accept().unwrap();
    let pid = std::process::id();
    let mine = || Builder { only_pid: vec![pid], ..ConnectionStream::builder() };
    let networks = vec!["127.0.0.0/8".parse().unwrap()];
    let (out, inbound) = (Direction::Outbound, Direction::Inbound);
    let connection = [(out, client_at), (inbound, near_at)];
    let listeners = [(inbound, near_at), (inbound, wide_at)];
    // Which of those pass, and whether listeners that come later do: near ones, and wide ones.
    let cases: [(Builder, Places, [bool; 2]); 9] = [
        (mine(), [connection, listeners].concat(), [true, true]),
        (
            Builder { only_port: vec![near_at.port()], ..mine() },
            [&connection[..], &listeners[..1]].concat(),
            [false, false],
        ),
        (Builder { no_loopback: true, ..mine() }, listeners[1..].to_vec(), [false, true]),
        (Builder { only_cidr: networks, ..mine() }, connection.to_vec(), [false, false]),
        (Builder { no_inbound: true, ..mine() }, connection[..1].to_vec(), [false, false]),
        (Builder { no_preexisting: true, ..mine() }, Vec::new(), [true, true]),
        (Builder { only_pid: vec![1], ..mine() }, Vec::new(), [false, false]),
        (Builder { only_uid: vec![4242], ..mine() }, Vec::new(), [false, false]),
        (Builder { only_cgroup: vec![u64::MAX], ..mine() }, Vec::new(), [false, false]),
    ];
    for (builder, mut expected, later) in cases {
        let what = format!("{builder:?}");
        let Some(watch) = watch_with_existing(builder.clone()) else { return };
        if !observes(&watch, "preexisting") {
            expected.clear();
        }
        watch.handle.drain();
        let new = ["127.0.0.1:0", "0.0.0.0:0"].map(|at| TcpListener::bind(at).unwrap());
        let places = new.each_ref().map(|listener| listener.local_addr().unwrap());
        let handle = watch.handle.clone();
        let all = watch.stop();
        let place = |c: &Connection| c.local.map(|local| SocketAddr::new(local.ip, local.port));
        let mut found: Vec<_> = all
            .iter()
            .filter(|c| c.preexisting && c.process.as_ref().unwrap().pid == pid)
            .map(|c| (c.direction, place(c).unwrap()))
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{what}: {all:#?}");
        let listens = |at| all.iter().any(|c| place(c) == Some(at) && c.remote.is_none());
        assert_eq!(places.map(listens), later, "{what}: {all:#?}");
        let books = handle.accounting();
        assert_eq!((books.attempts, books.pending), (books.filtered, 0), "{what}: {books:?}");
    }
}
