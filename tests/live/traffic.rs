//! What open connections have carried so far.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use netspy::event::{Direction, State, Traffic};
use netspy::stream::Builder;
use netspy::{Connection, ConnectionStream};

use crate::harness::{Watch, alone, goes_to, local_of, observes, watch, watch_with_existing};

/// The figures of a connection, once they are such; the answer may be a moment old.
fn wait_for(watch: &Watch, c: &Connection, is_so: impl Fn(&Traffic) -> bool) -> Traffic {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let figures = watch.handle.traffic().get(&c.id).copied();
        if let Some(figures) = figures.filter(|figures| is_so(figures)) {
            return figures;
        }
        assert!(Instant::now() < patience, "{figures:?} of {c:#?}");
        std::thread::yield_now();
    }
}

/// One that is open, of both ends.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let accepted = listener.accept().unwrap().0;
    (client, accepted)
}

fn exchange(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) {
    let data = vec![1; bytes];
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&data).unwrap());
        to.read_exact(&mut vec![0; bytes]).unwrap();
    });
}

/// Whether figures are told; if not, there must be none.
fn tells(watch: &Watch) -> bool {
    let tells = observes(watch, "traffic");
    if !tells {
        assert!(watch.handle.traffic().is_empty());
        println!("skipped: the report says that what open connections carry is not told");
    }
    tells
}

fn check(watch: &Watch, client: &mut TcpStream, accepted: &mut TcpStream, carried: (u64, u64)) {
    let (from, to) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    let outbound = watch.wait("the client's end", |c| {
        goes_to(c, to) && local_of(c) == from && c.state == State::Open
    });
    exchange(client, accepted, 1000);
    exchange(accepted, client, 70_000);
    let (sent, received) = (carried.0 + 1000, carried.1 + 70_000);
    let is_all = |t: &Traffic| (t.bytes_sent, t.bytes_received) == (Some(sent), Some(received));
    let figures = wait_for(watch, &outbound, is_all);
    assert!(figures.srtt_us.is_some() && figures.retransmits == Some(0), "{figures:?}");
    assert_eq!(figures.datagrams_sent, None);
    let of = |c: &Connection| c.direction == Direction::Inbound && local_of(c) == to;
    if let Some(inbound) = watch.records(of).first() {
        let is_all = |t: &Traffic| (t.bytes_received, t.bytes_sent) == (Some(sent), Some(received));
        wait_for(watch, inbound, is_all);
    }
}

#[test]
fn an_open_connection_tells_what_it_has_carried_until_now() {
    let own = Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() };
    let Some(watch) = watch(own) else { return };
    if !tells(&watch) {
        return;
    }
    let (mut client, mut accepted) = pair();
    check(&watch, &mut client, &mut accepted, (0, 0));
    check(&watch, &mut client, &mut accepted, (1000, 70_000));
    let to = client.peer_addr().unwrap();
    drop((client, accepted));
    let closed = watch.wait("its end", |c| goes_to(c, to) && c.state == State::Closed);
    let patience = Instant::now() + Duration::from_secs(20);
    while watch.handle.traffic().contains_key(&closed.id) {
        assert!(Instant::now() < patience, "figures of what has closed");
        std::thread::yield_now();
    }
}

#[test]
fn a_connection_from_before_tells_all_that_it_ever_carried() {
    let _alone = alone();
    let (mut client, mut accepted) = pair();
    exchange(&mut client, &mut accepted, 5);
    let own = Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() };
    let Some(watch) = watch_with_existing(own) else { return };
    if !tells(&watch) || !observes(&watch, "preexisting") {
        return;
    }
    check(&watch, &mut client, &mut accepted, (5, 0));
}

#[test]
fn a_datagram_socket_tells_how_many_it_has_sent() {
    let own = Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() };
    let Some(watch) = watch(own) else { return };
    if !tells(&watch) {
        return;
    }
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to: SocketAddr = receiver.local_addr().unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.connect(to).unwrap();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..3 {
        peer.send(b"12345").unwrap();
        free.send_to(b"12", to).unwrap();
    }
    let cases = [
        ("datagram_sent", peer.local_addr().unwrap(), 15),
        ("datagrams_without_connect", free.local_addr().unwrap(), 6),
    ];
    for (feature, from, bytes) in cases {
        if !observes(&watch, feature) {
            continue;
        }
        let sent = watch.wait(feature, |c| goes_to(c, to) && local_of(c) == from);
        let figures = wait_for(&watch, &sent, |t| t.datagrams_sent == Some(3));
        assert!(figures.bytes_sent.is_none_or(|n| n == bytes), "{figures:?}");
        assert_eq!((figures.bytes_received, figures.srtt_us), (None, None));
    }
}
