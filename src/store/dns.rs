//! Recent questions for names, in bounded memory. A question to the store looks at all of them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::evictions::Evictions;
use super::place::{self, Place};
use super::row::nanos;
use super::segment::Range;
use crate::event::{DnsId, DnsRecord};
use crate::query::dns::{AnswerTimes, DnsFilter};
use crate::query::{Page, QueryError};

/// One page of the questions that match.
#[derive(Debug, Default)]
pub struct SelectedDns {
    /// The records, newest first.
    pub questions: Vec<DnsRecord>,
    /// How many match in all.
    pub total: u64,
    /// All of them, by what came of them.
    pub by_outcome: BTreeMap<String, u64>,
    /// How long the answers took.
    pub answer_times: Option<AnswerTimes>,
    /// Where the next page starts.
    pub next_cursor: Option<String>,
}

/// The letter with which cursors begin.
const KIND: char = 'q';

fn place_of(record: &DnsRecord) -> Place {
    let DnsId { start_ns, number, boot } = record.id;
    Place { time: nanos(record.time), start_ns, number, boot }
}

/// A hash of what is selected, but for the window.
fn question(filter: &DnsFilter) -> u32 {
    let filter = DnsFilter { since: None, until: None, ..filter.clone() };
    place::question(&filter.to_pairs())
}

/// The newest questions.
#[derive(Debug)]
pub(super) struct Questions {
    records: BTreeMap<Place, DnsRecord>,
    limit: usize,
    evictions: Evictions,
}

impl Questions {
    /// Holds this many records at most.
    pub(super) fn new(limit: usize) -> Self {
        let evictions = Evictions::default();
        Questions { records: BTreeMap::new(), limit: limit.max(16), evictions }
    }

    /// Takes a record in, or a later version of one; whether it is new.
    pub(super) fn add(&mut self, record: DnsRecord) -> bool {
        let place = place_of(&record);
        let is_new = self.records.insert(place, record).is_none();
        if self.records.len() > self.limit
            && let Some((gone, _)) = self.records.pop_first()
        {
            let mut times = None;
            Range::add(&mut times, gone.time);
            times.into_iter().for_each(|times| self.evictions.add(times, 1));
        }
        is_new
    }

    /// Shows each record, the oldest first.
    pub(super) fn for_each(&self, visit: &mut dyn FnMut(&DnsRecord)) {
        self.records.values().for_each(visit);
    }

    /// Records of this time that have aged out.
    pub(super) fn evicted_between(&self, since: Timestamp, until: Timestamp) -> u64 {
        self.evictions.between(since, until)
    }

    pub(super) fn select(
        &self,
        filter: &DnsFilter,
        page: &Page,
    ) -> Result<SelectedDns, QueryError> {
        let question = question(filter);
        let cursor = page.cursor.as_deref();
        let after = cursor.map(|cursor| Place::from_cursor(cursor, KIND, question)).transpose()?;
        let limit = page.limit.unwrap_or(Page::DEFAULT_LIMIT).min(Page::MAX_LIMIT);
        let mut selected = SelectedDns::default();
        let mut by_outcome: BTreeMap<&str, u64> = BTreeMap::new();
        let mut times = Vec::new();
        let (mut last, mut more) = (None, false);
        for (place, record) in self.records.iter().rev() {
            if !filter.matches(record) {
                continue;
            }
            selected.total += 1;
            *by_outcome.entry(record.outcome.as_str()).or_default() += 1;
            times.extend(record.latency_us);
            if after.is_none_or(|after| *place < after) {
                if selected.questions.len() < limit {
                    selected.questions.push(record.clone());
                    last = Some(*place);
                } else {
                    more = true;
                }
            }
        }
        selected.next_cursor = last.filter(|_| more).map(|last| last.to_cursor(KIND, question));
        selected.by_outcome = by_outcome.into_iter().map(|(o, n)| (o.to_owned(), n)).collect();
        selected.answer_times = answer_times(times);
        Ok(selected)
    }

