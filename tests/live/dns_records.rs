//! Questions for names as records of their own.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use netspy::ConnectionStream;
use netspy::event::{DnsOutcome, Endpoint, Protocol};
use netspy::stream::Builder;

use crate::dns::{LOCALHOST, network, refuse};
use crate::dns_server::{Ask, PORT, Segments, Server, question};
use crate::harness::{ip, observes, own_network, v4, watch};

#[test]
fn what_came_of_a_question_is_told() {
    let Some(watch) = network() else { return };
    let server = Server::start(LOCALHOST);
    server.set("there.example", &[[198, 51, 100, 1], [198, 51, 100, 2]]);
    for how in [Ask::Connected, Ask::Unconnected] {
        for (name, outcome, code) in [
            ("there.example", DnsOutcome::Answered, 0),
            ("empty.example", DnsOutcome::NoData, 0),
            ("missing.example", DnsOutcome::Nxdomain, 3),
            ("broken.example", DnsOutcome::Servfail, 2),
            ("forbidden.example", DnsOutcome::Refused, 5),
        ] {
            let socket = server.send(name, how);
            let len = socket.recv(&mut [0; 512]).unwrap();
            assert!(len > 12);
            let port = socket.local_addr().unwrap().port();
            let record = watch.dns(name, |r| &*r.name == name && r.local.port == port);
            assert_eq!((record.outcome, record.rcode), (outcome, Some(code)), "{how:?}");
            assert_eq!((&*record.record_type, record.sent), ("A", 1));
            assert_eq!(record.protocol, Protocol::Udp);
            assert_eq!(record.server, Endpoint { ip: LOCALHOST, port: PORT });
            let process = record.process.unwrap();
            assert_eq!(process.pid, std::process::id());
            assert!(process.exe.is_some());
            assert_eq!(record.addresses.len(), if outcome == DnsOutcome::Answered { 2 } else { 0 });
            assert!(record.latency_us.is_some() && record.answered >= Some(record.time));
            assert_eq!(record.connection.is_some(), matches!(how, Ask::Connected));
        }
    }
    server.ask_over_tcp(&["there.example", "missing.example"], Segments::AllAtOnce);
    for (name, outcome) in
        [("there.example", DnsOutcome::Answered), ("missing.example", DnsOutcome::Nxdomain)]
    {
        let over_tcp = watch.dns(name, |r| &*r.name == name && r.protocol == Protocol::Tcp);
        assert_eq!(over_tcp.outcome, outcome);
        let id = over_tcp.connection.unwrap();
        let record = watch.wait("the connection that carried it", |c| c.id == id);
        assert_eq!(record.remote.unwrap().port, PORT);
    }
}

#[test]
fn a_question_that_nobody_answers_times_out() {
    let Some(watch) = network() else { return };
    let server = Server::start(LOCALHOST);
    let books = || watch.handle.counters().dns;
    let before = books();
    let _socket = server.send("silent.example", Ask::Connected);
    let record = watch.dns("silence", |r| &*r.name == "silent.example");
    assert_eq!((record.outcome, record.sent), (DnsOutcome::TimedOut, 1));
    assert_eq!((record.rcode, record.answered, record.latency_us), (None, None, None));
    let after = books();
    assert!(after.questions > before.questions && after.listed > before.listed);
    assert_eq!((after.no_room, after.lost), (before.no_room, before.lost));
}

#[test]
fn a_flood_of_questions_is_counted_and_leaves_room_for_attempts() {
    const ATTEMPTS: u16 = 50;
    // Far more than a ring of 64 KiB has room for; what is read meanwhile decides how many it takes.
    const QUESTIONS: usize = 2_000_000;
    let pid = Some(std::process::id());
    let small = Builder { ring_bytes: Some(64 << 10), ..ConnectionStream::builder() };
    let Some(watch) = watch(Builder { only_pid: pid.into_iter().collect(), ..small }) else {
        return;
    };
    if !observes(&watch, "dns_names") {
        println!("skipped: nothing here sees DNS messages");
        return;
    }
    own_network();
    ip("address add 198.51.100.0/24 dev lo");
    // Takes what comes, and answers nothing.
    let _sink = UdpSocket::bind((LOCALHOST, PORT)).unwrap();
    let socket = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    socket.connect((LOCALHOST, PORT)).unwrap();
    let question = question("flood.example");
    let (sent, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let sent_before_losses = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) && sent.load(Ordering::Relaxed) < QUESTIONS {
                    for _ in 0..400 {
                        socket.send(&question).unwrap();
                    }
                    sent.fetch_add(400, Ordering::Relaxed);
                }
            });
        }
        while watch.handle.counters().dns.messages_lost == 0
            && sent.load(Ordering::Relaxed) < QUESTIONS
        {
            std::thread::yield_now();
        }
        let sent_before_losses = sent.load(Ordering::Relaxed);
        // Beside senders that have filled the ring, and go on.
        for attempt in 0..ATTEMPTS {
            refuse(v4([198, 51, 100, 70], 5000 + attempt));
            watch.outcome(v4([198, 51, 100, 70], 5000 + attempt));
        }
        done.store(true, Ordering::Relaxed);
        sent_before_losses
    });
    println!("{sent_before_losses} questions were sent when the first was lost");
    let counters = watch.handle.counters();
    assert!(counters.dns.messages_lost > 0, "{counters:?}");
    assert_eq!(counters.lost.ring_full, 0, "{counters:?}");
}
