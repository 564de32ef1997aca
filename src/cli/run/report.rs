//! What the command and its descendants reached, and what they could not reach.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::child::Exit;
use super::unresolved::Unresolved;
use crate::accounting::Accounting;
use crate::analysis::was_given_up;
use crate::cli::render::record;
use crate::event::{Connection, Direction, Outcome, Protocol};

/// What is reported of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub command: Vec<String>,
    /// Its process id.
    pub pid: u32,
    /// Whom it was run as, if that was not netspy's own user.
    pub user: Option<String>,
    /// How it ended.
    pub exit: Exit,
    /// When it was started.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub started: Timestamp,
    /// How long it ran.
    pub duration_us: u64,
    /// Its descendants that live on, and are watched no longer.
    pub living: u64,
    /// What they did.
    #[serde(flatten)]
    pub findings: Summary,
    /// Names that led to no address.
    pub unresolved: Vec<Unresolved>,
    /// Attempts of the C library to ask a cache of users or names at a UNIX socket where nothing
    /// listens. They are in no group: it goes another way then.
    pub asked_first: u64,
    /// The books of the time.
    pub accounting: Accounting,
}

/// Connections by whoever made them, where they went and how they ended.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Attempts, and connections that were accepted.
    pub connections: u64,
    /// How many of them are unsuccessful.
    pub unsuccessful: u64,
    /// Those that have all in common, most of them first.
    pub groups: Vec<Group>,
}

/// What tells groups apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Key {
    /// Who opened them.
    pub direction: Direction,
    /// Name of the process.
    pub process: Option<Arc<str>>,
    /// Whether the program had waited for an answer before it gave up.
    #[serde(skip)]
    pub given_up: bool,
    /// Protocol of the sockets.
    pub protocol: Protocol,
    /// The other side, as `ADDRESS:PORT` or a path; of what was accepted, and where something
    /// listened, this one.
    pub place: String,
    /// How they ended.
    pub outcome: Outcome,
    /// The error of that.
    pub error: Option<String>,
}

/// Connections that have all of this in common.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// What that is.
    #[serde(flatten)]
    pub key: Key,
    /// Host name of the remote, if one was seen.
    pub name: Option<Arc<str>>,
    /// How many.
    pub count: u64,
    /// In how many processes.
    pub processes: u64,
    /// Whether these or others reached the same place. Datagrams that were sent reach nothing that
    /// is known.
    pub reached: bool,
    /// Packets of them that this host dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// From the attempt to its outcome.
    pub latency: Option<Latency>,
    /// What they carried.
    pub bytes_sent: u64,
    /// What they carried.
    pub bytes_received: u64,
    /// Start of the first of them.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub first: Timestamp,
    /// Start of the last.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub last: Timestamp,
    /// Which processes.
    #[serde(skip)]
    pub pids: BTreeSet<u32>,
    /// Each time to an outcome, sorted.
    #[serde(skip)]
    pub latencies: Vec<u64>,
}

/// Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// The shortest.
    pub min_us: u64,
    /// As many are longer as are shorter.
    pub median_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// Gathers records into groups.
#[derive(Debug, Default)]
pub struct Groups(HashMap<Key, Gathered>);

