//! Which part of a gap an answer has.

use jiff::Timestamp;

use super::past::{Run, UNNOTICED};
use crate::accounting::Gap;

/// A window as it was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) from: Timestamp,
    /// Who names no end is shown what has later times than now, too: the clock may have been ahead.
    pub(super) to: Timestamp,
    /// Nobody named where it begins.
    pub(super) is_all: bool,
}

impl Asked {
    /// The part of a gap that lies in the window, if there is one.
    pub(super) fn part(&self, since: Timestamp, until: Timestamp, why: &str) -> Option<Gap> {
        let (since, until) = (since.max(self.from), until.min(self.to));
        (since < until).then(|| Gap { since, until, why: why.to_owned() })
    }

    /// What lies between a capture and the next, which began then. Where the clock was set back in
    /// between, nobody knows how long that was: it took no time by the clock, and came before what is
    /// of the next.
    pub(super) fn gap_before(&self, run: &Run, next: Timestamp) -> Option<Gap> {
        let (end, why) = (run.watched_until(), run.why.as_deref().unwrap_or(UNNOTICED));
        if end <= next {
            return self.part(end, next, why);
        }
        let is_inside = (self.is_all || self.from < next) && next <= self.to;
        let back = end.duration_since(next).as_secs();
        let why = || format!("{why}, and the clock set back meanwhile, by {back} s or more");
        is_inside.then(|| Gap { since: next, until: next, why: why() })
    }
}
