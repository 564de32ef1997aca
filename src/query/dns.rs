//! Questions about questions for names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::VariantArray;

use super::filter::{self, UNSUCCESSFUL};
use super::{Page, QueryError, Window};
use crate::accounting::{Counters, Gap};
use crate::event::{ConnectionId, DnsOutcome, DnsRecord, Protocol};

/// Which questions for names are meant. Within one member any value may match; all members must
/// match. An empty member matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsFilter {
    /// Name of the process or of the thread that asked, or the base name of its executable.
    pub process: Vec<String>,
    /// Its process id.
    pub pid: Vec<u32>,
    /// Id of its container, or the first six digits or more of it, or the name.
    pub container: Vec<String>,
    /// Name of its Kubernetes pod.
    pub pod: Vec<String>,
    /// Kubernetes namespace of that pod.
    pub namespace: Vec<String>,
    /// The name that was asked for, or `.example.com` for that domain and everything below it.
    pub host_name: Vec<String>,
    /// Address of the server, or one that was the answer.
    pub remote: Vec<IpAddr>,
    /// What carried the question.
    pub protocol: Vec<Protocol>,
    /// The type that was asked for, in any letter case.
    pub record_type: Vec<String>,
    /// What came of it.
    pub outcome: Vec<DnsOutcome>,
    /// A connection that carried the question, or followed the answer: what named its remote.
    pub connection: Vec<ConnectionId>,
    /// Start of the window (the question was sent at or after it).
    pub since: Option<Timestamp>,
    /// End of the window (the question was sent before it).
    pub until: Option<Timestamp>,
}

/// The parameters that say which questions are meant.
pub const DNS_FILTER_NAMES: [&str; 13] = [
    "process",
    "pid",
    "container",
    "pod",
    "namespace",
    "host_name",
    "remote",
    "protocol",
    "type",
    "outcome",
    "connection",
    "since",
    "until",
];

/// The parameters that say which part of the list is meant: it is newest first.
pub const DNS_PAGE_NAMES: [&str; 2] = ["limit", "cursor"];

/// Reads parameters; ages count from now.
pub fn parse<N: AsRef<str>, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (N, V)>,
) -> Result<(DnsFilter, Page), QueryError> {
    let mut filter = DnsFilter::default();
    let mut others = Vec::new();
    let mut own = Vec::new();
    for (name, value) in pairs {
        let (name, value) = (name.as_ref(), value.as_ref());
        let names = [&DNS_FILTER_NAMES[..], &DNS_PAGE_NAMES[..]].concat();
        let Some(known) = names.iter().copied().find(|known| *known == name) else {
            return Err(filter::unknown(name, &names));
        };
        if !["type", "outcome", "connection"].contains(&known) {
            others.push((name.to_owned(), value.to_owned()));
            continue;
        }
        if own.contains(&known) {
            return Err(filter::given_twice(name));
        }
        own.push(known);
        if value.len() > filter::MAX_VALUE_BYTES {
            return Err(filter::invalid(name, "is too long", "at most 16 KiB"));
        }
        match known {
            "type" => filter.record_type = filter::texts(name, value, "types such as A or AAAA")?,
            "connection" => filter.connection = ids(name, value)?,
            _ => filter.outcome = outcomes(name, value)?,
        }
    }
    // What they have in common with the parameters of connections means the same.
    let (common, page) = filter::parse(others)?;
    filter.process = common.process;
    filter.pid = common.pid;
    filter.container = common.container;
    filter.pod = common.pod;
    filter.namespace = common.namespace;
    filter.host_name = common.host_name;
    filter.remote = common.remote;
    filter.protocol = common.protocol;
    (filter.since, filter.until) = (common.since, common.until);
    Ok((filter, page))
}