#[derive(Debug)]
struct Gathered {
    name: Option<Arc<str>>,
    count: u64,
    pids: BTreeSet<u32>,
    drops: BTreeMap<String, u64>,
    latencies: Vec<u64>,
    sent: u64,
    received: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Groups {
    /// Adds a record in its last version.
    pub fn add(&mut self, c: &Connection) {
        let error = record::error(c);
        let key = Key {
            direction: c.direction,
            process: c.process.as_ref().map(|p| Arc::clone(&p.comm)),
            given_up: c.direction == Direction::Outbound && was_given_up(c.outcome, c.latency_us),
            protocol: c.protocol,
            place: place(c),
            outcome: c.outcome,
            error: (!error.is_empty()).then_some(error),
        };
        let group = self.0.entry(key).or_insert_with(|| Gathered::at(c.time));
        group.count += 1;
        group.first = group.first.min(c.time);
        group.last = group.last.max(c.time);
        group.pids.extend(c.process.as_ref().map(|p| p.pid));
        group.latencies.extend(c.latency_us);
        if let Some(name) = c.remote.as_ref().and_then(|r| r.name.as_ref()) {
            group.name = Some(Arc::clone(name));
        }
        if let Some(drop) = &c.drop {
            *group.drops.entry(drop.reason.clone()).or_default() += drop.count;
        }
        if let Some(carried) = c.carried() {
            group.sent += carried.bytes_sent.unwrap_or(0);
            group.received += carried.bytes_received.unwrap_or(0);
        }
    }

    /// What there is of each.
    pub fn summary(self) -> Summary {
        let place = |key: &Key| (key.direction, key.protocol, key.place.clone());
        let succeeded = self.0.keys().filter(|key| is_reached(key.outcome));
        let reached: std::collections::HashSet<_> = succeeded.map(place).collect();
        let mut summary = Summary::default();
        for (key, group) in self.0 {
            if key.outcome != Outcome::Listening {
                summary.connections += group.count;
            }
            let reached = reached.contains(&place(&key));
            let group = group.finish(key, reached);
            if group.is_unreached() {
                summary.unsuccessful += group.count;
            }
            summary.groups.push(group);
        }
        summary.groups.sort_by(|a, b| (b.count, &a.key).cmp(&(a.count, &b.key)));
        summary
    }
}

impl Group {
    /// Whether these say of their place that it could not be reached: what was given up after a while
    /// does where nothing else got there.
    pub fn is_unreached(&self) -> bool {
        self.key.outcome.is_unsuccessful() || self.key.given_up && !self.reached
    }
}

impl Gathered {
    fn at(time: Timestamp) -> Self {
        Gathered {
            name: None,
            count: 0,
            pids: Default::default(),
            drops: BTreeMap::new(),
            latencies: Vec::new(),
            sent: 0,
            received: 0,
            first: time,
            last: time,
        }
    }

    fn finish(mut self, key: Key, reached: bool) -> Group {
        self.latencies.sort_unstable();
        let latency = Latency::of(&self.latencies);
        Group {
            key,
            name: self.name,
            count: self.count,
            processes: u64::try_from(self.pids.len()).unwrap_or(u64::MAX),
            reached,
            drops: self.drops,
            latency,
            bytes_sent: self.sent,
            bytes_received: self.received,
            first: self.first,
            last: self.last,
            pids: self.pids,
            latencies: self.latencies,
        }
    }
}

impl Latency {
    /// Of times that are sorted.
    pub fn of(sorted: &[u64]) -> Option<Self> {
        let median_us = *sorted.get(sorted.len() / 2)?;
        Some(Latency { min_us: *sorted.first()?, median_us, max_us: *sorted.last()? })
    }
}

/// Whether this outcome says that something was there: of a datagram that left, nothing does.
pub fn is_reached(outcome: Outcome) -> bool {
    outcome == Outcome::Established
}

/// The end of a connection that names a service, without what changes from one to the next.
fn place(c: &Connection) -> String {
    let is_own = c.direction == Direction::Inbound;
    let address = match (&c.remote, c.local) {
        (_, Some(local)) if is_own => Some(record::address(local.ip, local.port)),
        (Some(remote), _) if !is_own => Some(record::address(remote.ip, remote.port)),
        _ => None,
    };
    match (address, &c.path) {
        (Some(address), _) => address,
        (None, Some(path)) => path.to_string(),
        (None, None) => "-".to_owned(),
    }
}

/// Arguments as JSON can have them.
pub fn words(command: &[OsString]) -> Vec<String> {
    command.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Dropped, Endpoint, Remote};
    use crate::test_records::{established, info};

