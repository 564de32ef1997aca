//! Questions for names as records of their own.

use netspy::event::{DnsOutcome, Endpoint, Protocol};

use crate::dns::{LOCALHOST, network};
use crate::dns_server::{Ask, PORT, Segments, Server};

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
