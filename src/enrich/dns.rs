//! Questions for names, and what comes back for them: each becomes one [`DnsRecord`].
//!
//! An answer counts only where its question was seen: it came back to the socket that had asked, from
//! whom it had asked, with the number of the question and, where it repeats it, its name.

mod chain;
mod message;
mod pieces;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

pub(super) use message::Answer;
#[cfg(any(test, all(feature = "server", fuzzing)))]
pub(super) use message::{ADDRESSES, TEXT, answer};
use message::{Head, Question};
use pieces::Pieces;

use super::connection::{address, family};
use crate::capture::FLAG_FILTERED;
use crate::capture::clock::Clock;
use crate::capture::skel::types::{netspy_conn, netspy_dns};
use crate::event::{ConnectionId, DnsId, DnsOutcome, DnsRecord, Endpoint, Process, Protocol};

const SECOND_NS: u64 = 1_000_000_000;
/// When a question counts as without answer: resolvers wait for five seconds (glibc, musl and Go) and
/// ask again.
pub(super) const PATIENCE_NS: u64 = 6 * SECOND_NS;
/// For so long an answer that comes late still tells what the process knows.
const FORGET_NS: u64 = 60 * SECOND_NS;
/// Questions that wait for their answer.
const WAITING: usize = 16_384;
/// Answers of one generation that connections may follow.
const KEPT: usize = 2_048;
/// Questions of one socket under one number.
const OF_ONE: usize = 4;

/// Which questions an answer may belong to.
type Key = (u64, u16);

/// Tells the questions of one capture apart.
pub(super) type Number = u32;

/// A question that was sent.
#[derive(Debug)]
struct Asked {
    question: Question,
    server: IpAddr,
    start_ns: u64,
    record: DnsRecord,
    /// Whether the record is wanted, and was not handed on yet.
    is_due: bool,
}

/// A question with addresses for an answer, and what was made of them.
#[derive(Debug)]
struct Answered {
    record: DnsRecord,
    /// Of its connections those that have sent nothing.
    silent: Vec<ConnectionId>,
}

/// What a message was.
pub(super) enum Told {
    /// A question, a repetition, or nothing of interest.
    Nothing,
    /// An answer with the addresses that a name has, and the number of its question.
    Names(Answer, Number),
}

/// Questions that wait for their answer, and the records of those that do no more.
#[derive(Debug)]
pub(super) struct Transactions {
    host: Arc<str>,
    boot: u32,
    asked: HashMap<Key, Vec<Asked>>,
    /// The same in the order in which they were sent, with those that have their answer.
    order: VecDeque<(u64, Key)>,
    /// How many of the oldest have had their time.
    overdue: usize,
    pieces: Pieces,
    ready: Vec<DnsRecord>,
    /// Those that connections may follow, and the same of before.
    answered: [HashMap<Number, Answered>; 2],
    number: Number,
    undecodable: u64,
    counts: Counts,
}

/// What became of questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Questions whose record is wanted.
    pub questions: u64,
    /// Those of which a record was handed on.
    pub listed: u64,
    /// Those that there was no room for.
    pub no_room: u64,
}

impl Transactions {
    pub(super) fn new(host: Arc<str>, boot: u32) -> Self {
        Transactions {
            host,
            boot,
            asked: HashMap::new(),
            order: VecDeque::new(),
            overdue: 0,
            pieces: Pieces::default(),
            ready: Vec::new(),
            answered: [HashMap::new(), HashMap::new()],
            number: 0,
            undecodable: 0,
            counts: Counts::default(),
        }
    }

