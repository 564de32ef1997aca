//! Whose packets were dropped: drops are brought together with the attempts that they hit.
//!
//! Both come late, and in any order: a drop is known within half a second, an attempt at its
//! outcome or at a sweep. So the latest attempts are remembered for the drops to come, and drops
//! that hit no known attempt for the attempts to come. Pure: needs no kernel.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::event::{Connection, ConnectionId, DropRecord, Dropped, Endpoint, Protocol, State};

/// Entries in one generation of a table; two generations are kept.
pub(super) const GENERATION: usize = 8192;

/// A bounded table: when the young generation is full, the old one is forgotten and the young one
/// takes its place.
#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Generations<K, V> {
    fn default() -> Self {
        Generations { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Hash + Eq, V> Generations<K, V> {
    fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.old.remove(key);
        self.young.remove(key).or(old)
    }
}

/// Packets in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    pub protocol: u8,
    pub netns: u32,
    pub source: Endpoint,
    pub destination: Endpoint,
}

impl FlowKey {
    /// The packets that this side of an attempt sends; `None` where that is not known.
    fn of(c: &Connection) -> Option<Self> {
        let protocol = match c.protocol {
            Protocol::Tcp | Protocol::Mptcp => libc::IPPROTO_TCP,
            Protocol::Udp => libc::IPPROTO_UDP,
            Protocol::Udplite => libc::IPPROTO_UDPLITE,
            Protocol::Sctp => libc::IPPROTO_SCTP,
            Protocol::Dccp => libc::IPPROTO_DCCP,
            // Their packets have no ports that would tell one socket from another.
            Protocol::Icmp | Protocol::Icmpv6 | Protocol::Raw | Protocol::Unix => return None,
        };
        let remote = c.remote.as_ref()?;
        Some(FlowKey {
            protocol: u8::try_from(protocol).ok()?,
            netns: c.process.as_ref()?.netns,
            source: c.local?,
            destination: Endpoint { ip: remote.ip, port: remote.port },
        })
    }

    fn of_drop(drop: &DropRecord) -> Option<Self> {
        Some(FlowKey {
            protocol: drop.ip_protocol?,
            netns: drop.netns?,
            source: drop.source?,
            destination: drop.destination?,
        })
    }

    fn reversed(self) -> Self {
        FlowKey { source: self.destination, destination: self.source, ..self }
    }

    /// As of a socket that is bound to a port and no address.
    fn unbound(self) -> Self {
        let ip = match self.source.ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        FlowKey { source: Endpoint { ip, ..self.source }, ..self }
    }

    /// The attempts that packets of this flow may be of: the sender's first.
    fn attempts(self) -> impl Iterator<Item = FlowKey> {
        let may_be_unbound = i32::from(self.protocol) == libc::IPPROTO_UDP;
        let bound = [self, self.reversed()];
        bound
            .into_iter()
            .chain(bound.map(FlowKey::unbound).into_iter().filter(move |_| may_be_unbound))
    }
}

/// When packets were dropped, in nanoseconds since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub first_ns: u64,
    pub last_ns: u64,
}

impl Span {
    /// Whether packets of an attempt may have been among them: those of an earlier one on the same
    /// addresses are over by its start, and one that failed has sent its last at its end.
    fn is_of(self, c: &Connection) -> bool {
        let failed = c.state == State::Closed && c.close.is_none();
        let end = c
            .latency_us
            .filter(|_| failed)
            .map(|us| c.id.start_ns.saturating_add(us.saturating_add(1).saturating_mul(1_000)));
        c.id.start_ns <= self.last_ns && end.is_none_or(|end| self.first_ns <= end)
    }
}

/// Drops of a flow that are this far apart are of different attempts: one that has no outcome yet is
/// known within half a second.
const APART_NS: u64 = 2_000_000_000;

/// Drops by reason.
#[derive(Debug, Clone, Default)]
struct Tally {
    reasons: Vec<(Arc<str>, u64)>,
    last_ns: u64,
}

impl Tally {
    fn add(&mut self, reason: &Arc<str>, count: u64, last_ns: u64) {
        self.last_ns = self.last_ns.max(last_ns);
        match self.reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, n)) => *n += count,
            None => self.reasons.push((Arc::clone(reason), count)),
        }
    }

    fn merge(&mut self, other: &Tally) {
        for (reason, count) in &other.reasons {
            self.add(reason, *count, other.last_ns);
        }
    }

    /// The most frequent reason; of equals the first.
    fn dropped(&self) -> Option<Dropped> {
        let most = self.reasons.iter().map(|(_, n)| *n).max()?;
        let (reason, count) = self.reasons.iter().find(|(_, n)| *n == most)?;
        Some(Dropped { reason: reason.to_string(), count: *count })
    }
}

