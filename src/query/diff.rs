//! What is new, gone and changed between two windows of time.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::filter::{self, FILTER_NAMES, invalid};
use super::{Filter, QueryError, Window};
use crate::accounting::Accounting;
use crate::event::Outcome;

/// What the window of the filter is compared with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compare {
    /// Start; as long before the end as the other window is long, unless given.
    pub since: Option<Timestamp>,
    /// End; the start of the other window unless given.
    pub until: Option<Timestamp>,
}

/// How often something was seen in one window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Seen {
    /// Attempts.
    pub count: u64,
    /// How many of them are unsuccessful.
    pub unsuccessful: u64,
    /// By outcome.
    pub by_outcome: BTreeMap<Outcome, u64>,
}

/// What differs between the windows. What does not apply is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Difference {
    /// Name of the process.
    pub process: Option<String>,
    /// Remote address.
    pub remote: Option<IpAddr>,
    /// Remote port; of what comes in, the local one.
    pub port: Option<u16>,
    /// In the window that is compared with.
    pub before: Seen,
    /// In the window of the question.
    pub after: Seen,
}

/// What differs, one kind of thing. Each list has its most frequent first, and is cut at the limit
/// of the question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Differences {
    /// Seen in the window of the question only.
    pub new: Vec<Difference>,
    /// How many are new, shown or not.
    pub new_total: u64,
    /// Seen in the window that is compared with only.
    pub gone: Vec<Difference>,
    /// How many are gone, shown or not.
    pub gone_total: u64,
    /// Seen in both, but not in the same way: with other outcomes (`in_progress` aside), or more
    /// than twice, or less than half, as often per second and at least ten times more or less than
    /// that makes one expect.
    pub changed: Vec<Difference>,
    /// How many have changed, shown or not.
    pub changed_total: u64,
    /// How many are as they were.
    pub same: u64,
    /// Attempts that were not looked at, since there are more things than are held in memory.
    pub left_out: u64,
}

/// A window and its books.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Compared {
    /// The window.
    pub window: Window,
    /// Its books.
    pub accounting: Accounting,
    /// Attempts in it that match.
    pub total: u64,
    /// Whether its end was asked for after the start of the window of the question, and is that
    /// start instead: what is in both windows would hide what is new.
    #[serde(default)]
    pub cut: bool,
}

/// What is new, gone and changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Diff {
    /// By name of the process.
    pub processes: Differences,
    /// By remote address.
    pub remotes: Differences,
    /// By process, remote address and port together.
    pub flows: Differences,
    /// Attempts in the window of the question.
    pub total: u64,
    /// The window of the question.
    pub window: Window,
    /// Its books.
    pub accounting: Accounting,
    /// What it is compared with.
    pub compared_with: Compared,
}

impl Diff {
    /// Things in each list unless asked otherwise.
    pub const DEFAULT_LIMIT: usize = 20;
    /// The most that one list holds.
    pub const MAX_LIMIT: usize = 1_000;
}

/// How far back a question goes that names no start.
const USUAL: SignedDuration = SignedDuration::from_hours(1);

impl Compare {
    /// Both windows: the one that is compared with, and the one of the filter. The former ends
    /// where the latter begins, if not before; one that begins later is taken as it is named.
    pub(crate) fn windows(
        self,
        filter: &Filter,
        now: Timestamp,
    ) -> Result<(Window, Window), QueryError> {
        let before = |time: Timestamp, length: SignedDuration| {
            time.checked_sub(length).unwrap_or(Timestamp::MIN)
        };
        let until = filter.until.unwrap_or(now);
        let since = filter.since.unwrap_or_else(|| before(until, USUAL));
        if since > until {
            return Err(invalid("since", "is after until, or lies ahead", "a time before until"));
        }
        let asked = Window { since, until };
        let accepted = "a time or an age before since";
        let begins_later = self.since.is_some_and(|start| start >= since);
        let end = match self.until {
            Some(end) if begins_later => end,
            None if begins_later => {
                let problem = "is not before the start of the window that it is compared with";
                return Err(invalid("compare_since", problem, accepted));
            }
            end => end.map_or(since, |end| end.min(since)),
        };
        let start = self.since.unwrap_or_else(|| before(end, until.duration_since(since)));
        if start > end {
            let problem = "is after the end of the window to compare with";
            return Err(invalid("compare_since", problem, "a time before compare_until and since"));
        }
        if begins_later && start > now {
            return Err(invalid("compare_since", "lies ahead", accepted));
        }
        Ok((Window { since: start, until: end }, asked))
    }

