//! The books of any window of time: the figures of the capture, sampled every second.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use crate::accounting::{Accounting, Counters, Gap};
use crate::query::Window;
use crate::query::drops::DropBooks;

/// Samples that are kept as they came: an hour.
const FINE: usize = 3_600;
/// Older ones, one a minute: a week.
const COARSE: usize = 10_080;
const COARSE_STEP: SignedDuration = SignedDuration::from_secs(60);
/// Why nothing is known of the time before the start.
const BEFORE_CAPTURE: &str = "before capture began";

/// A stretch in which the figures did not change.
#[derive(Debug, Clone, Copy)]
struct Sample {
    first: Timestamp,
    last: Timestamp,
    counters: Counters,
}

/// Figures over time, since the start of capture. Bounded: what is older is kept coarser.
#[derive(Debug)]
pub struct Ledger {
    start: Timestamp,
    coarse: VecDeque<Sample>,
    fine: VecDeque<Sample>,
    stopped: Option<(Timestamp, String)>,
}

impl Ledger {
    /// Books that begin with this start of capture, when all figures were zero.
    pub fn new(start: Timestamp) -> Self {
        let zero = Sample { first: start, last: start, counters: Counters::default() };
        Ledger { start, coarse: VecDeque::new(), fine: VecDeque::from([zero]), stopped: None }
    }

    /// Notes the figures as they are now.
    pub fn note(&mut self, now: Timestamp, counters: Counters) {
        if let Some(last) = self.fine.back_mut() {
            // The clock may have been set back; the books go on from where they were.
            let now = now.max(last.last);
            if last.counters == counters {
                last.last = now;
                return;
            }
            self.fine.push_back(Sample { first: now, last: now, counters });
        }
        while self.fine.len() > FINE
            && let Some(old) = self.fine.pop_front()
        {
            let enough = |kept: &Sample| old.first.duration_since(kept.first) >= COARSE_STEP;
            if self.coarse.back().is_none_or(enough) {
                self.coarse.push_back(old);
            }
        }
        if self.coarse.len() > COARSE {
            // The first one, the zero at the start, stays: older windows begin there.
            self.coarse.remove(1);
        }
    }

    /// Notes that capture has stopped: from `now` on, unless that is known already.
    pub fn note_stop(&mut self, now: Timestamp, why: &str) {
        self.stopped.get_or_insert_with(|| (now, why.to_owned()));
    }

    /// The books of a window that lies wholly or partly in the time of capture. `current` are
    /// the figures at `now`. What was asked for from before the start of capture is a gap; who
    /// names no start asks for the time since then.
    pub fn books(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        now: Timestamp,
        current: &Counters,
    ) -> Accounting {
        let now = now.max(self.start);
        let (from, to) = self.clip(since, until, now);
        let [before, after] = self.figures(from, to, now, current);
        let mut books = Accounting::between(&before, &after, from, to);
        if let Some(since) = since.filter(|since| *since < self.start) {
            let until = until.unwrap_or(now).clamp(since, self.start);
            books.gaps.push(Gap { since, until, why: BEFORE_CAPTURE.to_owned() });
        }
        if let Some((stop, why)) = &self.stopped
            && *stop < to
        {
            books.gaps.push(Gap { since: (*stop).max(from), until: to, why: why.clone() });
        }
        // A window that ends before capture began was not watched at all.
        let unwatched = until.is_some_and(|until| until <= self.start);
        books.complete &= books.gaps.is_empty() && !unwatched;
        books
    }

    /// The books of drops of such a window.
    pub fn drop_books(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        now: Timestamp,
        current: &Counters,
    ) -> DropBooks {
        let books = self.books(since, until, now, current);
        let (from, to) = (books.since, books.until);
        let [before, after] = self.figures(from, to, now.max(self.start), current);
        let window = Window { since: from, until: to };
        let mut drops = DropBooks::between(&before.drops, &after.drops, window);
        // What is watched at all is watched together.
        drops.gaps = books.gaps;
        let unwatched = until.is_some_and(|until| until <= self.start);
        drops.complete &= drops.gaps.is_empty() && !unwatched;
        drops
    }

