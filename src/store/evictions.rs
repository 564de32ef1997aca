//! Which times the evicted records were of: a bounded list of stretches.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::row::nanos;
use super::segment::Range;

/// Stretches that are kept apart; older ones are joined.
const STRETCHES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Evictions {
    stretches: VecDeque<(Range<i64>, u64)>,
}

impl Evictions {
    pub(super) fn add(&mut self, times: Range<i64>, records: u64) {
        self.stretches.push_back((times, records));
        if self.stretches.len() > STRETCHES
            && let (Some((a, m)), Some((b, n))) =
                (self.stretches.pop_front(), self.stretches.pop_front())
        {
            let joined = Range { min: a.min.min(b.min), max: a.max.max(b.max) };
            self.stretches.push_front((joined, m + n));
        }
    }

    /// Records of stretches that touch the window.
    pub(super) fn between(&self, since: Timestamp, until: Timestamp) -> u64 {
        let (since, until) = (nanos(since), nanos(until));
        let touches = |times: &Range<i64>| times.max >= since && times.min < until;
        self.stretches.iter().filter(|(times, _)| touches(times)).map(|(_, n)| n).sum()
    }
}
