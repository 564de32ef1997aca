use std::net::Ipv4Addr;

use simple_dns::rdata::{A, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};

use super::*;
use crate::test_records::info;

const SECOND: u64 = SECOND_NS;

struct Desk(Transactions);

/// A socket, and the protocol that it speaks.
#[derive(Clone, Copy)]
struct Sock(u64, i32);

const UDP: Sock = Sock(1, libc::IPPROTO_UDP);
const OTHER: Sock = Sock(2, libc::IPPROTO_UDP);

fn asker(protocol: i32, server: u8) -> netspy_conn {
    let mut asker = netspy_conn {
        family: libc::AF_INET as u16,
        protocol: protocol as u16,
        remote_port: 53,
        local_port: 40_000,
        pid: 7,
        tid: 7,
        start_ns: 5,
        ..netspy_conn::default()
    };
    asker.remote[..4].copy_from_slice(&[127, 0, 0, server]);
    asker.local[..4].copy_from_slice(&[127, 0, 0, 1]);
    asker
}

impl Desk {
    fn new() -> Self {
        Desk(Transactions::new("host".into(), 1))
    }

    fn tell(
        &mut self,
        sock: Sock,
        server: u8,
        time_ns: u64,
        is_answer: bool,
        bytes: &[u8],
    ) -> Told {
        let len = bytes.len() as u16;
        let dns = netspy_dns {
            asker: asker(sock.1, server),
            sock: sock.0,
            time_ns,
            len,
            kept: len,
            is_answer: is_answer.into(),
            has_record: 1,
            ..netspy_dns::default()
        };
        let process = Process { tid: 7, thread: "curl".into(), info: info(7, "curl") };
        self.0.message(&dns, bytes, &Clock::new(), |_| process)
    }

    fn asks(&mut self, sock: Sock, time_ns: u64, bytes: &[u8]) {
        assert!(matches!(self.tell(sock, 1, time_ns, false, bytes), Told::Nothing));
    }

    /// Whether the answer names something.
    fn gets(&mut self, sock: Sock, time_ns: u64, bytes: &[u8]) -> bool {
        matches!(self.tell(sock, 1, time_ns, true, bytes), Told::Names(..))
    }

    fn only(&mut self) -> DnsRecord {
        let mut records = self.0.take();
        assert_eq!(records.len(), 1, "{records:#?}");
        records.pop().unwrap()
    }
}

fn message(id: u16, name: &str, is_response: bool) -> Packet<'static> {
    let mut packet = if is_response { Packet::new_reply(id) } else { Packet::new_query(id) };
    let name = Name::new(name).unwrap().into_owned();
    let (qtype, class) = (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN));
    packet.questions.push(simple_dns::Question::new(name, qtype, class, false));
    packet
}

fn question(id: u16, name: &str) -> Vec<u8> {
    message(id, name, false).build_bytes_vec().unwrap()
}

