//! What remotes are called: by the answers that a DNS server of the test's own gave.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use netspy::event::{Connection, NameSource, Remote};
use rustix::net::{AddressFamily, SocketType};

use crate::dns_server::{Ask, PORT, Segments, Server, question, reply};
use crate::harness::{Watch, connect, ip, observes, own_network, shared, v4};

/// A capture that sees names, and a network of the test's own in which 198.51.100.0/24 and
/// 10.9.0.0/24 are of this host and refuse.
pub fn network() -> Option<Watch> {
    let watch = shared()?;
    if !observes(&watch, "dns_names") {
        println!("skipped: nothing here sees DNS answers");
        return None;
    }
    own_network();
    ip("address add 198.51.100.0/24 dev lo");
    ip("address add 10.9.0.0/24 dev lo");
    Some(watch)
}

pub fn refuse(remote: SocketAddr) {
    let _ = connect(AddressFamily::INET, SocketType::STREAM, remote);
}

/// Has another process connect.
fn other(remote: SocketAddr) {
    let status = crate::roles::play("connect", remote).status().unwrap();
    assert_eq!(status.code(), Some(libc::ECONNREFUSED));
}

pub fn called(watch: &Watch, remote: SocketAddr) -> (Option<String>, Option<NameSource>) {
    let record: Connection = watch.outcome(remote);
    let Some(Remote { name, name_source, .. }) = record.remote else { unreachable!() };
    (name.map(|name| name.to_string()), name_source)
}

pub fn is(name: &str, source: NameSource) -> (Option<String>, Option<NameSource>) {
    (Some(name.to_owned()), Some(source))
}

pub const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn a_remote_is_called_what_the_process_asked_for() {
    let Some(watch) = network() else { return };
    for (number, server, how) in [
        (1, LOCALHOST, Ask::Connected),
        (2, LOCALHOST, Ask::Unconnected),
        (3, std::net::Ipv6Addr::LOCALHOST.into(), Ask::Connected),
        (4, std::net::Ipv6Addr::LOCALHOST.into(), Ask::Unconnected),
    ] {
        let name = format!("host-{number}.example");
        let running = Server::start(server);
        running.set(&name, &[[198, 51, 100, number], [198, 51, 100, number + 100]]);
        running.ask(&name, how);
        for last in [number, number + 100] {
            let remote = v4([198, 51, 100, last], 443);
            refuse(remote);
            assert_eq!(called(&watch, remote), is(&name, NameSource::Dns), "{server} {how:?}");
        }
    }
    let unnamed = v4([198, 51, 100, 99], 443);
    refuse(unnamed);
    assert_eq!(called(&watch, unnamed), (None, None));
}

#[test]
fn of_two_names_for_one_address_the_last_counts_and_records_keep_theirs() {
    let Some(watch) = network() else { return };
    let server = Server::start(LOCALHOST);
    for (port, name) in [(1001, "first.example"), (1002, "second.example"), (1003, "first.example")]
    {
        server.set(name, &[[198, 51, 100, 7]]);
        server.ask(name, Ask::Connected);
        refuse(v4([198, 51, 100, 7], port));
    }
    for (port, name) in [(1001, "first.example"), (1002, "second.example"), (1003, "first.example")]
    {
        let remote = v4([198, 51, 100, 7], port);
        assert_eq!(called(&watch, remote), is(name, NameSource::Dns), "{port}");
    }
}

#[test]
fn a_name_that_moves_names_what_it_led_to_at_the_time() {
    let Some(watch) = network() else { return };
    let server = Server::start(LOCALHOST);
    let moves = [(80, 1101), (81, 1102), (80, 1103)];
    for (last, port) in moves {
        server.set("moving.example", &[[198, 51, 100, last]]);
        server.ask("moving.example", Ask::Connected);
        refuse(v4([198, 51, 100, last], port));
    }
    for (last, port) in moves {
        let remote = v4([198, 51, 100, last], port);
        assert_eq!(called(&watch, remote), is("moving.example", NameSource::Dns), "{port}");
        let id = watch.outcome(remote).id;
        let asked = watch.dns("what led there", |r| r.connections.first() == Some(&id));
        assert_eq!(asked.addresses, [remote.ip()], "{port}");
    }
}

