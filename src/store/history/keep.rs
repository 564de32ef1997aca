//! Limits: the oldest segments go first, by size and by age.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::books::Books;
use super::segment::Segment;
use super::{Shared, lock};
use crate::store::row::nanos;
use crate::store::segment::Range;

impl Shared {
    /// Lets go of what is too much, or too old.
    pub(super) fn keep_limits(&self) {
        let oldest_time =
            self.options.max_age.and_then(|age| Timestamp::now().checked_sub(age).ok().map(nanos));
        loop {
            let segments = self.segments();
            let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
            let bytes = bytes + self.journal_bytes.load(Ordering::Relaxed);
            let too_much = bytes > self.options.limit_bytes;
            // Any of them, since the clock may have been ahead while the first was written.
            let too_old = |segment: &&Arc<Segment>| {
                oldest_time.is_some_and(|time| segment.facts.last_time < time)
            };
            let first = segments.first().filter(|_| too_much);
            let Some(gone) = first.or_else(|| segments.iter().find(too_old)) else { return };
            self.let_go(gone);
        }
    }

    fn let_go(&self, segment: &Arc<Segment>) {
        let mut had = false;
        self.change_segments(|segments| {
            let before = segments.len();
            segments.retain(|known| known.number != segment.number);
            had = segments.len() < before;
        });
        if !had {
            // Another thread was quicker.
            return;
        }
        let (times, records) = (segment.times(), segment.shown());
        self.evicted.fetch_add(records, Ordering::Relaxed);
        // Before it is gone, so that no answer lacks it unawares, be it one of the next process.
        let changes = (segment.facts.after, segment.facts.last);
        self.note_let_go(&mut lock(&self.books), times, records, changes);
        if let Err(error) = fs::remove_file(&segment.path) {
            tracing::warn!("{}: cannot be removed: {error}", segment.path.display());
        }
    }

    /// Notes records that no answer has any more.
    fn note_let_go(&self, books: &mut Books, times: Range<i64>, records: u64, changes: (u64, u64)) {
        let all = {
            let mut evictions = lock(&self.evictions);
            evictions.add(times, records);
            evictions.all()
        };
        books.let_go(times, records, changes, all);
    }
}
