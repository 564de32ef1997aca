//! What is fuzzed of DNS.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::IpAddr;

use super::dns::{ADDRESSES, PATIENCE_NS, TEXT, Told, Transactions, answer};
use crate::capture::clock::Clock;
use crate::capture::skel::types::{netspy_conn, netspy_dns};
use crate::event::Process;

/// A DNS message of any bytes at all: what it names is text that cannot hurt, and no more of it than
/// there is room for; a part of it names nothing else. The same bytes as a question, and as its
/// answer in parts, make one record at most.
pub fn dns_message(data: &[u8]) {
    let is_plain = |name: &str| {
        let fits = (1..=TEXT).contains(&name.len());
        fits && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.' | '\\'))
    };
    if let Ok(Some(answer)) = answer(data) {
        assert!(is_plain(&answer.name), "{:?}", answer.name);
        assert!(answer.addresses.len() <= ADDRESSES);
        for (ip, _) in answer.addresses {
            // The address stands in the message.
            let bytes = match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            assert!(data.windows(bytes.len()).any(|part| part == bytes), "{ip}");
        }
    }
    transaction(data, is_plain);
}

fn transaction(data: &[u8], is_plain: impl Fn(&str) -> bool) {
    let Some(len) = u16::try_from(data.len()).ok().filter(|len| *len > 2) else { return };
    let asker = netspy_conn { family: 2, protocol: 6, pid: 7, ..netspy_conn::default() };
    let mut transactions = Transactions::new("host".into(), 1);
    let clock = Clock::new();
    // The bit that tells answers from questions.
    let mut question = data.to_vec();
    question[2] &= 0x7f;
    let mut told = |is_answer: u8, begin: usize, part: &[u8]| {
        let (begin, kept) = (begin as u16, part.len() as u16);
        let dns = netspy_dns { asker, len, begin, kept, is_answer, ..netspy_dns::default() };
        transactions.message(&dns, part, &clock, |_| nobody())
    };
    told(0, 0, &question);
    let middle = data.len() / 2;
    assert!(matches!(told(1, 0, &data[..middle]), Told::Nothing), "a half says nothing");
    let names = told(1, middle, &data[middle..]);
    let asked = transactions.counts().questions;
    assert!(matches!(names, Told::Nothing) || asked == 1, "an answer that nobody asked for");
    transactions.expire(PATIENCE_NS);
    let records = transactions.take();
    assert_eq!(records.len() as u64, asked);
    for record in records {
        assert!(is_plain(&record.name), "{:?}", record.name);
        assert!(is_plain(&record.record_type.to_ascii_lowercase()));
        assert!(record.addresses.len() <= ADDRESSES);
    }
}

fn nobody() -> Process {
    Process { tid: 7, thread: "x".into(), info: crate::test_records::info(7, "x") }
}
