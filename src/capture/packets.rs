//! What the capture thread does with dropped packets: it takes the counts, brings them together
//! with the attempts that they hit, and hands both on.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::decoder::Decoder;
use super::drops::{Drops, Taken};
use super::drops_skel::types::{netspy_drop, netspy_drop_key};
use super::join::{GENERATION, Join, Span};
use super::sys;
use crate::accounting::DropCounters;
use crate::event::{Connection, ConnectionId, DropRecord, Dropped, Outcome};
use crate::stream::Subscribers;

/// Time between looks while drops come, and the least, when so many attempts come that the first
/// of them would be forgotten.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_BUSY: Duration = Duration::from_millis(50);
/// How long drops that hit no known attempt wait for it: one without outcome is shown within half a
/// second.
const HOLD: Duration = Duration::from_millis(700);
/// Why a local connect is refused.
const NO_SOCKET: &str = "NO_SOCKET";
/// Drops that wait.
const HELD: usize = 4 * 8192;

/// What the capture thread shares of drops.
#[derive(Debug, Default)]
pub(crate) struct DropDesk {
    seen: Option<MapHandle>,
    program: Option<OwnedFd>,
    listed: AtomicU64,
    no_room: AtomicU64,
    no_address: AtomicU64,
    pub subscribers: Subscribers<DropRecord>,
}

impl DropDesk {
    /// For the programs, if there are any.
    pub(super) fn of(packets: Option<&Packets<'_>>) -> std::io::Result<Self> {
        let Some(packets) = packets else { return Ok(DropDesk::default()) };
        let seen = MapHandle::try_from(&packets.drops.seen).map_err(std::io::Error::other)?;
        let program = packets.drops.fd.try_clone()?;
        Ok(DropDesk { seen: Some(seen), program: Some(program), ..DropDesk::default() })
    }

    /// The figures since the start of capture. The sum is read last, so that what is pending is
    /// never negative.
    pub(super) fn counters(&self) -> DropCounters {
        let program = self.program.as_ref().map(|fd| sys::program_facts(fd.as_fd()));
        let missed = program.and_then(Result::ok).map_or(0, |facts| facts.recursion_misses);
        let listed = self.listed.load(Ordering::Acquire);
        let no_room = self.no_room.load(Ordering::Acquire);
        let no_address = self.no_address.load(Ordering::Acquire);
        let lost = self.subscribers.lost();
        let key = 0_u32.to_ne_bytes();
        let seen = self.seen.as_ref().and_then(|map| map.lookup_percpu(&key, MapFlags::ANY).ok());
        let per_cpu = seen.flatten().unwrap_or_default();
        let packets = per_cpu.iter().filter_map(|bytes| bytes.first_chunk());
        let packets = packets.map(|bytes| u64::from_ne_bytes(*bytes)).sum();
        DropCounters { packets, listed, no_room, no_address, missed, lost }
    }
}

/// When drops are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// When it is time for it.
    Due,
    /// Because somebody asked.
    Asked,
    /// For the last time.
    Last,
}

/// Drops that wait for the attempt that they hit.
#[derive(Debug)]
struct Held {
    since: Instant,
    drop: DropRecord,
    span: Span,
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Records that were handed on before, which drops have hit since.
    pub updates: Vec<Connection>,
    /// Drops to hand on.
    pub drops: Vec<DropRecord>,
}

/// Drops on the capture thread.
pub(super) struct Packets<'obj> {
    drops: Drops<'obj>,
    join: Join,
    held: VecDeque<Held>,
    looked: Instant,
    noted: usize,
}

impl<'obj> Packets<'obj> {
    pub(super) fn new(drops: Drops<'obj>) -> Self {
        let (join, held) = (Join::default(), VecDeque::new());
        Packets { drops, join, held, looked: Instant::now(), noted: 0 }
    }

    /// Whether the places that drop packets are named, for want of reasons.
    pub(super) fn names_places(&self) -> bool {
        self.drops.names.are_places()
    }

