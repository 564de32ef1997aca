//! The one typed query layer: what can be asked, and the shapes of the answers.
//!
//! [`Source`] is implemented by the local store and by the HTTP client, so that every front end
//! asks the same functions and no answer is computed twice in two ways.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::accounting::{Accounting, Counters, NatCounters};
use crate::capture::privileges::PrivilegeReport;
use crate::capture::report::{AttachReport, Feature};
use crate::containers::ContainerStatus;
use crate::event::{Connection, ConnectionId, Direction, Outcome, Protocol, Scope, State, Traffic};

pub mod diff;
pub mod dns;
pub mod drops;
pub mod filter;
pub mod findings;
pub mod series;
mod shown;
pub mod top;

pub use shown::{LeftOut, sees_sent};

use diff::{Compare, Diff};
use dns::{DnsFilter, DnsList};
use drops::{DropFilter, DropList};
use findings::Findings;
use series::{Series, Step};
use top::{Top, TopBy};

/// Which records are meant. Within one member any value may match; all members must match. An
/// empty member matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Name of the process or of the thread, or the base name of its executable.
    pub process: Vec<String>,
    /// Process id.
    pub pid: Vec<u32>,
    /// User id.
    pub uid: Vec<u32>,
    /// Container id (or a prefix of at least 6 characters) or name.
    pub container: Vec<String>,
    /// Kubernetes pod.
    pub pod: Vec<String>,
    /// Kubernetes namespace.
    pub namespace: Vec<String>,
    /// Remote address.
    pub remote: Vec<IpAddr>,
    /// Remote network.
    pub cidr: Vec<IpNet>,
    /// What kind of address the remote is.
    pub scope: Vec<Scope>,
    /// Country of the remote, two letters.
    pub country: Vec<String>,
    /// Number of the network (autonomous system) of the remote.
    pub asn: Vec<u32>,
    /// Remote host name, exact, or `.example.com` for the domain and everything below it.
    pub host_name: Vec<String>,
    /// Remote port; for inbound and listening records the local port.
    pub port: Vec<u16>,
    /// Protocol.
    pub protocol: Vec<Protocol>,
    /// Who opened it.
    pub direction: Vec<Direction>,
    /// What it is doing.
    pub state: Vec<State>,
    /// How it ended. The word `unsuccessful` stands for several.
    pub outcome: Vec<Outcome>,
    /// systemd unit.
    pub unit: Vec<String>,
    /// Part of a name, path or address that the record shows, in any letter case; of command lines
    /// nothing, since not everybody may see them.
    pub text: Vec<String>,
    /// Whether it existed before capture began.
    pub preexisting: Option<bool>,
    /// Start of the window (the attempt began at or after it).
    pub since: Option<Timestamp>,
    /// End of the window (the attempt began before it).
    pub until: Option<Timestamp>,
}

/// The order of a list.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Sort {
    /// Newest attempt first.
    #[default]
    Newest,
    /// Oldest attempt first.
    Oldest,
}

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// At most this many records; `None` for the default of 100.
    pub limit: Option<usize>,
    /// Where an earlier answer ended (its `next_cursor`).
    pub cursor: Option<String>,
    /// The order.
    pub sort: Sort,
}

impl Page {
    /// Records in an answer unless asked otherwise.
    pub const DEFAULT_LIMIT: usize = 100;
    /// The most that one answer holds.
    pub const MAX_LIMIT: usize = 10_000;
}

/// The time that an answer covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Window {
    /// Start.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub since: Timestamp,
    /// End.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub until: Timestamp,
}

/// A list of records.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct List {
    /// The records of this page.
    pub connections: Vec<Connection>,
    /// How many match in all.
    pub total: u64,
    /// Where the next page starts; `None` at the end.
    pub next_cursor: Option<String>,
    /// The time that the answer covers.
    pub window: Window,
    /// The books of that time.
    pub accounting: Accounting,
    /// Where nothing matched: the start of the newest record that matches but for the window.
    #[serde(serialize_with = "crate::event::time::serialize_option")]
    pub newest_outside_window: Option<Timestamp>,
}

/// How many records match.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Count {
    /// How many.
    pub total: u64,
    /// The time that the answer covers.
    pub window: Window,
    /// The books of that time.
    pub accounting: Accounting,
    /// Where nothing matched: the start of the newest record that matches but for the window.
    #[serde(serialize_with = "crate::event::time::serialize_option")]
    pub newest_outside_window: Option<Timestamp>,
}

/// Percentiles of the time from attempt to `established`, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Handshake {
    /// Median.
    pub p50_us: u64,
    /// 95th percentile.
    pub p95_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// How many were measured.
    pub count: u64,
}

