//! Which times the evicted records were of: a bounded list of stretches.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::row::nanos;
use super::segment::Range;

/// Stretches that are kept apart; older ones are joined.
const STRETCHES: usize = 1024;

/// Records that were let go, and the times of their attempts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) times: Range<i64>,
    pub(super) records: u64,
}

#[derive(Debug, Default)]
pub(super) struct Evictions {
    stretches: VecDeque<Stretch>,
}

impl Evictions {
    pub(super) fn add(&mut self, times: Range<i64>, records: u64) {
        self.stretches.push_back(Stretch { times, records });
        if self.stretches.len() > STRETCHES
            && let (Some(a), Some(b)) = (self.stretches.pop_front(), self.stretches.pop_front())
        {
            let times =
                Range { min: a.times.min.min(b.times.min), max: a.times.max.max(b.times.max) };
            self.stretches.push_front(Stretch { times, records: a.records + b.records });
        }
    }

    /// Records of stretches that touch the window.
    pub(super) fn between(&self, since: Timestamp, until: Timestamp) -> u64 {
        let (since, until) = (nanos(since), nanos(until));
        let touches = |s: &&Stretch| s.times.max >= since && s.times.min < until;
        self.stretches.iter().filter(touches).map(|s| s.records).sum()
    }

    /// All of them, oldest first.
    #[cfg(feature = "history")]
    pub(super) fn all(&self) -> Vec<Stretch> {
        self.stretches.iter().copied().collect()
    }
}
