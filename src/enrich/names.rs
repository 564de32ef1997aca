//! What addresses are called: by the DNS answers that processes got, else by /etc/hosts.
//!
//! One address has many names, and which one was meant only the process knows that asked for it. So a
//! name is given with how near the question was: by the process itself, by another of its network
//! namespace, or elsewhere on this host. What nobody asked for has none.

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use super::dns::{Answer, Number};
use super::hosts::Hosts;
use crate::capture::clock::Clock;
use crate::capture::skel::types::netspy_conn;
use crate::event::{Connection, Direction, NameSource};

/// Answers in one generation of the table; two generations are kept.
const GENERATION: usize = 16_384;
/// Of one address, the latest so many.
const OF_ONE: usize = 32;
/// For so long at least an answer holds for others than the process that got it, since they may have
/// got it from a cache.
const SHARED_NS: u64 = 300 * 1_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Which network namespace. The number is an inode, which the kernel gives to the next when the
/// namespace is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Netns {
    number: u32,
    once: u32,
}

impl Netns {
    fn of(raw: &netspy_conn) -> Self {
        Netns { number: raw.netns, once: raw.netns_once }
    }
}

/// One process learnt that a name has this address.
#[derive(Debug, Clone)]
struct Resolved {
    name: Arc<str>,
    pid: u32,
    task_start_ns: u64,
    netns: Netns,
    time_ns: u64,
    /// Until when it holds for others.
    until_ns: u64,
    /// The question that it is the answer to.
    number: Number,
    /// When the same was answered last, and to which question.
    again: (u64, Number),
}

impl Resolved {
    fn is_of(&self, pid: u32, task_start_ns: u64) -> bool {
        self.pid == pid && self.task_start_ns == task_start_ns
    }

    /// When it was answered last before an attempt, and the question of which that makes use.
    fn last(&self, raw: &netspy_conn) -> (u64, Number) {
        if self.again.0 <= raw.start_ns { self.again } else { (self.time_ns, self.number) }
    }

    /// How near it is to an attempt; `None` where it says nothing about it.
    fn source(&self, raw: &netspy_conn, ip: IpAddr) -> Option<NameSource> {
        if self.time_ns > raw.start_ns {
            return None;
        }
        if self.is_of(raw.pid, raw.task_start_ns) {
            return Some(NameSource::Dns);
        }
        if self.until_ns < raw.start_ns {
            return None;
        }
        if self.netns == Netns::of(raw) {
            return Some(NameSource::DnsNetns);
        }
        // A private address is another's in another namespace.
        is_global(ip).then_some(NameSource::DnsHost)
    }
}

/// Nearer is greater.
fn rank(source: NameSource) -> u8 {
    match source {
        NameSource::Dns => 3,
        NameSource::DnsNetns => 2,
        NameSource::DnsHost => 1,
        NameSource::Hosts => 0,
    }
}

/// Whether an address means the same everywhere.
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            // Shared address space: RFC 6598.
            let is_shared = a == 100 && b & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared)
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

/// The name of an address.
struct Found {
    name: Arc<str>,
    source: NameSource,
    time_ns: u64,
    number: Number,
}

type Table = HashMap<IpAddr, Vec<Resolved>>;

/// What is known of names. Bounded: when the young generation is full, the old one is forgotten and
/// the young one takes its place.
#[derive(Debug)]
pub(crate) struct Names {
    young: Table,
    old: Table,
    /// Answers in the young one.
    count: usize,
    hosts: Hosts,
}

impl Names {
    pub(crate) fn new(hosts: Hosts) -> Self {
        let (young, old) = (Table::new(), Table::new());
        Names { young, old, count: 0, hosts }
    }

    /// Reads /etc/hosts again where it has changed.
    pub(crate) fn refresh(&mut self) {
        self.hosts.refresh();
    }

    /// A process got an answer to what it had asked for.
    pub(crate) fn learn(
        &mut self,
        asker: &netspy_conn,
        time_ns: u64,
        answer: &Answer,
        number: Number,
    ) {
        for (ip, ttl) in &answer.addresses {
            let lasts = (u64::from(*ttl) * SECOND_NS).max(SHARED_NS);
            self.insert(
                *ip,
                Resolved {
                    name: Arc::clone(&answer.name),
                    pid: asker.pid,
                    task_start_ns: asker.task_start_ns,
                    netns: Netns::of(asker),
                    time_ns,
                    until_ns: time_ns.saturating_add(lasts),
                    number,
                    again: (time_ns, number),
                },
            );
        }
    }

    fn insert(&mut self, ip: IpAddr, resolved: Resolved) {
        if self.count >= GENERATION {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.count = 0;
        }
        let of_ip = self.young.entry(ip).or_default();
        // The same again, with no other in between: the first time serves for both.
        let last = of_ip.last_mut().filter(|last| {
            last.is_of(resolved.pid, resolved.task_start_ns)
                && last.netns == resolved.netns
                && last.name == resolved.name
        });
        if let Some(last) = last {
            last.until_ns = last.until_ns.max(resolved.until_ns);
            last.again = last.again.max(resolved.again);
            return;
        }
        if of_ip.len() >= OF_ONE {
            of_ip.remove(0);
            self.count -= 1;
        }
        of_ip.push(resolved);
        self.count += 1;
    }

    /// Gives the remote of an attempt its name, if there is one. Tells which question its process had
    /// asked for that.
    pub(crate) fn name(
        &mut self,
        raw: &netspy_conn,
        clock: &Clock,
        connection: &mut Connection,
    ) -> Option<Number> {
        let remote = connection.remote.as_mut()?;
        if connection.direction != Direction::Outbound {
            return None;
        }
        if let Some(Found { name, source, time_ns, number }) = self.resolved(raw, remote.ip) {
            (remote.name, remote.name_source) = (Some(name), Some(source));
            remote.name_time = Some(clock.wall(time_ns));
            return (source == NameSource::Dns).then_some(number);
        }
        let process = connection.process.as_ref();
        let is_in_container = process.is_some_and(|process| process.info.container.is_some());
        if !is_in_container
            && let Some(name) = self.hosts.name(remote.ip, raw.netns)
            && self.hosts.are_of(raw)
        {
            (remote.name, remote.name_source) = (Some(name), Some(NameSource::Hosts));
        }
        None
    }

    fn resolved(&mut self, raw: &netspy_conn, ip: IpAddr) -> Option<Found> {
        if self.young.is_empty() && self.old.is_empty() {
            return None;
        }
        let nearest = |table: &Table| {
            let of_ip = table.get(&ip)?.iter();
            of_ip
                .filter_map(|r| Some((r.source(raw, ip)?, r)))
                .max_by_key(|(source, r)| (rank(*source), r.time_ns))
                .map(|(source, r)| (source, r.clone()))
        };
        let (young, old) = (nearest(&self.young), nearest(&self.old));
        let key = |found: &Option<(NameSource, Resolved)>| {
            found.as_ref().map(|(source, r)| (rank(*source), r.time_ns))
        };
        let is_old = key(&old) > key(&young);
        let (source, found) = if is_old { old? } else { young? };
        let (name, (time_ns, number)) = (Arc::clone(&found.name), found.last(raw));
        if is_old {
            // What is used is not forgotten.
            self.insert(ip, found);
        }
        Some(Found { name, source, time_ns, number })
    }
}

#[cfg(test)]
#[path = "names/tests.rs"]
mod tests;
