//! Which changes of records are lines of the live view.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::event::{Connection, ConnectionId, Outcome};

/// Ids remembered before the older half is forgotten.
const GENERATION: usize = 50_000;

/// Tells a new outcome from a change that is no line of its own.
#[derive(Debug)]
pub struct Lines {
    since: Timestamp,
    young: HashMap<ConnectionId, Outcome>,
    old: HashMap<ConnectionId, Outcome>,
}

impl Lines {
    /// Shows outcomes from `since` on.
    pub fn new(since: Timestamp) -> Self {
        Lines { since, young: HashMap::new(), old: HashMap::new() }
    }

    /// From when on outcomes are shown.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Whether this version of a record is to be shown: the first one, and each that has another
    /// outcome than the one before it.
    pub fn is_new(&mut self, connection: &Connection) -> bool {
        let known = self.young.get(&connection.id).or_else(|| self.old.get(&connection.id));
        let known = known.copied();
        self.remember(connection);
        match known {
            Some(outcome) => outcome != connection.outcome,
            None => !self.only_closes(connection),
        }
    }

    /// A connection that was set up before the view began and closes now.
    fn only_closes(&self, connection: &Connection) -> bool {
        if connection.close.is_none() {
            return false;
        }
        let latency = i64::try_from(connection.latency_us.unwrap_or(0)).unwrap_or(i64::MAX);
        let decided = connection.time.checked_add(SignedDuration::from_micros(latency));
        decided.is_ok_and(|time| time < self.since)
    }

    fn remember(&mut self, connection: &Connection) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(connection.id, connection.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(n: u64, outcome: &str) -> Connection {
        let id = ConnectionId { start_ns: n, tid: 1, boot: 1 };
        let json = serde_json::json!({
            "id": id, "host": "h", "time": "2026-01-31T09:30:00Z", "direction": "outbound",
            "protocol": "tcp", "socket_type": "stream", "family": "ipv4", "state": "open",
            "outcome": outcome, "latency_us": 1_000_000, "preexisting": false,
        });
        serde_json::from_value(json).unwrap()
    }

    fn closed(n: u64) -> Connection {
        let close = serde_json::json!({
            "time": "2026-01-31T09:31:00Z", "duration_us": 1, "bytes_sent": 1,
            "bytes_received": 1, "retransmits": 0, "reason": "fin",
        });
        let close = serde_json::from_value(close).unwrap();
        Connection { close: Some(close), ..version(n, "established") }
    }

    fn from(since: &str) -> Lines {
        Lines::new(since.parse().unwrap())
    }

    #[test]
    fn an_attempt_is_shown_once_per_outcome() {
        let mut lines = from("2026-01-31T09:00:00Z");
        assert!(lines.is_new(&version(1, "in_progress")));
        assert!(!lines.is_new(&version(1, "in_progress")));
        assert!(lines.is_new(&version(1, "established")));
        assert!(!lines.is_new(&closed(1)));
    }

    #[test]
    fn a_close_alone_is_shown_only_where_its_outcome_was_missed() {
        assert!(from("2026-01-31T09:30:01Z").is_new(&closed(1)), "decided just then");
        assert!(!from("2026-01-31T09:30:02Z").is_new(&closed(1)), "decided before");
    }

    #[test]
    fn memory_is_bounded_and_the_newest_are_remembered() {
        let mut lines = from("2026-01-31T09:00:00Z");
        let many = 3 * GENERATION as u64;
        for n in 0..many {
            lines.is_new(&version(n, "established"));
        }
        assert!(lines.young.len() + lines.old.len() <= 2 * GENERATION);
        assert!(!lines.is_new(&version(many - GENERATION as u64, "established")));
    }
}
