//! A stretch of the store: rows in the order in which they first came, found by id.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::row::{Row, Tables, nanos, wide};
use crate::event::{Connection, ConnectionId, Outcome, State};

/// Rows that a segment holds at most. Row numbers fit 16 bits, and a query holds the lock of a
/// segment for no longer than it takes to look at this many rows.
pub(super) const MAX_ROWS: usize = 8192;

const EMPTY: u16 = u16::MAX;

#[derive(Debug)]
pub(super) struct Segment {
    /// The last change before the group of segments that it belongs to.
    pub(super) after: u64,
    body: RwLock<Body>,
}

impl Segment {
    pub(super) fn new(rows: usize, after: u64) -> Self {
        Segment { after, body: RwLock::new(Body::new(rows.min(MAX_ROWS))) }
    }

    // Nothing panics while it holds the lock, and a half-written row would be wrong in one
    // answer only: going on beats taking the server down.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Body> {
        self.body.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Body> {
        self.body.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The least and the greatest of a figure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range<T> {
    pub(super) min: T,
    pub(super) max: T,
}

impl<T: Copy + Ord> Range<T> {
    pub(super) fn add(range: &mut Option<Self>, value: T) {
        *range = Some(match *range {
            None => Range { min: value, max: value },
            Some(r) => Range { min: r.min.min(value), max: r.max.max(value) },
        });
    }

    pub(super) fn contains(&self, value: T) -> bool {
        self.min <= value && value <= self.max
    }
}

#[derive(Debug)]
pub(super) struct Body {
    pub(super) rows: Vec<Row>,
    pub(super) tables: Tables,
    /// Open addressing: row numbers at the hash of their id.
    index: Vec<u16>,
    capacity: usize,
    pub(super) starts: Option<Range<u64>>,
    pub(super) times: Option<Range<i64>>,
    /// No row has a lower number of its last change.
    pub(super) min_seq: u64,
    pub(super) max_seq: u64,
    /// Rows whose last change is later were carried to a newer segment: they are shown there.
    pub(super) carried_after: u64,
}

/// What became of a record that was offered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Updated {
    /// From a version with this outcome.
    Changed(Outcome),
    Same,
}

impl Body {
    fn new(capacity: usize) -> Self {
        Body {
            rows: Vec::with_capacity(capacity),
            tables: Tables::default(),
            index: vec![EMPTY; (capacity * 2).next_power_of_two()],
            capacity,
            starts: None,
            times: None,
            min_seq: u64::MAX,
            max_seq: 0,
            carried_after: u64::MAX,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= self.capacity
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.len() * size_of::<Row>() + self.index.len() * 2 + self.tables.bytes()
    }

    fn slot(&self, id: ConnectionId) -> usize {
        let mixed = (id.start_ns ^ (u64::from(id.tid) << 40) ^ u64::from(id.boot))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize & (self.index.len() - 1)
    }

    /// The number of the row with this id.
    pub(super) fn find(&self, id: ConnectionId) -> Option<usize> {
        if !self.starts.is_some_and(|starts| starts.contains(id.start_ns)) {
            return None;
        }
        let mut slot = self.slot(id);
        // At most half of the slots are taken, so an empty one comes.
        while let Some(&number) = self.index.get(slot)
            && number != EMPTY
        {
            let number = usize::from(number);
            if self.rows.get(number).is_some_and(|row| row.id() == id) {
                return Some(number);
            }
            slot = (slot + 1) & (self.index.len() - 1);
        }
        None
    }

    /// Adds a record whose id is not here; the segment must not be full.
    pub(super) fn insert(&mut self, c: &Connection, seq: u64) {
        let number = self.rows.len() as u16;
        let row = self.tables.encode(c, seq, None);
        let mut slot = self.slot(c.id);
        while self.index.get(slot).is_some_and(|taken| *taken != EMPTY) {
            slot = (slot + 1) & (self.index.len() - 1);
        }
        if let Some(place) = self.index.get_mut(slot) {
            *place = number;
        }
        self.rows.push(row);
        self.min_seq = self.min_seq.min(seq);
        self.max_seq = self.max_seq.max(seq);
        Range::add(&mut self.starts, c.id.start_ns);
        Range::add(&mut self.times, nanos(c.time));
    }

    /// Replaces a record by a later version, which takes over the first version's time. What is
    /// the same, or is older than what is known, changes nothing.
    pub(super) fn update(&mut self, number: usize, c: &mut Connection, seq: u64) -> Updated {
        let Some(old) = self.rows.get(number).copied() else { return Updated::Same };
        if rank(c.state) < rank(old.state) {
            return Updated::Same;
        }
        let Some(known) = self.tables.decode(&old) else { return Updated::Same };
        c.time = known.time;
        // What hit it once stays known, even where capture has forgotten it meanwhile.
        if c.drop.is_none() {
            c.drop.clone_from(&known.drop);
        }
        keep_of_remote(c, &known);
        if known == *c {
            return Updated::Same;
        }
        let row = self.tables.encode(c, seq, Some(&old));
        if let Some(place) = self.rows.get_mut(number) {
            *place = row;
        }
        self.max_seq = seq;
        Updated::Changed(known.outcome)
    }

    /// Frees what only inserting needs.
    pub(super) fn seal(&mut self) {
        self.tables.seal();
    }

    pub(super) fn oldest(&self) -> Option<jiff::Timestamp> {
        self.times.map(|times| wide(times.min))
    }
}

/// Nor does it lose its name, or where it really goes, where that is forgotten by the time it ends.
/// When the name was resolved the first version knows best: it was made when the attempt was.
fn keep_of_remote(c: &mut Connection, known: &Connection) {
    let (Some(remote), Some(before)) = (&mut c.remote, &known.remote) else { return };
    if remote.ip != before.ip {
        return;
    }
    if remote.name.is_none() && before.name.is_some() {
        remote.name.clone_from(&before.name);
        remote.name_source = before.name_source;
    }
    let is_same = (&remote.name, remote.name_source) == (&before.name, before.name_source);
    if is_same && before.name_time.is_some() {
        remote.name_time = before.name_time;
    }
    if remote.port == before.port && c.remote_actual.is_none() {
        c.remote_actual = known.remote_actual;
    }
}

/// A record goes from one state to the next, never back.
fn rank(state: State) -> u8 {
    match state {
        State::Connecting => 0,
        State::Open | State::Listening => 1,
        State::Closed => 2,
    }
}
