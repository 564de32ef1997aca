//! Questions about dropped packets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::filter::{self, invalid};
use super::{Page, QueryError, Window};
use crate::accounting::{DropCounters, Gap};
use crate::event::{DropRecord, Protocol};

/// Which drops are meant. Within one member any value may match; all members must match. An empty
/// member matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DropFilter {
    /// Name of the process or of the thread whose attempt was hit, or the base name of its
    /// executable.
    pub process: Vec<String>,
    /// Its process id.
    pub pid: Vec<u32>,
    /// Address of either end.
    pub remote: Vec<IpAddr>,
    /// Port of either end.
    pub port: Vec<u16>,
    /// Protocol.
    pub protocol: Vec<Protocol>,
    /// Name of the reason, in any letter case.
    pub reason: Vec<String>,
    /// Start of the window (the first drop was at or after it).
    pub since: Option<Timestamp>,
    /// End of the window (the first drop was before it).
    pub until: Option<Timestamp>,
}

/// The parameters that say which drops are meant.
pub const DROP_FILTER_NAMES: [&str; 8] =
    ["process", "pid", "remote", "port", "protocol", "reason", "since", "until"];

/// The parameters that say which part of the list is meant: it is newest first.
pub const DROP_PAGE_NAMES: [&str; 2] = ["limit", "cursor"];

/// Reads parameters; ages count from now.
pub fn parse<N: AsRef<str>, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (N, V)>,
) -> Result<(DropFilter, Page), QueryError> {
    let mut filter = DropFilter::default();
    let mut others = Vec::new();
    let mut reason = false;
    for (name, value) in pairs {
        let (name, value) = (name.as_ref(), value.as_ref());
        let names = [&DROP_FILTER_NAMES[..], &DROP_PAGE_NAMES[..]].concat();
        if !names.contains(&name) {
            return Err(filter::unknown(name, &names));
        }
        if name != "reason" {
            others.push((name.to_owned(), value.to_owned()));
            continue;
        }
        if std::mem::replace(&mut reason, true) {
            return Err(filter::given_twice(name));
        }
        filter.reason = filter::texts(name, value, "names of reasons such as NO_SOCKET")?;
    }
    // What they have in common with the parameters of connections means the same.
    let (common, page) = filter::parse(others)?;
    filter.process = common.process;
    filter.pid = common.pid;
    filter.remote = common.remote;
    filter.port = common.port;
    filter.protocol = common.protocol;
    (filter.since, filter.until) = (common.since, common.until);
    Ok((filter, page))
}

impl DropFilter {
    /// The parameters that [`parse`] reads back as this filter.
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let common = super::Filter {
            process: self.process.clone(),
            pid: self.pid.clone(),
            remote: self.remote.clone(),
            port: self.port.clone(),
            protocol: self.protocol.clone(),
            since: self.since,
            until: self.until,
            ..super::Filter::default()
        };
        let mut pairs = common.to_pairs();
        if !self.reason.is_empty() {
            pairs.push(("reason", filter::escaped(&self.reason).join(",")));
        }
        pairs
    }

    /// Whether a record is meant.
    pub fn matches(&self, drop: &DropRecord) -> bool {
        let ends = || [drop.source, drop.destination].into_iter().flatten();
        let process = drop.process.as_ref();
        self.since.is_none_or(|since| drop.time >= since)
            && self.until.is_none_or(|until| drop.time < until)
            && filter::any(&self.reason, |reason| drop.reason.eq_ignore_ascii_case(reason))
            && filter::any(&self.protocol, |protocol| drop.protocol == Some(*protocol))
            && filter::any(&self.remote, |ip| ends().any(|end| end.ip == *ip))
            && filter::any(&self.port, |port| ends().any(|end| end.port == *port))
            && filter::any(&self.pid, |pid| process.is_some_and(|p| p.pid == *pid))
            && filter::any(&self.process, |name| {
                process.is_some_and(|p| *p.thread == **name || filter::has_name(&p.info, name))
            })
    }
}

/// The books of an answer about drops, in packets.
///
/// `packets = listed + no_room + no_address + pending`, whatever the filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DropBooks {
    /// Packets that were seen to be dropped.
    pub packets: u64,
    /// Packets in records with their addresses.
    pub listed: u64,
    /// Packets that found no room in the kernel's table of flows: in records by reason alone.
    pub no_room: u64,
    /// Packets that are no IP packets, or could not be read: in records by reason alone.
    pub no_address: u64,
    /// Packets that are in no record yet.
    pub pending: u64,
    /// Packets that the kernel did not show to the program: not among the above.
    pub missed: u64,
    /// Packets of records that were lost on their way to the store.
    pub lost: u64,
    /// Packets of records that have aged out of the store.
    pub evicted: u64,
    /// When capture was down.
    pub gaps: Vec<Gap>,
    /// Start of the window that the figures cover.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub since: Timestamp,
    /// End of it.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub until: Timestamp,
    /// Whether no flow can be missing from the window.
    pub complete: bool,
}

