use super::*;
use crate::event::{DropId, Family, Outcome};
use crate::test_records::{info, micros, refused, udp};

/// A TCP attempt of the tests, from 127.0.0.1:40000 to 192.0.2.1:443.
fn attempt(n: u64) -> Connection {
    let remote = refused(1, &info(7, "curl")).remote;
    Connection { remote, ..refused(n, &info(7, "curl")) }
}

fn start(n: u64) -> u64 {
    attempt(n).id.start_ns
}

/// Drops of what the attempt sends.
fn drops(c: &Connection, reason: &str, count: u64) -> DropRecord {
    let remote = c.remote.as_ref().unwrap();
    DropRecord {
        id: DropId { first_ns: c.id.start_ns, number: 1, boot: 1 },
        host: "web-1".into(),
        time: micros(0),
        last: micros(1),
        reason: reason.into(),
        reason_code: 3,
        protocol: Some(c.protocol),
        ip_protocol: Some(if c.protocol == Protocol::Tcp { 6 } else { 17 }),
        family: Some(Family::Ipv4),
        source: c.local,
        destination: Some(Endpoint { ip: remote.ip, port: remote.port }),
        count,
        bytes: 60 * count,
        netns: Some(4_026_531_840),
        no_room: false,
        connection: None,
        process: None,
    }
}

/// At one moment.
fn at(ns: u64) -> Span {
    Span { first_ns: ns, last_ns: ns }
}

fn reversed(drop: DropRecord) -> DropRecord {
    DropRecord { source: drop.destination, destination: drop.source, ..drop }
}

fn dropped(reason: &str, count: u64) -> Option<Dropped> {
    Some(Dropped { reason: reason.to_owned(), count })
}

#[test]
fn a_drop_after_the_record_makes_an_update_of_it_in_either_direction() {
    for turned in [false, true] {
        let mut join = Join::default();
        let mut c = attempt(1);
        join.record(&mut c, |_, _| None);
        assert_eq!(c.drop, None);
        let mut drop = drops(&c, "NETFILTER_DROP", 3);
        if turned {
            drop = reversed(drop);
        }
        assert_eq!(join.dropped(&drop, at(start(1) + 5), None), Some(c.id));
        let expected = Connection { drop: dropped("NETFILTER_DROP", 3), ..c.clone() };
        assert_eq!(join.updates(), [expected]);
        assert_eq!(join.updates(), [], "an update comes once");
        // Later versions keep it.
        let mut later = Connection { outcome: Outcome::TimedOut, ..attempt(1) };
        join.record(&mut later, |_, _| None);
        assert_eq!(later.drop, dropped("NETFILTER_DROP", 3));
        join.name(&mut drop, at(start(1) + 5));
        assert_eq!((drop.connection, drop.process), (Some(c.id), c.process));
    }
}

#[test]
fn a_drop_before_the_record_explains_it_when_it_comes() {
    let mut join = Join::default();
    let mut c = attempt(1);
    let drop = drops(&c, "NO_SOCKET", 1);
    assert_eq!(join.dropped(&drop, at(start(1) + 5), None), None);
    assert_eq!(join.updates(), []);
    join.record(&mut c, |_, _| None);
    assert_eq!(c.drop, dropped("NO_SOCKET", 1));
    assert_eq!(join.updates(), []);
    // And counts on.
    join.dropped(&drop, at(start(1) + 9), None);
    assert_eq!(join.updates()[0].drop, dropped("NO_SOCKET", 2));
}

#[test]
fn the_most_frequent_reason_wins_and_of_equals_the_first() {
    let mut join = Join::default();
    let mut c = attempt(1);
    join.record(&mut c, |_, _| None);
    for (reason, count, expected, n) in
        [("A", 1, "A", 1), ("B", 1, "A", 1), ("B", 1, "B", 2), ("A", 2, "A", 3)]
    {
        join.dropped(&drops(&c, reason, count), at(start(1)), None);
        let _ = join.updates();
        let mut now = attempt(1);
        join.record(&mut now, |_, _| None);
        assert_eq!(now.drop, dropped(expected, n));
    }
}

#[test]
fn drops_of_an_earlier_attempt_on_the_same_addresses_are_not_those_of_the_next() {
    let mut join = Join::default();
    let (mut first, mut second) = (attempt(1), attempt(5_000));
    let drop = drops(&first, "NO_SOCKET", 1);
    join.dropped(&drop, at(start(1) + 1), None);
    join.record(&mut first, |_, _| None);
    join.record(&mut second, |_, _| None);
    assert_eq!((first.drop, second.drop), (dropped("NO_SOCKET", 1), None));
    // Nor are late ones of the first those of the second.
    assert_eq!(join.dropped(&drop, at(start(2)), None), None);
    assert_eq!(join.updates(), []);
}

