//! Limits: the oldest segments go first, by size and by age.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::segment::Segment;
use super::{Shared, lock};
use crate::store::evictions::Stretch;
use crate::store::row::nanos;
use crate::store::segment::Range;

impl Shared {
    /// Lets go of what is too much, or too old.
    pub(super) fn keep_limits(&self) {
        self.look_for_removed();
        self.let_go_for(0);
        let now = Timestamp::now();
        let Some(oldest) = self.options.max_age.and_then(|age| now.checked_sub(age).ok()) else {
            return;
        };
        // Any of them, since the clock may have been ahead while the first was written.
        let segments = self.segments();
        let too_old = segments.iter().filter(|s| s.facts.last_time < nanos(oldest));
        too_old.for_each(|segment| self.let_go(segment));
    }

    /// Lets go of the oldest segments until there is room for so many bytes more, or none is left.
    pub(super) fn let_go_for(&self, more: u64) {
        while self.bytes().saturating_add(more) > self.options.limit_bytes
            && let Some(oldest) = self.segments().first()
        {
            self.let_go(oldest);
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
        // Before it is gone, so that no answer lacks it unawares, be it one of the next process.
        let changes = (segment.facts.after, segment.facts.last);
        let kept = Kept { last: changes.1, times, records };
        {
            // Answers of this one have it as long as memory does.
            let mut kept_in_memory = lock(&self.kept_in_memory);
            match self.released.load(Ordering::SeqCst) < kept.last {
                true => kept_in_memory.push(kept),
                false => self.count_evicted(&kept),
            }
        }
        lock(&self.books).let_go(times, records, changes, self.all_let_go());
        segment.note_let_go();
        if let Err(error) = fs::remove_file(&segment.path) {
            tracing::warn!("{}: cannot be removed: {error}", segment.path.display());
        }
    }

    /// All that the next process will lack, also what memory of this one still has.
    pub(super) fn all_let_go(&self) -> Vec<Stretch> {
        let kept_in_memory = lock(&self.kept_in_memory);
        let kept = kept_in_memory.iter().map(|k| Stretch { times: k.times, records: k.records });
        lock(&self.evictions).all().into_iter().chain(kept).collect()
    }

    fn count_evicted(&self, gone: &Kept) {
        self.evicted.fetch_add(gone.records, Ordering::Relaxed);
        lock(&self.evictions).add(gone.times, gone.records);
    }

    /// Memory lets go of everything up to this change: what is in no segment any more is gone with it.
    pub(super) fn note_released(&self, change: u64) {
        let mut kept = lock(&self.kept_in_memory);
        self.released.fetch_max(change, Ordering::SeqCst);
        kept.retain(|kept| {
            let stays = kept.last > change;
            if !stays {
                self.count_evicted(kept);
            }
            stays
        });
    }

    /// Looks whether somebody else has taken segments away: what is remembered of them answers some
    /// questions without them.
    fn look_for_removed(&self) {
        self.segments().iter().for_each(|segment| segment.look());
    }
}

/// Records that are in no file any more, and in memory still.
#[derive(Debug)]
pub(super) struct Kept {
    /// The last change of their segment.
    last: u64,
    times: Range<i64>,
    records: u64,
}
