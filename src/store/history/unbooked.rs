//! Files of a time that the books say nothing of: somebody removed the books or cut them while the
//! server was down, or they could not be written.
//!
//! Nobody can say then whether what is in the files is all that there was. The attempts that they have
//! are added to the books as those of one more capture, of which nothing is known to be whole.

use arrow_array::types::UInt64Type;
use jiff::{SignedDuration, Timestamp};

use super::books::Contents;
use super::columns::numbers;
use super::reconcile::Beyond;
use super::recovery::Found;
use super::schema::Column as C;
use super::segment::{Facts, Segment};
use crate::accounting::Counters;
use crate::store::archive::{Progress, Rows};
use crate::store::ledger::{Run, Sample};
use crate::store::row::wide;

const GONE: &str = "the books of this time were removed or cut, or could not be written";

/// Figures that change are written every ten seconds: what files have beyond those of a process that
/// was killed is of little more.
const AFTER_A_KILL: SignedDuration = SignedDuration::from_secs(30);
/// The last figures of one that ended in order have all that it showed.
const AFTER_AN_END: SignedDuration = SignedDuration::from_secs(2);

/// Adds what is of such a time, and says how many changes that are.
pub(super) fn add(contents: &mut Contents, found: &Found) -> u64 {
    let Some(known) = last_known(&contents.past.runs) else { return 0 };
    let changes = changes_after(found, known);
    if changes == 0 {
        return 0;
    }
    let Some(run) = contents.past.runs.last_mut() else {
        let runs = &mut contents.past.runs;
        runs.extend(first_time(found).map(|start| unknown(start, Timestamp::MIN, known, found)));
        return changes;
    };
    let (end, ended) = (run.end(), run.why.is_some());
    if ended && run.whole_until == Some(end) {
        // It says itself that there may be more.
        return 0;
    }
    let grace = if ended { AFTER_AN_END } else { AFTER_A_KILL };
    if beyond(found, end, known).until.duration_since(end) <= grace {
        return 0;
    }
    if ended {
        let unknown = unknown(end, end, known, found);
        contents.past.runs.push(unknown);
    } else {
        // What it has beyond its figures is added to those, as after a kill.
        (run.why, run.whole_until) = (Some(GONE.to_owned()), Some(end));
    }
    changes
}

/// The last change that the books know of; none if they are of a program that noted no changes.
fn last_known(runs: &[Run]) -> Option<u64> {
    let of_run = |run: &Run| {
        let noted = run.samples.iter().map(|sample| sample.progress.change);
        noted.chain(run.after).max().unwrap_or(0)
    };
    let known = runs.iter().map(of_run).max().unwrap_or(0);
    (known > 0 || runs.is_empty()).then_some(known)
}

fn changes_after(found: &Found, known: u64) -> u64 {
    let in_journals =
        found.changes.ranges().map(|(after, last)| last.saturating_sub(after.max(known)));
    let in_segments = found.segments.iter().map(|segment| rows_after(segment, known, found));
    in_journals.chain(in_segments).sum()
}

/// Rows of a segment with changes after this one that no journal has, too. What it spans is more: its
/// numbers may have been given to versions that were replaced before it was made, or to none, as those
/// between two processes.
fn rows_after(segment: &Segment, known: u64, found: &Found) -> u64 {
    let Facts { after, last, rows, .. } = segment.facts;
    if last <= known {
        return 0;
    }
    if known <= after && !found.changes.touch((after, last)) {
        return rows.into();
    }
    match segment.read(&[C::Version], &Rows::Range(0..rows)) {
        Ok(batch) => {
            let versions = numbers::<UInt64Type>(&batch, C::Version);
            let versions = (0..rows as usize).filter_map(|row| versions.get(row));
            versions.filter(|v| *v > known && !found.changes.touch((v - 1, *v))).count() as u64
        }
        Err(error) => {
            segment.complain(&error);
            0
        }
    }
}

fn beyond(found: &Found, end: Timestamp, known: u64) -> Beyond {
    let progress = Progress { change: known, attempts: 0 };
    Beyond::of(found, &Sample { progress, ..Sample::zero(end) })
}

/// A capture of which only the files tell, and what they have after this time.
fn unknown(start: Timestamp, after: Timestamp, known: u64, found: &Found) -> Run {
    let Beyond { stored, until, .. } = beyond(found, after, known);
    let counters = Counters { attempts: stored, delivered: stored, ..Counters::default() };
    let change = found.all_changes().ranges().map(|(_, last)| last).max().unwrap_or(known);
    // It knows of these changes, and not of which it does not.
    let progress = Progress { change, attempts: stored };
    let mut run = Run::new(start, false);
    run.samples.push(Sample { progress, ..Sample::new(until.max(start), counters) });
    (run.why, run.whole_until) = (Some(GONE.to_owned()), Some(start));
    run
}

/// The start of the oldest record.
fn first_time(found: &Found) -> Option<Timestamp> {
    let in_segments = found.segments.iter().map(|segment| wide(segment.facts.first_time));
    in_segments.chain(found.left.iter().map(|(_, record)| record.time)).min()
}