    /// The part of a window that lies in the time of capture.
    fn clip(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> (Timestamp, Timestamp) {
        let from = since.unwrap_or(self.start).clamp(self.start, now);
        (from, until.unwrap_or(now).clamp(from, now))
    }

    /// The figures at both edges.
    fn figures(
        &self,
        from: Timestamp,
        to: Timestamp,
        now: Timestamp,
        current: &Counters,
    ) -> [Counters; 2] {
        let before = if from == self.start { Counters::default() } else { self.before(from) };
        let after = if to == now { *current } else { self.after(to).unwrap_or(*current) };
        [before, after]
    }

    fn samples(&self) -> impl DoubleEndedIterator<Item = &Sample> {
        self.coarse.iter().chain(&self.fine)
    }

    fn before(&self, time: Timestamp) -> Counters {
        let sample = self.samples().rev().find(|sample| sample.first <= time);
        sample.map(|sample| sample.counters).unwrap_or_default()
    }

    fn after(&self, time: Timestamp) -> Option<Counters> {
        self.samples().find(|sample| sample.last >= time).map(|sample| sample.counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::Lost;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn figures(attempts: u64, lost: u64) -> Counters {
        let lost = Lost { ring_full: lost, ..Lost::default() };
        Counters { attempts, delivered: attempts - lost.ring_full, lost, ..Counters::default() }
    }

    #[test]
    fn a_window_has_the_figures_of_its_own_time() {
        let mut ledger = Ledger::new(at(0));
        for second in 1..=100 {
            let n = second as u64 * 10;
            ledger.note(at(second), figures(n, if second >= 50 { 5 } else { 0 }));
        }
        let now = figures(1000, 5);
        let all = ledger.books(None, None, at(100), &now);
        assert_eq!((all.attempts, all.lost.ring_full, all.complete), (1000, 5, false));
        let late = ledger.books(Some(at(60)), None, at(100), &now);
        assert_eq!((late.attempts, late.lost.ring_full, late.complete), (400, 0, true));
        let early = ledger.books(Some(at(10)), Some(at(40)), at(100), &now);
        assert_eq!((early.attempts, early.complete), (300, true));
        for books in [all, late, early] {
            assert!(books.balances());
        }
    }

    #[test]
    fn a_loss_at_the_edge_of_a_window_is_counted_rather_than_hidden() {
        let mut ledger = Ledger::new(at(0));
        ledger.note(at(1), figures(10, 0));
        ledger.note(at(2), figures(20, 1));
        let half = at(1).checked_add(SignedDuration::from_millis(500)).unwrap();
        assert!(!ledger.books(None, Some(half), at(3), &figures(20, 1)).complete);
        assert!(!ledger.books(Some(half), None, at(3), &figures(20, 1)).complete);
    }

    #[test]
    fn a_window_is_clipped_to_the_time_of_capture() {
        let ledger = Ledger::new(at(100));
        let books = ledger.books(Some(at(0)), None, at(150), &figures(3, 0));
        assert_eq!((books.since, books.until, books.attempts), (at(100), at(150), 3));
        let gap = |until| Gap { since: at(0), until, why: BEFORE_CAPTURE.to_owned() };
        assert_eq!((books.gaps, books.complete), (vec![gap(at(100))], false));
        for since in [None, Some(at(100)), Some(at(120))] {
            let books = ledger.books(since, None, at(150), &figures(3, 0));
            assert_eq!((books.gaps, books.complete), (vec![], true), "{since:?}");
        }
        let before = ledger.books(Some(at(0)), Some(at(50)), at(150), &figures(3, 0));
        assert_eq!((before.attempts, before.complete), (0, false));
        assert_eq!(before.gaps, [gap(at(50))]);
    }

    #[test]
    fn what_comes_after_a_stop_is_a_gap() {
        let mut ledger = Ledger::new(at(0));
        ledger.note_stop(at(10), "detached");
        ledger.note_stop(at(20), "other");
        let books = ledger.books(None, None, at(30), &figures(1, 0));
        let gap = Gap { since: at(10), until: at(30), why: "detached".to_owned() };
        assert_eq!((books.gaps, books.complete), (vec![gap], false));
        assert!(ledger.books(None, Some(at(9)), at(30), &figures(1, 0)).gaps.is_empty());
    }

    #[test]
    fn the_books_stay_bounded_over_weeks_and_remember_the_start() {
        let mut ledger = Ledger::new(at(0));
        let seconds = 3_600 * 24 * 9;
        for second in 1..=seconds {
            ledger.note(at(second), figures(second as u64, 0));
        }
        assert!(ledger.fine.len() <= FINE && ledger.coarse.len() <= COARSE);
        let now = figures(seconds as u64, 0);
        assert_eq!(ledger.books(None, None, at(seconds), &now).attempts, seconds as u64);
        let day = ledger.books(Some(at(seconds - 86_400)), None, at(seconds), &now);
        assert!((86_400..=86_460).contains(&day.attempts));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_break_the_books() {
        let mut ledger = Ledger::new(at(0));
        ledger.note(at(100), figures(10, 0));
        ledger.note(at(50), figures(20, 0));
        let books = ledger.books(None, None, at(50), &figures(20, 0));
        assert_eq!((books.attempts, books.balances()), (20, true));
    }
}
