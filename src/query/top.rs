//! Which groups have the most records.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::filter::{self, FILTER_NAMES, invalid};
use super::{Filter, QueryError, Window};
use crate::accounting::Accounting;
use crate::event::Outcome;

/// What records are grouped by.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
    strum::VariantNames,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum TopBy {
    /// Name of the process.
    Process,
    /// Process id; a pid that was given to another process later is the same group.
    Pid,
    /// Remote address.
    Remote,
    /// Remote address and port, as `10.0.0.1:443`; of what comes in, with the local port.
    Endpoint,
    /// What kind of address the remote is.
    Scope,
    /// Country of the remote.
    Country,
    /// Number of the network (autonomous system) of the remote.
    Asn,
    /// Remote host name.
    HostName,
    /// Remote port; of what comes in or listens, the local one.
    Port,
    /// Container id.
    Container,
    /// Kubernetes pod.
    Pod,
    /// Kubernetes namespace.
    Namespace,
    /// Image of the container.
    Image,
    /// systemd unit.
    Unit,
    /// User id.
    Uid,
    /// How it ended.
    Outcome,
    /// Protocol.
    Protocol,
    /// Who opened it.
    Direction,
    /// What it is doing.
    State,
    /// Symbol of the error.
    Error,
    /// The kernel's reason for dropping packets of it.
    DropReason,
    /// The host that it was seen on.
    Host,
}

/// What the records of a group have in common: a number where it is one (`pid`, `port`, `uid`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Key {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

impl Key {
    /// The number, where it is one.
    pub fn number(&self) -> Option<u64> {
        match self {
            Key::Number(number) => Some(*number),
            Key::Text(_) => None,
        }
    }

    /// The text, where it is one.
    pub fn text(self) -> Option<String> {
        match self {
            Key::Number(_) => None,
            Key::Text(text) => Some(text),
        }
    }
}

/// Records that have something in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Group {
    /// What they have in common.
    pub key: Key,
    /// A name for it, from the newest of them, if there is one: of a process id or user id the
    /// name, of an address the host name, of a network or a container its name.
    pub label: Option<String>,
    /// How many.
    pub count: u64,
    /// How many of them are unsuccessful.
    pub unsuccessful: u64,
    /// By outcome.
    pub by_outcome: BTreeMap<Outcome, u64>,
    /// Start of the first of them in the window.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub first: Timestamp,
    /// Start of the last of them.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub last: Timestamp,
}

/// The groups with the most records. `total` is the sum of their counts, `others` and `without`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Top {
    /// What the records are grouped by.
    pub by: TopBy,
    /// The groups, those with the most records first; equally large ones in the order of their keys.
    pub groups: Vec<Group>,
    /// How many records match.
    pub total: u64,
    /// How many groups there are, shown or not; null where there are more than are held in memory.
    pub distinct: Option<u64>,
    /// Records in groups that are not shown.
    pub others: u64,
    /// Records that are in no group: they have no container, no remote, ...
    pub without: u64,
    /// Whether no group that is not shown can have more records than one that is. It can be false
    /// only where there are more groups than are held in memory; the counts of those shown are true
    /// even then.
    pub exact: bool,
    /// The time that the answer covers.
    pub window: Window,
    /// The books of that time.
    pub accounting: Accounting,
    /// Where nothing matched: the start of the newest record that matches but for the window.
    #[serde(serialize_with = "crate::event::time::serialize_option")]
    pub newest_outside_window: Option<Timestamp>,
}

impl Top {
    /// Groups in an answer unless asked otherwise.
    pub const DEFAULT_LIMIT: usize = 10;
    /// The most that one answer holds.
    pub const MAX_LIMIT: usize = 1_000;
}

/// The parameters beside the filters.
pub const TOP_NAMES: [&str; 2] = ["by", "limit"];

/// Reads parameters; ages count from now.
pub fn parse<N: AsRef<str>, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (N, V)>,
) -> Result<(Filter, TopBy, Option<usize>), QueryError> {
    let (own, filter) = filter::apart(pairs, &TOP_NAMES)?;
    let accepted = <TopBy as strum::VariantNames>::VARIANTS.join(", ");
    let by = match own.get("by") {
        None => return Err(invalid("by", "is missing", &accepted)),
        Some(text) => text.trim().parse().map_err(|_| filter::wrong("by", text, &accepted))?,
    };
    let limit = own.get("limit").map(|text| filter::limit("limit", text, Top::MAX_LIMIT));
    Ok((filter, by, limit.transpose()?))
}

/// The parameters that [`parse`] reads back.
pub fn to_pairs(filter: &Filter, by: TopBy, limit: Option<usize>) -> Vec<(&'static str, String)> {
    let mut pairs = filter.to_pairs();
    pairs.push(("by", by.to_string()));
    pairs.extend(limit.map(|limit| ("limit", limit.to_string())));
    pairs
}

/// All parameters, for messages and documentation.
pub fn names() -> Vec<&'static str> {
    [&FILTER_NAMES[..], &TOP_NAMES].concat()
}