/// Totals.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Summary {
    /// How many records match.
    pub total: u64,
    /// By outcome.
    pub by_outcome: BTreeMap<Outcome, u64>,
    /// By protocol.
    pub by_protocol: BTreeMap<Protocol, u64>,
    /// By direction.
    pub by_direction: BTreeMap<Direction, u64>,
    /// Distinct processes (pid and start time).
    pub processes: u64,
    /// Distinct remote addresses.
    pub remotes: u64,
    /// Seconds of the window that capture watched; 0 where an older server does not tell.
    #[serde(default)]
    pub watched_seconds: f64,
    /// Attempts per second of those that were watched: what listens, and what existed before capture began, is
    /// none.
    pub rate_per_second: f64,
    /// Handshake times of TCP and MPTCP; `None` where there were none.
    pub handshake: Option<Handshake>,
    /// The time that the answer covers.
    pub window: Window,
    /// The books of that time.
    pub accounting: Accounting,
    /// Where nothing matched: the start of the newest record that matches but for the window.
    #[serde(serialize_with = "crate::event::time::serialize_option")]
    pub newest_outside_window: Option<Timestamp>,
}

/// What the store holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoreStatus {
    /// `memory` or `disk`.
    pub kind: String,
    /// Records held.
    pub records: u64,
    /// Bytes in use.
    pub bytes: u64,
    /// The most bytes it may use.
    pub limit_bytes: u64,
    /// Records that aged out.
    pub evicted: u64,
    /// Start of the oldest record held.
    #[serde(serialize_with = "crate::event::time::serialize_option")]
    pub oldest: Option<Timestamp>,
    /// What lies on disk; `None` for a store in memory alone.
    #[serde(default)]
    pub history: Option<HistoryStatus>,
}

/// What history holds, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HistoryStatus {
    /// Where it lies.
    pub directory: String,
    /// Segments, of which each is a file.
    pub segments: u64,
    /// Records in segments, in their newest versions.
    pub records: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// The most bytes it may use.
    pub limit_bytes: u64,
    /// How old records may become, in seconds.
    pub max_age_s: Option<u64>,
    /// Bytes that the file system still has for it.
    pub room_bytes: u64,
    /// Changes that are not in a file yet.
    pub behind: u64,
    /// Changes that were written to journals since the start.
    #[serde(default)]
    pub written: u64,
    /// Changes that a journal could not take. They are lost only if the server ends, or memory runs
    /// out, before they are in a segment.
    pub unwritten: u64,
    /// Segments that can no longer be read.
    pub unreadable: u64,
    /// Why nothing is written, if so; it is tried again every second.
    pub stopped: Option<String>,
    /// What the start found.
    pub recovery: Recovery,
}

/// What a start of the server found of the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Recovery {
    /// Journals that were read.
    pub journals: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes that were being written when it ended, and are cut.
    pub torn_bytes: u64,
    /// Parts of journals that were not as they had been written.
    pub corrupt: u64,
    /// Files that were set aside.
    pub set_aside: Vec<String>,
    /// Changes that had been written and are in no file: one was removed, or cut.
    #[serde(default)]
    pub missing_changes: u64,
    /// Changes in files, of a time that the books say nothing of: those were removed or cut, or could
    /// not be written.
    #[serde(default)]
    pub unbooked_changes: u64,
}

/// Health, capabilities and books since the start of capture.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// `healthy` or `degraded`.
    pub health: String,
    /// The family of hooks in use, or `replay`.
    pub backend: String,
    /// Per feature, the hook, or why there is none.
    pub features: BTreeMap<String, Feature>,
    /// What the store holds.
    pub store: StoreStatus,
    /// The books since the start of capture.
    pub accounting: Accounting,
    /// What records lack because it was lost, since the start of capture.
    #[serde(default)]
    pub details: Details,
    /// What the server may still do; `None` where nothing was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privileges: Option<PrivilegeReport>,
    /// How asking about containers goes; `None` where nobody is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<ContainerStatus>,
}

/// What records lack because it was lost: they are there themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Details {
    /// Starts of processes and programs, and new control groups, that the ring had no room for:
    /// `exe`, `cmdline`, `cwd`, `ancestry`, `unit` or `container` may be missing.
    pub exec_lost: u64,
    /// Addresses that could not be read from the process: `remote` may be missing.
    pub address_unread: u64,
    /// DNS messages that were lost, or could not be understood: names of remotes may be missing.
    pub dns_lost: u64,
    /// Questions about address translation.
    pub nat: NatCounters,
}

impl From<Counters> for Details {
    fn from(counters: Counters) -> Self {
        let Counters { exec_lost, address_unread, dns_lost, nat, .. } = counters;
        Details { exec_lost, address_unread, dns_lost, nat }
    }
}

