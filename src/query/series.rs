//! Attempts over time.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::filter::{self, FILTER_NAMES, invalid};
use super::{Filter, QueryError, Window};
use crate::accounting::Accounting;
use crate::event::Outcome;

/// How long each step is; where it is not said, as long as makes about sixty of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step(Option<u64>);

/// What is chosen from where nothing is said, in milliseconds.
const USUAL: [u64; 16] = [
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    21_600_000,
    86_400_000,
    604_800_000,
];

const ACCEPTED: &str = "a length of time such as 10s, 1m, 1h, at least 1ms";

impl Step {
    /// A step of so many milliseconds, at least one.
    pub fn of_millis(millis: u64) -> Self {
        Step(Some(millis.max(1)))
    }

    /// The shortest of the usual steps of which a window of this length has at most so many.
    pub fn at_most(length_ms: u64, steps: u64) -> Self {
        let usual = USUAL.iter().copied().find(|step| length_ms / step <= steps);
        Step(usual)
    }

    /// Its length in milliseconds, for this window; `Err` where that makes too many steps.
    pub(crate) fn millis_in(self, window: Window) -> Result<u64, QueryError> {
        let from = window.since.as_millisecond();
        let length = window.until.as_millisecond().saturating_sub(from).max(0).unsigned_abs();
        let millis = self.0.unwrap_or_else(|| {
            let usual = USUAL.iter().copied().find(|step| length / step <= 60);
            usual.unwrap_or_else(|| (length / 60).max(1).next_multiple_of(604_800_000))
        });
        // The window may begin and end within a step.
        let steps = length / millis + 2;
        if steps <= Series::MAX_STEPS {
            return Ok(millis);
        }
        let least = (length / (Series::MAX_STEPS - 2) + 1).div_ceil(1_000);
        let problem = format!(
            "makes {steps} steps of the window, and an answer holds {} at most",
            Series::MAX_STEPS
        );
        Err(invalid("step", &problem, &format!("{least}s or longer for this window")))
    }

    fn parse(text: &str) -> Result<Self, QueryError> {
        let millis = match filter::parse_length(text) {
            Some(length) => u64::try_from(length.as_millis()).ok(),
            None => None,
        };
        // The longest step that can be added to a time without leaving the calendar.
        let longest = 366 * 86_400_000;
        match millis.filter(|millis| (1..=longest).contains(millis)) {
            Some(millis) => Ok(Step(Some(millis))),
            None => Err(filter::wrong("step", text, ACCEPTED)),
        }
    }
}

/// What happened in one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Point {
    /// Start of the step.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub time: Timestamp,
    /// Attempts that began in it.
    pub count: u64,
    /// How many of them are unsuccessful.
    pub unsuccessful: u64,
    /// By outcome.
    pub by_outcome: BTreeMap<Outcome, u64>,
}

/// Attempts by step of time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Series {
    /// Length of a step in milliseconds.
    pub step_ms: u64,
    /// The steps, oldest first, without a hole: where nothing happened the count is 0. Steps begin
    /// at multiples of their length since 1970, so that they are the same in every answer; the first
    /// and the last may reach beyond the window, but count only what is in it.
    pub points: Vec<Point>,
    /// Attempts in all. What listens, and what existed before capture began, is none.
    pub total: u64,
    /// The time that the answer covers.
    pub window: Window,
    /// The books of that time. A hole in capture is among its `gaps`.
    pub accounting: Accounting,
    /// Where nothing matched: the start of the newest record that matches but for the window.
    #[serde(serialize_with = "crate::event::time::serialize_option")]
    pub newest_outside_window: Option<Timestamp>,
}

impl Series {
    /// The most steps that one answer holds.
    pub const MAX_STEPS: u64 = 10_000;
}

/// The parameters beside the filters.
pub const SERIES_NAMES: [&str; 1] = ["step"];

/// Reads parameters; ages count from now.
pub fn parse<N: AsRef<str>, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (N, V)>,
) -> Result<(Filter, Step), QueryError> {
    let (own, filter) = filter::apart(pairs, &SERIES_NAMES)?;
    let step = own.get("step").map(|text| Step::parse(text)).transpose()?;
    Ok((filter, step.unwrap_or_default()))
}

/// The parameters that [`parse`] reads back.
pub fn to_pairs(filter: &Filter, step: Step) -> Vec<(&'static str, String)> {
    let mut pairs = filter.to_pairs();
    pairs.extend(step.0.map(|millis| ("step", format!("{millis}ms"))));
    pairs
}

/// All parameters, for messages and documentation.
pub fn names() -> Vec<&'static str> {
    [&FILTER_NAMES[..], &SERIES_NAMES].concat()
}

/// The start of the step that this time is in.
pub(crate) fn start_of(time_ms: i64, step_ms: u64) -> i64 {
    let step = i64::try_from(step_ms).unwrap_or(i64::MAX);
    time_ms.div_euclid(step).saturating_mul(step)
}

/// So many milliseconds after 1970.
pub(crate) fn at(millis: i64) -> Timestamp {
    let time = Timestamp::UNIX_EPOCH.checked_add(SignedDuration::from_millis(millis));
    time.unwrap_or(if millis < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(seconds: i64) -> Window {
        Window { since: Timestamp::UNIX_EPOCH, until: at(seconds * 1_000) }
    }

    #[test]
    fn a_step_is_chosen_where_none_is_given_and_never_makes_too_many() {
        for (seconds, step) in [(0, 1_000), (60, 1_000), (3_600, 60_000), (86_400, 1_800_000)] {
            assert_eq!(Step::default().millis_in(window(seconds)).unwrap(), step, "{seconds}");
        }
        let ever = Window { since: Timestamp::MIN, until: Timestamp::MAX };
        assert!(Step::default().millis_in(ever).is_ok());
        assert!(Step::of_millis(1).millis_in(window(9)).is_ok());
        let error = Step::of_millis(1).millis_in(window(11)).unwrap_err().to_string();
        assert!(error.contains("1s or longer"), "{error}");
        assert!(Step::of_millis(1_000).millis_in(window(11)).is_ok());
    }

    #[test]
    fn a_step_is_a_length_of_time() {
        for (text, millis) in [("1ms", 1), ("10s", 10_000), (" 1h ", 3_600_000)] {
            assert_eq!(Step::parse(text).unwrap(), Step::of_millis(millis), "{text}");
        }
        for text in ["", "0s", "10", "-1s", "1y", "99999999999999999w", "s", "400d", "+1s"] {
            assert!(Step::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_step_before_1970_begins_before_its_times() {
        assert_eq!(start_of(-1, 1_000), -1_000);
        assert_eq!(start_of(0, 1_000), 0);
        assert_eq!(start_of(1_999, 1_000), 1_000);
    }
}