    fn to(port: u16, outcome: Outcome, latency_us: u64) -> Connection {
        let ip = [192, 0, 2, 1].into();
        let remote = Remote::new(ip, port);
        let latency_us = Some(latency_us);
        let mut c = Connection {
            outcome,
            latency_us,
            remote: Some(remote),
            ..established(0, &info(1, "x"))
        };
        (c.direction, c.errno, c.error, c.drop) = (Direction::Outbound, None, None, None);
        if outcome == Outcome::Refused {
            (c.errno, c.error) = (Some(111), Some("ECONNREFUSED".into()));
        }
        c
    }

    fn summary(connections: &[Connection]) -> Summary {
        let mut groups = Groups::default();
        connections.iter().for_each(|c| groups.add(c));
        groups.summary()
    }

    #[test]
    fn attempts_on_one_place_that_ended_alike_are_one_group() {
        let refused = |us| to(5432, Outcome::Refused, us);
        let mut all = vec![refused(30), refused(10), refused(20)];
        all[1].drop = Some(Dropped { reason: "NO_SOCKET".into(), count: 2 });
        let summary = summary(&all);
        let [group] = &summary.groups[..] else { panic!("{summary:#?}") };
        assert_eq!((summary.connections, summary.unsuccessful, group.count), (3, 3, 3));
        let latency = Latency { min_us: 10, median_us: 20, max_us: 30 };
        assert_eq!(group.latency, Some(latency));
        assert_eq!((&*group.key.place, group.reached), ("192.0.2.1:5432", false));
        assert_eq!(group.key.error.as_deref(), Some("ECONNREFUSED"));
        assert_eq!(group.drops, BTreeMap::from([("NO_SOCKET".to_owned(), 2)]));
    }

    #[test]
    fn a_place_that_was_reached_at_other_times_says_so() {
        let all = [
            to(1, Outcome::Refused, 1),
            to(1, Outcome::Established, 1),
            to(2, Outcome::Refused, 1),
        ];
        let summary = summary(&all);
        assert_eq!((summary.connections, summary.unsuccessful), (3, 2));
        for group in &summary.groups {
            assert_eq!(group.reached, group.key.place.ends_with(":1"), "{group:?}");
        }
    }

    #[test]
    fn a_datagram_that_left_has_reached_nothing_that_is_known() {
        let all =
            [to(53, Outcome::Sent, 1), to(53, Outcome::Associated, 1), to(53, Outcome::Refused, 1)];
        let summary = summary(&all);
        assert_eq!((summary.connections, summary.unsuccessful), (3, 1));
        assert!(summary.groups.iter().all(|group| !group.reached), "{summary:#?}");
    }

    #[test]
    fn what_was_given_up_after_a_while_was_not_reached_unless_others_got_there() {
        let aborted = |port, us| to(port, Outcome::Aborted, us);
        let all = [
            aborted(1, 2_000_000),
            aborted(2, 100_000),
            aborted(3, 2_000_000),
            to(3, Outcome::Established, 1),
        ];
        let summary = summary(&all);
        assert_eq!((summary.connections, summary.unsuccessful), (4, 1));
        let unreached = summary.groups.iter().filter(|group| group.is_unreached());
        let places: Vec<_> = unreached.map(|group| &*group.key.place).collect();
        assert_eq!(places, ["192.0.2.1:1"]);
    }

    #[test]
    fn what_is_accepted_goes_by_the_end_that_stays_the_same() {
        let accepted = |port| {
            let local = Some(Endpoint { ip: [192, 0, 2, 9].into(), port: 80 });
            let direction = Direction::Inbound;
            Connection { local, direction, ..to(port, Outcome::Established, 1) }
        };
        let summary = summary(&[accepted(1000), accepted(1001)]);
        let [group] = &summary.groups[..] else { panic!("{summary:#?}") };
        assert_eq!((group.count, &*group.key.place), (2, "192.0.2.9:80"));
    }
}
