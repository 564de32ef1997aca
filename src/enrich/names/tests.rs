use std::net::IpAddr;

use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

use super::*;
use crate::capture::skel::types::netspy_conn;
use crate::enrich::dns::answer;

const MINUTE: u64 = 60 * SECOND_NS;

fn name(text: &str) -> Name<'static> {
    Name::new(text).unwrap().into_owned()
}

fn reply(question: &str) -> Packet<'static> {
    let mut packet = Packet::new_reply(1);
    packet.set_flags(PacketFlag::RESPONSE);
    let (qtype, class) = (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN));
    packet.questions.push(Question::new(name(question), qtype, class, false));
    packet
}

fn record(owner: &str, ttl: u32, data: RData<'static>) -> ResourceRecord<'static> {
    ResourceRecord::new(name(owner), CLASS::IN, ttl, data)
}

fn address(text: &str) -> RData<'static> {
    match text.parse().unwrap() {
        IpAddr::V4(ip) => RData::A(A { address: ip.into() }),
        IpAddr::V6(ip) => RData::AAAA(AAAA { address: ip.into() }),
    }
}

/// An answer with addresses, all of the name that was asked for.
fn answers(question: &str, addresses: &[&str]) -> Vec<u8> {
    let mut packet = reply(question);
    for text in addresses {
        packet.answers.push(record(question, 60, address(text)));
    }
    packet.build_bytes_vec_compressed().unwrap()
}

/// Who asks, or connects, and when.
#[derive(Clone, Copy)]
struct Who {
    pid: u32,
    netns: u32,
    once: u32,
}

const CURL: Who = Who { pid: 100, netns: 1, once: 7 };
const SAME_NETNS: Who = Who { pid: 200, netns: 1, once: 7 };
const ELSEWHERE: Who = Who { pid: 300, netns: 2, once: 8 };

impl Who {
    fn at(self, start_ns: u64) -> netspy_conn {
        let Who { pid, netns, once: netns_once } = self;
        let task_start_ns = pid.into();
        netspy_conn { pid, netns, netns_once, task_start_ns, start_ns, ..Default::default() }
    }
}

struct Table(Names);

impl Table {
    fn new() -> Self {
        Table(Names::new(Hosts::at("/nowhere/hosts".into(), 1)))
    }

    fn learns(&mut self, who: Who, time_ns: u64, message: &[u8]) {
        let asker = who.at(0);
        if let Some(answer) = answer(message).unwrap() {
            self.0.learn(&asker, time_ns, &answer, time_ns as u32);
        }
    }

    fn called(&mut self, who: Who, start_ns: u64, ip: &str) -> Option<(String, NameSource)> {
        let found = self.0.resolved(&who.at(start_ns), ip.parse().unwrap());
        found.map(|found| (found.name.to_string(), found.source))
    }
}

fn is(name: &str, source: NameSource) -> Option<(String, NameSource)> {
    Some((name.to_owned(), source))
}

#[test]
fn the_name_is_that_which_the_process_asked_for_before_it_connected() {
    let mut table = Table::new();
    table.learns(CURL, 10, &answers("a.example", &["198.51.100.1", "198.51.100.2"]));
    table.learns(CURL, 30, &answers("B.example", &["198.51.100.1"]));
    let at = |table: &mut Table, time| table.called(CURL, time, "198.51.100.1");
    assert_eq!(at(&mut table, 5), None, "it did not know yet");
    assert_eq!(at(&mut table, 20), is("a.example", NameSource::Dns));
    assert_eq!(at(&mut table, 40), is("b.example", NameSource::Dns));
    assert_eq!(table.called(CURL, 40, "198.51.100.2"), is("a.example", NameSource::Dns));
    assert_eq!(table.called(CURL, 40, "198.51.100.3"), None);
}

#[test]
fn the_question_is_the_latest_before_the_attempt() {
    let mut table = Table::new();
    let ip = "198.51.100.1";
    for time in [10, 30] {
        table.learns(CURL, time, &answers("a.example", &[ip]));
    }
    for (start_ns, expected) in [(20, 10), (40, 30)] {
        let found = table.0.resolved(&CURL.at(start_ns), ip.parse().unwrap());
        let expected = Some((expected, u64::from(expected)));
        assert_eq!(found.map(|found| (found.number, found.time_ns)), expected);
    }
}

#[test]
fn what_another_process_asked_for_says_so_and_holds_for_a_while() {
    let mut table = Table::new();
    table.learns(CURL, 10, &answers("a.example", &["198.51.100.1", "10.0.0.1"]));
    let global = "198.51.100.1";
    assert_eq!(table.called(SAME_NETNS, 20, global), is("a.example", NameSource::DnsNetns));
    assert_eq!(table.called(ELSEWHERE, 20, global), is("a.example", NameSource::DnsHost));
    assert_eq!(table.called(SAME_NETNS, 20, "10.0.0.1"), is("a.example", NameSource::DnsNetns));
    assert_eq!(table.called(ELSEWHERE, 20, "10.0.0.1"), None, "private: another's there");
    assert_eq!(table.called(SAME_NETNS, 6 * MINUTE, global), None);
    assert_eq!(table.called(CURL, 6 * MINUTE, global), is("a.example", NameSource::Dns));
}

