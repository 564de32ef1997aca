//! Recent drops, in bounded memory.
//!
//! There are few: the kernel side counts flows together, twice a second. A question looks at all
//! of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::evictions::Evictions;
use super::place::{self, Place};
use super::row::nanos;
use super::segment::Range;
use crate::event::{DropId, DropRecord};
use crate::query::drops::DropFilter;
use crate::query::{Page, QueryError};

/// Which drops a question is about.
#[derive(Debug, Clone, Default)]
pub struct DropSelection {
    /// The filter.
    pub filter: DropFilter,
    /// Name of the process or of the thread, exactly (the original server's `command`).
    pub command: Option<String>,
}

impl From<DropFilter> for DropSelection {
    fn from(filter: DropFilter) -> Self {
        DropSelection { filter, command: None }
    }
}

impl DropSelection {
    fn matches(&self, drop: &DropRecord) -> bool {
        let named = |name: &String| {
            drop.process.as_ref().is_some_and(|p| *p.comm == **name || *p.thread == **name)
        };
        self.filter.matches(drop) && self.command.as_ref().is_none_or(named)
    }

    /// A hash of what is selected, but for the window.
    fn question(&self) -> u32 {
        let mut filter = self.filter.clone();
        (filter.since, filter.until) = (None, None);
        place::question(&(filter.to_pairs(), &self.command))
    }
}

/// One page of the drops that match.
#[derive(Debug, Default)]
pub struct SelectedDrops {
    /// The records, newest first.
    pub drops: Vec<DropRecord>,
    /// How many match in all.
    pub total: u64,
    /// Their packets.
    pub packets: u64,
    /// Their packets by reason.
    pub by_reason: BTreeMap<String, u64>,
    /// Where the next page starts.
    pub next_cursor: Option<String>,
}

/// The letter with which cursors begin.
const KIND: char = 'd';

fn place_of(drop: &DropRecord) -> Place {
    let DropId { first_ns: start_ns, number, boot } = drop.id;
    Place { time: nanos(drop.time), start_ns, number, boot }
}

/// The newest drops.
#[derive(Debug)]
pub(super) struct Drops {
    /// By reason, oldest first.
    records: HashMap<Arc<str>, VecDeque<DropRecord>>,
    len: usize,
    limit: usize,
    /// Packets of what is gone, by time.
    evictions: Evictions,
}

impl Drops {
    /// Holds this many records at most.
    pub(super) fn new(limit: usize) -> Self {
        let (records, evictions) = (HashMap::new(), Evictions::default());
        Drops { records, len: 0, limit: limit.max(16), evictions }
    }

    pub(super) fn add(&mut self, drops: Vec<DropRecord>) {
        for drop in drops {
            if self.len >= self.limit {
                self.evict();
            }
            self.len += 1;
            match self.records.get_mut(&drop.reason) {
                Some(records) => records.push_back(drop),
                None => {
                    let reason = Arc::clone(&drop.reason);
                    self.records.insert(reason, VecDeque::from([drop]));
                }
            }
        }
    }

    /// Forgets the oldest sixteenth of the reason that has most: a flood does not push out what
    /// else was dropped.
    fn evict(&mut self) {
        let most = self.records.values_mut().max_by_key(|records| records.len());
        let Some(most) = most else { return };
        let gone = most.drain(..most.len().div_ceil(16));
        self.len = self.len.saturating_sub(gone.len());
        let (mut packets, mut times) = (0, None);
        for drop in gone {
            packets += drop.count;
            Range::add(&mut times, nanos(drop.time));
        }
        if let Some(times) = times {
            self.evictions.add(times, packets);
        }
    }

    /// Packets of this time whose records have aged out.
    pub(super) fn evicted_between(&self, since: Timestamp, until: Timestamp) -> u64 {
        self.evictions.between(since, until)
    }

