//! From the kernel's integers to the domain types: names are added where they can be had.
//!
//! Everything beyond what the kernel told is best effort and stays `None` where it is unknown.

pub(crate) mod cgroup;
mod connection;
pub(crate) mod dns;
mod dropped;
pub(crate) mod errno;
#[cfg(all(feature = "server", any(test, fuzzing)))]
mod fuzzing;
pub(crate) mod hashes;
mod hosts;
mod names;
pub(crate) mod nat;
#[cfg(all(feature = "server", any(test, fuzzing)))]
pub use fuzzing::dns_message;
#[cfg(all(feature = "server", any(test, fuzzing)))]
pub use nat::conntrack_answer;
mod owner;
pub(crate) mod process;
mod services;
pub(crate) mod users;

use std::sync::Arc;

use crate::capture::clock::{Clock, boot_ns};
use crate::capture::drops_skel::types::{netspy_drop, netspy_drop_key};
use crate::capture::skel::types::{netspy_conn, netspy_dns, netspy_exec, netspy_fork};
use crate::event::{Connection, ConnectionId, DnsRecord, DropId, DropRecord, Outcome};

/// Turns kernel records into [`Connection`]s. Owned by the capture thread.
#[derive(Debug)]
pub(crate) struct Enricher {
    host: Arc<str>,
    boot: u32,
    clock: Clock,
    processes: process::Processes,
    names: names::Names,
    transactions: dns::Transactions,
    drops: u32,
}

/// What tells the ids of this boot from those of others.
pub(crate) fn boot() -> u32 {
    let id = read("/proc/sys/kernel/random/boot_id");
    id.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or(0)
}

impl Enricher {
    pub(crate) fn new() -> Self {
        let host: Arc<str> = read("/proc/sys/kernel/hostname").into();
        let boot = boot();
        Enricher {
            transactions: dns::Transactions::new(Arc::clone(&host), boot),
            host,
            boot,
            clock: Clock::new(),
            processes: process::Processes::default(),
            names: names::Names::new(hosts::Hosts::of_host()),
            drops: 0,
        }
    }

    /// Follows the wall clock if it was set, and /etc/hosts; gives up on questions for names that
    /// have had no answer for long.
    pub(crate) fn refresh(&mut self) {
        self.clock.refresh();
        self.names.refresh();
        self.transactions.expire(boot_ns());
    }

    /// A control group was made.
    pub(crate) fn cgroup(&mut self, id: u64, path: &[u8]) {
        self.processes.cgroup(id, &text(path));
    }

    /// A DNS message, or a part of one, that a process sent or got.
    pub(crate) fn dns(&mut self, dns: &netspy_dns, message: &[u8]) {
        let (processes, clock) = (&mut self.processes, &self.clock);
        let who = |asker: &netspy_conn| processes.resolve(asker, clock);
        let told = self.transactions.message(dns, message, clock, who);
        if let dns::Told::Names(answer, number) = told {
            self.names.learn(&dns.asker, dns.time_ns, &answer, number);
        }
    }

    /// What came of questions for names since the last time.
    pub(crate) fn take_dns(&mut self) -> Vec<DnsRecord> {
        self.transactions.take()
    }

    /// What became of all questions for names.
    pub(crate) fn dns_counts(&self) -> dns::Counts {
        self.transactions.counts()
    }

    /// DNS messages that could not be understood.
    pub(crate) fn undecodable_dns(&self) -> u64 {
        self.transactions.undecodable()
    }

    /// A program was started.
    pub(crate) fn exec(&mut self, exec: &netspy_exec) {
        self.processes.exec(exec);
    }

    /// A process was made.
    pub(crate) fn fork(&mut self, fork: &netspy_fork) {
        self.processes.fork(fork);
    }

    /// The record of an attempt; `None` if its members have values that this version does not
    /// know.
    pub(crate) fn connection(
        &mut self,
        raw: &netspy_conn,
        path: Option<&[u8]>,
    ) -> Option<Connection> {
        let process = self.processes.resolve(raw, &self.clock);
        let host = Arc::clone(&self.host);
        let mut connection = connection::build(raw, path, process, &self.clock, host, self.boot)?;
        if let Some(question) = self.names.name(raw, &self.clock, &mut connection) {
            let is_silent = connection.outcome == Outcome::Associated;
            self.transactions.followed(question, connection.id, is_silent);
        }
        Some(connection)
    }
}

impl Enricher {
    /// The id of the attempt that a kernel record is of.
    pub(crate) fn id(&self, raw: &netspy_conn) -> ConnectionId {
        ConnectionId { start_ns: raw.start_ns, tid: raw.tid, boot: self.boot }
    }

    /// The record of drops that the kernel side counted together; whose packets they were is left
    /// open.
    pub(crate) fn dropped(
        &mut self,
        key: &netspy_drop_key,
        drop: &netspy_drop,
        reason: Arc<str>,
    ) -> DropRecord {
        self.drops = self.drops.wrapping_add(1);
        let id = DropId { first_ns: drop.first_ns, number: self.drops, boot: self.boot };
        dropped::build(id, key, drop, reason, &self.clock, Arc::clone(&self.host))
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Text up to the first zero byte, as the kernel keeps names.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