/// One new or changed record.
#[derive(Debug, Clone)]
pub struct Change {
    /// Position in the sequence of all changes; rises without gaps in what a follower sees only
    /// where its filter matches everything.
    pub seq: u64,
    /// The record as it is now.
    pub connection: Connection,
}

/// What a follower receives.
#[derive(Debug, Clone)]
pub enum Follow {
    /// A new or changed record.
    Change(Box<Change>),
    /// Changes that the store no longer has were skipped.
    Skipped {
        /// How many changes, at most; `None` where they are of before a restart, so that nobody knows.
        changes: Option<u64>,
    },
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A parameter is wrong.
    #[error("{parameter}: {problem} (accepted: {accepted})")]
    Invalid {
        /// Its name.
        parameter: String,
        /// What is wrong with it.
        problem: String,
        /// What would be right.
        accepted: String,
    },
    /// The server cannot be reached.
    #[error("no answer from {server}: {why}")]
    Unreachable {
        /// Where it was looked for.
        server: String,
        /// What happened.
        why: String,
    },
    /// The server answered with an error, or with something that is no answer.
    #[error("{server} answered: {why}")]
    Server {
        /// Which server.
        server: String,
        /// What it said.
        why: String,
    },
}

/// Answers questions about connections.
#[async_trait]
pub trait Source: Send + Sync {
    /// Records that match, one page of them.
    async fn list(&self, filter: &Filter, page: &Page) -> Result<List, QueryError>;
    /// One record by its id.
    async fn get(&self, id: ConnectionId) -> Result<Option<Connection>, QueryError>;
    /// How many records match.
    async fn count(&self, filter: &Filter) -> Result<Count, QueryError>;
    /// Totals of what matches.
    async fn summary(&self, filter: &Filter) -> Result<Summary, QueryError>;
    /// The groups with the most records of those that match: at most `limit` of them, or
    /// [`Top::DEFAULT_LIMIT`].
    async fn top(
        &self,
        filter: &Filter,
        by: TopBy,
        limit: Option<usize>,
    ) -> Result<Top, QueryError>;
    /// Attempts that match, counted by step of time.
    async fn series(&self, filter: &Filter, step: Step) -> Result<Series, QueryError>;
    /// What is new, gone and changed between two windows: that of `compare`, and that of the
    /// filter, which is the last hour where it says no start.
    async fn diff(
        &self,
        filter: &Filter,
        compare: Compare,
        limit: Option<usize>,
    ) -> Result<Diff, QueryError>;
    /// Dropped packets that match, one page of them; the page's order is always newest first.
    async fn drops(&self, filter: &DropFilter, page: &Page) -> Result<DropList, QueryError>;
    /// Questions for names that match, one page of them; the page's order is always newest first.
    async fn dns(&self, filter: &DnsFilter, page: &Page) -> Result<DnsList, QueryError>;
    /// What stands out among the records that match: at most `limit` findings, or
    /// [`Findings::DEFAULT_LIMIT`].
    async fn findings(&self, filter: &Filter, limit: Option<usize>)
    -> Result<Findings, QueryError>;
    /// Health, capabilities and books.
    async fn status(&self) -> Result<Status, QueryError>;
    /// New and changed records that match, from now on, or from just after change `after`. The
    /// stream ends with the source; an error ends it too.
    async fn follow(
        &self,
        filter: &Filter,
        after: Option<u64>,
    ) -> Result<BoxStream<'static, Result<Follow, QueryError>>, QueryError>;
    /// Where the answers come from, for messages.
    fn describe(&self) -> String;
}

/// Where a recording ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordingEnd {
    /// When.
    pub time: Timestamp,
    /// `None` if the recording was finished; how it broke off otherwise.
    pub broken: Option<&'static str>,
}

/// What the store needs to know of the capture that feeds it.
pub trait CaptureHandle: Send + Sync {
    /// The figures since the start of capture.
    fn counters(&self) -> crate::accounting::Counters;
    /// Hands over everything that waits in the kernel, so that the figures are current.
    fn drain(&self);
    /// Start of capture.
    fn since(&self) -> Timestamp;
    /// What is observed, by which hooks.
    fn report(&self) -> AttachReport;
    /// `None` while capture runs; why it stopped otherwise.
    fn stopped(&self) -> Option<String>;
    /// What the connections that are open now have carried so far, as far as that is known.
    fn traffic(&self) -> Arc<HashMap<ConnectionId, Traffic>> {
        Arc::default()
    }
    /// What capture may still do, if it gave anything up.
    fn privileges(&self) -> Option<PrivilegeReport> {
        None
    }
    /// How asking about containers goes, if anybody is asked.
    fn containers(&self) -> Option<ContainerStatus> {
        None
    }
    /// Up to when there are records, if they come from a recording; `None` while more may come.
    fn recorded_until(&self) -> Option<RecordingEnd> {
        None
    }
}
