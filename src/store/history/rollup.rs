//! How many attempts of a segment began when, of each kind: what a series over time needs, without
//! reading the columns.
//!
//! It stands in the metadata of the file, and is counted from the columns when those are written. It
//! counts every row, also those that are hidden later: [`Rollup::without`] takes these off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow_array::RecordBatch;
use arrow_array::types::TimestampNanosecondType;
use serde::{Deserialize, Serialize};
use strum::VariantArray;

use super::columns::{flags, numbers, parsed};
use super::lock;
use super::packed::Packed;
use super::schema::Column as C;
use super::segment::Facts;
use crate::event::{Direction, Outcome, Protocol};
use crate::store::archive::Rows;

/// Under which key of a file's metadata it stands.
pub(super) const ROLLUP_KEY: &str = "netspy.rollup";

/// What it is counted from.
pub(super) const COUNTED: [C; 5] = [C::Time, C::Outcome, C::Protocol, C::Direction, C::Preexisting];

const MINUTE_NS: i64 = 60_000_000_000;
/// How long its steps may be, in minutes: where attempts are few and far between, a segment lies over
/// so many minutes that longer ones have to do. Of such a time there is little to read.
const STEPS: [u32; 3] = [1, 60, 1_440];
/// Counts that a segment has at most: a byte for each row of one that is full, most often far less.
const MAX_COUNTS: usize = 8_192;

/// What attempts have in common that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Kind {
    pub(super) outcome: Outcome,
    pub(super) protocol: Protocol,
    pub(super) direction: Direction,
}

impl Kind {
    /// How many there are.
    const COUNT: usize =
        Outcome::VARIANTS.len() * Protocol::VARIANTS.len() * Direction::VARIANTS.len();

    fn number(self) -> usize {
        let of_protocol = self.outcome as usize * Protocol::VARIANTS.len() + self.protocol as usize;
        of_protocol * Direction::VARIANTS.len() + self.direction as usize
    }
}

/// By number of the step since 1970, and kind.
type Counts = BTreeMap<(i64, Kind), u32>;

/// Counts attempts by minute while their rows come, most of which are of the minute of the row before.
#[derive(Debug)]
pub(super) struct Tally {
    counts: Vec<(i64, Kind, u32)>,
    minute: i64,
    /// Those of that minute, by number of the kind, and the kinds that there are.
    of_minute: [u32; Kind::COUNT],
    kinds: Vec<Kind>,
    /// Rows that are no attempts.
    others: u32,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            counts: Vec::new(),
            minute: 0,
            of_minute: [0; Kind::COUNT],
            kinds: Vec::new(),
            others: 0,
        }
    }
}

impl Tally {
    /// Counts rows; `None` where one does not say what is needed.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Option<()> {
        let times = numbers::<TimestampNanosecondType>(batch, C::Time);
        let outcomes = parsed::<Outcome>(batch, C::Outcome);
        let protocols = parsed::<Protocol>(batch, C::Protocol);
        let directions = parsed::<Direction>(batch, C::Direction);
        let preexisting = flags(batch, C::Preexisting);
        for (row, time) in times.all()?.iter().enumerate() {
            let outcome = outcomes.get(row)?;
            if preexisting.get(row)? || outcome == Outcome::Listening {
                self.others += 1;
                continue;
            }
            let (protocol, direction) = (protocols.get(row)?, directions.get(row)?);
            self.count(time.div_euclid(MINUTE_NS), Kind { outcome, protocol, direction });
        }
        self.end_minute();
        Some(())
    }

    fn count(&mut self, minute: i64, kind: Kind) {
        if self.minute != minute {
            self.end_minute();
            self.minute = minute;
        }
        if let Some(count) = self.of_minute.get_mut(kind.number()) {
            if *count == 0 {
                self.kinds.push(kind);
            }
            *count += 1;
        }
    }

    fn end_minute(&mut self) {
        for kind in self.kinds.drain(..) {
            if let Some(count) = self.of_minute.get_mut(kind.number()) {
                self.counts.push((self.minute, kind, std::mem::take(count)));
            }
        }
    }

    /// In steps of so many minutes.
    fn by_step(&self, minutes: u32) -> Counts {
        let mut counts = Counts::new();
        for (minute, kind, count) in &self.counts {
            *counts.entry((minute.div_euclid(minutes.into()), *kind)).or_default() += count;
        }
        counts
    }

    /// As it is written to the file; `None` if it would be too long.
    pub(super) fn to_text(&self, first_time: i64) -> Option<String> {
        let mut steps = STEPS.iter().map(|minutes| (*minutes, self.by_step(*minutes)));
        let (minutes, counts) = steps.find(|(_, counts)| counts.len() <= MAX_COUNTS)?;
        let kinds = kinds(&counts);
        let counts = flat(&counts, &kinds, step_of(first_time, minutes))?;
        let written = Written { minutes, kinds, others: self.others, counts };
        serde_json::to_string(&written).ok()
    }
}

/// The form in which a file has it.
#[derive(Serialize, Deserialize)]
struct Written {
    /// Length of a step.
    minutes: u32,
    kinds: Vec<Kind>,
    /// Rows that are no attempts.
    others: u32,
    /// Of each step that has attempts: how many steps after the one before it, or after that of the
    /// first row; how many kinds; and of each its place among the kinds, and how many there are.
    counts: Vec<u32>,
}

