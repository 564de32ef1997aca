//! Where address translation sends connections: rules of nftables in networks of the tests' own.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::channel;

use netspy::ConnectionStream;
use netspy::event::{Connection, Endpoint, Outcome};
use netspy::stream::Builder;
use rustix::net::{AddressFamily, SocketType};

use crate::harness::{Watch, connect, goes_to, ip, own_network, v4, watch};

/// Applies rules in the network namespace of this thread; `false`, with the reason printed, where
/// they cannot be had.
fn rules(rules: &[&str]) -> bool {
    let script = rules.join("\n");
    let why = match Command::new("nft").arg(&script).output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    println!("skipped: no rule of nftables can be set: {why}");
    false
}

/// A capture that asks; `None`, with the reason printed, where it cannot.
fn watch_nat(builder: Builder) -> Option<Watch> {
    let watch = watch(builder)?;
    let feature = watch.handle.capabilities().features.remove("nat").unwrap();
    if !feature.ok {
        println!("skipped: {}", feature.note.unwrap_or_default());
        return None;
    }
    Some(watch)
}

fn end(at: SocketAddr) -> Option<Endpoint> {
    Some(Endpoint { ip: at.ip(), port: at.port() })
}

fn sent_to(watch: &Watch, remote: SocketAddr, actual: SocketAddr) -> Connection {
    watch.wait(&format!("{remote} that is {actual}"), |c| {
        goes_to(c, remote) && c.remote_actual == end(actual)
    })
}

/// A network of the test's own with addresses of its own on loopback, where output is translated.
fn translating(more: &[&str]) -> bool {
    own_network();
    ip("address add 198.51.100.1/24 dev lo");
    ip("-6 address add 2001:db8::1/64 dev lo nodad");
    let output = ["add table inet t", "add chain inet t o { type nat hook output priority -100; }"];
    rules(&[&output[..], more].concat())
}

#[test]
fn a_record_says_where_translation_within_its_network_sends_it() {
    let Some(watch) = watch_nat(Builder { nat_namespaces: true, ..ConnectionStream::builder() })
    else {
        return;
    };
    if !translating(&[
        "add rule inet t o ip daddr 198.51.100.7 tcp dport 80 dnat ip to 198.51.100.1:8081",
        "add rule inet t o ip6 daddr 2001:db8::7 tcp dport 80 dnat ip6 to [2001:db8::1]:8081",
        "add rule inet t o ip daddr 198.51.100.7 udp dport 53 dnat ip to 198.51.100.1:5353",
        "add rule inet t o ip daddr 198.51.100.7 tcp dport 81 dnat ip to 198.51.100.1:9",
    ]) {
        return;
    }
    let v6 = |last: u16, port| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], port));
    let ports =
        [(v4([198, 51, 100, 1], 8081), v4([198, 51, 100, 7], 80)), (v6(1, 8081), v6(7, 80))];
    for (actual, remote) in ports {
        let listener = TcpListener::bind(actual).unwrap();
        let client = TcpStream::connect(remote).unwrap();
        let accepted = listener.accept().unwrap();
        let c = sent_to(&watch, remote, actual);
        assert_eq!((c.outcome, c.close), (Outcome::Established, None));
        // Who accepts it knows nothing of that.
        let taken = watch.wait("what was accepted", |c| {
            c.local.is_some_and(|local| Some(local) == end(actual))
                && c.outcome == Outcome::Established
        });
        assert_eq!(taken.remote_actual, None);
        drop((client, accepted));
        let closed = watch.wait("its close", |c| goes_to(c, remote) && c.close.is_some());
        assert_eq!((closed.id, closed.remote_actual), (c.id, end(actual)));
    }

    // The kernel forgets at once what answers a SYN with a reset (nf_conntrack_proto_tcp.c).
    let remote = v4([198, 51, 100, 7], 81);
    connect(AddressFamily::INET, SocketType::STREAM, remote).1.unwrap_err();
    let refused = watch.outcome(remote);
    assert_eq!((refused.outcome, refused.remote_actual), (Outcome::Refused, None));

    let (remote, actual) = (v4([198, 51, 100, 7], 53), v4([198, 51, 100, 1], 5353));
    let (receiver, sender) = (UdpSocket::bind(actual), UdpSocket::bind("198.51.100.1:0").unwrap());
    sender.connect(remote).unwrap();
    sender.send(&[1]).unwrap();
    sent_to(&watch, remote, actual);
    drop(receiver);

    // What is tracked, and goes where it seems to.
    let same = v4([198, 51, 100, 1], 82);
    connect(AddressFamily::INET, SocketType::STREAM, same).1.unwrap_err();
    assert_eq!(watch.outcome(same).remote_actual, None);
    let counters = watch.handle.counters().nat;
    assert!(counters.translated >= 3, "{counters:?}");
    assert_eq!((counters.failed, counters.skipped), (0, 0), "{counters:?}");
    assert_eq!(watch.handle.counters().updates_lost, 0);
}

/// As pods reach the services of Kubernetes: what another network sends is translated in this one.
#[test]
fn what_a_container_sends_is_translated_on_the_host() {
    // That of the capture: its threads are in the network of the thread that starts it.
    own_network();
    ip("link add nsp0 type veth peer name nsp1");
    ip("address add 10.42.0.1/24 dev nsp0");
    ip("link set nsp0 up");
    if !rules(&[
        "add table ip t",
        "add chain ip t p { type nat hook prerouting priority -100; }",
        "add rule ip t p ip daddr 198.51.100.7 tcp dport 443 dnat to 10.42.0.1:8443",
    ]) {
        return;
    }
    let Some(watch) = watch_nat(ConnectionStream::builder()) else { return };
    let listener = TcpListener::bind("10.42.0.1:8443").unwrap();
    let remote = v4([198, 51, 100, 7], 443);
    let ((arrived, arrives), (moved, moves)) = (channel(), channel());
    std::thread::scope(|scope| {
        let container = scope.spawn(move || {
            own_network();
            arrived.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            moves.recv().unwrap();
            ip("address add 10.42.0.2/24 dev nsp1");
            ip("link set nsp1 up");
            ip("route add default via 10.42.0.1");
            TcpStream::connect(remote).unwrap()
        });
        let thread: i32 = arrives.recv().unwrap();
        ip(&format!("link set nsp1 netns {thread}"));
        moved.send(()).unwrap();
        let _taken = listener.accept().unwrap();
        let _client = container.join().unwrap();
        let c = sent_to(&watch, remote, v4([10, 42, 0, 1], 8443));
        assert_eq!(c.outcome, Outcome::Established);
    });
    // Its own network is left alone.
    let feature = watch.handle.capabilities().features.remove("nat").unwrap();
    assert!(feature.note.unwrap().contains("nat_namespaces"));
}

#[test]
fn nobody_asks_where_that_is_not_wanted() {
    let Some(watch) = watch(Builder { no_nat: true, ..ConnectionStream::builder() }) else {
        return;
    };
    let feature = watch.handle.capabilities().features.remove("nat").unwrap();
    assert_eq!((feature.ok, feature.hook), (false, None));
    assert!(feature.note.unwrap().contains("no_nat"));
    if !translating(&[
        "add rule inet t o ip daddr 198.51.100.7 tcp dport 80 dnat ip to 198.51.100.1:9",
    ]) {
        return;
    }
    let remote = v4([198, 51, 100, 7], 80);
    connect(AddressFamily::INET, SocketType::STREAM, remote).1.unwrap_err();
    assert_eq!(watch.outcome(remote).remote_actual, None);
    assert_eq!(watch.handle.counters().nat.asked, 0);
}
