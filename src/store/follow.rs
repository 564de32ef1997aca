//! Following changes.
//!
//! The last few thousand changes are kept as they were handed in; a follower reads them from
//! there. One that is further behind reads the rows themselves, in the order of their last
//! change: it sees each record's newest version, and misses nothing that the store still has.
//! Either way a slow follower costs no memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::Store;
use super::matcher::{Matcher, Selection};
use crate::event::Connection;
use crate::query::{Change, Follow};

/// Recent changes, in the batches in which they came.
#[derive(Debug, Default)]
pub(super) struct Log {
    batches: VecDeque<(u64, Arc<Vec<Connection>>)>,
    changes: usize,
}

impl Log {
    /// Adds changes whose first has this number, and drops the oldest beyond `limit`.
    pub(super) fn push(&mut self, first: u64, batch: Arc<Vec<Connection>>, limit: usize) {
        self.changes += batch.len();
        self.batches.push_back((first, batch));
        while self.changes > limit
            && let Some((_, oldest)) = self.batches.pop_front()
        {
            self.changes -= oldest.len();
        }
    }

    /// The batches with changes after `after`; `None` if some of them are no longer here.
    fn after(&self, after: u64, latest: u64) -> Option<Vec<(u64, Arc<Vec<Connection>>)>> {
        if after >= latest {
            return Some(Vec::new());
        }
        let (oldest, _) = self.batches.front()?;
        if *oldest > after + 1 {
            return None;
        }
        let from =
            self.batches.partition_point(|(first, batch)| first + batch.len() as u64 <= after + 1);
        Some(self.batches.range(from..).take(64).cloned().collect())
    }

    fn first(&self) -> Option<u64> {
        self.batches.front().map(|(first, _)| *first)
    }
}

/// Changes handed out at a time.
const BATCH: usize = 512;

/// Reads the changes of a [`Store`], in order.
#[derive(Debug)]
pub struct Follower {
    store: Arc<Store>,
    selection: Arc<Selection>,
    after: u64,
    /// Up to where skipped changes have been told of.
    told: u64,
    news: watch::Receiver<u64>,
}

impl Follower {
    /// Starts just after change `after`, or now. 0 is the start of what the store has.
    pub fn new(store: Arc<Store>, selection: Selection, after: Option<u64>) -> Self {
        let news = store.news();
        let latest = *news.borrow();
        let mut told = 0;
        let after = match after {
            None => latest,
            Some(0) => {
                told = store.evicted_up_to();
                0
            }
            // A number from the future is from another life of the server.
            Some(after) if after > latest => 0,
            Some(after) => after,
        };
        Follower { store, selection: Arc::new(selection), after, told, news }
    }

    /// Waits for changes; `None` when the store is closed and everything was read.
    pub async fn next(&mut self) -> Option<Vec<Follow>> {
        loop {
            let closed = self.store.is_closed();
            self.news.mark_unchanged();
            let changes = self.read().await?;
            let progress = changes.up_to > self.after;
            self.after = changes.up_to;
            self.told = self.told.max(changes.told);
            if !changes.follow.is_empty() {
                return Some(changes.follow);
            }
            if progress {
                // Changes that do not match may come without end: let others run.
                tokio::task::yield_now().await;
                continue;
            }
            if closed || self.news.changed().await.is_err() {
                return None;
            }
        }
    }

    async fn read(&self) -> Option<Changes> {
        if let Some(changes) = self.store.recent_changes(&self.selection, self.after, self.told) {
            return Some(changes);
        }
        let (store, selection) = (Arc::clone(&self.store), Arc::clone(&self.selection));
        let (after, told) = (self.after, self.told);
        let read = move || store.changes(&selection, after, told);
        tokio::task::spawn_blocking(read).await.ok()
    }
}

/// Some of the changes after a given one.
#[derive(Debug)]
pub struct Changes {
    /// What a follower receives.
    pub follow: Vec<Follow>,
    /// Up to which change everything is in it.
    pub up_to: u64,
    /// Up to which change skipping has been told of.
    pub told: u64,
}

