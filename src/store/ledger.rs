//! The books of any window of time: the figures of the capture, sampled every second.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::accounting::{Accounting, Counters, Gap};
use crate::query::Window;
use crate::query::dns::DnsBooks;
use crate::query::drops::DropBooks;
use crate::store::archive::Progress;

/// Samples that are kept as they came: an hour.
const FINE: usize = 3_600;
/// Older ones, one a minute: a week.
const COARSE: usize = 10_080;
const COARSE_STEP: SignedDuration = SignedDuration::from_secs(60);
/// Why a capture ended that did not say so.
pub(super) const UNNOTICED: &str = "the server had ended without notice";
/// Why nothing is known of the time before the start.
const BEFORE_CAPTURE: &str = "before capture began";

/// Gaps that an answer names one by one.
const GAPS: usize = 100;

/// A stretch in which the figures did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) counters: Counters,
    /// What was stored by then; nothing where that is not known.
    pub(super) progress: Progress,
}

impl Sample {
    /// Figures of one moment.
    pub(super) fn new(at: Timestamp, counters: Counters) -> Self {
        Sample { first: at, last: at, counters, progress: Progress::default() }
    }

    /// The figures when a capture begins.
    pub(super) fn zero(at: Timestamp) -> Self {
        Sample::new(at, Counters::default())
    }
}

/// What was read as `counters` before the first moment of a window: the latest figures of a moment
/// that was no later.
fn before<'a>(mut samples: impl DoubleEndedIterator<Item = &'a Sample>, at: Timestamp) -> Counters {
    let sample = samples.rfind(|sample| sample.first <= at);
    sample.map(|sample| sample.counters).unwrap_or_default()
}

/// The first figures of a moment that was no earlier.
fn after<'a>(mut samples: impl Iterator<Item = &'a Sample>, at: Timestamp) -> Option<Counters> {
    samples.find(|sample| sample.last >= at).map(|sample| sample.counters)
}

/// A capture that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// When all figures were zero.
    pub(super) start: Timestamp,
    /// Nothing had been watched before.
    pub(super) is_first: bool,
    /// Figures since the start, oldest first.
    pub(super) samples: Vec<Sample>,
    /// Why nothing was watched after the last of them, if it said so.
    pub(super) why: Option<String>,
    /// The last change before those of this capture, if that is known.
    pub(super) after: Option<u64>,
    /// Set where the figures reach further than what is known to be whole: until when that is.
    pub(super) whole_until: Option<Timestamp>,
}

impl Run {
    /// One that begins, and has not ended.
    #[cfg_attr(not(feature = "history"), allow(dead_code))]
    pub(super) fn new(start: Timestamp, is_first: bool) -> Self {
        let samples = vec![Sample::zero(start)];
        Run { start, is_first, samples, why: None, after: None, whole_until: None }
    }

    /// Until when it has figures.
    pub(super) fn end(&self) -> Timestamp {
        self.samples.last().map_or(self.start, |sample| sample.last)
    }

