//! Counts that the rules look at, taken in one record at a time and in bounded memory.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::beats::Beats;
use super::finding::Evidence;
use super::questions::{Asked, MAX_QUESTIONS};
use crate::event::{ConnectionId, DnsRecord, Outcome};

/// Flows (process name, remote, port) that are told apart.
pub(super) const MAX_FLOWS: usize = 20_000;
/// Pairs of process name and step of time that are told apart.
pub(super) const MAX_STEPS: usize = 20_000;
/// Reasons of drops that are told apart in one flow.
const MAX_REASONS: usize = 16;
/// Records that a finding names.
pub(super) const MAX_RECORDS: usize = 5;
/// The length of a step, over which attempts are counted to find storms.
pub(super) const STEP_NS: i64 = 10_000_000_000;
/// An attempt that its program ends after this long has waited for an answer: what only loses a race
/// (RFC 8305 begins the next address after 250 ms) is ended sooner. A program's limit of one second
/// begins a little before the attempt.
const GIVEN_UP_US: u64 = 900_000;
/// An attempt without outcome counts as stuck when it is older than this.
pub(super) const STUCK_NS: i64 = 30_000_000_000;

/// What the rules need to know of one outbound attempt at an IP address.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its id.
    pub id: ConnectionId,
    /// Its start, in nanoseconds since 1970.
    pub time_ns: i64,
    /// How it ended.
    pub outcome: Outcome,
    /// From the attempt to its outcome.
    pub latency_us: Option<u64>,
    /// Remote address.
    pub remote: IpAddr,
    /// Remote port, where the protocol has ports.
    pub port: Option<u16>,
    /// Name of the process, if it is known.
    pub process: Option<&'a str>,
    /// Whether the remote has a name.
    pub is_named: bool,
    /// Reason and number of its packets that the kernel dropped.
    pub dropped: Option<(&'a str, u64)>,
}

/// Which records of one sort there are: how many, from when to when, and the newest few.
#[derive(Debug, Default, Clone)]
pub(super) struct Marks {
    pub(super) count: u64,
    first_ns: Option<i64>,
    /// Newest first.
    newest: Vec<(i64, ConnectionId)>,
}

impl Marks {
    pub(super) fn add(&mut self, time_ns: i64, id: ConnectionId) {
        self.count += 1;
        self.first_ns = Some(self.first_ns.map_or(time_ns, |first| first.min(time_ns)));
        self.keep((time_ns, id));
    }

    fn keep(&mut self, mark: (i64, ConnectionId)) {
        let place = self.newest.partition_point(|kept| *kept > mark);
        if place < MAX_RECORDS {
            self.newest.insert(place, mark);
            self.newest.truncate(MAX_RECORDS);
        }
    }

    pub(super) fn merge(&mut self, other: &Marks) {
        self.count += other.count;
        self.first_ns = self.first_ns.into_iter().chain(other.first_ns).min();
        other.newest.iter().for_each(|mark| self.keep(*mark));
    }

    pub(super) fn evidence(&self, figures: BTreeMap<String, u64>) -> Evidence {
        let time = |ns: Option<i64>| time(ns.unwrap_or_default());
        Evidence {
            figures,
            records: self.newest.iter().map(|(_, id)| *id).collect(),
            questions: Vec::new(),
            first: time(self.first_ns),
            last: time(self.newest.first().map(|(time, _)| *time)),
        }
    }
}

/// A time in nanoseconds since 1970.
pub(super) fn time(ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(ns.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What one process name did at one remote and port.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) attempts: u64,
    /// Attempts at a remote that had a name.
    pub(super) named: u64,
    failed: Marks,
    /// Aborted by their program, which had waited for an answer.
    given_up: Marks,
    pub(super) by_outcome: BTreeMap<Outcome, u64>,
    pub(super) stuck: Marks,
    pub(super) established: Marks,
    pub(super) beats: Beats,
    /// Attempts that failed, or were given up, and had packets dropped.
    pub(super) dropped: Marks,
    pub(super) reasons: BTreeMap<String, u64>,
}

/// A process name (by number; `None` is not known), a remote address, and a port if there is one.
pub(super) type FlowKey = (Option<u32>, IpAddr, Option<u16>);

/// Takes in records; [`findings`](Tally::findings) says what stands out among them.
#[derive(Debug)]
pub struct Tally {
    now_ns: i64,
    names: HashMap<Arc<str>, u32>,
    pub(super) flows: HashMap<FlowKey, Flow>,
    pub(super) steps: HashMap<(Option<u32>, i64), Marks>,
    pub(super) questions: Vec<Asked>,
    /// Whether that an answer is missing says nothing.
    pub(super) answers_may_be_lost: bool,
    exact: bool,
}