#[test]
fn the_nearest_answer_counts_before_the_latest() {
    let mut table = Table::new();
    let ip = "198.51.100.1";
    table.learns(CURL, 10, &answers("mine.example", &[ip]));
    table.learns(ELSEWHERE, 30, &answers("far.example", &[ip]));
    table.learns(SAME_NETNS, 20, &answers("near.example", &[ip]));
    assert_eq!(table.called(CURL, 40, ip), is("mine.example", NameSource::Dns));
    let neighbour = Who { pid: 201, ..SAME_NETNS };
    assert_eq!(table.called(neighbour, 40, ip), is("near.example", NameSource::DnsNetns));
}

#[test]
fn a_pid_that_was_given_to_another_process_has_not_asked() {
    let mut table = Table::new();
    let ip = "198.51.100.1";
    table.learns(CURL, 10, &answers("a.example", &[ip]));
    let raw = netspy_conn { task_start_ns: 15, ..CURL.at(20) };
    let found = table.0.resolved(&raw, ip.parse().unwrap());
    assert_eq!(found.map(|found| found.source), Some(NameSource::DnsNetns));
}

#[test]
fn a_namespace_that_got_the_number_of_one_that_is_gone_has_not_asked() {
    let mut table = Table::new();
    table.learns(CURL, 10, &answers("a.example", &["198.51.100.1", "10.0.0.1"]));
    let next = Who { once: SAME_NETNS.once + 1, ..SAME_NETNS };
    assert_eq!(table.called(next, 20, "198.51.100.1"), is("a.example", NameSource::DnsHost));
    assert_eq!(table.called(next, 20, "10.0.0.1"), None, "private: another's there");
}

#[test]
fn a_chain_of_names_is_called_by_its_first() {
    let mut packet = reply("www.example");
    let cname = |to: &str| RData::CNAME(CNAME(name(to)));
    packet.answers.push(record("edge.example", 30, address("198.51.100.9")));
    packet.answers.push(record("cdn.example", 30, cname("Edge.example")));
    packet.answers.push(record("WWW.example", 30, cname("cdn.example")));
    // Of nobody who was asked for.
    packet.answers.push(record("other.example", 30, address("198.51.100.8")));
    packet.answers.push(record("edge.example", 30, address("2001:db8::9")));
    let mut table = Table::new();
    table.learns(CURL, 10, &packet.build_bytes_vec().unwrap());
    for ip in ["198.51.100.9", "2001:db8::9"] {
        assert_eq!(table.called(CURL, 20, ip), is("www.example", NameSource::Dns), "{ip}");
    }
    assert_eq!(table.called(CURL, 20, "198.51.100.8"), None);
}

#[test]
fn a_chain_in_a_circle_ends() {
    let mut packet = reply("a.example");
    for (owner, to) in [("a.example", "b.example"), ("b.example", "a.example")] {
        packet.answers.push(record(owner, 30, RData::CNAME(CNAME(name(to)))));
    }
    packet.answers.push(record("b.example", 30, address("198.51.100.9")));
    let mut table = Table::new();
    table.learns(CURL, 10, &packet.build_bytes_vec().unwrap());
    assert_eq!(table.called(CURL, 20, "198.51.100.9"), is("a.example", NameSource::Dns));
}

#[test]
fn questions_failures_and_garbage_name_nothing() {
    let mut table = Table::new();
    let good = answers("a.example", &["198.51.100.1"]);
    let with = |place: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[place] = value;
        bytes
    };
    // A question, NXDOMAIN, another opcode.
    for bytes in [with(2, 0), with(3, 3), with(2, 0x90)] {
        table.learns(CURL, 10, &bytes);
    }
    // Cut, a pointer to itself, and nothing.
    let mut circle = good.clone();
    circle[12..14].copy_from_slice(&[0xc0, 12]);
    for bytes in [&good[..good.len() - 2], &circle, &[]] {
        assert!(answer(bytes).is_err());
    }
    assert_eq!(table.called(CURL, 20, "198.51.100.1"), None);
}

#[test]
fn what_is_no_letter_of_a_host_name_is_written_as_a_number() {
    let mut bytes = answers("xxxxxx.example", &["198.51.100.1"]);
    bytes[13..19].copy_from_slice(b"\x1b[.\n\xe2\\");
    let mut table = Table::new();
    table.learns(CURL, 10, &bytes);
    let expected = "\\027\\091\\046\\010\\226\\092.example";
    assert_eq!(table.called(CURL, 20, "198.51.100.1"), is(expected, NameSource::Dns));
}

#[test]
fn the_table_is_bounded_and_keeps_what_is_used() {
    let mut table = Table::new();
    let used = "198.51.100.1";
    table.learns(CURL, 10, &answers("used.example", &[used]));
    for n in 0..3 * GENERATION {
        let [_, a, b, c] = u32::try_from(n).unwrap().to_be_bytes();
        let who = Who { pid: 1_000 + u32::from(c), ..SAME_NETNS };
        table.learns(who, 20, &answers("x.example", &[&format!("198.{a}.{b}.{c}")]));
        if n % 1_000 == 0 {
            assert_eq!(table.called(CURL, 30, used), is("used.example", NameSource::Dns));
        }
    }
    let held = |t: &super::Table| t.values().map(Vec::len).sum::<usize>();
    assert!(held(&table.0.young) <= GENERATION && held(&table.0.old) <= GENERATION);
}