    /// From when on it may have missed something.
    fn watched_until(&self) -> Timestamp {
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
pub(super) struct Past {
    pub(super) runs: Vec<Run>,
    /// Records of these times may have been lost later.
    pub(super) damage: Vec<Gap>,
}

impl Past {
    /// When the first of the captures began.
    pub(super) fn begin(&self) -> Option<Timestamp> {
        self.runs.iter().map(|run| run.start).min()
    }

    /// When the first of all captures began, if the books still reach back to it.
    pub(super) fn whole_since(&self) -> Option<Timestamp> {
        self.runs.first().filter(|run| run.is_first).and_then(|_| self.begin())
    }

    /// Whether the clock was set back between two captures, the last of which began then: what came
    /// later may have earlier times.
    pub(super) fn was_set_back(&self, last: Timestamp) -> bool {
        let starts = self.runs.iter().skip(1).map(|run| run.start).chain([last]);
        self.runs.iter().zip(starts).any(|(run, next)| next < run.watched_until())
    }

    /// Attempts that the captures had not shown when they ended.
    pub(super) fn lost_at_ends(&self) -> u64 {
        let last = self.runs.iter().filter_map(|run| run.samples.last());
        last.map(|s| s.counters.pending() + s.counters.lost.capture_ended).sum()
    }

    /// Adds what it has of a window, before a capture that began then.
    fn add_to(&self, books: &mut Accounting, asked: &Asked, next: Timestamp) {
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

/// A window as it was asked for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    from: Timestamp,
    /// Who names no end is shown what has later times than now, too: the clock may have been ahead.
    to: Timestamp,
    /// Nobody named where it begins.
    is_all: bool,
}

impl Asked {
    /// The part of a gap that lies in the window, if there is one.
    fn part(&self, since: Timestamp, until: Timestamp, why: &str) -> Option<Gap> {
        let (since, until) = (since.max(self.from), until.min(self.to));
        (since < until).then(|| Gap { since, until, why: why.to_owned() })
    }

    /// What lies between a capture and the next, which began then. Where the clock was set back in
    /// between, nobody knows how long that was: it took no time by the clock, and came before what is
    /// of the next.
    fn gap_before(&self, run: &Run, next: Timestamp) -> Option<Gap> {
        let (end, why) = (run.watched_until(), run.why.as_deref().unwrap_or(UNNOTICED));
        if end <= next {
            return self.part(end, next, why);
        }
        let is_inside = (self.is_all || self.from < next) && next <= self.to;
        let back = end.duration_since(next).as_secs();
        let why = || format!("{why}, and the clock set back meanwhile, by {back} s or more");
        is_inside.then(|| Gap { since: next, until: next, why: why() })
    }
}

/// Figures over time, since the start of capture. Bounded: what is older is kept coarser.
#[derive(Debug)]
pub struct Ledger {
    past: Arc<Past>,
    start: Timestamp,
    coarse: VecDeque<Sample>,
    fine: VecDeque<Sample>,
    stopped: Option<(Timestamp, String)>,
}

impl Ledger {
    /// Books that begin with this start of capture, when all figures were zero.
    #[cfg(test)]
    pub fn new(start: Timestamp) -> Self {
        Ledger::after(Arc::default(), start)
    }

    /// Books that go on with this start of capture, when all figures were zero, after the others.
    pub(super) fn after(past: Arc<Past>, start: Timestamp) -> Self {
        let fine = VecDeque::from([Sample::zero(start)]);
        Ledger { past, start, coarse: VecDeque::new(), fine, stopped: None }
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
            self.fine.push_back(Sample::new(now, counters));
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

    /// When capture has stopped, and why, if it has.
    pub fn stopped(&self) -> Option<&(Timestamp, String)> {
        self.stopped.as_ref()
    }

    /// The books of a window that lies wholly or partly in the time of capture. `current` are
    /// the figures at `now`. What was asked for from before the start of the first capture is a gap,
    /// and so is what lies between two of them; who names no start asks for the time since the start
    /// of this one.
    pub fn books(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        now: Timestamp,
        current: &Counters,
    ) -> Accounting {
        let begin = self.begin();
        let own = self.books_from(begin, since, until, now, current);
        let from = since.unwrap_or(self.start);
        self.with_past(own, Asked { from, to: until.unwrap_or(Timestamp::MAX), is_all: false })
    }

    /// The books of all that there is to ask about, which begins then.
    pub(super) fn books_of_all(
        &self,
        begin: Timestamp,
        until: Option<Timestamp>,
        now: Timestamp,
        current: &Counters,
    ) -> Accounting {
        let own = self.books_from(self.begin(), Some(begin), until, now, current);
        let to = until.unwrap_or(Timestamp::MAX);
        self.with_past(own, Asked { from: begin, to, is_all: true })
    }

    /// The books of this capture alone, up to now.
    pub(super) fn books_of_capture(&self, now: Timestamp, current: &Counters) -> Accounting {
        self.books_from(self.start, None, None, now, current)
    }

    fn begin(&self) -> Timestamp {
        self.past.begin().map_or(self.start, |begin| begin.min(self.start))
    }

    fn with_past(&self, mut books: Accounting, asked: Asked) -> Accounting {
        self.past.add_to(&mut books, &asked, self.start);
        fold(&mut books.gaps);
        books.complete &= books.gaps.is_empty();
        books
    }

    /// The books of this capture, in a window that begins no earlier than `begin`.
    fn books_from(
        &self,
        begin: Timestamp,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        now: Timestamp,
        current: &Counters,
    ) -> Accounting {
        let now = now.max(self.start);
        let from = since.unwrap_or(self.start).clamp(begin, now);
        let to = until.unwrap_or(now).clamp(from, now);
        let nothing = Counters::default();
        let mut books = Accounting::between(&nothing, &nothing, from, to);
        if to >= self.start {
            let [at_from, at_to] = self.figures(from.max(self.start), to, now, current);
            books.add(Accounting::between(&at_from, &at_to, from, to));
        }
        if let Some(since) = since.filter(|since| *since < begin) {
            let until = until.unwrap_or(now).clamp(since, begin);
            books.gaps.push(Gap { since, until, why: BEFORE_CAPTURE.to_owned() });
        }
        if let Some((stop, why)) = &self.stopped {
            let window = Asked { from, to, is_all: false };
            books.gaps.extend(window.part(*stop, to, why));
        }
        // A window that ends before capture began was not watched at all.
        let unwatched = until.is_some_and(|until| until <= begin);
        books.complete &= books.gaps.is_empty() && !unwatched;
        books
    }

    /// The books of drops of such a window: of this capture alone, since drops of another are not
    /// kept.
    pub fn drop_books(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        now: Timestamp,
        current: &Counters,
    ) -> DropBooks {
        let books = self.books_from(self.start, since, until, now, current);
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

    /// The same of questions for names.
    pub fn dns_books(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        now: Timestamp,
        current: &Counters,
    ) -> DnsBooks {
        let books = self.books_from(self.start, since, until, now, current);
        let (from, to) = (books.since, books.until);
        let [before, after] = self.figures(from, to, now.max(self.start), current);
        let mut dns = DnsBooks::between(&before, &after, Window { since: from, until: to });
        dns.gaps = books.gaps;
        let unwatched = until.is_some_and(|until| until <= self.start);
        dns.complete &= dns.gaps.is_empty() && !unwatched;
        dns
    }

    /// The figures at both edges.
    fn figures(
        &self,
        from: Timestamp,
        to: Timestamp,
        now: Timestamp,
        current: &Counters,
    ) -> [Counters; 2] {
        let at_from = match from == self.start {
            true => Counters::default(),
            false => before(self.samples(), from),
        };
        let at_to = match to == now {
            true => *current,
            false => after(self.samples(), to).unwrap_or(*current),
        };
        [at_from, at_to]
    }

    fn samples(&self) -> impl DoubleEndedIterator<Item = &Sample> {
        self.coarse.iter().chain(&self.fine)
    }
}

/// Puts gaps in their order, and what is too many of them into one.
fn fold(gaps: &mut Vec<Gap>) {
    gaps.sort_by_key(|gap| gap.since);
    if gaps.len() <= GAPS {
        return;
    }
    let rest = gaps.split_off(GAPS - 1);
    if let (Some(first), Some(until)) = (rest.first(), rest.iter().map(|gap| gap.until).max()) {
        let why = format!("{} gaps, of which the first: {}", rest.len(), first.why);
        gaps.push(Gap { since: first.since, until, why });
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

    fn run(start: i64, samples: &[(i64, u64, u64)], why: &str) -> Run {
        let sample = |&(second, attempts, lost): &(i64, u64, u64)| {
            Sample::new(at(second), figures(attempts, lost))
        };
        let samples =
            [Sample::zero(at(start))].into_iter().chain(samples.iter().map(sample)).collect();
        Run { samples, why: Some(why.to_owned()), ..Run::new(at(start), false) }
    }

    fn after_two_runs() -> Ledger {
        let runs = vec![
            run(0, &[(10, 100, 0), (20, 200, 5)], "killed"),
            run(30, &[(40, 50, 0)], "stopped"),
        ];
        Ledger::after(Arc::new(Past { runs, damage: Vec::new() }), at(60))
    }

    fn gap(since: i64, until: i64, why: &str) -> Gap {
        Gap { since: at(since), until: at(until), why: why.to_owned() }
    }

    #[test]
    fn a_window_of_earlier_captures_has_their_figures_and_what_lies_between_them_as_gaps() {
        let ledger = after_two_runs();
        let now = figures(7, 0);
        let all = ledger.books(Some(at(0)), None, at(70), &now);
        assert_eq!((all.attempts, all.lost.ring_full, all.balances()), (257, 5, true));
        assert_eq!(all.gaps, [gap(20, 30, "killed"), gap(40, 60, "stopped")]);
        assert!(!all.complete);
        // Each alone.
        let first = ledger.books(Some(at(0)), Some(at(10)), at(70), &now);
        assert_eq!((first.attempts, first.complete), (100, true));
        let lossy = ledger.books(Some(at(11)), Some(at(19)), at(70), &now);
        assert_eq!((lossy.lost.ring_full, lossy.complete), (5, false));
        let second = ledger.books(Some(at(32)), Some(at(39)), at(70), &now);
        assert_eq!((second.attempts, second.complete), (50, true));
        let nobody = ledger.books(Some(at(22)), Some(at(25)), at(70), &now);
        assert_eq!((nobody.attempts, nobody.gaps), (0, vec![gap(22, 25, "killed")]));
        let own = ledger.books(Some(at(60)), None, at(70), &now);
        assert_eq!((own.attempts, own.complete), (7, true));
        assert_eq!(ledger.books(None, None, at(70), &now), own);
        let earlier = ledger.books(Some(at(-5)), Some(at(5)), at(70), &now);
        assert_eq!(earlier.gaps, [gap(-5, 0, BEFORE_CAPTURE)]);
    }

    #[test]
    fn what_was_pending_when_a_capture_ended_is_lost() {
        let mut counters = figures(10, 0);
        counters.delivered = 8;
        let sample = Sample::new(at(5), counters);
        let runs = vec![Run {
            samples: vec![sample],
            why: Some("killed".to_owned()),
            ..Run::new(at(0), false)
        }];
        let ledger = Ledger::after(Arc::new(Past { runs, damage: Vec::new() }), at(9));
        let books = ledger.books(Some(at(0)), None, at(10), &Counters::default());
        assert_eq!((books.pending, books.lost.capture_ended, books.balances()), (0, 2, true));
        assert!(!books.complete);
    }

    #[test]
    fn damage_is_a_gap_of_the_windows_that_it_touches() {
        let damage = vec![gap(5, 8, "set aside")];
        let runs = vec![run(0, &[(20, 10, 0)], "stopped")];
        let ledger = Ledger::after(Arc::new(Past { runs, damage }), at(30));
        let now = Counters::default();
        let touched = ledger.books(Some(at(1)), Some(at(6)), at(40), &now);
        assert_eq!((touched.gaps, touched.complete), (vec![gap(5, 6, "set aside")], false));
        assert!(ledger.books(Some(at(9)), Some(at(20)), at(40), &now).complete);
    }

    #[test]
    fn very_many_gaps_are_told_in_few() {
        let runs = (0..1_000).map(|n| run(n * 10, &[(n * 10 + 5, 1, 0)], "killed")).collect();
        let ledger = Ledger::after(Arc::new(Past { runs, damage: Vec::new() }), at(10_000));
        let books = ledger.books(Some(at(0)), None, at(10_001), &Counters::default());
        assert_eq!((books.attempts, books.gaps.len(), books.complete), (1_000, GAPS, false));
        let last = books.gaps.last().unwrap();
        assert_eq!(last.until, at(10_000));
        assert!(last.why.starts_with("901 gaps"), "{last:?}");
    }

    #[test]
    fn a_clock_that_was_set_back_between_captures_counts_nothing_twice() {
        let runs = vec![run(0, &[(100, 10, 0)], "killed")];
        let ledger = Ledger::after(Arc::new(Past { runs, damage: Vec::new() }), at(50));
        let books = ledger.books(Some(at(50)), None, at(60), &figures(3, 0));
        assert_eq!((books.attempts, books.balances()), (3 + 10, true));
    }

    #[test]
    fn a_stop_in_which_the_clock_was_set_back_is_named_where_the_next_capture_begins() {
        let runs = vec![run(3_600, &[(3_700, 10, 1)], "stopped")];
        let ledger = Ledger::after(Arc::new(Past { runs, damage: Vec::new() }), at(100));
        let now = figures(3, 0);
        let all = ledger.books_of_all(at(100), None, at(160), &now);
        let back = gap(100, 100, "stopped, and the clock set back meanwhile, by 3600 s or more");
        assert_eq!((&all.gaps, all.complete), (&vec![back.clone()], false));
        // Who names no end is shown what is of a time to come, too.
        assert_eq!((all.attempts, all.lost.ring_full, all.balances()), (13, 1, true));
        assert_eq!(ledger.books(Some(at(99)), None, at(160), &now).gaps.last(), Some(&back));
        for (since, until) in [(100, 150), (120, 150)] {
            let later = ledger.books(Some(at(since)), Some(at(until)), at(160), &now);
            assert_eq!((later.gaps, later.complete), (vec![], true), "{since}");
        }
        let own = ledger.books_of_capture(at(160), &now);
        assert_eq!((own.attempts, own.gaps, own.complete), (3, vec![], true));
    }

    #[test]
    fn captures_keep_their_times_where_the_clock_was_set_back_between_them() {
        let runs =
            vec![run(3_600, &[(3_700, 10, 0)], "stopped"), run(100, &[(200, 20, 0)], "killed")];
        let past = Past { runs, damage: Vec::new() };
        let ledger = Ledger::after(Arc::new(past), at(260));
        let now = figures(3, 0);
        let all = ledger.books_of_all(at(100), None, at(300), &now);
        let whys: Vec<_> = all.gaps.iter().map(|gap| (gap.since, gap.until)).collect();
        assert_eq!(whys, [(at(100), at(100)), (at(200), at(260))]);
        assert_eq!((all.attempts, all.balances()), (33, true));
        let second = ledger.books(Some(at(110)), Some(at(190)), at(300), &now);
        assert_eq!((second.attempts, second.complete), (20, true));
    }

    #[test]
    fn what_captures_had_not_shown_at_their_ends_is_counted() {
        let mut killed = run(0, &[(100, 60, 3)], "killed");
        killed.samples.last_mut().unwrap().counters.delivered -= 2;
        let past = Past { runs: vec![run(0, &[(5, 9, 1)], "stopped"), killed], ..Past::default() };
        assert_eq!(past.lost_at_ends(), 2);
    }

    #[test]
    fn a_capture_whose_whole_time_the_clock_was_behind_is_in_the_sums() {
        // As it is read: none begins before the one before it has ended.
        let behind = run(100, &[(100, 60, 0)], "stopped");
        let runs = vec![run(0, &[(100, 10, 0)], "stopped"), behind];
        let ledger = Ledger::after(Arc::new(Past { runs, damage: Vec::new() }), at(150));
        let books = ledger.books(Some(at(0)), None, at(160), &figures(3, 0));
        assert_eq!((books.attempts, books.balances()), (10 + 60 + 3, true));
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