fn answer_with(id: u16, name: &str, edit: impl FnOnce(&mut Packet<'static>)) -> Vec<u8> {
    let mut packet = message(id, name, true);
    edit(&mut packet);
    packet.build_bytes_vec().unwrap()
}

fn answer(id: u16, name: &str, last: u8) -> Vec<u8> {
    answer_with(id, name, |packet| {
        let data = RData::A(A { address: Ipv4Addr::new(198, 51, 100, last).into() });
        let owner = packet.questions[0].qname.clone();
        packet.answers.push(ResourceRecord::new(owner, CLASS::IN, 60, data));
    })
}

#[test]
fn a_question_and_its_answer_are_one_record() {
    let mut desk = Desk::new();
    desk.asks(UDP, 1_000, &question(7, "Example.com"));
    assert!(desk.0.take().is_empty(), "it waits");
    assert!(desk.gets(UDP, 413_000, &answer(7, "example.com", 1)));
    let record = desk.only();
    assert_eq!((&*record.name, &*record.record_type), ("example.com", "A"));
    assert_eq!((record.outcome, record.rcode), (DnsOutcome::Answered, Some(0)));
    assert_eq!(record.addresses, [IpAddr::from([198, 51, 100, 1])]);
    assert_eq!((record.ttl_s, record.latency_us, record.sent), (Some(60), Some(412), 1));
    assert_eq!(record.server, Endpoint { ip: [127, 0, 0, 1].into(), port: 53 });
    assert_eq!(record.local.port, 40_000);
    assert_eq!(record.connection, Some(ConnectionId { start_ns: 5, tid: 7, boot: 1 }));
    assert_eq!(record.process.unwrap().pid, 7);
    assert!(!desk.gets(UDP, 500_000, &answer(7, "example.com", 2)), "it has its answer");
    assert_eq!(desk.0.counts(), Counts { questions: 1, listed: 1, no_room: 0 });
}

#[test]
fn connections_that_follow_are_told_of_later() {
    let mut desk = Desk::new();
    desk.asks(UDP, 1, &question(7, "a.example"));
    let Told::Names(_, number) = desk.tell(UDP, 1, 2, true, &answer(7, "a.example", 1)) else {
        panic!("no names");
    };
    let first = desk.only();
    assert!(first.connections.is_empty());
    let connection = |start_ns| ConnectionId { start_ns, tid: 7, boot: 1 };
    for start_ns in [10, 10, 11] {
        desk.0.followed(number, connection(start_ns), false);
    }
    let again = desk.0.take();
    assert_eq!(again.len(), 2, "each connection once: {again:#?}");
    assert_eq!((again[1].id, again[1].connections.len()), (first.id, 2));
    (0..100).for_each(|start_ns| desk.0.followed(number, connection(start_ns), false));
    let last = desk.0.take().pop().unwrap();
    assert_eq!(last.connections.len(), DnsRecord::CONNECTIONS);
    desk.0.followed(number + 1, connection(1), false);
    assert!(desk.0.take().is_empty(), "nobody asked that");
}

/// A name with eight addresses, each of which is weighed before it is connected to.
#[test]
fn what_sent_nothing_gives_way_to_connections() {
    let mut desk = Desk::new();
    desk.asks(UDP, 1, &question(7, "a.example"));
    desk.gets(UDP, 2, &answer(7, "a.example", 1));
    let number = desk.only().id.number;
    let connection = |start_ns| ConnectionId { start_ns, tid: 7, boot: 1 };
    let most = DnsRecord::CONNECTIONS as u64;
    (0..most).for_each(|n| desk.0.followed(number, connection(n), true));
    // One of them sends after all.
    desk.0.followed(number, connection(0), false);
    (100..100 + most).for_each(|n| desk.0.followed(number, connection(n), false));
    desk.0.followed(number, connection(200), true);
    let last = desk.0.take().pop().unwrap();
    let expected: Vec<_> = [0].into_iter().chain(100..99 + most).map(connection).collect();
    assert_eq!(last.connections, expected);
}

#[test]
fn each_failure_has_its_word() {
    for (code, outcome) in [
        (RCODE::NoError, DnsOutcome::NoData),
        (RCODE::NameError, DnsOutcome::Nxdomain),
        (RCODE::ServerFailure, DnsOutcome::Servfail),
        (RCODE::Refused, DnsOutcome::Refused),
        (RCODE::NotImplemented, DnsOutcome::Failed),
    ] {
        let mut desk = Desk::new();
        desk.asks(UDP, 1, &question(7, "a.example"));
        desk.gets(UDP, 2, &answer_with(7, "a.example", |packet| *packet.rcode_mut() = code));
        let record = desk.only();
        assert_eq!((record.outcome, record.rcode), (outcome, Some(code as u16)));
        assert!(record.addresses.is_empty() && record.answered.is_some());
    }
    let mut desk = Desk::new();
    desk.asks(UDP, 1, &question(7, "a.example"));
    desk.gets(UDP, 2, &answer_with(7, "a.example", |p| p.set_flags(PacketFlag::TRUNCATION)));
    assert_eq!(desk.only().outcome, DnsOutcome::Truncated);
}

fn owner(text: &str) -> Name<'static> {
    Name::new(text).unwrap().into_owned()
}

