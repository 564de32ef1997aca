//! Questions that look at many rows. Each segment is locked on its own and for as long as it
//! takes to look through it, so ingest waits for one segment at most.

use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use strum::VariantArray;

use super::Store;
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
        let segments = self.segments();
        let mut total = 0;
        // One more than asked for tells whether there is a next page.
        let mut found = BinaryHeap::with_capacity(limit + 2);
        for (number, segment) in segments.iter().enumerate().rev() {
            let body = segment.read();
            let Some(matcher) = Matcher::new(selection, &body) else { continue };
            let full = found.len() > limit;
            let reach = reach(&body, sort);
            let too_far = full
                && found.peek().is_some_and(|worst: &Found| reach.is_some_and(|r| r > worst.rank));
            if too_far && matcher.takes_all() {
                total += body.rows.len() as u64;
                continue;
            }
            for (row_number, row) in body.rows.iter().enumerate() {
                if !matcher.matches(row) {
                    continue;
                }
                total += 1;
                if too_far {
                    continue;
                }
                let rank = Rank::of(row, sort);
                if after.is_some_and(|after| rank <= after) {
                    continue;
                }
                if found.len() > limit {
                    if found.peek().is_some_and(|worst| rank >= worst.rank) {
                        continue;
                    }
                    found.pop();
                }
                found.push(Found { rank, segment: number, row: row_number });
            }
        }
        let mut found = found.into_sorted_vec();
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more);
        let next_cursor = last.map(|last| last.rank.to_cursor(sort, question));
        Ok(Selected { connections: fetch(&segments, &found, selection), total, next_cursor })
    }

    /// How many records match.
    pub fn count(&self, selection: &Selection) -> u64 {
        let mut total = 0;
        for segment in self.segments() {
            let body = segment.read();
            let Some(matcher) = Matcher::new(selection, &body) else { continue };
            total += match matcher.takes_all() {
                true => body.rows.len() as u64,
                false => body.rows.iter().filter(|row| matcher.matches(row)).count() as u64,
            };
        }
        total
    }

    /// The start of the newest record that matches.
    pub fn newest(&self, selection: &Selection) -> Option<Timestamp> {
        let mut newest = None;
        for segment in self.segments().iter().rev() {
            let body = segment.read();
            if newest.is_some_and(|newest| body.times.is_some_and(|times| times.max <= newest)) {
                continue;
            }
            let Some(matcher) = Matcher::new(selection, &body) else { continue };
            let here = body.rows.iter().filter(|row| matcher.matches(row)).map(|row| row.time);
            newest = here.chain(newest).max();
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

/// Records as they are now. What has changed since it was found and no longer matches is left out.
fn fetch(segments: &[Arc<Segment>], found: &[Found], selection: &Selection) -> Vec<Connection> {
    let mut connections = Vec::with_capacity(found.len());
    for run in found.chunk_by(|a, b| a.segment == b.segment) {
        let Some(segment) = run.first().and_then(|first| segments.get(first.segment)) else {
            continue;
        };
        let body = segment.read();
        let rows = run.iter().filter_map(|found| body.rows.get(found.row));
        let decoded = rows.filter_map(|row| body.tables.decode(row));
        connections.extend(decoded.filter(|c| selection.matches(c)));
    }
    connections
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
