//! Captures that have ended.

use jiff::Timestamp;

use super::asked::Asked;
use super::sample::{Sample, after, before};
use crate::accounting::{Accounting, Counters, Gap};

/// Why a capture ended that did not say so.
pub(in crate::store) const UNNOTICED: &str = "the server had ended without notice";

/// A capture that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Run {
    /// When all figures were zero.
    pub(in crate::store) start: Timestamp,
    /// Nothing had been watched before.
    pub(in crate::store) is_first: bool,
    /// Figures since the start, oldest first.
    pub(in crate::store) samples: Vec<Sample>,
    /// Why nothing was watched after the last of them, if it said so.
    pub(in crate::store) why: Option<String>,
    /// The last change before those of this capture, if that is known.
    pub(in crate::store) after: Option<u64>,
    /// Set where the figures reach further than what is known to be whole: until when that is.
    pub(in crate::store) whole_until: Option<Timestamp>,
}

impl Run {
    /// One that begins, and has not ended.
    #[cfg_attr(not(feature = "history"), allow(dead_code))]
    pub(in crate::store) fn new(start: Timestamp, is_first: bool) -> Self {
        let samples = vec![Sample::zero(start)];
        Run { start, is_first, samples, why: None, after: None, whole_until: None }
    }

    /// Until when it has figures.
    pub(in crate::store) fn end(&self) -> Timestamp {
        self.samples.last().map_or(self.start, |sample| sample.last)
    }

    /// From when on it may have missed something.
    pub(super) fn watched_until(&self) -> Timestamp {
        self.whole_until.map_or(self.end(), |until| until.min(self.end()))
    }

    /// The books of the part of a window that it watched; none where there is no such part.
    fn books(&self, from: Timestamp, to: Timestamp) -> Option<Accounting> {
        let end = self.end();
        let (from, to) = (from.max(self.start), to.min(end));
        if from > to {
            return None;
        }
        let at_from = match from == self.start {
            true => Counters::default(),
            false => before(self.samples.iter(), from),
        };
        // Where the clock was set back, many samples are of its last moment.
        let at_to = match to == end {
            true => self.samples.last().map(|sample| sample.counters),
            false => after(self.samples.iter(), to),
        };
        let at_to = at_to.unwrap_or_default();
        let books = Accounting::between(&at_from, &at_to, from, to);
        Some(if to == end { books.ended() } else { books })
    }
}

/// What is known of the time before this capture: captures in their order, and by the clock as it was
/// then. Where it was set back between two, the later has earlier times.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Past {
    pub(in crate::store) runs: Vec<Run>,
    /// Records of these times may have been lost later.
    pub(in crate::store) damage: Vec<Gap>,
}

impl Past {
    /// When the first of the captures began.
    pub(in crate::store) fn begin(&self) -> Option<Timestamp> {
        self.runs.iter().map(|run| run.start).min()
    }

    /// When the first of all captures began, if the books still reach back to it.
    pub(in crate::store) fn whole_since(&self) -> Option<Timestamp> {
        self.runs.first().filter(|run| run.is_first).and_then(|_| self.begin())
    }

    /// Whether the clock was set back between two captures, the last of which began then: what came
    /// later may have earlier times.
    pub(in crate::store) fn was_set_back(&self, last: Timestamp) -> bool {
        let starts = self.runs.iter().skip(1).map(|run| run.start).chain([last]);
        self.runs.iter().zip(starts).any(|(run, next)| next < run.watched_until())
    }

    /// Attempts that the captures had not shown when they ended.
    pub(in crate::store) fn lost_at_ends(&self) -> u64 {
        let last = self.runs.iter().filter_map(|run| run.samples.last());
        last.map(|s| s.counters.pending() + s.counters.lost.capture_ended).sum()
    }

    /// Adds what it has of a window, before a capture that began then.
    pub(super) fn add_to(&self, books: &mut Accounting, asked: &Asked, next: Timestamp) {
        let starts = self.runs.iter().skip(1).map(|run| run.start).chain([next]);
        for (run, next) in self.runs.iter().zip(starts) {
            if let Some(run) = run.books(asked.from, asked.to) {
                books.add(run);
            }
            books.gaps.extend(asked.gap_before(run, next));
        }
        let damage = self.damage.iter();
        books.gaps.extend(damage.filter_map(|d| asked.part(d.since, d.until, &d.why)));
    }
}
