//! The books: where every attempt that the kernel counted has gone.
//!
//! `attempts = delivered + filtered + lost + pending`, each attempt in exactly one term. Losses
//! are counted by cause. Later versions of a delivered record that are lost count as
//! `updates_lost`, and what the kernel itself skipped as `missed`: neither is part of the sum, and
//! both make an answer incomplete.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Attempts that never reached the stream, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lost {
    /// The ring buffer had no room: the reader was too slow.
    pub ring_full: u64,
    /// The table of sockets in the kernel was full.
    pub map_full: u64,
    /// A stream built with `drop_when_full` was not read in time.
    pub slow_consumer: u64,
    /// The bytes of the event could not be understood.
    pub undecodable: u64,
    /// Capture ended before they were shown: of an earlier capture, as its books had it then.
    #[serde(default)]
    pub capture_ended: u64,
}

impl Lost {
    /// Every cause by its name, and how many it lost.
    pub fn by_cause(&self) -> [(&'static str, u64); 5] {
        let Lost { ring_full, map_full, slow_consumer, undecodable, capture_ended } = *self;
        [
            ("ring_full", ring_full),
            ("map_full", map_full),
            ("slow_consumer", slow_consumer),
            ("undecodable", undecodable),
            ("capture_ended", capture_ended),
        ]
    }

    /// All causes together.
    pub fn total(&self) -> u64 {
        self.by_cause().iter().map(|(_, lost)| lost).sum()
    }

    #[cfg(feature = "store")]
    fn add(&mut self, other: &Lost) {
        self.ring_full += other.ring_full;
        self.map_full += other.map_full;
        self.slow_consumer += other.slow_consumer;
        self.undecodable += other.undecodable;
        self.capture_ended += other.capture_ended;
    }
}

/// The raw figures since the start of capture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counters {
    /// Attempts that the kernel side accepted as such.
    pub attempts: u64,
    /// Attempts handed to the reader of the stream.
    pub delivered: u64,
    /// Attempts that the in-kernel filters left out.
    pub filtered: u64,
    /// Attempts that were lost, by cause.
    pub lost: Lost,
    /// Later versions of delivered records that were lost.
    pub updates_lost: u64,
    /// Runs of the BPF programs that the kernel skipped, and descendants that could not be followed.
    pub missed: u64,
    /// Addresses that could not be read from the process (the record is there, its `remote` may
    /// be missing).
    pub address_unread: u64,
    /// Starts of processes and programs, and new control groups, whose event was lost: `exe`,
    /// `cmdline`, `cwd`, `ancestry`, `unit` or `container` may be missing.
    pub exec_lost: u64,
    /// DNS messages that were lost, or could not be understood: names of remotes may be missing.
    #[serde(default)]
    pub dns_lost: u64,
    /// Dropped packets, which are no part of the sum.
    #[serde(default)]
    pub drops: DropCounters,
    /// Questions for names, which are no part of the sum.
    #[serde(default)]
    pub dns: DnsCounters,
    /// Questions about address translation, which are no part of the sum.
    #[serde(default)]
    pub nat: NatCounters,
}

/// What became of questions to the kernel about address translation, since the start of capture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NatCounters {
    /// Questions that were asked.
    pub asked: u64,
    /// Of these, those about connections that go elsewhere.
    pub translated: u64,
    /// Of these, those that the kernel did not answer.
    pub failed: u64,
    /// Questions that were not asked, because too many were waiting.
    pub skipped: u64,
}

/// What became of the packets that the kernel dropped, since the start of capture.
///
/// `packets = listed + no_room + no_address + pending`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DropCounters {
    /// Packets that were seen to be dropped.
    pub packets: u64,
    /// Packets in records with their addresses.
    pub listed: u64,
    /// Packets that found no room in the kernel's table of flows: in records by reason alone.
    pub no_room: u64,
    /// Packets that are no IP packets, or that could not be read: in records by reason alone.
    pub no_address: u64,
    /// Runs of the BPF program that the kernel skipped: packets that were not seen.
    pub missed: u64,
    /// Packets of records that a [`DropStream`](crate::stream::DropStream) was not read in time
    /// for.
    pub lost: u64,
}

impl DropCounters {
    /// Packets that are in no record yet.
    pub fn pending(&self) -> u64 {
        self.packets.saturating_sub(self.listed + self.no_room + self.no_address)
    }
}

/// What became of questions for names, since the start of capture.
///
/// `questions = listed + no_room + pending`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DnsCounters {
    /// Questions that were seen, and that the filters do not leave out.
    pub questions: u64,
    /// Questions in records.
    pub listed: u64,
    /// Questions that found no room among those that wait for an answer, and are in no record.
    pub no_room: u64,
    /// Messages that were lost on their way from the kernel, or could not be understood.
    pub messages_lost: u64,
    /// Records, also later versions of them, that a [`DnsStream`](crate::stream::DnsStream) was not
    /// read in time for.
    pub lost: u64,
}

impl DnsCounters {
    /// Questions that wait for an answer.
    pub fn pending(&self) -> u64 {
        self.questions.saturating_sub(self.listed + self.no_room)
    }
}

/// A stretch of time in which capture was down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gap {
    /// Start of the gap.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub since: Timestamp,
    /// End of the gap.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub until: Timestamp,
    /// Why capture was down.
    pub why: String,
}