fn outcomes(name: &str, value: &str) -> Result<Vec<DnsOutcome>, QueryError> {
    let words = DnsOutcome::VARIANTS.iter().map(|outcome| outcome.as_str());
    let accepted = words.chain([UNSUCCESSFUL]).collect::<Vec<_>>().join(", ");
    let mut chosen: Vec<DnsOutcome> = Vec::new();
    for part in filter::texts(name, value, &accepted)? {
        if part == UNSUCCESSFUL {
            chosen.extend(DnsOutcome::VARIANTS.iter().filter(|outcome| outcome.is_failure()));
        } else {
            chosen.push(part.parse().map_err(|_| filter::wrong(name, &part, &accepted))?);
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

fn ids(name: &str, value: &str) -> Result<Vec<ConnectionId>, QueryError> {
    let accepted = "ids of connections such as 1f0c22ab-3b9aca00-4d2";
    let parts = filter::texts(name, value, accepted)?;
    let id = |part: &String| part.parse().map_err(|_| filter::wrong(name, part, accepted));
    parts.iter().map(id).collect()
}

impl DnsFilter {
    /// The parameters that [`parse`] reads back as this filter.
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let common = super::Filter {
            process: self.process.clone(),
            pid: self.pid.clone(),
            container: self.container.clone(),
            pod: self.pod.clone(),
            namespace: self.namespace.clone(),
            host_name: self.host_name.clone(),
            remote: self.remote.clone(),
            protocol: self.protocol.clone(),
            since: self.since,
            until: self.until,
            ..super::Filter::default()
        };
        let mut pairs = common.to_pairs();
        if !self.record_type.is_empty() {
            pairs.push(("type", filter::escaped(&self.record_type).join(",")));
        }
        if !self.outcome.is_empty() {
            let words: Vec<_> = self.outcome.iter().map(|outcome| outcome.as_str()).collect();
            pairs.push(("outcome", words.join(",")));
        }
        if !self.connection.is_empty() {
            let ids: Vec<_> = self.connection.iter().map(ToString::to_string).collect();
            pairs.push(("connection", ids.join(",")));
        }
        pairs
    }

    /// Whether a record is meant.
    pub fn matches(&self, record: &DnsRecord) -> bool {
        let process = record.process.as_ref();
        self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time < until)
            && filter::any(&self.outcome, |outcome| record.outcome == *outcome)
            && filter::any(&self.record_type, |wanted| {
                record.record_type.eq_ignore_ascii_case(wanted)
            })
            && filter::any(&self.protocol, |protocol| record.protocol == *protocol)
            && filter::any(&self.remote, |ip| {
                record.server.ip == *ip || record.addresses.contains(ip)
            })
            && filter::any(&self.host_name, |name| filter::host_name_matches(name, &record.name))
            && filter::any(&self.connection, |id| {
                record.connection == Some(*id) || record.connections.contains(id)
            })
            && filter::any(&self.pid, |pid| process.is_some_and(|p| p.pid == *pid))
            && filter::container_matches(
                [&self.container, &self.pod, &self.namespace],
                process.and_then(|p| p.info.container.as_deref()),
            )
            && filter::any(&self.process, |name| {
                process.is_some_and(|p| *p.thread == **name || filter::has_name(&p.info, name))
            })
    }
}

/// The books of an answer about questions for names.
///
/// `questions = listed + no_room + pending`, whatever the filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DnsBooks {
    /// Questions that were seen.
    pub questions: u64,
    /// Questions in records.
    pub listed: u64,
    /// Questions that found no room among those that wait for an answer: in no record.
    pub no_room: u64,
    /// Questions that wait for an answer.
    pub pending: u64,
    /// Messages that were lost on their way from the kernel, or could not be understood: questions
    /// may be missing, or shown without their answer.
    pub messages_lost: u64,
    /// Records that were lost on their way to the store.
    pub lost: u64,
    /// Records that have aged out of the store.
    pub evicted: u64,
    /// When capture was down.
    pub gaps: Vec<Gap>,
    /// Start of the window that the figures cover.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub since: Timestamp,
    /// End of it.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub until: Timestamp,
    /// Whether no question can be missing from the window.
    pub complete: bool,
}

impl DnsBooks {
    /// The books for what happened between two samples of the counters.
    pub fn between(from: &Counters, to: &Counters, window: Window) -> Self {
        let (from, to) = (&from.dns, &to.dns);
        let diff = |a: u64, b: u64| b.saturating_sub(a);
        let questions = diff(from.questions, to.questions);
        let pending = to.pending().min(questions);
        let no_room = diff(from.no_room, to.no_room).min(questions - pending);
        let (messages_lost, lost) =
            (diff(from.messages_lost, to.messages_lost), diff(from.lost, to.lost));
        DnsBooks {
            questions,
            listed: questions - pending - no_room,
            no_room,
            pending,
            messages_lost,
            lost,
            evicted: 0,
            gaps: Vec::new(),
            since: window.since,
            until: window.until,
            complete: no_room == 0 && messages_lost == 0 && lost == 0,
        }
    }

    /// Whether each question is in exactly one term.
    pub fn balances(&self) -> bool {
        self.questions == self.listed + self.no_room + self.pending
    }
}

/// How long answers took, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AnswerTimes {
    /// How many answers there were.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// 95 of a hundred took no longer.
    pub p95_us: u64,
    /// 99 of a hundred took no longer.
    pub p99_us: u64,
}