/// That a name stands for the next, and the last of them for an address if there is one.
fn chain(names: &[String], class: CLASS, last: Option<&str>) -> Vec<u8> {
    answer_with(7, &names[0], |packet| {
        for pair in names.windows(2) {
            let data = RData::CNAME(CNAME(owner(&pair[1])));
            packet.answers.push(ResourceRecord::new(owner(&pair[0]), CLASS::IN, 60, data));
        }
        if let Some(last) = last {
            let data = RData::A(A { address: Ipv4Addr::new(198, 51, 100, 1).into() });
            packet.answers.push(ResourceRecord::new(owner(last), class, 60, data));
        }
    })
}

fn outcome(message: &[u8]) -> (DnsOutcome, usize) {
    let mut desk = Desk::new();
    desk.asks(UDP, 1, &question(7, "n0.example"));
    desk.gets(UDP, 2, message);
    let record = desk.only();
    (record.outcome, record.addresses.len())
}

#[test]
fn a_chain_is_followed_as_far_as_the_message_goes() {
    for length in [1, 2, 16, 17, 18, 40, 300] {
        let names: Vec<_> = (0..=length).map(|n| format!("n{n}.example")).collect();
        let message = chain(&names, CLASS::IN, names.last().map(String::as_str));
        assert_eq!(outcome(&message), (DnsOutcome::Answered, 1), "{length} links");
    }
}

#[test]
fn a_chain_that_leads_nowhere_is_no_data_and_one_that_is_broken_failed() {
    let names = |list: &[&str]| list.iter().map(|n| format!("{n}.example")).collect::<Vec<_>>();
    let plain = names(&["n0", "n1", "n2"]);
    // The last has no records of this type: so it is with many names and IPv6.
    assert_eq!(outcome(&chain(&plain, CLASS::IN, None)), (DnsOutcome::NoData, 0));
    let circle = names(&["n0", "n1", "n2", "n0"]);
    assert_eq!(outcome(&chain(&circle, CLASS::IN, None)), (DnsOutcome::Failed, 0));
    let other = chain(&plain, CLASS::IN, Some("elsewhere.example"));
    assert_eq!(outcome(&other), (DnsOutcome::Failed, 0));
}

#[test]
fn records_of_another_class_are_not_believed() {
    let names = ["n0.example".to_owned()];
    for class in [CLASS::CH, CLASS::HS, CLASS::NONE] {
        let message = chain(&names, class, Some("n0.example"));
        assert_eq!(outcome(&message), (DnsOutcome::Failed, 0), "{class:?}");
    }
    let mut message = chain(&names, CLASS::IN, Some("n0.example"));
    assert_eq!(outcome(&message), (DnsOutcome::Answered, 1));
    // The class, before TTL, length and address.
    let at = message.len() - 12;
    message[at] |= 0x80;
    assert_eq!(outcome(&message), (DnsOutcome::Failed, 0));
}

#[test]
fn what_does_not_belong_to_the_question_is_no_answer() {
    let mut desk = Desk::new();
    desk.asks(UDP, 1, &question(7, "a.example"));
    assert!(!desk.gets(OTHER, 2, &answer(7, "a.example", 1)), "another socket");
    assert!(!desk.gets(UDP, 2, &answer(8, "a.example", 1)), "another number");
    assert!(!desk.gets(UDP, 2, &answer(7, "b.example", 1)), "another name");
    let from_another = desk.tell(UDP, 9, 2, true, &answer(7, "a.example", 1));
    assert!(matches!(from_another, Told::Nothing), "another server");
    assert!(!desk.gets(UDP, 2, &question(7, "a.example")), "no answer at all");
    assert!(desk.0.take().is_empty());
    assert!(desk.gets(UDP, 3, &answer(7, "a.example", 1)));
}

