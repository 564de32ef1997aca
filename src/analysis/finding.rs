//! The shape of a finding.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::{ConnectionId, DnsId};

/// What was found.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// One process fails again and again at one remote and port.
    RepeatedFailures,
    /// Attempts that have had no outcome for long.
    StuckAttempts,
    /// Packets of attempts that failed were dropped by this kernel.
    DropReason,
    /// Many ports of one remote, or one port of many remotes, most of them without success.
    PortScan,
    /// Very many attempts of one process within ten seconds.
    ConnectionStorm,
    /// One process tries one public address again and again at equal intervals.
    Beaconing,
    /// A program that serves one purpose talks to a port that belongs to another.
    UnusualPort,
    /// Connections to a port whose registered service does not encrypt.
    ClearTextService,
    /// A name server leaves questions for several names without an answer.
    FailingNameServer,
    /// Look-ups of one name by one process fail again and again.
    FailingName,
    /// Very many long names below one domain were asked for, and nothing was done with the answers.
    DnsWithoutConnection,
    /// Connections to a public address that no question for a name led to.
    ConnectionWithoutDns,
}

/// How much it matters.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::Display,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warning,
    /// Something does not work, or should not happen.
    Critical,
}

/// Whom and what it is about. A member that does not narrow it down is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subject {
    /// Name of the process: data, chosen by whoever runs it.
    pub process: Option<Arc<str>>,
    /// Remote address.
    pub remote: Option<IpAddr>,
    /// Remote port.
    pub port: Option<u16>,
    /// Name that was asked for: data, chosen by whoever asked.
    #[serde(default)]
    pub name: Option<Arc<str>>,
}

/// What a finding rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Evidence {
    /// Figures by name.
    pub figures: BTreeMap<String, u64>,
    /// The newest of the records, newest first.
    pub records: Vec<ConnectionId>,
    /// The newest of the questions for names, newest first.
    #[serde(default)]
    pub questions: Vec<DnsId>,
    /// Start of the first attempt.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub first: Timestamp,
    /// Start of the last attempt.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub last: Timestamp,
}

/// One thing that stands out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// What was found.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// Whom and what it is about.
    pub subject: Subject,
    /// What it rests on.
    pub evidence: Evidence,
    /// Why these figures are a finding.
    pub why: String,
    /// What to do next.
    pub next: String,
}