impl Store {
    /// The changes after `after`, a bounded number of them. Skipped ones up to `told` are known.
    pub fn changes(&self, selection: &Selection, after: u64, told: u64) -> Changes {
        // Read first: what has left the recent changes when the rows are read is in the rows.
        let end = self.log().first().unwrap_or(self.latest() + 1);
        match self.recent_changes(selection, after, told) {
            Some(changes) => changes,
            None => self.row_changes(selection, after, told, end),
        }
    }

    /// The same, if they are recent enough to be found without looking through rows.
    fn recent_changes(&self, selection: &Selection, after: u64, told: u64) -> Option<Changes> {
        let batches = self.log().after(after, self.latest())?;
        Some(recent_changes(selection, after, told, &batches))
    }

    /// What is to be told of the changes after `from`, of which those up to `gone` may be gone.
    fn skipped(&self, from: u64, gone: u64) -> Option<Follow> {
        let from = match self.earlier {
            _ if from >= self.start => from,
            // All that is known of before was had, and between the two lives there was nothing.
            Some(last) if from >= last => self.start,
            // Numbers are not without gaps from one life to the next.
            _ => return (gone > from).then_some(Follow::Skipped { changes: None }),
        };
        let changes = gone.checked_sub(from).filter(|changes| *changes > 0)?;
        // Without an archive each row that is gone was counted.
        let most = match self.archive {
            None => self.evicted.load(Ordering::Relaxed).max(1),
            Some(_) => u64::MAX,
        };
        Some(Follow::Skipped { changes: Some(changes.min(most)) })
    }

    /// Changes from the rows, up to just before change `end`.
    fn row_changes(&self, selection: &Selection, after: u64, told: u64, end: u64) -> Changes {
        let segments = self.memory();
        let mut found = Vec::new();
        // Just past the last change that can be of this batch.
        let mut end_here = end;
        for (number, segment) in segments.iter().enumerate() {
            let body = segment.read();
            if body.max_seq <= after || body.min_seq >= end_here {
                continue;
            }
            // Only rows that match count: where few do, a batch still takes one look at the rows.
            let Some(matcher) = Matcher::new(selection, &body) else { continue };
            for (row_number, row) in body.rows.iter().enumerate() {
                if row.seq > after && row.seq < end_here && matcher.matches(row) {
                    found.push((row.seq, number, row_number));
                }
            }
            // Keep what is needed, so that memory stays bounded over many segments.
            if found.len() >= BATCH {
                let (_, last, _) = found.select_nth_unstable(BATCH - 1);
                end_here = last.0;
                found.truncate(BATCH);
            }
        }
        found.sort_unstable();
        let up_to = match found.last() {
            Some((last, ..)) if found.len() >= BATCH => *last,
            _ => end.saturating_sub(1).max(after),
        };
        let mut follow = Vec::new();
        // Read after the rows: whatever is evicted meanwhile is told of.
        let gone = self.evicted_up_to();
        follow.extend(self.skipped(after.max(told), gone));
        for (seq, number, row_number) in found {
            let Some(segment) = segments.get(number) else { continue };
            let body = segment.read();
            // A row that has changed meanwhile comes again, under its new number.
            let row = body.rows.get(row_number).filter(|row| row.seq == seq);
            let record = row.and_then(|row| body.tables.decode(row));
            if let Some(connection) = record.filter(|c| selection.matches(c)) {
                follow.push(Follow::Change(Box::new(Change { seq, connection })));
            }
        }
        Changes { follow, up_to, told: gone }
    }
}

fn recent_changes(
    selection: &Selection,
    after: u64,
    told: u64,
    batches: &[(u64, Arc<Vec<Connection>>)],
) -> Changes {
    let mut follow = Vec::new();
    let mut up_to = after;
    'all: for (first, batch) in batches {
        for (seq, connection) in (*first..).zip(batch.iter()) {
            if seq <= after {
                continue;
            }
            if follow.len() >= BATCH {
                break 'all;
            }
            up_to = seq;
            if selection.matches(connection) {
                let change = Change { seq, connection: connection.clone() };
                follow.push(Follow::Change(Box::new(change)));
            }
        }
    }
    Changes { follow, up_to, told }
}
