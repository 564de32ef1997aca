//! The books of any window of time: the figures of the capture, sampled every second.
//!
//! [`Ledger`] keeps those of this capture, `past` those of the captures before it. A window as somebody
//! asked for it (`asked`) takes its figures from both, and what lies between them are its gaps.

mod asked;
mod past;
mod sample;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::accounting::{Accounting, Counters, Gap};
use crate::query::Window;
use crate::query::dns::DnsBooks;
use crate::query::drops::DropBooks;
use asked::Asked;
pub(super) use past::Past;
#[cfg(feature = "history")]
pub(super) use past::{Run, UNNOTICED};
pub(super) use sample::Sample;
use sample::{after, before};

/// Samples that are kept as they came: an hour.
const FINE: usize = 3_600;
/// Older ones, one a minute: a week.
const COARSE: usize = 10_080;
const COARSE_STEP: SignedDuration = SignedDuration::from_secs(60);
/// Why nothing is known of the time before the start.
const BEFORE_CAPTURE: &str = "before capture began";

/// Gaps that an answer names one by one.
const GAPS: usize = 100;

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