/// The books of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Accounting {
    /// Attempts that the kernel side accepted as such.
    pub attempts: u64,
    /// Attempts handed to the reader of the stream.
    pub delivered: u64,
    /// Attempts that the in-kernel filters left out.
    pub filtered: u64,
    /// Attempts that were lost, by cause.
    pub lost: Lost,
    /// Attempts without an outcome that were not shown yet, or that are on their way.
    pub pending: u64,
    /// Later versions of delivered records that were lost.
    pub updates_lost: u64,
    /// Runs of the BPF programs that the kernel skipped, and descendants that could not be followed.
    pub missed: u64,
    /// Records that were delivered and have since aged out of the store.
    pub evicted: u64,
    /// When capture was down.
    pub gaps: Vec<Gap>,
    /// Start of the window that the figures cover.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub since: Timestamp,
    /// End of it.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub until: Timestamp,
    /// Whether nothing can be missing from the window.
    pub complete: bool,
}

impl Accounting {
    /// The books for what happened between two samples of the counters.
    ///
    /// Only attempts that began in the window are attributed to it. Losses are counted when they
    /// are noticed, so the edges are as exact as the samples are close.
    pub fn between(from: &Counters, to: &Counters, since: Timestamp, until: Timestamp) -> Self {
        let diff = |a: u64, b: u64| b.saturating_sub(a);
        let attempts = diff(from.attempts, to.attempts);
        let mut left = attempts;
        let mut take = |n: u64| {
            let taken = n.min(left);
            left -= taken;
            taken
        };
        let pending = take(to.pending());
        let lost = Lost {
            ring_full: take(diff(from.lost.ring_full, to.lost.ring_full)),
            map_full: take(diff(from.lost.map_full, to.lost.map_full)),
            slow_consumer: take(diff(from.lost.slow_consumer, to.lost.slow_consumer)),
            undecodable: take(diff(from.lost.undecodable, to.lost.undecodable)),
            capture_ended: take(diff(from.lost.capture_ended, to.lost.capture_ended)),
        };
        let filtered = take(diff(from.filtered, to.filtered));
        let delivered = left;
        let updates_lost = diff(from.updates_lost, to.updates_lost);
        let missed = diff(from.missed, to.missed);
        let any_loss = to.lost.total() > from.lost.total();
        Accounting {
            attempts,
            delivered,
            filtered,
            lost,
            pending,
            updates_lost,
            missed,
            evicted: 0,
            gaps: Vec::new(),
            since,
            until,
            complete: !any_loss && updates_lost == 0 && missed == 0,
        }
    }

    /// The books of a capture that is over: nothing is pending there any more.
    #[cfg(feature = "store")]
    pub(crate) fn ended(mut self) -> Self {
        self.lost.capture_ended += std::mem::take(&mut self.pending);
        self.complete &= self.lost.capture_ended == 0;
        self
    }

    /// Adds what another capture saw in the same window.
    #[cfg(feature = "store")]
    pub(crate) fn add(&mut self, other: Accounting) {
        self.attempts += other.attempts;
        self.delivered += other.delivered;
        self.filtered += other.filtered;
        self.lost.add(&other.lost);
        self.pending += other.pending;
        self.updates_lost += other.updates_lost;
        self.missed += other.missed;
        self.evicted += other.evicted;
        self.gaps.extend(other.gaps);
        self.complete &= other.complete;
    }

    /// Whether each attempt is in exactly one term.
    pub fn balances(&self) -> bool {
        self.attempts == self.delivered + self.filtered + self.lost.total() + self.pending
    }
}

impl Counters {
    /// Attempts that are neither delivered nor filtered nor lost yet.
    pub fn pending(&self) -> u64 {
        self.attempts.saturating_sub(self.delivered + self.filtered + self.lost.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: &Counters, to: &Counters) -> Accounting {
        Accounting::between(from, to, Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_books_of_any_window_balance() {
        let lost = |ring_full| Lost { ring_full, ..Lost::default() };
        let a = Counters { attempts: 100, delivered: 90, lost: lost(4), ..Counters::default() };
        let b = Counters {
            attempts: 103,
            delivered: 96,
            filtered: 1,
            lost: lost(5),
            ..Counters::default()
        };
        for (from, to) in [(Counters::default(), a), (a, b), (Counters::default(), b), (a, a)] {
            let books = window(&from, &to);
            assert!(books.balances(), "{books:?}");
        }
    }

    #[test]
    fn one_old_loss_does_not_make_a_later_window_incomplete() {
        let lost = Lost { ring_full: 4, ..Lost::default() };
        let a = Counters { attempts: 10, delivered: 6, lost, ..Counters::default() };
        let b = Counters { attempts: 12, delivered: 8, lost, ..Counters::default() };
        assert!(!window(&Counters::default(), &a).complete);
        assert!(window(&a, &b).complete);
    }

    #[test]
    fn lost_updates_and_missed_runs_make_it_incomplete_without_entering_the_sum() {
        let zero = Counters::default();
        let some = Counters { attempts: 1, delivered: 1, updates_lost: 1, ..zero };
        let books = window(&zero, &some);
        assert!(books.balances() && !books.complete);
        let some = Counters { attempts: 1, delivered: 1, missed: 2, ..zero };
        assert!(!window(&zero, &some).complete);
    }
}
