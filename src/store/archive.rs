//! What the store asks of a place where records outlive memory. Memory and archive are one to those
//! who ask: each record is shown once, in its newest version.
//!
//! Records are handed over twice: as changes, which the archive keeps safe, and as groups, once
//! enough have come. A group is all segments of a stretch of changes; when the archive holds it
//! ([`Archive::rotated`]), memory may let go of it.

use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;

use super::cursor::Rank;
use super::ledger::Past;
use super::matcher::Selection;
use super::segment::{Range, Segment};
use super::view::{Columns, View};
use crate::accounting::Counters;
use crate::event::{Connection, ConnectionId, Outcome};
use crate::query::{HistoryStatus, Sort};

/// The segments of a stretch of changes.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// The last change before it.
    pub(super) after: u64,
    /// Its last change.
    pub(super) last: u64,
    pub(super) segments: Vec<Arc<Segment>>,
    /// What memory held before it: records there may have changed since.
    pub(super) older: Vec<Arc<Segment>>,
}

/// How far a store has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The last change.
    pub(super) change: u64,
    /// Attempts that were taken in since the start, up to that change.
    pub(super) attempts: u64,
}

/// Figures of a capture.
#[derive(Debug, Clone)]
pub(super) struct Noted {
    /// When it began, and all were zero.
    pub(super) start: Timestamp,
    /// When they were read, at least a second ago unless it has ended.
    pub(super) at: Timestamp,
    pub(super) counters: Counters,
    /// The last change before those of this capture.
    pub(super) after: u64,
    /// What was stored when they were read.
    pub(super) progress: Progress,
    /// Why it watches no longer.
    pub(super) ended: Option<String>,
}

pub(super) trait Archive: Debug + Send + Sync {
    /// Takes changes to be kept, the first of which has this number.
    fn add(&self, first: u64, changes: &Arc<Vec<Connection>>);
    /// Takes a group, whose changes have all been added.
    fn add_group(&self, group: Group);
    /// Whether a group should be handed over before it is complete.
    fn wants_group(&self) -> bool;
    /// Whether some changes may be in no file, and will not be before the next group.
    fn lacks_changes(&self) -> bool;
    /// Up to which change everything can be found in the archive.
    fn rotated(&self) -> u64;
    /// Waits until [`Archive::rotated`] has come so far; whether it has, within a bounded time.
    fn wait_rotated(&self, change: u64) -> bool;
    /// Gives up groups up to this change, which memory cannot hold any longer; false if the archive
    /// holds them after all.
    fn give_up(&self, change: u64) -> bool;
    /// Memory is about to let go of the group that ends with this change; these segments remain.
    fn release(&self, change: u64, remaining: &[Arc<Segment>]);
    /// Whether a record with this id may be in the archive. If so, and memory has a newer version,
    /// [`Archive::supersede`] has to be called before that version can be seen.
    fn may_hold(&self, id: ConnectionId) -> bool;
    /// Hides the versions of a record in what ends with this change or before.
    fn supersede(&self, id: ConnectionId, up_to: u64);
    /// What is to be looked at beside these segments of memory, newest first.
    fn parts(&self, memory: &Arc<Vec<Arc<Segment>>>) -> Vec<Box<dyn Part>>;
    /// Records in the archive, each counted once, but for those of which memory has newer versions.
    fn records(&self) -> u64;
    /// Start of the oldest record, in nanoseconds since 1970.
    fn oldest(&self) -> Option<i64>;
    /// Records that the archive has let go.
    fn evicted(&self) -> u64;
    /// How many of this time, rather too many than too few.
    fn evicted_between(&self, since: Timestamp, until: Timestamp) -> u64;
    /// Counts records that memory had to give up, of a group with these changes.
    fn count_given_up(&self, times: Range<i64>, records: u64, changes: (u64, u64));
    /// The times of what can no longer be read.
    fn unreadable(&self) -> Vec<Range<i64>>;
    /// What is known of captures before this process.
    fn past(&self) -> Arc<Past>;
    /// Takes figures of this capture into the books, if what was delivered by then is safe.
    fn note_books(&self, noted: &Noted);
    fn status(&self) -> HistoryStatus;
    /// Why nothing is written, if so.
    fn stopped(&self) -> Option<String>;
    /// What is not as it should be: that, or what cannot be shown.
    fn trouble(&self) -> Option<String>;
    /// No more changes come: keeps safe what has come so far.
    fn close(&self);
}

/// Rows of a [`Part`], in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rows {
    Range(std::ops::Range<u32>),
    List(Vec<u32>),
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        match self {
            Rows::Range(range) => range.len(),
            Rows::List(list) => list.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<u32> {
        match self {
            Rows::Range(range) => {
                let row = range.start.checked_add(u32::try_from(index).ok()?)?;
                range.contains(&row).then_some(row)
            }
            Rows::List(list) => list.get(index).copied(),
        }
    }
}

/// Some of the records of an archive, sorted by their ranks, oldest first.
pub(super) trait Part: Debug {
    fn times(&self) -> Range<i64>;
    /// The rows that match and that are shown nowhere else.
    fn matching(&self, selection: &Selection) -> Rows;
    /// How many these are.
    fn count(&self, selection: &Selection) -> u64;
    fn ranks(&self, rows: &Rows, sort: Sort) -> Vec<Rank>;
    fn visit(&self, rows: &Rows, columns: Columns, visit: &mut dyn FnMut(View<'_>));
    /// Tells how many attempts that match ended how, and when one of them began: all of those that are
    /// told of together began in the same step of this length, counted from 1970.
    fn over_time(
        &self,
        selection: &Selection,
        step_ms: u64,
        tell: &mut dyn FnMut(i64, Outcome, u64),
    );
    fn records(&self, rows: &[u32]) -> Vec<Connection>;
    fn get(&self, id: ConnectionId) -> Option<Connection>;
}
