//! Questions that look at many rows. Each segment is locked on its own and for as long as it
//! takes to look through it, so ingest waits for one segment at most.

use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use strum::VariantArray;

use super::Store;
use super::archive::{Part, Rows};
use super::cursor::{Rank, question};
use super::matcher::{Matcher, Selection};
use super::row::wide;
use super::segment::{Body, Segment};
use super::view::Columns;
use crate::event::{Connection, Direction, Outcome, Protocol};
use crate::query::{Handshake, Page, QueryError, Sort};

/// One page of the records that match.
#[derive(Debug, Default)]
pub struct Selected {
    /// The records.
    pub connections: Vec<Connection>,
    /// How many match in all.
    pub total: u64,
    /// Where the next page starts.
    pub next_cursor: Option<String>,
}

/// Figures about all records that match.
#[derive(Debug, Default)]
pub struct Totals {
    /// How many match.
    pub total: u64,
    /// How many of them are attempts that capture saw.
    pub attempts: u64,
    /// By outcome.
    pub by_outcome: BTreeMap<Outcome, u64>,
    /// By protocol.
    pub by_protocol: BTreeMap<Protocol, u64>,
    /// By direction.
    pub by_direction: BTreeMap<Direction, u64>,
    /// Distinct processes.
    pub processes: u64,
    /// Distinct remote addresses.
    pub remotes: u64,
    /// Handshake times.
    pub handshake: Option<Handshake>,
}

/// A row that is on the page, and where it lies.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    rank: Rank,
    segment: usize,
    row: usize,
}

impl Store {
    /// One page of what matches, and how much matches in all.
    pub fn list(&self, selection: &Selection, page: &Page) -> Result<Selected, QueryError> {
        let sort = page.sort;
        let question = question(selection);
        let after = match &page.cursor {
            Some(cursor) => Some(Rank::from_cursor(cursor, sort, question)?),
            None => None,
        };
        let limit = page.limit.unwrap_or(Page::DEFAULT_LIMIT).clamp(1, Page::MAX_LIMIT);
        let memory = self.memory();
        let parts = self.parts(&memory);
        let mut best = Best { found: BinaryHeap::with_capacity(limit + 2), limit, sort, after };
        let mut total = 0;
        for (number, segment) in memory.iter().enumerate().rev() {
            total += best.look_at_memory(number, segment, selection);
        }
        // Archives have their newest first.
        for (number, part) in parts.iter().enumerate() {
            total += best.look_at(memory.len() + number, &**part, selection);
        }
        let mut found = best.found.into_sorted_vec();
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more);
        let next_cursor = last.map(|last| last.rank.to_cursor(sort, question));
        Ok(Selected { connections: fetch(&memory, &parts, &found, selection), total, next_cursor })
    }

    /// How many records match.
    pub fn count(&self, selection: &Selection) -> u64 {
        let memory = self.memory();
        let mut total = 0;
        for segment in memory.iter().rev() {
            let body = segment.read();
            let Some(matcher) = Matcher::new(selection, &body) else { continue };
            total += match matcher.takes_all() {
                true => body.rows.len() as u64,
                false => body.rows.iter().filter(|row| matcher.matches(row)).count() as u64,
            };
        }
        let parts = self.parts(&memory);
        total + parts.iter().map(|part| part.count(selection)).sum::<u64>()
    }

    /// The start of the newest record that matches.
    pub fn newest(&self, selection: &Selection) -> Option<Timestamp> {
        let memory = self.memory();
        let mut newest = None;
        for segment in memory.iter().rev() {
            let body = segment.read();
            if newest.is_some_and(|newest| body.times.is_some_and(|times| times.max <= newest)) {
                continue;
            }
            let Some(matcher) = Matcher::new(selection, &body) else { continue };
            let here = body.rows.iter().filter(|row| matcher.matches(row)).map(|row| row.time);
            newest = here.chain(newest).max();
        }
        for part in self.parts(&memory) {
            if newest.is_some_and(|newest| part.times().max <= newest) {
                continue;
            }
            let rows = part.matching(selection);
            let last = rows.len().checked_sub(1).and_then(|last| rows.get(last));
            if let Some(last) = last {
                let last = Rows::List(vec![last]);
                part.visit(&last, Columns::NONE, &mut |view| {
                    newest = newest.max(Some(view.time_ns()));
                });
            }
        }
        newest.map(wide)
    }

    /// Figures about all that matches.
    pub fn totals(&self, selection: &Selection) -> Totals {
        let mut totals = Totals::default();
        let (mut outcomes, mut protocols, mut directions) = <(Tally, Tally, Tally)>::default();
        let mut processes = HashSet::new();
        let mut remotes: HashSet<IpAddr> = HashSet::new();
        let mut latencies: Vec<u64> = Vec::new();
        // Most records are of the same process, or remote, as the one before.
        let (mut last_process, mut last_remote) = (None, None);
        let columns = Columns::PID | Columns::REMOTE_IP | Columns::LATENCY;
        self.for_each(selection, columns, &mut |view| {
            totals.total += 1;
            totals.attempts += u64::from(view.is_attempt());
            outcomes.add(view.outcome() as usize);
            protocols.add(view.protocol() as usize);
            directions.add(view.direction() as usize);
            let process = view.process().map(|who| (who.pid(), who.start_time()));
            if process != last_process {
                last_process = process;
                processes.extend(process);
            }
            let remote = view.remote_ip();
            if remote != last_remote {
                last_remote = remote;
                remotes.extend(remote);
            }
            let handshake = view.outcome() == Outcome::Established
                && matches!(view.protocol(), Protocol::Tcp | Protocol::Mptcp);
            if handshake {
                latencies.extend(view.latency_us());
            }
        });
        totals.by_outcome = outcomes.by(Outcome::VARIANTS);
        totals.by_protocol = protocols.by(Protocol::VARIANTS);
        totals.by_direction = directions.by(Direction::VARIANTS);
        totals.processes = processes.len() as u64;
        totals.remotes = remotes.len() as u64;
        totals.handshake = handshake(&mut latencies);
        totals
    }
}