#[test]
fn what_another_process_asked_for_is_told_apart() {
    let Some(watch) = network() else { return };
    let server = Server::start(LOCALHOST);
    server.set("shared.example", &[[198, 51, 100, 208], [10, 9, 0, 8]]);
    server.ask("shared.example", Ask::Connected);
    let near = v4([198, 51, 100, 208], 2001);
    other(near);
    assert_eq!(called(&watch, near), is("shared.example", NameSource::DnsNetns));
    // From another namespace, where private addresses are those of others.
    let (far, private) = (v4([198, 51, 100, 208], 2002), v4([10, 9, 0, 8], 2003));
    std::thread::scope(|scope| {
        let elsewhere = scope.spawn(|| {
            own_network();
            ip("address add 198.51.100.0/24 dev lo");
            ip("address add 10.9.0.0/24 dev lo");
            other(far);
            other(private);
        });
        elsewhere.join().unwrap();
    });
    assert_eq!(called(&watch, far), is("shared.example", NameSource::DnsHost));
    assert_eq!(called(&watch, private), (None, None));
}

/// The kernel gives the number of a namespace that is gone to the next.
#[test]
fn a_namespace_knows_nothing_of_those_that_had_its_number_before() {
    let Some(watch) = network() else { return };
    const ROUNDS: u16 = 500;
    let mut numbers = HashSet::new();
    let mut again = 0;
    for round in 0..ROUNDS {
        let (global, private) =
            (v4([198, 51, 100, 209], 4000 + round), v4([10, 9, 0, 9], 4000 + round));
        let name = format!("round-{round}.example");
        let is_again = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                own_network();
                let is_again = !numbers.insert(crate::drops::netns());
                ip("address add 198.51.100.0/24 dev lo");
                ip("address add 10.9.0.0/24 dev lo");
                if is_again {
                    other(global);
                    other(private);
                }
                let server = Server::start(LOCALHOST);
                server.set(&name, &[[198, 51, 100, 209], [10, 9, 0, 9]]);
                server.ask(&name, Ask::Connected);
                is_again
            });
            inside.join().unwrap()
        });
        if is_again {
            let last = format!("round-{}.example", round - 1);
            assert_eq!(called(&watch, global), is(&last, NameSource::DnsHost));
            assert_eq!(called(&watch, private), (None, None));
            again += 1;
        }
        if again == 3 {
            return;
        }
    }
    println!("skipped: of {ROUNDS} namespaces {again} had the number of another");
}

#[test]
fn what_nobody_asked_for_names_nothing() {
    let Some(watch) = network() else { return };
    // A service that takes datagrams from anybody, and one who sends it an answer unasked.
    let service = UdpSocket::bind("127.0.0.1:0").unwrap();
    let forger = UdpSocket::bind(("127.0.0.2", PORT)).unwrap();
    let forged = reply(&question("forged.example"), &[Ipv4Addr::new(198, 51, 100, 66)], 0);
    forger.send_to(&forged, service.local_addr().unwrap()).unwrap();
    assert!(service.recv(&mut [0; 512]).unwrap() > 12);
    let remote = v4([198, 51, 100, 66], 443);
    refuse(remote);
    assert_eq!(called(&watch, remote), (None, None));
}

#[test]
fn an_answer_that_comes_before_the_send_has_returned_counts() {
    let Some(watch) = network() else { return };
    let server = Server::busy(LOCALHOST);
    const ROUNDS: u16 = 300;
    for round in 0..ROUNDS {
        let name = format!("n{round}.example");
        server.set(&name, &[[198, 51, 100, 20]]);
        let how = if round % 2 == 0 { Ask::Unconnected } else { Ask::Connected };
        server.ask(&name, how);
        refuse(v4([198, 51, 100, 20], 3000 + round));
    }
    for round in 0..ROUNDS {
        let remote = v4([198, 51, 100, 20], 3000 + round);
        let name = format!("n{round}.example");
        assert_eq!(called(&watch, remote), is(&name, NameSource::Dns), "{round}");
    }
}

#[test]
fn answers_over_tcp_count_however_they_are_cut() {
    let Some(watch) = network() else { return };
    let mut number = 0;
    for address in [LOCALHOST, std::net::Ipv6Addr::LOCALHOST.into()] {
        let server = Server::start(address);
        for segments in
            [Segments::Whole, Segments::LengthFirst, Segments::Halves, Segments::AllAtOnce]
        {
            // Several questions on one connection, sent before the first answer.
            let names = [number + 1, number + 2].map(|n| (n, format!("tcp-{n}.example")));
            number += 2;
            for (n, name) in &names {
                server.set(name, &[[198, 51, 100, *n]]);
            }
            server.ask_over_tcp(&names.each_ref().map(|(_, name)| name.as_str()), segments);
            for (n, name) in &names {
                let remote = v4([198, 51, 100, *n], 443);
                refuse(remote);
                let expected = is(name, NameSource::Dns);
                assert_eq!(called(&watch, remote), expected, "{address} {segments:?}");
            }
        }
    }
}