    /// The time of the newest record that is selected.
    pub(super) fn newest(&self, filter: &DnsFilter) -> Option<Timestamp> {
        let newest = self.records.values().rev().find(|record| filter.matches(record));
        newest.map(|record| record.time)
    }
}

fn answer_times(mut times: Vec<u64>) -> Option<AnswerTimes> {
    times.sort_unstable();
    let count = times.len();
    let percentile =
        |percent: usize| times.get((count * percent).div_ceil(100).saturating_sub(1)).copied();
    Some(AnswerTimes {
        count: count as u64,
        p50_us: percentile(50)?,
        p95_us: percentile(95)?,
        p99_us: percentile(99)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::DnsOutcome;
    use crate::test_records::{asked, micros};

    fn page(limit: usize, cursor: Option<String>) -> Page {
        Page { limit: Some(limit), cursor, ..Page::default() }
    }

    fn all() -> DnsFilter {
        DnsFilter::default()
    }

    #[test]
    fn pages_hold_every_record_once_newest_first_while_new_ones_arrive() {
        let mut questions = Questions::new(1000);
        // Not in the order of their times, as what times out comes late.
        (0..100).for_each(|n| assert!(questions.add(asked(n * 37 % 100))));
        let (mut seen, mut cursor, mut next) = (Vec::new(), None, 100);
        loop {
            let selected = questions.select(&all(), &page(7, cursor)).unwrap();
            assert_eq!(selected.by_outcome, [("answered".to_owned(), selected.total)].into());
            seen.extend(selected.questions.iter().map(|record| record.time));
            questions.add(asked(next));
            next += 1;
            cursor = selected.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        let expected: Vec<_> = (0..100).rev().map(micros).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_later_version_takes_the_place_of_the_earlier() {
        let mut questions = Questions::new(100);
        let later = DnsRecord { outcome: DnsOutcome::Servfail, ..asked(1) };
        assert!(questions.add(asked(1)) && questions.add(asked(2)));
        assert!(!questions.add(later.clone()));
        let selected = questions.select(&all(), &page(10, None)).unwrap();
        assert_eq!((selected.total, &selected.questions[1]), (2, &later));
    }

    #[test]
    fn a_cursor_of_another_question_is_refused() {
        let mut questions = Questions::new(100);
        (0..10).for_each(|n| assert!(questions.add(asked(n))));
        let cursor = questions.select(&all(), &page(3, None)).unwrap().next_cursor.unwrap();
        assert_eq!(cursor.len(), 57);
        let other = DnsFilter { pid: vec![7], ..all() };
        for (filter, cursor) in [
            (&other, cursor.as_str()),
            (&all(), "q"),
            (&all(), &cursor[1..]),
            (&all(), &cursor.replace('q', "d")),
            (&all(), &"é".repeat(28)),
        ] {
            let error = questions.select(filter, &page(3, Some(cursor.to_owned()))).unwrap_err();
            assert!(error.to_string().starts_with("cursor"), "{error}");
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_gone_is_counted() {
        let mut questions = Questions::new(64);
        for n in 0..1000 {
            questions.add(asked(n));
            assert!(questions.records.len() <= 64);
        }
        let selected = questions.select(&all(), &page(10_000, None)).unwrap();
        assert_eq!((selected.total, &selected.questions[0]), (64, &asked(999)));
        let gone = questions.evicted_between(micros(0), micros(1000));
        assert_eq!(gone + selected.total, 1000);
        assert_eq!(questions.evicted_between(micros(990), micros(1000)), 0);
        assert_eq!(questions.newest(&all()), Some(micros(999)));
    }

    #[test]
    fn how_long_answers_took_is_told_of_those_that_came() {
        let mut questions = Questions::new(1000);
        for n in 1..=100 {
            questions.add(DnsRecord { latency_us: Some(n), ..asked(n) });
        }
        questions.add(DnsRecord { latency_us: None, ..asked(101) });
        let times = questions.select(&all(), &page(1, None)).unwrap().answer_times.unwrap();
        assert_eq!((times.count, times.p50_us, times.p95_us, times.p99_us), (100, 50, 95, 99));
        assert_eq!(answer_times(Vec::new()), None);
    }
}
