//! The books of the last process and the files that it left: what each of them knows and the other
//! does not.
//!
//! Figures are written every few seconds, and records within one. So the files of a process that was
//! killed have attempts that its books say nothing of, or say that they were pending: these are
//! added. And the books say which changes are in a file: where they are in none, somebody has removed
//! a file or cut it, and the records of that time are a gap.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::books::Contents;
use super::find::find_held;
use super::part::DiskPart;
use super::recovery::Found;
use super::segment::Segment;
use crate::accounting::Gap;
use crate::event::{Connection, ConnectionId};
use crate::query::Filter;
use crate::store::archive::Part;
use crate::store::ledger::{Run, Sample, UNNOTICED};
use crate::store::matcher::Selection;
use crate::store::row::wide;

/// An attempt is shown within a second, and figures are read a moment apart from the changes.
const SHOWN_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// Changes that no file has though the books say so: their time, and their numbers.
pub(super) type Missing = Vec<(Gap, (u64, u64))>;

/// What the books say is in files, and is not.
pub(super) fn missing(contents: &Contents, found: &Found) -> Missing {
    let mut known = found.all_changes();
    contents.accounted.ranges().for_each(|range| known.add(range));
    let of_run = |run: &Run| {
        let noted = run.samples.iter().map(|sample| sample.progress.change).max();
        let Some((after, last)) = run.after.zip(noted) else { return Vec::new() };
        let ranges = known.missing_in((after, last)).into_iter();
        ranges.map(|range| (gap(run, range), range)).collect()
    };
    contents.past.runs.iter().flat_map(of_run).collect()
}

/// When the changes after the first of these and up to the second came, as far as figures tell.
fn gap(run: &Run, (after, last): (u64, u64)) -> Gap {
    let samples = || run.samples.iter().filter(|sample| sample.progress.change > 0);
    let since =
        samples().rfind(|sample| sample.progress.change <= after).map_or(run.start, |s| s.last);
    let until =
        samples().find(|sample| sample.progress.change >= last).map_or(run.end(), |s| s.last);
    let why = format!(
        "{} changes of this time were in files of history that were removed, cut or damaged",
        last - after
    );
    Gap { since: since.checked_sub(SHOWN_AFTER).unwrap_or(since), until: until.max(since), why }
}

/// Adds to the books of a process that ended without notice, or while the disk refused some of what it
/// had, what its files have beyond them.
pub(super) fn add_found(contents: &mut Contents, found: &Found) {
    let ends_before = |run: &&mut Run| run.why.is_none() || run.whole_until == Some(run.end());
    let Some(run) = contents.past.runs.last_mut().filter(ends_before) else { return };
    let Some(mut last) = run.samples.last().copied() else { return };
    // They may have been cut after the line of its start.
    last.progress.change = last.progress.change.max(run.after.unwrap_or(0));
    if last.progress.change == 0 {
        // Books of a program that did not say which changes they knew.
        return;
    }
    let Beyond { stored, later, until } = Beyond::of(found, &last);
    let mut counters = last.counters;
    // What is in files was delivered, and nothing else was for good.
    counters.delivered = last.progress.attempts + stored;
    let accounted = counters.delivered + counters.filtered + counters.lost.total();
    counters.attempts = (counters.attempts + later).max(accounted);
    if counters == last.counters {
        return;
    }
    let at = until.max(last.last);
    run.samples.push(Sample { progress: last.progress, ..Sample::new(at, counters) });
    run.whole_until = Some(last.last);
    run.why.get_or_insert_with(|| UNNOTICED.to_owned());
}

/// Attempts that were stored after the last figures.
pub(super) struct Beyond {
    pub(super) stored: u64,
    /// Those of them that began later, too.
    later: u64,
    /// When the last of them began.
    pub(super) until: Timestamp,
}

impl Beyond {
    pub(super) fn of(found: &Found, last: &Sample) -> Beyond {
        let mut beyond = Beyond { stored: 0, later: 0, until: last.last };
        let new = |c: &&Connection| {
            let first = found.first_shown.get(&c.id);
            c.is_attempt() && first.is_some_and(|first| *first > last.progress.change)
        };
        let left: Vec<_> = found.left.iter().map(|(_, c)| c).filter(new).collect();
        let earlier = held_in(&found.segments, &left);
        for c in left.iter().filter(|c| !earlier.contains(&c.id)) {
            beyond.stored += 1;
            beyond.later += u64::from(c.time > last.last);
            beyond.until = beyond.until.max(c.time);
        }
        let later = found.segments.iter().filter(|s| s.facts.last > last.progress.change);
        for segment in later.filter(|s| wide(s.facts.last_time) > last.last) {
            let count = count_after(segment, last.last);
            beyond.stored += count;
            beyond.later += count;
            beyond.until = beyond.until.max(wide(segment.facts.last_time));
        }
        beyond
    }
}

fn held_in(segments: &[Arc<Segment>], records: &[&Connection]) -> HashSet<ConnectionId> {
    let ids = || records.iter().map(|c| c.id);
    let held = segments.iter().flat_map(|segment| find_held(segment, ids()));
    held.map(|(id, _)| id).collect()
}

/// Attempts of a segment that began later than this.
fn count_after(segment: &Arc<Segment>, time: Timestamp) -> u64 {
    let since = time.checked_add(SignedDuration::from_nanos(1)).ok();
    let filter = Filter { since, ..Filter::default() };
    let selection = Selection { filter, attempts_only: true, ..Selection::default() };
    let (segment, superseded) = (Arc::clone(segment), Arc::default());
    DiskPart { segment, superseded, memory: None }.count(&selection)
}

/// Notes in which changes records were first shown.
pub(super) fn note_first(first: &mut HashMap<ConnectionId, u64>, id: ConnectionId, version: u64) {
    let known = first.entry(id).or_insert(version);
    *known = version.min(*known);
}
