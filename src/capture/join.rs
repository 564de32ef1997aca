//! Whose packets were dropped: drops are brought together with the attempts that they hit.
//!
//! Both come late, and in any order: a drop is known within half a second, an attempt at its
//! outcome or at a sweep. So the latest attempts are remembered for the drops to come, and drops
//! that hit no known attempt for the attempts to come. Pure: needs no kernel.

use std::collections::VecDeque;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet};

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
            // Their room is used again: to grow it each time costs more than all look-ups.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
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

/// What is known of attempts that go on, apart from what is of those that have ended: a flood of
/// failures must not make the former forgotten.
#[derive(Debug)]
struct Lives<K, V> {
    open: Generations<K, V>,
    ended: Generations<K, V>,
}

impl<K, V> Default for Lives<K, V> {
    fn default() -> Self {
        Lives { open: Generations::default(), ended: Generations::default() }
    }
}

impl<K: Hash + Eq, V> Lives<K, V> {
    fn insert(&mut self, key: K, is_open: bool, value: V) {
        let (table, other) = match is_open {
            true => (&mut self.open, &mut self.ended),
            false => (&mut self.ended, &mut self.open),
        };
        other.remove(&key);
        table.insert(key, value);
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.open.get(key).or_else(|| self.ended.get(key))
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.open.get_mut(key).or_else(|| self.ended.get_mut(key))
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let ended = self.ended.remove(key);
        self.open.remove(key).or(ended)
    }
}

/// Whether more versions of a record will come.
fn is_open(c: &Connection) -> bool {
    c.state != State::Closed
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

/// A datagram socket without peer may show just after its first datagram was dropped.
const SLACK_NS: u64 = 1_000_000;

impl Span {
    /// Whether all of the packets may be those of an attempt that began then.
    pub(super) fn is_after(self, start_ns: u64) -> bool {
        self.first_ns.saturating_add(SLACK_NS) >= start_ns
    }

    /// Whether all of the packets may be those of this attempt: an earlier one on the same
    /// addresses has sent its last before, and one that failed has sent its last by its end. What
    /// was counted together of two attempts is left to neither.
    fn is_of(self, c: &Connection) -> bool {
        let failed = c.state == State::Closed && c.close.is_none();
        let latency_ns = c.latency_us.filter(|_| failed).map(|us| us.saturating_mul(1_000));
        let end = latency_ns.map(|ns| c.id.start_ns.saturating_add(ns).saturating_add(SLACK_NS));
        self.is_after(c.id.start_ns) && end.is_none_or(|end| self.last_ns <= end)
    }
}

/// Of one flow, so many counts wait for their attempt: as many as a connect() sends SYNs.
const WAITING: usize = 8;

/// Drops that no known attempt has made.
#[derive(Debug)]
struct Unclaimed {
    reason: Arc<str>,
    count: u64,
    span: Span,
}

/// Drops by reason.
#[derive(Debug, Clone, Default)]
struct Tally {
    reasons: Vec<(Arc<str>, u64)>,
}

impl Tally {
    fn add(&mut self, reason: &Arc<str>, count: u64) {
        match self.reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, n)) => *n += count,
            None => self.reasons.push((Arc::clone(reason), count)),
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
    /// The latest version of each attempt.
    attempts: Lives<ConnectionId, Connection>,
    /// Attempts by what they send.
    flows: Lives<FlowKey, ConnectionId>,
    /// Drops that hit an attempt.
    tallies: Lives<ConnectionId, Tally>,
    /// Drops that hit no known attempt.
    unclaimed: Generations<FlowKey, VecDeque<Unclaimed>>,
    /// Attempts that were handed on, and hit since.
    hit: HashSet<ConnectionId>,
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
        if let Some(tally) = self.tallies.remove(&c.id) {
            c.drop = tally.dropped();
            // As one that was used last.
            self.tallies.insert(c.id, is_open(c), tally);
        } else if let Some(key) = key {
            self.claim(key, c);
            if c.drop.is_none() {
                // Not in its tally yet: it will be when it is taken.
                c.drop = peek(c, key);
            }
        }
        if let Some(key) = key {
            self.flows.insert(key, is_open(c), c.id);
        }
        if c.protocol != Protocol::Unix {
            self.attempts.insert(c.id, is_open(c), c.clone());
        }
    }

    /// Drops that came before the attempt was known.
    fn claim(&mut self, key: FlowKey, c: &mut Connection) {
        let mut claimed = Tally::default();
        for flow in [key, key.reversed()] {
            let unclaimed = self.unclaimed.get(&flow).into_iter().flatten();
            for drops in unclaimed.filter(|drops| drops.span.is_of(c)) {
                claimed.add(&drops.reason, drops.count);
            }
        }
        c.drop = claimed.dropped();
        if c.drop.is_some() {
            self.tallies.insert(c.id, is_open(c), claimed);
        }
    }

    /// Records that never reached the reader, who must not be told of them by an update.
    pub(super) fn forget<'c>(&mut self, lost: impl IntoIterator<Item = &'c Connection>) {
        for c in lost {
            self.attempts.remove(&c.id);
        }
    }

    /// The attempts that drops of a flow may have hit.
    fn hit_by(&self, flow: Option<FlowKey>, span: Span) -> impl Iterator<Item = &Connection> {
        let ids = flow.into_iter().flat_map(FlowKey::attempts);
        let attempts =
            ids.filter_map(|key| self.flows.get(&key)).filter_map(|id| self.attempts.get(id));
        attempts.filter(move |c| span.is_of(c))
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
        // A sock is held for as long as its attempt goes on.
        let mut hit: Vec<(ConnectionId, bool)> = by_sock.map(|id| (id, true)).into_iter().collect();
        for attempt in self.hit_by(flow, span) {
            if !hit.iter().any(|(id, _)| *id == attempt.id) {
                hit.push((attempt.id, is_open(attempt)));
            }
        }
        self.hit.extend(hit.iter().map(|(id, _)| *id));
        for (id, is_open) in &hit {
            let mut tally = self.tallies.remove(id).unwrap_or_default();
            tally.add(&drop.reason, drop.count);
            self.tallies.insert(*id, *is_open, tally);
        }
        if let (true, Some(flow)) = (hit.is_empty(), flow) {
            let mut waiting = self.unclaimed.remove(&flow).unwrap_or_default();
            if waiting.len() >= WAITING {
                waiting.pop_front();
            }
            let (reason, count) = (Arc::clone(&drop.reason), drop.count);
            waiting.push_back(Unclaimed { reason, count, span });
            self.unclaimed.insert(flow, waiting);
        }
        hit.first().map(|(id, _)| *id)
    }

    /// The process of an attempt that drops hit, or both where only the flow is known.
    pub(super) fn name(&self, drop: &mut DropRecord, span: Span) {
        let owner = match drop.connection {
            Some(id) => self.attempts.get(&id),
            None => self.hit_by(FlowKey::of_drop(drop), span).next(),
        };
        if let Some(owner) = owner {
            drop.connection = Some(owner.id);
            drop.process.clone_from(&owner.process);
        }
    }

    /// New versions of the records that were hit.
    pub(super) fn updates(&mut self) -> Vec<Connection> {
        let mut updates = Vec::with_capacity(self.hit.len());
        for id in self.hit.drain() {
            let Some(attempt) = self.attempts.get_mut(&id) else { continue };
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