impl DropBooks {
    /// The books for what happened between two samples of the counters.
    pub fn between(from: &DropCounters, to: &DropCounters, window: Window) -> Self {
        let diff = |a: u64, b: u64| b.saturating_sub(a);
        let packets = diff(from.packets, to.packets);
        let mut left = packets;
        let mut take = |n: u64| {
            let taken = n.min(left);
            left -= taken;
            taken
        };
        let pending = take(to.pending());
        let no_room = take(diff(from.no_room, to.no_room));
        let no_address = take(diff(from.no_address, to.no_address));
        let listed = left;
        let (missed, lost) = (diff(from.missed, to.missed), diff(from.lost, to.lost));
        DropBooks {
            packets,
            listed,
            no_room,
            no_address,
            pending,
            missed,
            lost,
            evicted: 0,
            gaps: Vec::new(),
            since: window.since,
            until: window.until,
            complete: no_room == 0 && missed == 0 && lost == 0,
        }
    }

    /// Whether each packet is in exactly one term.
    pub fn balances(&self) -> bool {
        self.packets == self.listed + self.no_room + self.no_address + self.pending
    }
}

/// A list of drops.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DropList {
    /// The records, newest first.
    pub drops: Vec<DropRecord>,
    /// How many records match in all.
    pub total: u64,
    /// Packets of all that match.
    pub packets: u64,
    /// Packets of all that match, by reason.
    pub by_reason: BTreeMap<String, u64>,
    /// Where the next page starts.
    pub next_cursor: Option<String>,
    /// The time that the answer covers.
    pub window: Window,
    /// The books of that time.
    pub accounting: DropBooks,
    /// Why drops are not seen, if they are not.
    pub not_seen: Option<String>,
    /// Where nothing matched: the time of the newest record that matches but for the window.
    #[serde(serialize_with = "crate::event::time::serialize_option")]
    pub newest_outside_window: Option<Timestamp>,
}

/// The error for a cursor that is of no use here.
pub(crate) fn wrong_cursor(problem: &str) -> QueryError {
    invalid("cursor", problem, "the next_cursor of an earlier answer to the same question")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Process;
    use crate::test_records::{dropped, info};

    #[test]
    fn every_filter_survives_its_parameters() {
        let filter = DropFilter {
            process: vec!["a,b".to_owned(), " c".to_owned()],
            pid: vec![1, 2],
            remote: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            port: vec![0, 443],
            protocol: vec![Protocol::Udp],
            reason: vec!["NO_SOCKET".to_owned(), "x,y".to_owned()],
            since: Some("2026-01-31T09:30:00.5Z".parse().unwrap()),
            until: Some("2026-01-31T09:30:01Z".parse().unwrap()),
        };
        let page = Page { limit: Some(5), cursor: Some("d1".to_owned()), ..Page::default() };
        let pairs: Vec<_> = filter.to_pairs().into_iter().chain(page.to_pairs()).collect();
        assert_eq!(parse(pairs).unwrap(), (filter, page));
    }

    #[test]
    fn a_wrong_or_unknown_parameter_is_named_in_the_error() {
        let wrong = [
            vec![("state", "open")],
            vec![("sort", "oldest")],
            vec![("reason", "")],
            vec![("reason", "A"), ("reason", "B")],
            vec![("port", "x")],
            vec![("limit", "0")],
        ];
        for pairs in wrong {
            let name = pairs[0].0;
            match parse(pairs) {
                Err(QueryError::Invalid { parameter, problem, accepted }) => {
                    assert_eq!(parameter, name);
                    assert!(!problem.is_empty() && !accepted.is_empty());
                }
                other => panic!("{name} gave {other:?}"),
            }
        }
    }

    #[test]
    fn each_member_of_a_filter_selects() {
        let curl = info(7, "curl");
        let process = Process { tid: 8, thread: "worker".into(), info: curl };
        let drop = DropRecord { process: Some(process), ..dropped(1) };
        let cases: [(&str, &str, &str); 7] = [
            ("process", "worker", "wget"),
            ("process", "x,curl", "curls"),
            ("pid", "7", "8"),
            ("remote", "192.0.2.1", "192.0.2.2"),
            ("port", "40000", "1"),
            ("protocol", "tcp,udp", "udp"),
            ("reason", "no_socket", "SOCKET"),
        ];
        for (name, matching, other) in cases {
            let matches = |value: &str| parse([(name, value)]).unwrap().0.matches(&drop);
            assert!(matches(matching) && !matches(other), "{name}");
        }
        let bare = DropRecord { source: None, destination: None, process: None, ..drop };
        assert!(DropFilter::default().matches(&bare));
        assert!(!parse([("port", "443")]).unwrap().0.matches(&bare));
    }

    #[test]
    fn the_books_of_any_window_balance() {
        let zero = DropCounters::default();
        let a = DropCounters { packets: 10, listed: 7, no_address: 2, ..zero };
        let b = DropCounters { packets: 30, listed: 20, no_room: 6, no_address: 4, ..zero };
        let at = Timestamp::UNIX_EPOCH;
        let window = Window { since: at, until: at };
        for (from, to, complete) in [(zero, a, true), (a, b, false), (b, b, true)] {
            let books = DropBooks::between(&from, &to, window);
            assert!(books.balances(), "{books:?}");
            assert_eq!(books.complete, complete);
        }
    }
}