    /// Messages that could not be understood, or did not become whole.
    pub(super) fn undecodable(&self) -> u64 {
        self.undecodable + self.pieces.lost()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// The records that are complete since the last time.
    pub(super) fn take(&mut self) -> Vec<DnsRecord> {
        std::mem::take(&mut self.ready)
    }

    /// A message, or a part of one. `who` resolves the process that asks.
    pub(super) fn message(
        &mut self,
        dns: &netspy_dns,
        bytes: &[u8],
        clock: &Clock,
        who: impl FnOnce(&netspy_conn) -> Process,
    ) -> Told {
        let is_datagram = i32::from(dns.asker.protocol) == libc::IPPROTO_UDP;
        let message = if is_datagram {
            Cow::Borrowed(bytes)
        } else {
            let Some(message) = self.pieces.add(dns, bytes) else { return Told::Nothing };
            Cow::Owned(message)
        };
        let Some(head) = message::head(&message) else {
            self.undecodable += 1;
            return Told::Nothing;
        };
        if head.is_response != (dns.is_answer != 0) {
            // Of a server whose clients use its own port.
            return Told::Nothing;
        }
        if dns.is_answer != 0 {
            return self.answer(dns, &message, &head, clock);
        }
        if let Some(question) = head.question {
            self.question(dns, head.id, question, clock, who);
        }
        Told::Nothing
    }

    fn question(
        &mut self,
        dns: &netspy_dns,
        id: u16,
        question: Question,
        clock: &Clock,
        who: impl FnOnce(&netspy_conn) -> Process,
    ) {
        let Some((server, local)) = ends(&dns.asker) else { return };
        let key = (dns.sock, id);
        let of_key = self.asked.entry(key).or_default();
        let again = of_key
            .iter_mut()
            .find(|asked| asked.is_due && asked.question == question && asked.server == server.ip);
        if let Some(again) = again {
            again.record.sent = again.record.sent.saturating_add(1);
            return;
        }
        let is_wanted = dns.asker.flags & FLAG_FILTERED == 0;
        let mut no_room = 0;
        if of_key.len() >= OF_ONE {
            // The number was used again: whoever asked waits no more for the oldest.
            no_room += u64::from(of_key.remove(0).is_due);
        }
        self.number = self.number.wrapping_add(1);
        let asker = &dns.asker;
        let record = DnsRecord {
            id: DnsId { start_ns: dns.time_ns, number: self.number, boot: self.boot },
            host: Arc::clone(&self.host),
            time: clock.wall(dns.time_ns),
            name: Arc::clone(&question.name),
            record_type: message::type_name(question.qtype),
            protocol: protocol(asker),
            server,
            local,
            outcome: DnsOutcome::TimedOut,
            rcode: None,
            addresses: Vec::new(),
            ttl_s: None,
            answered: None,
            latency_us: None,
            sent: 1,
            connection: (dns.has_record != 0).then_some(ConnectionId {
                start_ns: asker.start_ns,
                tid: asker.tid,
                boot: self.boot,
            }),
            process: Some(who(asker)),
            connections: Vec::new(),
        };
        let asked =
            Asked { question, server: server.ip, start_ns: dns.time_ns, record, is_due: is_wanted };
        of_key.push(asked);
        self.order.push_back((dns.time_ns, key));
        self.counts.questions += u64::from(is_wanted);
        self.counts.no_room += no_room;
        if self.order.len() > WAITING {
            let forgotten = self.forget_oldest();
            self.counts.no_room += u64::from(forgotten.is_some_and(|asked| asked.is_due));
        }
    }

    /// Takes a question out of the table, but not out of the order.
    fn remove(&mut self, key: Key, start_ns: u64) -> Option<Asked> {
        let of_key = self.asked.get_mut(&key)?;
        let place = of_key.iter().position(|asked| asked.start_ns == start_ns)?;
        let asked = of_key.remove(place);
        if of_key.is_empty() {
            self.asked.remove(&key);
        }
        Some(asked)
    }

    fn answer(&mut self, dns: &netspy_dns, message: &[u8], head: &Head, clock: &Clock) -> Told {
        let Some((server, _)) = ends(&dns.asker) else { return Told::Nothing };
        let key = (dns.sock, head.id);
        let of_key = self.asked.get(&key).map_or(&[][..], Vec::as_slice);
        let meant = of_key.iter().find(|asked| {
            asked.server == server.ip
                && head.question.as_ref().is_none_or(|question| *question == asked.question)
        });
        let Some(start_ns) = meant.map(|asked| asked.start_ns) else { return Told::Nothing };
        let Some(asked) = self.remove(key, start_ns) else { return Told::Nothing };
        // What has no addresses needs no more than its head.
        let answer = if message::has_addresses(asked.question.qtype) {
            message::answer(message).unwrap_or_else(|_| {
                self.undecodable += 1;
                None
            })
        } else {
            None
        };
        let number = asked.record.id.number;
        let names = answer.as_ref().is_some_and(|answer| !answer.addresses.is_empty());
        if asked.is_due {
            self.counts.listed += 1;
            let record = answered(asked.record, dns, head, answer.as_ref(), clock);
            if names {
                self.keep(record.clone());
            }
            self.ready.push(record);
        }
        match answer {
            Some(answer) if names => Told::Names(answer, number),
            _ => Told::Nothing,
        }
    }

    /// For the connections to come.
    fn keep(&mut self, record: DnsRecord) {
        let [young, old] = &mut self.answered;
        if young.len() >= KEPT {
            std::mem::swap(young, old);
            young.clear();
        }
        young.insert(record.id.number, Answered { record, silent: Vec::new() });
    }

    /// A connection to an address that was the answer to a question: the record comes again. One that
    /// has sent nothing gives way to one that has: who looks a name up weighs each of its addresses by
    /// connecting a datagram socket (RFC 6724, in glibc and musl) before it connects in earnest.
    pub(super) fn followed(&mut self, number: Number, by: ConnectionId, is_silent: bool) {
        let [young, old] = &mut self.answered;
        let answered = young.get_mut(&number).or_else(|| old.get_mut(&number));
        let Some(Answered { record, silent }) = answered else { return };
        let connections = &mut record.connections;
        if connections.contains(&by) {
            silent.retain(|id| is_silent || *id != by);
            return;
        }
        if connections.len() >= DnsRecord::CONNECTIONS {
            if is_silent || silent.is_empty() {
                return;
            }
            let gives_way = silent.remove(0);
            connections.retain(|id| *id != gives_way);
        }
        if is_silent {
            silent.push(by);
        }
        connections.push(by);
        self.ready.push(record.clone());
    }

    fn forget_oldest(&mut self) -> Option<Asked> {
        let (time, key) = self.order.pop_front()?;
        self.overdue = self.overdue.saturating_sub(1);
        self.remove(key, time)
    }

    /// Lets go of questions that have waited long enough.
    pub(super) fn expire(&mut self, now_ns: u64) {
        let since = now_ns.saturating_sub(PATIENCE_NS);
        while let Some((time, key)) = self.order.get(self.overdue).copied()
            && time <= since
        {
            self.overdue += 1;
            let of_key = self.asked.get_mut(&key).map_or(&mut [][..], Vec::as_mut_slice);
            let asked = of_key.iter_mut().find(|asked| asked.start_ns == time && asked.is_due);
            if let Some(asked) = asked {
                asked.is_due = false;
                self.counts.listed += 1;
                self.ready.push(asked.record.clone());
            }
        }
        let since = now_ns.saturating_sub(FORGET_NS);
        while self.order.front().is_some_and(|(time, _)| *time <= since) {
            self.forget_oldest();
        }
    }
}

/// The record of a question once its answer is there.
fn answered(
    mut record: DnsRecord,
    dns: &netspy_dns,
    head: &Head,
    answer: Option<&Answer>,
    clock: &Clock,
) -> DnsRecord {
    let rcode = answer.map_or(Some(head.rcode), |answer| answer.rcode);
    let asks_addresses = matches!(&*record.record_type, "A" | "AAAA");
    let has_records = match answer {
        Some(answer) if asks_addresses => !answer.addresses.is_empty(),
        _ => head.answers != 0,
    };
    record.rcode = rcode;
    record.outcome = match rcode {
        // What is missing may be there.
        Some(0) if head.is_truncated => DnsOutcome::Truncated,
        Some(0) if has_records => DnsOutcome::Answered,
        // Something is there, and who asks can make nothing of it.
        Some(0) if answer.is_some_and(|answer| answer.is_broken) => DnsOutcome::Failed,
        Some(0) => DnsOutcome::NoData,
        Some(2) => DnsOutcome::Servfail,
        Some(3) => DnsOutcome::Nxdomain,
        Some(5) => DnsOutcome::Refused,
        _ => DnsOutcome::Failed,
    };
    if let Some(answer) = answer {
        record.addresses = answer.addresses.iter().map(|(ip, _)| *ip).collect();
        record.ttl_s = answer.addresses.iter().map(|(_, ttl)| *ttl).min();
    }
    record.answered = Some(clock.wall(dns.time_ns));
    record.latency_us = Some(dns.time_ns.saturating_sub(record.id.start_ns) / 1_000);
    record
}

/// The server and this side.
fn ends(asker: &netspy_conn) -> Option<(Endpoint, Endpoint)> {
    let family = family(asker.family)?;
    let end = |bytes, port| {
        let ip = address(bytes, family)?.to_canonical();
        Some(Endpoint { ip, port })
    };
    Some((end(asker.remote, asker.remote_port)?, end(asker.local, asker.local_port)?))
}

fn protocol(asker: &netspy_conn) -> Protocol {
    if i32::from(asker.protocol) == libc::IPPROTO_TCP { Protocol::Tcp } else { Protocol::Udp }
}

#[cfg(test)]
#[path = "dns/tests.rs"]
mod tests;