impl Tally {
    /// Nothing seen yet; how long an attempt has had no outcome counts until `now`.
    pub fn new(now: Timestamp) -> Self {
        let now_ns = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        let (names, flows, steps, questions) = Default::default();
        let answers_may_be_lost = false;
        Tally { now_ns, names, flows, steps, questions, answers_may_be_lost, exact: true }
    }

    /// Whether all that was seen was counted: false where there was more to tell apart than there
    /// is room for, so that findings may be missing and their figures may be too low.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Takes in one record.
    pub fn add(&mut self, seen: &Seen<'_>) {
        let process = match seen.process.map(|name| self.name(name)) {
            Some(None) => {
                self.exact = false;
                return;
            }
            Some(number) => number,
            None => None,
        };
        let step = (process, seen.time_ns.div_euclid(STEP_NS));
        match room(&mut self.steps, step, MAX_STEPS) {
            Some(marks) => marks.add(seen.time_ns, seen.id),
            None => self.exact = false,
        }
        match room(&mut self.flows, (process, seen.remote, seen.port), MAX_FLOWS) {
            Some(flow) => self.exact &= flow.add(seen, self.now_ns),
            None => self.exact = false,
        }
    }

    /// Takes in one question for a name.
    pub fn add_question(&mut self, record: &DnsRecord) {
        let process = record.process.as_ref();
        let number = process.map(|process| self.name(&process.comm));
        if self.questions.len() >= MAX_QUESTIONS || number == Some(None) {
            self.exact = false;
            return;
        }
        self.questions.push(Asked::of(record, number.flatten()));
    }

    /// Messages were lost on their way from the kernel: a question without an answer may have one.
    pub fn answers_may_be_lost(&mut self) {
        self.answers_may_be_lost = true;
    }

    /// The number of a name; `None` where there is no room for more.
    fn name(&mut self, name: &str) -> Option<u32> {
        if let Some(number) = self.names.get(name) {
            return Some(*number);
        }
        let number = u32::try_from(self.names.len()).ok().filter(|n| (*n as usize) < MAX_FLOWS)?;
        self.names.insert(name.into(), number);
        Some(number)
    }

    /// The names by their numbers.
    pub(super) fn names(&self) -> HashMap<u32, Arc<str>> {
        self.names.iter().map(|(name, number)| (*number, Arc::clone(name))).collect()
    }
}

/// Whether an attempt that ended so was given up by a program that had waited for an answer.
pub(crate) fn was_given_up(outcome: Outcome, latency_us: Option<u64>) -> bool {
    outcome == Outcome::Aborted && latency_us.is_some_and(|us| us >= GIVEN_UP_US)
}

impl Flow {
    /// Attempts that failed; where nothing at all got there, also those that were given up.
    pub(super) fn failures(&self) -> Marks {
        let mut all = self.failed.clone();
        if self.established.count == 0 {
            all.merge(&self.given_up);
        }
        all
    }

    /// Whether there was room for all of it.
    fn add(&mut self, seen: &Seen<'_>, now_ns: i64) -> bool {
        self.attempts += 1;
        self.named += u64::from(seen.is_named);
        let (time, id) = (seen.time_ns, seen.id);
        self.beats.add(time, id);
        match seen.outcome {
            Outcome::InProgress if now_ns.saturating_sub(time) > STUCK_NS => {
                self.stuck.add(time, id)
            }
            Outcome::Established => self.established.add(time, id),
            outcome if outcome.is_unsuccessful() || was_given_up(seen.outcome, seen.latency_us) => {
                match outcome {
                    Outcome::Aborted => self.given_up.add(time, id),
                    _ => self.failed.add(time, id),
                }
                *self.by_outcome.entry(outcome).or_default() += 1;
                // That nothing listens is all that this reason says, and what refused means.
                let told = |reason| outcome == Outcome::Refused && reason == "NO_SOCKET";
                if let Some((reason, packets)) = seen.dropped.filter(|(reason, _)| !told(*reason)) {
                    return self.add_drop(time, id, reason, packets);
                }
            }
            _ => {}
        }
        true
    }

    fn add_drop(&mut self, time: i64, id: ConnectionId, reason: &str, packets: u64) -> bool {
        self.dropped.add(time, id);
        if let Some(count) = self.reasons.get_mut(reason) {
            *count = count.saturating_add(packets);
            return true;
        }
        let room = self.reasons.len() < MAX_REASONS;
        if room {
            self.reasons.insert(reason.to_owned(), packets);
        }
        room
    }
}

/// The entry of a key, made if there is room for it.
fn room<K: Eq + std::hash::Hash, V: Default>(
    map: &mut HashMap<K, V>,
    key: K,
    most: usize,
) -> Option<&mut V> {
    if map.len() >= most && !map.contains_key(&key) {
        return None;
    }
    Some(map.entry(key).or_default())
}
