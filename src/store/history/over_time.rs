//! When the attempts of a segment began, from its [`Rollup`] where that tells.

use std::sync::Arc;

use super::part::{DiskPart, superseded_in};
use super::rollup::{Kind, Rollup};
use crate::event::Outcome;
use crate::query::Filter;
use crate::store::archive::Part;
use crate::store::matcher::Selection;
use crate::store::row::{nanos, wide};
use crate::store::view::Columns;

/// Who is told of so many attempts, one of which began at this time, and all of them in the same step
/// of the answer.
type Tell<'a> = dyn FnMut(i64, Outcome, u64) + 'a;

impl DiskPart {
    /// Tells of the attempts that match, in steps of this length.
    pub(super) fn tell_over_time(&self, selection: &Selection, step_ms: u64, tell: &mut Tell<'_>) {
        let (times, f) = (self.segment.times(), &selection.filter);
        let is_outside = f.since.is_some_and(|since| times.max < nanos(since))
            || f.until.is_some_and(|until| nanos(until) <= times.min);
        if is_outside {
            return;
        }
        match self.rolled_up(selection, step_ms) {
            Some(rollup) => self.tell_rolled_up(&rollup, selection, tell),
            None => self.tell_rows(selection, tell),
        }
    }

    /// What is known of all rows that are shown, if that can answer the question.
    fn rolled_up(&self, selection: &Selection, step_ms: u64) -> Option<Arc<Rollup>> {
        let fits = self.segment.rolled().is_some_and(|rolled| rolled.fits(step_ms));
        if !fits || self.memory.is_some() || !asks_for_kinds(selection) {
            return None;
        }
        // In this order, as for single rows: what is superseded no longer is hidden by now.
        let superseded = self.superseded.now();
        if superseded_in(&superseded, &self.segment).next().is_some() {
            return None;
        }
        self.segment.rollup_of_shown()
    }

    fn tell_rolled_up(&self, rollup: &Rollup, selection: &Selection, tell: &mut Tell<'_>) {
        let f = &selection.filter;
        let (times, step) = (self.segment.times(), rollup.step_ns());
        // The whole steps of the window; what it has of others is looked at row by row.
        let since = f.since.map(nanos).filter(|since| times.min < *since);
        let until = f.until.map(nanos).filter(|until| *until <= times.max);
        let from = since.map_or(i64::MIN, |since| {
            since.div_euclid(step) + i64::from(since.rem_euclid(step) > 0)
        });
        let to = until.map_or(i64::MAX, |until| until.div_euclid(step));
        let is_at_the_end_of_time = since.is_some_and(|since| since > i64::MAX - step)
            || until.is_some_and(|until| until < i64::MIN + step);
        if from >= to || is_at_the_end_of_time {
            return self.tell_rows(selection, tell);
        }
        let is_meant = |kind: Kind| {
            (f.outcome.is_empty() || f.outcome.contains(&kind.outcome))
                && (f.protocol.is_empty() || f.protocol.contains(&kind.protocol))
                && (f.direction.is_empty() || f.direction.contains(&kind.direction))
                && f.preexisting != Some(true)
        };
        // It was read to its end before.
        let _ = rollup.each(|at, kind, count| {
            if (from..to).contains(&at) && is_meant(kind) {
                tell(at.saturating_mul(step), kind.outcome, count.into());
            }
        });
        let edges = [
            since.map(|since| (since, from.saturating_mul(step))),
            until.map(|until| (to.saturating_mul(step), until)),
        ];
        for (since, until) in edges.into_iter().flatten().filter(|(since, until)| since < until) {
            let mut edge = selection.clone();
            (edge.filter.since, edge.filter.until) = (Some(wide(since)), Some(wide(until)));
            self.tell_rows(&edge, tell);
        }
    }

    fn tell_rows(&self, selection: &Selection, tell: &mut Tell<'_>) {
        let rows = self.matching(selection);
        self.visit(&rows, Columns::NONE, &mut |view| tell(view.time_ns(), view.outcome(), 1));
    }
}

/// Whether it asks for attempts by what makes them of a [`Kind`], and for nothing else.
fn asks_for_kinds(selection: &Selection) -> bool {
    let f = &selection.filter;
    let filter = Filter {
        since: f.since,
        until: f.until,
        outcome: f.outcome.clone(),
        protocol: f.protocol.clone(),
        direction: f.direction.clone(),
        preexisting: f.preexisting,
        ..Filter::default()
    };
    *selection == Selection { filter, attempts_only: true, command: None }
}