#[test]
fn without_an_answer_it_timed_out_and_a_late_one_still_names() {
    let mut desk = Desk::new();
    desk.asks(UDP, SECOND, &question(7, "a.example"));
    desk.asks(UDP, 3 * SECOND, &question(7, "a.example"));
    desk.0.expire(6 * SECOND);
    assert!(desk.0.take().is_empty());
    desk.0.expire(7 * SECOND);
    let record = desk.only();
    assert_eq!((record.outcome, record.sent), (DnsOutcome::TimedOut, 2));
    assert_eq!((record.rcode, record.answered, record.latency_us), (None, None, None));
    desk.0.expire(8 * SECOND);
    assert!(desk.gets(UDP, 9 * SECOND, &answer(7, "a.example", 1)));
    assert!(desk.0.take().is_empty(), "it was told before");
    desk.asks(UDP, 10 * SECOND, &question(8, "b.example"));
    desk.0.expire(80 * SECOND);
    assert!(!desk.gets(UDP, 81 * SECOND, &answer(8, "b.example", 1)), "it is forgotten");
    assert!(desk.0.asked.is_empty() && desk.0.order.is_empty() && desk.0.overdue == 0);
}

#[test]
fn types_that_the_library_does_not_know_are_records_too() {
    let mut desk = Desk::new();
    let qtype = |mut bytes: Vec<u8>, high: u8, low: u8| {
        // After the header and `\1a\7example\0`.
        bytes[12 + 11..12 + 13].copy_from_slice(&[high, low]);
        bytes
    };
    for (high, low, name) in [(0, 65, "HTTPS"), (0xff, 0x01, "TYPE65281"), (0, 12, "PTR")] {
        desk.asks(UDP, 1, &qtype(question(7, "a.example"), high, low));
        desk.gets(UDP, 2, &qtype(answer_with(7, "a.example", |_| {}), high, low));
        let record = desk.only();
        assert_eq!((&*record.record_type, record.outcome), (name, DnsOutcome::NoData));
    }
    assert_eq!(desk.0.undecodable(), 0);
}

#[test]
fn messages_of_tcp_are_put_together() {
    let mut desk = Desk::new();
    let tcp = Sock(3, libc::IPPROTO_TCP);
    desk.asks(tcp, 1, &question(7, "a.example"));
    let whole = answer(7, "a.example", 1);
    let (first, second) = whole.split_at(20);
    for (begin, part) in [(0, first), (20, second)] {
        let dns = netspy_dns {
            asker: asker(tcp.1, 1),
            sock: tcp.0,
            time_ns: 2,
            len: whole.len() as u16,
            begin,
            kept: part.len() as u16,
            is_answer: 1,
            ..netspy_dns::default()
        };
        let told = desk.0.message(&dns, part, &Clock::new(), |_| unreachable!());
        assert_eq!(matches!(told, Told::Names(..)), begin != 0);
    }
    assert_eq!(desk.only().protocol, Protocol::Tcp);
}

#[test]
fn what_filters_leave_out_names_and_makes_no_record() {
    let mut desk = Desk::new();
    let bytes = question(7, "a.example");
    let mut dns = netspy_dns { asker: asker(UDP.1, 1), sock: 1, ..netspy_dns::default() };
    dns.asker.flags = FLAG_FILTERED;
    let process = Process { tid: 7, thread: "curl".into(), info: info(7, "curl") };
    desk.0.message(&dns, &bytes, &Clock::new(), |_| process);
    assert!(desk.gets(UDP, 2, &answer(7, "a.example", 1)));
    assert!(desk.0.take().is_empty());
    assert_eq!(desk.0.counts(), Counts::default());
}

#[test]
fn what_waits_is_bounded_and_what_had_no_room_is_counted() {
    let mut desk = Desk::new();
    for n in 0..2 * WAITING as u64 {
        desk.asks(Sock(n, UDP.1), n, &question(7, "a.example"));
    }
    let held: usize = desk.0.asked.values().map(Vec::len).sum();
    assert_eq!((held, desk.0.order.len()), (WAITING, WAITING));
    let no_room = WAITING as u64;
    assert_eq!(desk.0.counts(), Counts { questions: 2 * no_room, listed: 0, no_room });
    // One number for many questions.
    let mut desk = Desk::new();
    for n in 0..10 {
        desk.asks(UDP, n, &question(7, &format!("n{n}.example")));
    }
    assert_eq!(desk.0.counts().no_room, 10 - OF_ONE as u64);
}