/// Attempts of a segment by step of time and kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rollup {
    minutes: u32,
    /// The step of the first row of the segment.
    first: i64,
    kinds: Vec<Kind>,
    /// As [`Written::counts`].
    counts: Packed,
}

impl Rollup {
    /// What a file says, if that can be true of a segment with these facts.
    pub(super) fn of_text(text: &str, facts: &Facts) -> Option<Self> {
        let Written { minutes, kinds, others, counts } = serde_json::from_str(text).ok()?;
        if !STEPS.contains(&minutes) {
            return None;
        }
        let first = step_of(facts.first_time, minutes);
        let rollup = Rollup { minutes, first, kinds, counts: Packed::of(counts) };
        let (mut sum, mut latest) = (u64::from(others), None);
        rollup.each(|step, _, count| {
            sum += u64::from(count);
            latest = Some(step);
        })?;
        let is_inside = latest.is_none_or(|latest| latest <= step_of(facts.last_time, minutes));
        let are_attempts = rollup.kinds.iter().all(|kind| kind.outcome != Outcome::Listening);
        (are_attempts && is_inside && sum == u64::from(facts.rows)).then_some(rollup)
    }

    /// Length of its steps in nanoseconds. Like those of an answer, they begin at its multiples since
    /// 1970.
    pub(super) fn step_ns(&self) -> i64 {
        MINUTE_NS * i64::from(self.minutes)
    }

    /// Shows the counts, by number of the step since 1970; `None` where they make no sense.
    pub(super) fn each(&self, mut show: impl FnMut(i64, Kind, u32)) -> Option<()> {
        let mut numbers = self.counts.iter();
        let (mut step, mut is_first) = (self.first, true);
        while let Some(after) = numbers.next() {
            if after == 0 && !is_first {
                return None;
            }
            is_first = false;
            step = step.checked_add(after.into())?;
            for _ in 0..numbers.next()? {
                let kind = self.kinds.get(usize::try_from(numbers.next()?).ok()?)?;
                show(step, *kind, numbers.next()?);
            }
        }
        Some(())
    }

    /// Those but for what these rows have; `None` where they do not have them.
    pub(super) fn without(&self, rows: &RecordBatch) -> Option<Self> {
        let mut tally = Tally::default();
        tally.add(rows)?;
        let mut counts = Counts::new();
        self.each(|step, kind, count| *counts.entry((step, kind)).or_default() += count)?;
        for (place, count) in tally.by_step(self.minutes) {
            let known = counts.get_mut(&place)?;
            *known = known.checked_sub(count)?;
        }
        counts.retain(|_, count| *count > 0);
        let kinds = kinds(&counts);
        let counts = Packed::of(flat(&counts, &kinds, self.first)?);
        Some(Rollup { minutes: self.minutes, first: self.first, kinds, counts })
    }
}

/// The same of a segment of which rows are hidden from time to time.
#[derive(Debug)]
pub(super) struct Rolled {
    minutes: u32,
    /// The rows that were hidden when it was last asked for, and what the others have.
    latest: Mutex<(Arc<Vec<u32>>, Arc<Rollup>)>,
}

impl Rolled {
    /// Of a segment none of whose rows is hidden.
    pub(super) fn new(all: Rollup) -> Self {
        let minutes = all.minutes;
        Rolled { minutes, latest: Mutex::new((Arc::default(), Arc::new(all))) }
    }

    /// Whether each step of an answer is made of whole ones of these.
    pub(super) fn fits(&self, step_ms: u64) -> bool {
        step_ms > 0 && step_ms.is_multiple_of(u64::from(self.minutes) * 60_000)
    }

    /// What all rows but these have, of which there are only ever more. Those that are new among them
    /// are read.
    pub(super) fn without(
        &self,
        hidden: Arc<Vec<u32>>,
        read: impl FnOnce(&Rows) -> Option<RecordBatch>,
    ) -> Option<Arc<Rollup>> {
        let (known, rollup) = lock(&self.latest).clone();
        if known.len() >= hidden.len() {
            return Some(rollup);
        }
        let is_new = |row: &u32| known.binary_search(row).is_err();
        let new = Rows::List(hidden.iter().copied().filter(is_new).collect());
        let rollup = Arc::new(rollup.without(&read(&new)?)?);
        *lock(&self.latest) = (hidden, Arc::clone(&rollup));
        Some(rollup)
    }
}

fn step_of(time: i64, minutes: u32) -> i64 {
    time.div_euclid(MINUTE_NS * i64::from(minutes))
}

fn kinds(counts: &Counts) -> Vec<Kind> {
    let mut kinds: Vec<_> = counts.keys().map(|(_, kind)| *kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// As [`Written::counts`]; `None` if a step lies before the first.
fn flat(counts: &Counts, kinds: &[Kind], first: i64) -> Option<Vec<u32>> {
    let all: Vec<_> = counts.iter().collect();
    let (mut flat, mut before) = (Vec::new(), first);
    for of_step in all.chunk_by(|(a, _), (b, _)| a.0 == b.0) {
        let step = of_step.first()?.0.0;
        flat.push(u32::try_from(step.checked_sub(before)?).ok()?);
        flat.push(u32::try_from(of_step.len()).ok()?);
        for ((_, kind), count) in of_step {
            flat.push(u32::try_from(kinds.binary_search(kind).ok()?).ok()?);
            flat.push(**count);
        }
        before = step;
    }
    Some(flat)
}
