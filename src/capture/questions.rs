//! What the capture thread shares of questions for names.

use std::sync::atomic::{AtomicU64, Ordering};

use super::decoder::Decoder;
use crate::accounting::DnsCounters;
use crate::event::DnsRecord;
use crate::stream::Subscribers;

/// Records for their readers, and what became of all questions.
#[derive(Debug, Default)]
pub(crate) struct DnsDesk {
    questions: AtomicU64,
    listed: AtomicU64,
    no_room: AtomicU64,
    undecodable: AtomicU64,
    pub subscribers: Subscribers<DnsRecord>,
}

impl DnsDesk {
    /// Hands on records that the decoder has completed, or completed further.
    pub(super) fn publish(&self, records: Vec<DnsRecord>, decoder: &Decoder) {
        let counts = decoder.dns_counts();
        self.listed.store(counts.listed, Ordering::Release);
        self.no_room.store(counts.no_room, Ordering::Release);
        self.questions.store(counts.questions, Ordering::Release);
        self.undecodable.store(decoder.undecodable_dns(), Ordering::Release);
        // Last: who has a record finds it in the books.
        self.subscribers.publish(records);
    }

    /// The figures since the start of capture; of messages, `lost` are those of which the kernel side
    /// knows. The sum is read last, so that what is pending is never negative.
    pub(super) fn counters(&self, lost: u64) -> DnsCounters {
        let listed = self.listed.load(Ordering::Acquire);
        let no_room = self.no_room.load(Ordering::Acquire);
        DnsCounters {
            listed,
            no_room,
            messages_lost: lost + self.undecodable.load(Ordering::Acquire),
            lost: self.subscribers.lost(),
            questions: self.questions.load(Ordering::Acquire),
        }
    }
}
