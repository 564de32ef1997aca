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
        if connection.is_final() {
            // No later version comes.
            self.young.remove(&connection.id);
            self.old.remove(&connection.id);
            return;
        }
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(connection.id, connection.outcome);
    }
}