    /// A version of a record on its way to the reader.
    pub(super) fn note(&mut self, connection: &mut Connection) {
        self.noted += 1;
        let drops = &self.drops;
        self.join.record(connection, |c, flow| {
            // The packet that found no socket was dropped before the answer to it refused the
            // attempt: looking right away saves a second version of the record.
            let looks_local = flow.source.ip == flow.destination.ip
                || (flow.source.ip.is_loopback() && flow.destination.ip.is_loopback());
            if c.outcome != Outcome::Refused || !looks_local {
                return None;
            }
            let count = drops.peek(drops.names.number(NO_SOCKET)?, flow, c.id.start_ns)?;
            Some(Dropped { reason: NO_SOCKET.to_owned(), count })
        });
    }

    /// Records that never reached the reader.
    pub(super) fn forget(&mut self, lost: &[Connection]) {
        self.join.forget(lost);
    }

    /// Looks for drops; `by_sock` finds the attempt that a socket holds.
    pub(super) fn look(
        &mut self,
        look: Look,
        decoder: &mut Decoder,
        desk: &DropDesk,
        by_sock: impl Fn(u64, &Decoder) -> Option<ConnectionId>,
    ) -> News {
        let mut news = News::default();
        if look == Look::Last {
            // What comes after it is in no books.
            self.drops.detach();
        }
        let since = self.looked.elapsed();
        let is_due = since >= LOOK || (self.noted >= GENERATION && since >= LOOK_BUSY);
        if (is_due || look != Look::Due) && self.drops.is_dirty() {
            self.looked = Instant::now();
            self.noted = 0;
            let taken = self.drops.take();
            self.flows(&taken, decoder, &by_sock, &mut news);
            self.rest(&taken, decoder, desk, &mut news);
            news.updates = self.join.updates();
        }
        self.release(look, &mut news);
        let listed = news.drops.iter().filter(|d| d.source.is_some()).map(|d| d.count).sum();
        desk.listed.fetch_add(listed, Ordering::AcqRel);
        news
    }

    fn flows(
        &mut self,
        taken: &Taken,
        decoder: &mut Decoder,
        by_sock: &impl Fn(u64, &Decoder) -> Option<ConnectionId>,
        news: &mut News,
    ) {
        for flow in &taken.flows {
            let reason = self.drops.names.of(flow.key.reason);
            let mut drop = decoder.dropped(&flow.key, &flow.drop, reason);
            drop.reason_code = self.drops.names.code(flow.key.reason);
            let span = Span { first_ns: flow.drop.first_ns, last_ns: flow.drop.last_ns };
            let sock = Some(flow.drop.sock).filter(|sock| *sock != 0);
            let holder = sock.and_then(|sock| by_sock(sock, decoder));
            let holder = holder.filter(|id| span.is_after(id.start_ns));
            drop.connection = self.join.dropped(&drop, span, holder);
            if drop.connection.is_some() {
                self.join.name(&mut drop, span);
            }
            if drop.process.is_some() || self.held.len() >= HELD {
                news.drops.push(drop);
            } else {
                self.held.push_back(Held { since: self.looked, drop, span });
            }
        }
    }

    fn rest(&mut self, taken: &Taken, decoder: &mut Decoder, desk: &DropDesk, news: &mut News) {
        for rest in &taken.rest {
            let key = netspy_drop_key { reason: rest.reason, ..<_>::default() };
            let drop = netspy_drop {
                count: rest.count,
                bytes: rest.bytes,
                first_ns: taken.since_ns,
                last_ns: taken.until_ns,
                sock: 0,
            };
            let reason = self.drops.names.of(rest.reason);
            let mut drop = decoder.dropped(&key, &drop, reason);
            drop.no_room = rest.no_room;
            let count = if rest.no_room { &desk.no_room } else { &desk.no_address };
            count.fetch_add(rest.count, Ordering::AcqRel);
            news.drops.push(drop);
        }
    }

    /// Lets go of what has waited long enough.
    fn release(&mut self, look: Look, news: &mut News) {
        while let Some(held) = self.held.front()
            && (look == Look::Last || held.since.elapsed() >= HOLD)
        {
            let Some(mut held) = self.held.pop_front() else { break };
            self.join.name(&mut held.drop, held.span);
            news.drops.push(held.drop);
        }
    }
}
