//! What addresses are called: by the DNS answers that processes got, else by /etc/hosts.
//!
//! One address has many names, and which one was meant only the process knows that asked for it. So a
//! name is given with how near the question was: by the process itself, by another of its network
//! namespace, or elsewhere on this host. What nobody asked for has none.

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use simple_dns::rdata::RData;
use simple_dns::{Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, TYPE};

use super::hosts::Hosts;
use crate::capture::skel::types::{netspy_conn, netspy_dns};
use crate::event::{Connection, Direction, NameSource};

/// Answers in one generation of the table; two generations are kept.
const GENERATION: usize = 16_384;
/// Of one address, the latest so many.
const OF_ONE: usize = 32;
/// Addresses that one message may name.
const ADDRESSES: usize = 128;
/// Links from the name that was asked for to the one that has the addresses.
const CHAIN: usize = 16;
/// For so long at least an answer holds for others than the process that got it, since they may have
/// got it from a cache.
const SHARED_NS: u64 = 300 * 1_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// The longest text of a name: 255 bytes (RFC 1035, 2.3.4), each of which may be shown by four.
const TEXT: usize = 1024;

/// One process learnt that a name has this address.
#[derive(Debug, Clone)]
struct Resolved {
    name: Arc<str>,
    pid: u32,
    task_start_ns: u64,
    netns: u32,
    time_ns: u64,
    /// Until when it holds for others.
    until_ns: u64,
}

impl Resolved {
    fn is_of(&self, pid: u32, task_start_ns: u64) -> bool {
        self.pid == pid && self.task_start_ns == task_start_ns
    }

    /// How near it is to an attempt; `None` where it says nothing about it.
    fn source(&self, raw: &netspy_conn, ip: IpAddr) -> Option<NameSource> {
        if self.time_ns > raw.start_ns {
            return None;
        }
        if self.is_of(raw.pid, raw.task_start_ns) {
            return Some(NameSource::Dns);
        }
        if self.until_ns < raw.start_ns {
            return None;
        }
        if self.netns == raw.netns {
            return Some(NameSource::DnsNetns);
        }
        // A private address is another's in another namespace.
        is_global(ip).then_some(NameSource::DnsHost)
    }
}

/// Nearer is greater.
fn rank(source: NameSource) -> u8 {
    match source {
        NameSource::Dns => 3,
        NameSource::DnsNetns => 2,
        NameSource::DnsHost => 1,
        NameSource::Hosts => 0,
    }
}

/// Whether an address means the same everywhere.
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            // Shared address space: RFC 6598.
            let is_shared = a == 100 && b & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared)
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

type Table = HashMap<IpAddr, Vec<Resolved>>;

/// What is known of names. Bounded: when the young generation is full, the old one is forgotten and
/// the young one takes its place.
#[derive(Debug)]
pub(crate) struct Names {
    young: Table,
    old: Table,
    /// Answers in the young one.
    count: usize,
    hosts: Hosts,
    undecodable: u64,
}

impl Names {
    pub(crate) fn new(hosts: Hosts) -> Self {
        let (young, old) = (Table::new(), Table::new());
        Names { young, old, count: 0, hosts, undecodable: 0 }
    }

    /// Messages that could not be understood.
    pub(crate) fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Reads /etc/hosts again where it has changed.
    pub(crate) fn refresh(&mut self) {
        self.hosts.refresh();
    }

    /// A message came back to a process.
    pub(crate) fn message(&mut self, dns: &netspy_dns, message: &[u8]) {
        let Ok(answer) = answer(message) else {
            self.undecodable += 1;
            return;
        };
        let Some(answer) = answer else { return };
        for (ip, ttl) in answer.addresses {
            let lasts = (u64::from(ttl) * SECOND_NS).max(SHARED_NS);
            self.insert(
                ip,
                Resolved {
                    name: Arc::clone(&answer.name),
                    pid: dns.pid,
                    task_start_ns: dns.task_start_ns,
                    netns: dns.netns,
                    time_ns: dns.time_ns,
                    until_ns: dns.time_ns.saturating_add(lasts),
                },
            );
        }
    }

    fn insert(&mut self, ip: IpAddr, resolved: Resolved) {
        if self.count >= GENERATION {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.count = 0;
        }
        let of_ip = self.young.entry(ip).or_default();
        // The same again, with no other in between: the first time serves for both.
        let last = of_ip.last_mut().filter(|last| {
            last.is_of(resolved.pid, resolved.task_start_ns)
                && last.netns == resolved.netns
                && last.name == resolved.name
        });
        if let Some(last) = last {
            last.until_ns = last.until_ns.max(resolved.until_ns);
            return;
        }
        if of_ip.len() >= OF_ONE {
            of_ip.remove(0);
            self.count -= 1;
        }
        of_ip.push(resolved);
        self.count += 1;
    }

    /// Gives the remote of an attempt its name, if there is one.
    pub(crate) fn name(&mut self, raw: &netspy_conn, connection: &mut Connection) {
        let Some(remote) = &mut connection.remote else { return };
        if connection.direction != Direction::Outbound {
            return;
        }
        if let Some((name, source)) = self.resolved(raw, remote.ip) {
            (remote.name, remote.name_source) = (Some(name), Some(source));
            return;
        }
        let process = connection.process.as_ref();
        let is_in_container = process.is_some_and(|process| process.info.container.is_some());
        if !is_in_container && let Some(name) = self.hosts.name(remote.ip, raw.netns) {
            (remote.name, remote.name_source) = (Some(name), Some(NameSource::Hosts));
        }
    }