    /// Whether the window that is compared with would reach into `asked`.
    pub(crate) fn is_cut(self, asked: Window) -> bool {
        let is_before = self.since.is_none_or(|start| start < asked.since);
        is_before && self.until.is_some_and(|end| end > asked.since)
    }
}

/// The parameters beside the filters.
pub const DIFF_NAMES: [&str; 3] = ["compare_since", "compare_until", "limit"];

/// Reads parameters; ages count from now.
pub fn parse<N: AsRef<str>, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (N, V)>,
) -> Result<(Filter, Compare, Option<usize>), QueryError> {
    let now = Timestamp::now();
    let (own, filter) = filter::apart(pairs, &DIFF_NAMES)?;
    let time = |name: &'static str| {
        own.get(name).map(|text| filter::parse_time(name, text, now)).transpose()
    };
    let compare = Compare { since: time("compare_since")?, until: time("compare_until")? };
    // Wrong windows are told before any work is done.
    compare.windows(&filter, now)?;
    let limit = own.get("limit").map(|text| filter::limit("limit", text, Diff::MAX_LIMIT));
    Ok((filter, compare, limit.transpose()?))
}

/// The parameters that [`parse`] reads back.
pub fn to_pairs(
    filter: &Filter,
    compare: Compare,
    limit: Option<usize>,
) -> Vec<(&'static str, String)> {
    let mut pairs = filter.to_pairs();
    pairs.extend(compare.since.map(|since| ("compare_since", since.to_string())));
    pairs.extend(compare.until.map(|until| ("compare_until", until.to_string())));
    pairs.extend(limit.map(|limit| ("limit", limit.to_string())));
    pairs
}

/// All parameters, for messages and documentation.
pub fn names() -> Vec<&'static str> {
    [&FILTER_NAMES[..], &DIFF_NAMES].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_before_is_as_long_unless_another_is_named() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let (now, none) = (at(100_000), Compare::default());
        let window = |since, until| Window { since: at(since), until: at(until) };
        let filter = |since: Option<i64>, until: Option<i64>| Filter {
            since: since.map(at),
            until: until.map(at),
            ..Filter::default()
        };
        let windows = |filter, compare: Compare| compare.windows(&filter, now);
        let both = windows(filter(Some(99_000), None), none).unwrap();
        assert_eq!(both, (window(98_000, 99_000), window(99_000, 100_000)));
        let both = windows(filter(None, None), none).unwrap();
        assert_eq!(both, (window(92_800, 96_400), window(96_400, 100_000)));
        let named = Compare { since: Some(at(10)), until: Some(at(20)) };
        assert_eq!(windows(filter(None, None), named).unwrap().0, window(10, 20));
        let backwards = Compare { since: Some(at(20)), until: Some(at(10)) };
        assert!(windows(filter(None, None), backwards).is_err());
        assert!(windows(filter(Some(200_000), None), none).is_err());
    }

    #[test]
    fn the_window_before_neither_overlaps_nor_lies_ahead() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let now = at(100_000);
        let filter = Filter { since: Some(at(99_000)), ..Filter::default() };
        let compare =
            |since, until: i64| Compare { since: Some(at(since)), until: Some(at(until)) };
        let overlapping = compare(98_500, 99_500);
        let (before, asked) = overlapping.windows(&filter, now).unwrap();
        assert_eq!(before, Window { since: at(98_500), until: at(99_000) });
        assert!(overlapping.is_cut(asked) && !compare(98_500, 99_000).is_cut(asked));
        let open = Compare { since: Some(at(99_500)), until: None };
        for late in [open, compare(200_000, 200_010)] {
            let error = late.windows(&filter, now).unwrap_err().to_string();
            assert!(error.contains("compare_since") && error.contains("before since"), "{error}");
        }
        // Who names both edges means them: a window may be compared with itself.
        let same = compare(99_000, 100_000);
        let (before, asked) = same.windows(&filter, now).unwrap();
        assert_eq!((before, same.is_cut(asked)), (asked, false));
    }
}