/// Attempts and drops of the last while.
#[derive(Debug, Default)]
pub(super) struct Join {
    /// The latest version of each attempt, by what it sends.
    attempts: Generations<FlowKey, Connection>,
    /// Drops that hit an attempt.
    tallies: Generations<ConnectionId, Tally>,
    /// Drops that hit no known attempt.
    unclaimed: Generations<FlowKey, Tally>,
    /// Attempts that were handed on, and hit since.
    hit: HashSet<FlowKey>,
}

impl Join {
    /// A version of a record on its way to the reader: it gets what is known of its drops, and is
    /// remembered. Where nothing is, `peek` may tell what was counted and not taken yet, of what
    /// the attempt sent.
    pub(super) fn record(
        &mut self,
        c: &mut Connection,
        peek: impl FnOnce(&Connection, FlowKey) -> Option<Dropped>,
    ) {
        let key = FlowKey::of(c);
        if let Some(tally) = self.tallies.get(&c.id) {
            c.drop = tally.dropped();
        } else if let Some(key) = key {
            self.claim(key, c);
            if c.drop.is_none() {
                // Not in its tally yet: it will be when it is taken.
                c.drop = peek(c, key);
            }
        }
        if let Some(key) = key {
            self.attempts.insert(key, c.clone());
        }
    }

    /// Drops that came before the attempt was known. Those of an earlier one on the same addresses
    /// are over by its start.
    fn claim(&mut self, key: FlowKey, c: &mut Connection) {
        let mut claimed = Tally::default();
        for flow in [key, key.reversed()] {
            let unclaimed = self.unclaimed.get(&flow);
            if let Some(tally) = unclaimed.filter(|tally| tally.last_ns >= c.id.start_ns) {
                claimed.merge(tally);
            }
        }
        c.drop = claimed.dropped();
        if c.drop.is_some() {
            self.tallies.insert(c.id, claimed);
        }
    }

    /// Takes drops in; `by_sock` is the attempt of the socket that the kernel named. Tells which
    /// attempt they hit, if it is known.
    pub(super) fn dropped(
        &mut self,
        drop: &DropRecord,
        span: Span,
        by_sock: Option<ConnectionId>,
    ) -> Option<ConnectionId> {
        let flow = FlowKey::of_drop(drop);
        let mut hit: Vec<ConnectionId> = by_sock.into_iter().collect();
        for key in flow.into_iter().flat_map(FlowKey::attempts) {
            let attempt = self.attempts.get(&key).filter(|c| span.is_of(c));
            if let Some(attempt) = attempt {
                self.hit.insert(key);
                if !hit.contains(&attempt.id) {
                    hit.push(attempt.id);
                }
            }
        }
        for id in &hit {
            // As one that was used last.
            let mut tally = self.tallies.remove(id).unwrap_or_default();
            tally.add(&drop.reason, drop.count, span.last_ns);
            self.tallies.insert(*id, tally);
        }
        if let (true, Some(flow)) = (hit.is_empty(), flow) {
            let known = self.unclaimed.remove(&flow);
            let known = known.filter(|tally| span.first_ns < tally.last_ns + APART_NS);
            let mut tally = known.unwrap_or_default();
            tally.add(&drop.reason, drop.count, span.last_ns);
            self.unclaimed.insert(flow, tally);
        }
        hit.first().copied()
    }

    /// The process of an attempt that drops hit, or both where only the flow is known.
    pub(super) fn name(&self, drop: &mut DropRecord, span: Span) {
        let Some(flow) = FlowKey::of_drop(drop) else { return };
        let attempts = flow.attempts().filter_map(|key| self.attempts.get(&key));
        let owner = attempts
            .filter(|c| span.is_of(c))
            .find(|c| drop.connection.is_none_or(|id| id == c.id));
        if let Some(owner) = owner {
            drop.connection = Some(owner.id);
            drop.process.clone_from(&owner.process);
        }
    }

    /// New versions of the records that were hit.
    pub(super) fn updates(&mut self) -> Vec<Connection> {
        let mut updates = Vec::with_capacity(self.hit.len());
        for key in self.hit.drain() {
            let Some(attempt) = self.attempts.get_mut(&key) else { continue };
            let dropped = self.tallies.get(&attempt.id).and_then(Tally::dropped);
            if dropped.is_some() && dropped != attempt.drop {
                attempt.drop = dropped;
                updates.push(attempt.clone());
            }
        }
        updates
    }
}

#[cfg(test)]
mod tests;
