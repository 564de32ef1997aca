//! Questions for names, as the rules need them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::finding::Evidence;
use super::tally::{MAX_RECORDS, time};
use crate::event::{ConnectionId, DnsId, DnsOutcome, DnsRecord};

/// Questions that are looked at.
pub(super) const MAX_QUESTIONS: usize = 100_000;

/// Programs that ask what others want to know, by the names of their processes: what fails with them
/// fails with whoever asked them, and they do not connect to what they are told.
const RESOLVERS: [&str; 12] = [
    "systemd-resolve",
    "dnsmasq",
    "unbound",
    "named",
    "coredns",
    "pdns_recursor",
    "kresd",
    "stubby",
    "dnscrypt-proxy",
    "AdGuardHome",
    "pihole-FTL",
    "blocky",
];

/// What the rules need to know of one question.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) time_ns: i64,
    pub(super) id: DnsId,
    /// Number of the name of the process; `None` is not known.
    pub(super) process: Option<u32>,
    pub(super) pid: u32,
    pub(super) netns: u32,
    pub(super) name: Arc<str>,
    pub(super) server: IpAddr,
    pub(super) outcome: DnsOutcome,
    /// The connection that carried it.
    connection: Option<ConnectionId>,
    /// Whether its process made a connection by its answer.
    pub(super) is_followed: bool,
    /// Whether it asks for what is there to be connected to.
    pub(super) is_for_address: bool,
    /// Whether somebody else wanted to know.
    pub(super) is_of_resolver: bool,
}

impl Asked {
    pub(super) fn of(record: &DnsRecord, process: Option<u32>) -> Self {
        let who = record.process.as_ref();
        Asked {
            time_ns: crate::query::filter::nanos(record.time),
            id: record.id,
            process,
            pid: who.map_or(0, |who| who.pid),
            netns: who.map_or(0, |who| who.netns),
            name: Arc::clone(&record.name),
            server: record.server.ip,
            outcome: record.outcome,
            connection: record.connection,
            is_followed: !record.connections.is_empty(),
            is_for_address: ["A", "AAAA"].contains(&&*record.record_type),
            is_of_resolver: who.is_some_and(|who| RESOLVERS.contains(&&*who.comm)),
        }
    }

    pub(super) fn first_label(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// Whether the name stands for an address, as those of reverse look-ups and of lists of addresses
    /// (RFC 5782) do: that there is no such name is an answer like any other.
    pub(super) fn is_about_address(&self) -> bool {
        let is_reverse = self.name.ends_with(".in-addr.arpa") || self.name.ends_with(".ip6.arpa");
        let is_octet = |label: &&str| label.parse::<u8>().is_ok();
        let is_nibble = |label: &&str| u8::from_str_radix(label, 16).is_ok() && label.len() == 1;
        let labels = || self.name.split('.');
        is_reverse
            || labels().take_while(is_octet).count() >= 4
            || labels().take_while(is_nibble).count() >= 16
    }
}

/// What a finding rests on; the questions are in the order of their times.
pub(super) fn evidence(figures: BTreeMap<String, u64>, questions: &[&Asked]) -> Evidence {
    let newest = || questions.iter().rev();
    let mut records: Vec<ConnectionId> = Vec::new();
    for id in newest().filter_map(|asked| asked.connection) {
        // Two questions on one socket are one record.
        if records.len() < MAX_RECORDS && !records.contains(&id) {
            records.push(id);
        }
    }
    let at = |asked: Option<&&Asked>| time(asked.map_or(0, |asked| asked.time_ns));
    Evidence {
        figures,
        records,
        questions: newest().take(MAX_RECORDS).map(|asked| asked.id).collect(),
        first: at(questions.first()),
        last: at(questions.last()),
    }
}
