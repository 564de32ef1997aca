//! When one flow was tried, and whether there is a rhythm in it.

use super::tally::Marks;
use crate::event::ConnectionId;

/// Attempts that are remembered, the newest.
const MAX_TIMES: usize = 32;
/// Attempts so close together are one beat: a program may try two addresses, or several streams.
const ONE_BEAT_NS: i64 = 1_000_000_000;
/// Beats from which there can be a rhythm.
const BEATS: usize = 10;
/// What is quicker is somebody at work rather than a rhythm.
const SHORTEST_NS: i64 = 5_000_000_000;
/// How many of a hundred intervals have to be near the median.
const REGULAR_PERCENT: u64 = 80;

/// The newest attempts at one remote and port.
#[derive(Debug, Default)]
pub(super) struct Beats {
    /// In order.
    times: Vec<(i64, ConnectionId)>,
}

/// Beats at equal intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rhythm {
    pub(super) beats: u64,
    /// The median.
    pub(super) interval_ns: i64,
    /// Of a hundred intervals, how many are near that.
    pub(super) regular_percent: u64,
}

impl Beats {
    pub(super) fn add(&mut self, time_ns: i64, id: ConnectionId) {
        let place = self.times.partition_point(|known| *known <= (time_ns, id));
        if self.times.len() < MAX_TIMES {
            self.times.insert(place, (time_ns, id));
        } else if place > 0 {
            // The oldest goes, and what lies between moves up.
            self.times.copy_within(1..place, 0);
            if let Some(free) = self.times.get_mut(place - 1) {
                *free = (time_ns, id);
            }
        }
    }

    /// The rhythm of what is remembered, if there is one.
    pub(super) fn rhythm(&self) -> Option<Rhythm> {
        let mut beats: Vec<i64> = Vec::with_capacity(self.times.len());
        for (time, _) in &self.times {
            if beats.last().is_none_or(|last| time.saturating_sub(*last) > ONE_BEAT_NS) {
                beats.push(*time);
            }
        }
        if beats.len() < BEATS {
            return None;
        }
        let mut intervals: Vec<i64> = beats.windows(2).filter_map(interval).collect();
        intervals.sort_unstable();
        let median = *intervals.get(intervals.len() / 2)?;
        let near = (median / 10).max(ONE_BEAT_NS);
        let regular = intervals
            .iter()
            .filter(|interval| interval.saturating_sub(median).saturating_abs() <= near);
        let regular_percent = regular.count() as u64 * 100 / intervals.len() as u64;
        let is_one = median >= SHORTEST_NS && regular_percent >= REGULAR_PERCENT;
        let rhythm = Rhythm { beats: beats.len() as u64, interval_ns: median, regular_percent };
        is_one.then_some(rhythm)
    }

    /// The records that it rests on.
    pub(super) fn marks(&self) -> Marks {
        let mut marks = Marks::default();
        self.times.iter().for_each(|(time, id)| marks.add(*time, *id));
        marks
    }
}

fn interval(pair: &[i64]) -> Option<i64> {
    match pair {
        // Times of hostile recordings may lie as far apart as numbers can.
        [a, b] => Some(b.saturating_sub(*a)),
        _ => None,
    }
}