#[test]
fn what_comes_after_the_end_of_a_failed_attempt_is_of_the_next_one() {
    let mut join = Join::default();
    // It was refused after 101 us.
    let mut first = attempt(1);
    join.record(&mut first, |_, _| None);
    let mut second = attempt(5_000);
    let drop = drops(&second, "NO_SOCKET", 1);
    assert_eq!(join.dropped(&drop, at(start(5_000) + 1), None), None);
    assert_eq!(join.updates(), []);
    join.record(&mut second, |_, _| None);
    assert_eq!(second.drop, dropped("NO_SOCKET", 1));
    // Of drops that nobody claims, old ones are not added to the next.
    let mut third = attempt(4_000_000);
    join.dropped(&drops(&third, "NO_SOCKET", 7), at(start(1_000_000)), None);
    join.dropped(&drops(&third, "NO_SOCKET", 1), at(start(4_000_000) + 1), None);
    join.record(&mut third, |_, _| None);
    assert_eq!(third.drop, dropped("NO_SOCKET", 1));
}

#[test]
fn what_was_counted_together_of_two_attempts_is_left_to_neither() {
    let mut join = Join::default();
    let (mut first, mut second) = (attempt(1), attempt(100_000));
    join.record(&mut first, |_, _| dropped("NO_SOCKET", 1));
    let both = Span { first_ns: start(1) + 5, last_ns: start(100_000) + 5 };
    assert_eq!(join.dropped(&drops(&first, "NO_SOCKET", 2), both, None), None);
    assert_eq!(join.updates(), []);
    join.record(&mut second, |_, _| None);
    assert_eq!((first.drop, second.drop), (dropped("NO_SOCKET", 1), None));
}

#[test]
fn retransmissions_of_an_attempt_that_shows_late_are_added_up() {
    let mut join = Join::default();
    let mut c = attempt(1);
    (c.latency_us, c.outcome) = (Some(127_000_000), Outcome::TimedOut);
    for second in [0, 1, 3, 7, 15, 31, 63] {
        let when = at(start(1) + 10 + second * 1_000_000_000);
        assert_eq!(join.dropped(&drops(&c, "NETFILTER_DROP", 1), when, None), None);
    }
    join.record(&mut c, |_, _| None);
    assert_eq!(c.drop, dropped("NETFILTER_DROP", 7));
}

#[test]
fn another_namespace_protocol_or_port_is_another_flow() {
    let mut c = attempt(1);
    let mut join = Join::default();
    join.record(&mut c, |_, _| None);
    let same = drops(&c, "NO_SOCKET", 1);
    let port = Some(Endpoint { port: 1, ..c.local.unwrap() });
    for other in [
        DropRecord { netns: Some(1), ..same.clone() },
        DropRecord { netns: None, ..same.clone() },
        DropRecord { ip_protocol: Some(17), ..same.clone() },
        DropRecord { source: port, ..same.clone() },
        DropRecord { source: None, destination: None, ..same.clone() },
    ] {
        assert_eq!(join.dropped(&other, at(start(1)), None), None, "{other:?}");
    }
    assert_eq!(join.updates(), []);
    assert_eq!(join.dropped(&same, at(start(1)), None), Some(c.id));
}

#[test]
fn the_socket_tells_the_attempt_where_the_addresses_do_not() {
    let mut join = Join::default();
    let mut c = attempt(1);
    // The destination was translated on its way out.
    let elsewhere = Some(Endpoint { ip: [10, 9, 9, 9].into(), port: 8443 });
    let drop = DropRecord { destination: elsewhere, ..drops(&c, "NETFILTER_DROP", 1) };
    assert_eq!(join.dropped(&drop, at(start(1)), Some(c.id)), Some(c.id));
    join.record(&mut c, |_, _| None);
    assert_eq!(c.drop, dropped("NETFILTER_DROP", 1));
    // Nor may the addresses of what is in progress be known.
    let mut join = Join::default();
    let mut c = Connection { local: None, state: State::Connecting, ..attempt(2) };
    join.record(&mut c, |_, _| None);
    let mut drop = drops(&attempt(2), "NETFILTER_DROP", 1);
    drop.connection = join.dropped(&drop, at(start(2)), Some(c.id));
    assert_eq!(join.updates()[0].drop, dropped("NETFILTER_DROP", 1));
    join.name(&mut drop, at(start(2)));
    assert_eq!((drop.connection, drop.process), (Some(c.id), c.process));
}

