//! What stands out among records: the question and its answer.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::filter::{self, FILTER_NAMES};
use super::{Filter, QueryError, Window};
use crate::accounting::Accounting;
use crate::analysis::Finding;

/// What stands out among the records that match.
#[derive(Debug, Clone, Serialize, Deserialize)]
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

/// Reads the parameters of the question: those of a filter, and `limit`.
pub fn parse(pairs: Vec<(String, String)>) -> Result<(Filter, Option<usize>), QueryError> {
    let known = [&FILTER_NAMES[..], &["limit"]].concat();
    if let Some((name, _)) = pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(filter::unknown(name, &known));
    }
    let (filter, page) = filter::parse(pairs)?;
    if page.limit.is_some_and(|limit| limit > Findings::MAX_LIMIT) {
        let accepted = format!("1 to {}", Findings::MAX_LIMIT);
        return Err(filter::invalid("limit", "is more than one answer holds", &accepted));
    }
    Ok((filter, page.limit))
}