/// A list of questions for names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DnsList {
    /// The records, newest first.
    pub questions: Vec<DnsRecord>,
    /// How many records match in all.
    pub total: u64,
    /// All that match, by what came of them.
    pub by_outcome: BTreeMap<String, u64>,
    /// How long the answers to all that match took; `None` where there were none.
    pub answer_times: Option<AnswerTimes>,
    /// Where the next page starts.
    pub next_cursor: Option<String>,
    /// The time that the answer covers.
    pub window: Window,
    /// The books of that time.
    pub accounting: DnsBooks,
    /// Why questions are not seen, if they are not.
    pub not_seen: Option<String>,
    /// Where nothing matched: the time of the newest record that matches but for the window.
    #[serde(serialize_with = "crate::event::time::serialize_option")]
    pub newest_outside_window: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::DnsCounters;
    use crate::test_records::asked;

    #[test]
    fn every_filter_survives_its_parameters() {
        let filter = DnsFilter {
            process: vec!["a,b".to_owned(), " c".to_owned()],
            pid: vec![1, 2],
            container: vec!["shop".to_owned(), "a,b".to_owned()],
            pod: vec!["shop-7d9f".to_owned()],
            namespace: vec!["prod".to_owned()],
            host_name: vec![".example.com".to_owned()],
            remote: vec!["192.0.2.1".parse().unwrap()],
            protocol: vec![Protocol::Udp],
            record_type: vec!["A".to_owned(), "x,y".to_owned()],
            outcome: vec![DnsOutcome::Nxdomain, DnsOutcome::TimedOut],
            connection: vec![ConnectionId { start_ns: 1, tid: 7, boot: 2 }],
            since: Some("2026-01-31T09:30:00.5Z".parse().unwrap()),
            until: Some("2026-01-31T09:30:01Z".parse().unwrap()),
        };
        let page = Page { limit: Some(5), cursor: Some("q1".to_owned()), ..Page::default() };
        let pairs: Vec<_> = filter.to_pairs().into_iter().chain(page.to_pairs()).collect();
        assert_eq!(parse(pairs).unwrap(), (filter, page));
    }

    #[test]
    fn a_wrong_or_unknown_parameter_is_named_in_the_error() {
        let wrong = [
            vec![("state", "open")],
            vec![("sort", "oldest")],
            vec![("type", "")],
            vec![("container", "")],
            vec![("pod", "a"), ("pod", "b")],
            vec![("connection", "1-2")],
            vec![("outcome", "established")],
            vec![("outcome", "answered"), ("outcome", "servfail")],
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
        let id = |start_ns| ConnectionId { start_ns, tid: 7, boot: 1 };
        let (connection, connections) = (Some(id(1)), vec![id(2), id(3)]);
        let record = DnsRecord { connection, connections, ..asked(1) };
        let cases = [
            ("process", "x,curl", "curls"),
            ("pid", "7", "8"),
            ("host_name", "WWW.example.com", "example.com"),
            ("host_name", ".example.com", ".ample.com"),
            ("remote", "192.0.2.53", "192.0.2.1"),
            ("remote", "198.51.100.1", "198.51.100.2"),
            ("protocol", "tcp,udp", "tcp"),
            ("type", "a", "AAAA"),
            ("connection", "00000001-1-7", "00000001-4-7"),
            ("connection", "00000001-4-7,00000001-3-7", "00000002-3-7"),
            ("outcome", "answered,nxdomain", "unsuccessful"),
        ];
        for (name, matching, other) in cases {
            let matches = |value: &str| parse([(name, value)]).unwrap().0.matches(&record);
            assert!(matches(matching) && !matches(other), "{name}");
        }
        assert!(DnsFilter::default().matches(&DnsRecord { process: None, ..record }));
    }

    #[test]
    fn the_books_of_any_window_balance() {
        let of = |questions, listed, no_room| {
            let dns = DnsCounters { questions, listed, no_room, ..DnsCounters::default() };
            Counters { dns, ..Counters::default() }
        };
        let at = Timestamp::UNIX_EPOCH;
        let window = Window { since: at, until: at };
        let (zero, a, b) = (of(0, 0, 0), of(10, 7, 0), of(30, 20, 6));
        for (from, to, complete) in [(&zero, &a, true), (&a, &b, false), (&b, &b, true)] {
            let books = DnsBooks::between(from, to, window);
            assert!(books.balances(), "{books:?}");
            assert_eq!(books.complete, complete);
        }
    }
}
