//! The books of answers: what is known of how complete they are.

use jiff::Timestamp;

use super::Inner;
use crate::accounting::{Accounting, Counters, Gap};
use crate::query::dns::DnsBooks;
use crate::query::drops::DropBooks;
use crate::query::{Filter, Window};
use crate::store::archive::{Noted, Progress};
use crate::store::row::wide;
use crate::store::{Selection, lock};

const STOPPED: &str = "the server had been stopped";
const UNREADABLE: &str = "a segment of history cannot be read";

impl Inner {
    /// Reads the figures, and notes them as they are now.
    pub(super) fn sample(&self) -> Counters {
        let counters = self.capture.counters();
        let stopped = self.capture.stopped();
        let mut ledger = lock(&self.ledger);
        let now = Timestamp::now();
        ledger.note(now, counters);
        if let Some(why) = stopped {
            ledger.note_stop(now, &why);
        }
        counters
    }

    /// Writes what was read a second ago: the records of that time are in a file by now.
    pub(super) fn write(&self, counters: Counters) {
        let (ended, progress) = (self.ended(), self.store.progress());
        let read = (Timestamp::now(), counters, progress);
        let before = lock(&self.read).replace(read);
        let Some((at, counters, progress)) = before else {
            // That it has begun is known from its first moment on, whatever ends it.
            let nothing = Progress { change: self.store.start, attempts: 0 };
            return self.note(self.capture.since(), Counters::default(), nothing, None);
        };
        self.note(at, counters, progress, ended.filter(|(stop, _)| *stop <= at));
    }

    /// Writes the last of them: capture has ended, and everything that it delivered is stored.
    pub(super) fn close(&self, stopping: Timestamp) {
        // Before the figures are read, which notes the end that was asked for.
        let ended = self.ended();
        let counters = self.sample();
        let ended = ended.or_else(|| Some((stopping, STOPPED.to_owned())));
        self.note(stopping, counters, self.store.progress(), ended);
    }

    fn note(
        &self,
        at: Timestamp,
        counters: Counters,
        progress: Progress,
        ended: Option<(Timestamp, String)>,
    ) {
        let (start, after) = (self.capture.since(), self.store.start);
        let at = ended.as_ref().map_or(at, |(stop, _)| *stop);
        let ended = ended.map(|(_, why)| why);
        self.store.note_books(&Noted { start, at, counters, after, progress, ended });
    }

    /// When and why capture has stopped by itself, if it has.
    fn ended(&self) -> Option<(Timestamp, String)> {
        let (at, why) = lock(&self.ledger).stopped().cloned()?;
        Some((at, format!("capture had stopped: {why}")))
    }

    /// The books of a window; of all that there is to ask about where it has no edges.
    pub(super) fn books(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> Accounting {
        let from = since.unwrap_or_else(|| self.begun());
        let books = match self.replayed {
            true => self.replayed_books(since, until),
            false => {
                let (counters, now) = (self.sample(), Timestamp::now());
                let ledger = lock(&self.ledger);
                match since {
                    // Who names no start asks for all that there is, also from before this capture.
                    None if self.store.holds_earlier() => {
                        ledger.books_of_all(from, until, now, &counters)
                    }
                    _ => ledger.books(since, until, now, &counters),
                }
            }
        };
        self.with_lacking(books, from, until.unwrap_or(Timestamp::MAX))
    }

    /// Adds what the store lacks of a window.
    fn with_lacking(&self, mut books: Accounting, from: Timestamp, to: Timestamp) -> Accounting {
        books.evicted = self.store.evicted_between(from, to);
        for times in self.store.unreadable() {
            let (since, until) = (wide(times.min).max(from), wide(times.max).min(to));
            if since <= until {
                books.gaps.push(Gap { since, until, why: UNREADABLE.to_owned() });
            }
        }
        books.complete &= books.evicted == 0 && books.gaps.is_empty();
        books
    }

    /// The books since the start of capture.
    pub(super) fn books_of_capture(&self) -> Accounting {
        if self.replayed {
            return self.books(None, None);
        }
        let (counters, now) = (self.sample(), Timestamp::now());
        let own = lock(&self.ledger).books_of_capture(now, &counters);
        let mut books = self.with_lacking(own, self.capture.since(), Timestamp::MAX);
        books.evicted = self.store.evicted_so_far();
        books.complete &= books.evicted == 0;
        books
    }

    /// A recording has its figures for the whole of it: what was lost may have been of any window.
    fn replayed_books(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> Accounting {
        let mut counters = self.capture.counters();
        let window = self.window(since, until);
        if since.is_some() || until.is_some() {
            let filter = Filter { since, until, ..Filter::default() };
            let selection = Selection { filter, attempts_only: true, ..Selection::default() };
            let delivered = self.store.count(&selection)
                + self.store.evicted_between(
                    since.unwrap_or(Timestamp::MIN),
                    until.unwrap_or(Timestamp::MAX),
                );
            counters.attempts = counters.attempts.saturating_sub(counters.delivered) + delivered;
            counters.delivered = delivered;
        }
        let mut books =
            Accounting::between(&Counters::default(), &counters, window.since, window.until);
        books.gaps = self.unrecorded(since, until, window);
        books.complete &= books.gaps.is_empty();
        books
    }

    /// The parts of the window that a recording says nothing of. Who names no start, or no end,
    /// asks for what was recorded.
    fn unrecorded(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        window: Window,
    ) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut gap = |since: Timestamp, until: Timestamp, why: &str| {
            gaps.push(Gap { since, until: until.max(since), why: why.to_owned() });
        };
        let start = self.capture.since();
        if since.is_some_and(|since| since < start) || until.is_some_and(|until| until <= start) {
            gap(window.since, window.until.min(start), "before the recording began");
        }
        if let Some(end) = self.capture.recorded_until() {
            let after = since.is_some_and(|since| since > end.time)
                || (until.is_some() && window.until > end.time);
            let from = end.time.max(window.since);
            match end.broken {
                Some(why) if window.until > end.time => gap(from, window.until, why),
                None if after => gap(from, window.until, "after the recording ended"),
                _ => {}
            }
        }
        gaps
    }

    /// The books of the questions for names of a window.
    pub(super) fn dns_books(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> DnsBooks {
        let mut books = match self.replayed {
            true => {
                let window = self.window(since, until);
                DnsBooks::between(&Default::default(), &Default::default(), window)
            }
            false => {
                let counters = self.sample();
                lock(&self.ledger).dns_books(since, until, Timestamp::now(), &counters)
            }
        };
        let (since, until) = (since.unwrap_or(Timestamp::MIN), until.unwrap_or(Timestamp::MAX));
        books.evicted = self.store.dns_evicted_between(since, until);
        books.complete &= books.evicted == 0;
        books
    }

    /// The books of the drops of a window.
    pub(super) fn drop_books(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> DropBooks {
        let mut books = match self.replayed {
            true => {
                let window = self.window(since, until);
                DropBooks::between(&Default::default(), &Default::default(), window)
            }
            false => {
                let counters = self.sample();
                lock(&self.ledger).drop_books(since, until, Timestamp::now(), &counters)
            }
        };
        let (since, until) = (since.unwrap_or(Timestamp::MIN), until.unwrap_or(Timestamp::MAX));
        books.evicted = self.store.dropped_evicted_between(since, until);
        books.complete &= books.evicted == 0;
        books
    }
}