    pub(super) fn select(
        &self,
        selection: &DropSelection,
        page: &Page,
    ) -> Result<SelectedDrops, QueryError> {
        let question = selection.question();
        let cursor = page.cursor.as_deref();
        let after = cursor.map(|cursor| Place::from_cursor(cursor, KIND, question)).transpose()?;
        let limit = page.limit.unwrap_or(Page::DEFAULT_LIMIT).min(Page::MAX_LIMIT);
        let mut selected = SelectedDrops::default();
        let mut found: Vec<(Place, &DropRecord)> = Vec::new();
        let mut by_reason: BTreeMap<&str, u64> = BTreeMap::new();
        for drop in self.matching(selection) {
            selected.total += 1;
            selected.packets += drop.count;
            *by_reason.entry(&drop.reason).or_default() += drop.count;
            let place = place_of(drop);
            if after.is_none_or(|after| place < after) {
                found.push((place, drop));
            }
        }
        found.sort_unstable_by_key(|(place, _)| std::cmp::Reverse(*place));
        let more = found.len() > limit;
        found.truncate(limit);
        if let Some((last, _)) = found.last().filter(|_| more) {
            selected.next_cursor = Some(last.to_cursor(KIND, question));
        }
        selected.by_reason = by_reason.into_iter().map(|(r, n)| (r.to_owned(), n)).collect();
        selected.drops = found.into_iter().map(|(_, drop)| drop.clone()).collect();
        Ok(selected)
    }

    /// The time of the newest record that is selected.
    pub(super) fn newest(&self, selection: &DropSelection) -> Option<Timestamp> {
        self.matching(selection).map(|drop| drop.time).max()
    }

    fn matching<'a>(
        &'a self,
        selection: &'a DropSelection,
    ) -> impl Iterator<Item = &'a DropRecord> {
        self.records.values().flatten().filter(|drop| selection.matches(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_records::{dropped, micros};

    fn all() -> DropSelection {
        DropSelection::default()
    }

    fn page(limit: usize, cursor: Option<String>) -> Page {
        Page { limit: Some(limit), cursor, ..Page::default() }
    }

    #[test]
    fn pages_hold_every_record_once_newest_first_while_new_ones_arrive() {
        let mut drops = Drops::new(1000);
        // Not in the order of their times, as what waits for its attempt comes late.
        drops.add((0..100).map(|n| dropped(n * 37 % 100)).collect());
        let (mut seen, mut cursor, mut next) = (Vec::new(), None, 100);
        loop {
            let selected = drops.select(&all(), &page(7, cursor)).unwrap();
            assert_eq!(selected.packets, 3 * selected.total);
            assert_eq!(selected.by_reason, [("NO_SOCKET".to_owned(), selected.packets)].into());
            seen.extend(selected.drops.iter().map(|drop| drop.time));
            drops.add(vec![dropped(next)]);
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
    fn a_cursor_of_another_question_is_refused() {
        let mut drops = Drops::new(100);
        drops.add((0..10).map(dropped).collect());
        let cursor = drops.select(&all(), &page(3, None)).unwrap().next_cursor.unwrap();
        assert_eq!(cursor.len(), 57);
        let other = DropSelection { command: Some("x".to_owned()), ..all() };
        for (selection, cursor) in [
            (&other, cursor.as_str()),
            (&all(), "d"),
            (&all(), &cursor[1..]),
            (&all(), &cursor.replace('d', "é")),
            (&all(), &"é".repeat(28)),
        ] {
            let error = drops.select(selection, &page(3, Some(cursor.to_owned()))).unwrap_err();
            assert!(error.to_string().starts_with("cursor"), "{error}");
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_gone_is_counted() {
        let mut drops = Drops::new(64);
        for n in 0..1000 {
            drops.add(vec![dropped(n)]);
            assert!(drops.len <= 64);
        }
        let selected = drops.select(&all(), &page(10_000, None)).unwrap();
        assert_eq!(selected.drops[0], dropped(999));
        let gone = drops.evicted_between(micros(0), micros(1000));
        assert_eq!(gone + selected.packets, 3000);
        assert_eq!(drops.evicted_between(micros(990), micros(1000)), 0);
        assert_eq!(drops.newest(&all()), Some(micros(999)));
    }

    #[test]
    fn a_flood_does_not_push_out_what_else_was_dropped() {
        let mut drops = Drops::new(64);
        let other = |n| DropRecord { reason: "NETFILTER_DROP".into(), ..dropped(n) };
        drops.add((0..10).map(other).collect());
        drops.add((10..1000).map(dropped).collect());
        let filter = DropFilter { reason: vec!["NETFILTER_DROP".into()], ..Default::default() };
        let selected = drops.select(&filter.into(), &page(100, None)).unwrap();
        assert_eq!(selected.total, 10);
    }
}