/// Counts by variant: cheaper per row than a map.
#[derive(Default)]
struct Tally([u64; 16]);

impl Tally {
    fn add(&mut self, variant: usize) {
        if let Some(count) = self.0.get_mut(variant) {
            *count += 1;
        }
    }

    fn by<T: Copy + Ord>(&self, variants: &[T]) -> BTreeMap<T, u64> {
        variants.iter().copied().zip(self.0).filter(|(_, count)| *count > 0).collect()
    }
}

/// The best place that a row of this segment can have.
fn reach(body: &Body, sort: Sort) -> Option<Rank> {
    body.times.map(|times| match sort {
        Sort::Newest => Rank::bound(times.max, sort),
        Sort::Oldest => Rank::bound(times.min, sort),
    })
}

/// The best places of a list so far.
struct Best {
    found: BinaryHeap<Found>,
    limit: usize,
    sort: Sort,
    after: Option<Rank>,
}

impl Best {
    /// Whether rows that are no better than this cannot be on the page.
    fn is_too_far(&self, reach: Option<Rank>) -> bool {
        // One more than asked for tells whether there is a next page.
        self.found.len() > self.limit
            && self.found.peek().is_some_and(|worst| reach.is_some_and(|r| r > worst.rank))
    }

    fn offer(&mut self, rank: Rank, segment: usize, row: usize) {
        if self.after.is_some_and(|after| rank <= after) {
            return;
        }
        if self.found.len() > self.limit {
            if self.found.peek().is_some_and(|worst| rank >= worst.rank) {
                return;
            }
            self.found.pop();
        }
        self.found.push(Found { rank, segment, row });
    }

    /// How many rows of a segment match.
    fn look_at_memory(&mut self, number: usize, segment: &Segment, selection: &Selection) -> u64 {
        let body = segment.read();
        let Some(matcher) = Matcher::new(selection, &body) else { return 0 };
        let too_far = self.is_too_far(reach(&body, self.sort));
        if too_far && matcher.takes_all() {
            return body.rows.len() as u64;
        }
        let mut total = 0;
        for (row_number, row) in body.rows.iter().enumerate() {
            if matcher.matches(row) {
                total += 1;
                if !too_far {
                    self.offer(Rank::of(row, self.sort), number, row_number);
                }
            }
        }
        total
    }

    /// How many rows of a part match.
    fn look_at(&mut self, number: usize, part: &dyn Part, selection: &Selection) -> u64 {
        let times = part.times();
        let (first, last) = match self.sort {
            Sort::Newest => (times.max, times.min),
            Sort::Oldest => (times.min, times.max),
        };
        let passed = self.after.is_some_and(|after| after.is_past(last, self.sort));
        if passed || self.is_too_far(Some(Rank::bound(first, self.sort))) {
            return part.count(selection);
        }
        let rows = part.matching(selection);
        for (index, rank) in part.ranks(&rows, self.sort).into_iter().enumerate() {
            if let Some(row) = rows.get(index) {
                self.offer(rank, number, row as usize);
            }
        }
        rows.len() as u64
    }
}

/// Records as they are now. What has changed since it was found and no longer matches is left out.
fn fetch(
    memory: &[Arc<Segment>],
    parts: &[Box<dyn Part>],
    found: &[Found],
    selection: &Selection,
) -> Vec<Connection> {
    // Each place is read once, though its records may lie between those of others.
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_unstable_by_key(|index| found.get(*index).map(|found| (found.segment, found.row)));
    let place_of = |index: &usize| found.get(*index).map(|found| found.segment);
    let mut connections = vec![None; found.len()];
    for run in order.chunk_by(|a, b| place_of(a) == place_of(b)) {
        let Some(place) = run.first().and_then(place_of) else { continue };
        let rows = run.iter().filter_map(|index| found.get(*index)).map(|found| found.row);
        let decoded: Vec<Option<Connection>> = match memory.get(place) {
            Some(segment) => {
                let body = segment.read();
                let decode = |row| body.rows.get(row).and_then(|row| body.tables.decode(row));
                rows.map(decode).collect()
            }
            None => {
                let rows: Vec<u32> = rows.map(|row| row as u32).collect();
                let part = place.checked_sub(memory.len()).and_then(|place| parts.get(place));
                part.map_or_else(Vec::new, |part| part.records(&rows))
                    .into_iter()
                    .map(Some)
                    .collect()
            }
        };
        for (index, connection) in run.iter().zip(decoded) {
            if let Some(place) = connections.get_mut(*index) {
                *place = connection.filter(|c| selection.matches(c));
            }
        }
    }
    connections.into_iter().flatten().collect()
}

/// Percentiles by the nearest rank.
fn handshake(latencies: &mut [u64]) -> Option<Handshake> {
    let count = latencies.len();
    let mut percentile = |percent: usize| {
        let rank = (count * percent).div_ceil(100).max(1) - 1;
        (rank < count).then(|| *latencies.select_nth_unstable(rank).1)
    };
    Some(Handshake {
        p50_us: percentile(50)?,
        p95_us: percentile(95)?,
        p99_us: percentile(99)?,
        count: count as u64,
    })
}