#[test]
fn an_unconnected_datagram_socket_is_known_by_its_port() {
    let mut join = Join::default();
    let mut c = udp(1, &info(7, "dig"));
    c.local = Some(Endpoint { ip: Ipv4Addr::UNSPECIFIED.into(), port: 40_000 });
    join.record(&mut c, |_, _| None);
    let sent = Connection {
        local: Some(Endpoint { ip: [10, 0, 0, 5].into(), port: 40_000 }),
        ..c.clone()
    };
    let drop = drops(&sent, "NO_SOCKET", 1);
    assert_eq!(join.dropped(&drop, at(start(1)), None), Some(c.id));
    assert_eq!(join.dropped(&reversed(drop), at(start(1)), None), Some(c.id));
    assert_eq!(join.updates()[0].drop, dropped("NO_SOCKET", 2));
}

#[test]
fn what_a_peek_tells_is_not_counted_again_when_it_is_taken() {
    let mut join = Join::default();
    let mut c = attempt(1);
    join.record(&mut c, |_, flow| {
        assert_eq!((Some(flow.source), flow.protocol), (attempt(1).local, 6));
        dropped("NO_SOCKET", 1)
    });
    assert_eq!(c.drop, dropped("NO_SOCKET", 1));
    let drop = drops(&c, "NO_SOCKET", 1);
    assert_eq!(join.dropped(&drop, at(start(1) + 1), None), Some(c.id));
    assert_eq!(join.updates(), [], "nothing new");
    join.dropped(&drop, at(start(1) + 2), None);
    assert_eq!(join.updates()[0].drop, dropped("NO_SOCKET", 2));
    // Nor is it asked where something is known.
    join.record(&mut c, |_, _| panic!("known already"));
}

#[test]
fn what_goes_on_keeps_its_drops_through_a_flood_of_failures() {
    let mut join = Join::default();
    let open = || Connection { state: State::Open, latency_us: None, ..attempt(1) };
    let mut c = open();
    join.record(&mut c, |_, _| None);
    join.dropped(&drops(&c, "TCP_ABORT_ON_DATA", 2), at(start(1) + 5), None);
    for n in 10..3 * GENERATION as u64 {
        let mut other = attempt(n);
        other.local = Some(Endpoint { ip: [10, 0, (n >> 8) as u8, n as u8].into(), port: 1 });
        join.dropped(&drops(&other, "NO_SOCKET", 1), at(start(n)), None);
        join.record(&mut other, |_, _| None);
    }
    // The last version that was handed on can be told of more.
    join.dropped(&drops(&c, "TCP_ABORT_ON_DATA", 1), at(start(1) + 9), None);
    assert_eq!(join.updates()[0].drop, dropped("TCP_ABORT_ON_DATA", 3));
    for state in [State::Open, State::Closed, State::Closed] {
        let mut version = Connection { state, ..open() };
        join.record(&mut version, |_, _| None);
        assert_eq!(version.drop, dropped("TCP_ABORT_ON_DATA", 3));
    }
    assert!(join.tallies.open.get(&c.id).is_none(), "it has ended");
}

#[test]
fn a_record_that_was_lost_does_not_come_back_as_an_update() {
    let mut join = Join::default();
    let (mut lost, mut kept) = (attempt(1), attempt(2));
    kept.local = Some(Endpoint { port: 41_000, ..kept.local.unwrap() });
    join.record(&mut lost, |_, _| None);
    join.record(&mut kept, |_, _| None);
    join.forget([&lost]);
    for c in [&lost, &kept] {
        join.dropped(&drops(c, "NO_SOCKET", 1), at(c.id.start_ns + 5), None);
    }
    let updates: Vec<_> = join.updates().into_iter().map(|c| c.id).collect();
    assert_eq!(updates, [kept.id]);
}

fn is_bounded<K, V>(table: &Generations<K, V>) -> bool {
    table.young.len() + table.old.len() <= 2 * GENERATION
}

#[test]
fn the_tables_are_bounded() {
    let mut join = Join::default();
    for n in 0..6 * GENERATION as u64 {
        let mut c = attempt(n);
        c.state = if n % 2 == 0 { State::Open } else { State::Closed };
        c.local = Some(Endpoint { ip: [10, 0, (n >> 8) as u8, n as u8].into(), port: n as u16 });
        join.dropped(&drops(&c, "NO_SOCKET", 1), at(start(n)), None);
        join.record(&mut c, |_, _| None);
        assert!(c.drop.is_some());
    }
    assert!(is_bounded(&join.attempts.ended) && is_bounded(&join.tallies.ended));
    assert!(is_bounded(&join.attempts.open) && is_bounded(&join.tallies.open));
    assert!(is_bounded(&join.flows.ended) && is_bounded(&join.flows.open));
    assert!(is_bounded(&join.unclaimed));
    assert!(join.hit.is_empty());
}
