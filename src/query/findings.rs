//! What stands out among records: the question and its answer.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::filter::{self, FILTER_NAMES};
use super::{Filter, QueryError, Window};
use crate::accounting::Accounting;
use crate::analysis::Finding;

/// What stands out among the records that match.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Findings {
    /// What matters most first.
    pub findings: Vec<Finding>,
    /// How many there are in all.
    pub total: u64,
    /// Whether everything that matches was counted. If not, there was more to tell apart than there
    /// is room for: findings may be missing and their figures may be too low.
    pub exact: bool,
    /// The time that the answer covers.
    pub window: Window,
    /// The books of that time.
    pub accounting: Accounting,
    /// Where nothing matched: the start of the newest record that matches but for the window.
    #[serde(serialize_with = "crate::event::time::serialize_option")]
    pub newest_outside_window: Option<Timestamp>,
}

impl Findings {
    /// Findings in an answer unless asked otherwise.
    pub const DEFAULT_LIMIT: usize = 100;
    /// The most that one answer holds.
    pub const MAX_LIMIT: usize = 1_000;
}

/// The parameters beside the filters.
pub const FINDINGS_NAMES: [&str; 1] = ["limit"];

/// Reads parameters; ages count from now.
pub fn parse<N: AsRef<str>, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (N, V)>,
) -> Result<(Filter, Option<usize>), QueryError> {
    let (own, filter) = filter::apart(pairs, &FINDINGS_NAMES)?;
    let limit = own.get("limit").map(|text| filter::limit("limit", text, Findings::MAX_LIMIT));
    Ok((filter, limit.transpose()?))
}

/// The parameters that [`parse`] reads back.
pub fn to_pairs(filter: &Filter, limit: Option<usize>) -> Vec<(&'static str, String)> {
    let mut pairs = filter.to_pairs();
    pairs.extend(limit.map(|limit| ("limit", limit.to_string())));
    pairs
}

/// All parameters, for messages and documentation.
pub fn names() -> Vec<&'static str> {
    [&FILTER_NAMES[..], &FINDINGS_NAMES].concat()
}