    fn resolved(&mut self, raw: &netspy_conn, ip: IpAddr) -> Option<(Arc<str>, NameSource)> {
        if self.young.is_empty() && self.old.is_empty() {
            return None;
        }
        let nearest = |table: &Table| {
            let of_ip = table.get(&ip)?.iter();
            of_ip
                .filter_map(|r| Some((r.source(raw, ip)?, r)))
                .max_by_key(|(source, r)| (rank(*source), r.time_ns))
                .map(|(source, r)| (source, r.clone()))
        };
        let (young, old) = (nearest(&self.young), nearest(&self.old));
        let key = |found: &Option<(NameSource, Resolved)>| {
            found.as_ref().map(|(source, r)| (rank(*source), r.time_ns))
        };
        let is_old = key(&old) > key(&young);
        let (source, found) = if is_old { old? } else { young? };
        let name = Arc::clone(&found.name);
        if is_old {
            // What is used is not forgotten.
            self.insert(ip, found);
        }
        Some((name, source))
    }
}

/// What a message says.
struct Answer {
    /// The name that was asked for.
    name: Arc<str>,
    addresses: Vec<(IpAddr, u32)>,
}

/// The addresses of the name that a message answers for; `None` if it names none.
fn answer(message: &[u8]) -> Result<Option<Answer>, simple_dns::SimpleDnsError> {
    let packet = Packet::parse(message)?;
    let is_answer = packet.has_flags(PacketFlag::RESPONSE)
        && packet.opcode() == OPCODE::StandardQuery
        && packet.rcode() == RCODE::NoError;
    let [question] = &packet.questions[..] else { return Ok(None) };
    let asks = matches!(question.qtype, QTYPE::TYPE(TYPE::A | TYPE::AAAA) | QTYPE::ANY);
    let is_internet = matches!(question.qclass, QCLASS::CLASS(simple_dns::CLASS::IN) | QCLASS::ANY);
    if !is_answer || !asks || !is_internet {
        return Ok(None);
    }
    // The names that the one that was asked for stands for (RFC 1034, 3.6.2).
    let mut names = vec![question.qname.clone()];
    for _ in 0..CHAIN {
        let next = packet.answers.iter().find_map(|record| match &record.rdata {
            RData::CNAME(to) if is_one_of(&names, &record.name) && !is_one_of(&names, &to.0) => {
                Some(to.0.clone())
            }
            _ => None,
        });
        match next {
            Some(name) => names.push(name),
            None => break,
        }
    }
    let addresses: Vec<_> = packet
        .answers
        .iter()
        .filter(|record| is_one_of(&names, &record.name))
        .filter_map(|record| match &record.rdata {
            RData::A(a) => Some((IpAddr::V4(a.address.into()), record.ttl)),
            RData::AAAA(aaaa) => Some((IpAddr::V6(aaaa.address.into()).to_canonical(), record.ttl)),
            _ => None,
        })
        .take(ADDRESSES)
        .collect();
    let name = text(&question.qname).filter(|_| !addresses.is_empty());
    Ok(name.map(|name| Answer { name, addresses }))
}

/// Names are the same whatever the case of their letters (RFC 4343).
fn is_one_of(names: &[Name<'_>], name: &Name<'_>) -> bool {
    names.iter().any(|other| {
        let (a, b) = (other.get_labels(), name.get_labels());
        a.len() == b.len()
            && std::iter::zip(other.as_bytes(), name.as_bytes())
                .all(|(a, b)| a.eq_ignore_ascii_case(b))
    })
}

/// A name as text: small letters, and what is no letter of a host name as `\DDD` (RFC 1035, 5.1).
/// `None` for the root.
fn text(name: &Name<'_>) -> Option<Arc<str>> {
    let mut text = String::new();
    for label in name.as_bytes() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' => text.push(char::from(*byte)),
                b'A'..=b'Z' => text.push(char::from(byte.to_ascii_lowercase())),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
    }
    (!text.is_empty() && text.len() <= TEXT).then(|| text.into())
}

/// A DNS message of any bytes at all: what it names is text that cannot hurt, and no more of it than
/// there is room for; a part of it names nothing else.
#[cfg(all(feature = "server", any(test, fuzzing)))]
#[allow(clippy::unwrap_used, clippy::panic)]
pub fn dns_message(data: &[u8]) {
    let mut names = Names::new(Hosts::at("/nowhere/hosts".into(), 1));
    let dns = netspy_dns { pid: 7, netns: 1, ..netspy_dns::default() };
    names.message(&dns, data);
    let held = || names.young.iter().flat_map(|(ip, of_ip)| of_ip.iter().map(move |r| (ip, r)));
    assert!(held().count() <= ADDRESSES);
    for (ip, resolved) in held() {
        let is_plain = |c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.' | '\\');
        assert!(resolved.name.chars().all(is_plain), "{:?}", resolved.name);
        assert!((1..=TEXT).contains(&resolved.name.len()));
        // The address stands in the message.
        let bytes = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        assert!(data.windows(bytes.len()).any(|part| part == bytes), "{ip}");
    }
    let raw = netspy_conn { pid: 7, netns: 1, start_ns: 1, ..netspy_conn::default() };
    let addresses: Vec<_> = names.young.keys().copied().collect();
    for ip in addresses {
        assert!(names.resolved(&raw, ip).is_some_and(|(_, source)| source == NameSource::Dns));
    }
}

#[cfg(test)]
#[path = "names/tests.rs"]
mod tests;
