//! What the full-screen view can list, by what, and in which orders.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::event::{Connection, ConnectionId};
use crate::query::top::{Group, Key, TopBy};

/// One of the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tab {
    /// Groups of connections that have this in common.
    Groups(TopBy),
    /// The connections themselves.
    Connections,
}

/// All of them, in the order of their keys. Those of containers come last: most hosts have none, and the
/// keys of the others stay.
pub const TABS: [Tab; 8] = [
    Tab::Groups(TopBy::Process),
    Tab::Groups(TopBy::Remote),
    Tab::Groups(TopBy::Port),
    Tab::Groups(TopBy::Unit),
    Tab::Groups(TopBy::Outcome),
    Tab::Connections,
    Tab::Groups(TopBy::Container),
    Tab::Groups(TopBy::Pod),
];

impl Tab {
    /// Its name.
    pub fn title(self) -> &'static str {
        match self {
            Tab::Groups(TopBy::Remote) => "Remotes",
            Tab::Groups(TopBy::Port) => "Ports",
            Tab::Groups(TopBy::Unit) => "Units",
            Tab::Groups(TopBy::Outcome) => "Outcomes",
            Tab::Groups(TopBy::Container) => "Containers",
            Tab::Groups(TopBy::Pod) => "Pods",
            Tab::Groups(_) => "Processes",
            Tab::Connections => "Connections",
        }
    }

    /// Its name where there is little room.
    pub fn short_title(self) -> &'static str {
        match self {
            Tab::Connections => "Conns",
            tab => tab.title(),
        }
    }

    /// What tells its groups apart, which is the filter for one of them, too.
    pub fn by(self) -> Option<TopBy> {
        match self {
            Tab::Groups(by) => Some(by),
            Tab::Connections => None,
        }
    }

    /// What is told of a group beside its figures.
    pub fn others(self) -> [TopBy; 2] {
        match self {
            Tab::Groups(TopBy::Process | TopBy::Unit) => [TopBy::Remote, TopBy::Port],
            Tab::Groups(TopBy::Remote) => [TopBy::Process, TopBy::Port],
            Tab::Groups(TopBy::Pod) => [TopBy::Container, TopBy::Remote],
            _ => [TopBy::Process, TopBy::Remote],
        }
    }

    /// The orders that it can be in; the first is where it starts.
    pub fn sorts(self) -> &'static [Sort] {
        match self {
            Tab::Groups(_) => &[Sort::Count, Sort::Now, Sort::Failed, Sort::Latest, Sort::Name],
            Tab::Connections => {
                &[Sort::Latest, Sort::Latency, Sort::Name, Sort::Remote, Sort::Outcome]
            }
        }
    }
}

/// What a row is known by while its place changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowId {
    /// A group.
    Group(Key),
    /// A connection.
    Connection(ConnectionId),
}

/// By what rows are ordered: what matters most comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Most connections first.
    Count,
    /// Most of the last seconds first.
    Now,
    /// Most failures first.
    Failed,
    /// Newest first.
    Latest,
    /// Slowest first.
    Latency,
    /// By name.
    Name,
    /// By address.
    Remote,
    /// By how they ended.
    Outcome,
}

impl Sort {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Sort::Count => "attempts",
            Sort::Now => "rate",
            Sort::Failed => "failed",
            Sort::Latest => "latest",
            Sort::Latency => "latency",
            Sort::Name => "name",
            Sort::Remote => "remote",
            Sort::Outcome => "outcome",
        }
    }

    /// Compares groups; `now` says how many of the last seconds each has.
    pub fn groups(self, a: &Group, b: &Group, now: &HashMap<Key, u64>) -> Ordering {
        let recent = |g: &Group| now.get(&g.key).copied().unwrap_or(0);
        match self {
            Sort::Now => recent(b).cmp(&recent(a)),
            Sort::Failed => b.unsuccessful.cmp(&a.unsuccessful),
            Sort::Latest => b.last.cmp(&a.last),
            Sort::Name => a.key.cmp(&b.key),
            _ => Ordering::Equal,
        }
        .then_with(|| b.count.cmp(&a.count))
        .then_with(|| a.key.cmp(&b.key))
    }

    /// Compares connections.
    pub fn connections(self, a: &Connection, b: &Connection) -> Ordering {
        let name = |c: &Connection| c.process.as_ref().map(|p| p.comm.clone());
        let remote = |c: &Connection| c.remote.as_ref().map(|r| (r.ip, r.port));
        match self {
            Sort::Latency => b.latency_us.cmp(&a.latency_us),
            Sort::Name => name(a).cmp(&name(b)),
            Sort::Remote => remote(a).cmp(&remote(b)).then_with(|| a.path.cmp(&b.path)),
            Sort::Outcome => a.outcome.cmp(&b.outcome),
            _ => Ordering::Equal,
        }
        .then_with(|| b.time.cmp(&a.time))
        .then_with(|| b.id.cmp(&a.id))
    }
}
