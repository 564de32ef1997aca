//! [`RecordStream`]: what is seen beside attempts, as streams of their own.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use async_channel::{Receiver, Sender, TrySendError};
use futures_core::Stream;

use crate::event::{DnsRecord, DropRecord};

/// The packets that the kernel drops, as they are counted.
pub type DropStream = RecordStream<DropRecord>;

/// Questions for names, as soon as it is known what came of them.
pub type DnsStream = RecordStream<DnsRecord>;

/// Batches that may wait for a reader: of one a half-second while drops come. Beyond, they are lost
/// and counted.
const BATCHES: usize = 32;

/// Records of one kind: a [`Stream`] and a blocking [`Iterator`]. It ends with the capture.
///
/// Each reader gets every record from its start on. What a reader does not take in time is lost,
/// and counted in the books of its kind.
#[derive(Debug)]
pub struct RecordStream<T> {
    receiver: Pin<Box<Receiver<Vec<T>>>>,
    ready: VecDeque<T>,
}

impl<T> RecordStream<T> {
    /// The next records; waits for at least one. `None` when capture has ended.
    pub fn next_batch_blocking(&mut self) -> Option<Vec<T>> {
        if !self.ready.is_empty() {
            return Some(std::mem::take(&mut self.ready).into());
        }
        self.receiver.recv_blocking().ok()
    }

    /// As [`next_batch_blocking`](Self::next_batch_blocking), for asynchronous callers.
    pub async fn next_batch(&mut self) -> Option<Vec<T>> {
        if !self.ready.is_empty() {
            return Some(std::mem::take(&mut self.ready).into());
        }
        self.receiver.recv().await.ok()
    }
}

impl<T: Unpin> Stream for RecordStream<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Poll::Ready(Some(record));
            }
            match self.receiver.as_mut().poll_next(cx) {
                Poll::Ready(Some(batch)) => self.ready = batch.into(),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<T> Iterator for RecordStream<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.ready.is_empty() {
            self.ready = self.next_batch_blocking()?.into();
        }
        self.ready.pop_front()
    }
}

/// How much a record counts in the books.
pub(crate) trait Counted {
    fn count(&self) -> u64;
}

impl Counted for DropRecord {
    fn count(&self) -> u64 {
        self.count
    }
}

impl Counted for DnsRecord {
    fn count(&self) -> u64 {
        1
    }
}

/// The readers of records of one kind.
#[derive(Debug)]
pub(crate) struct Subscribers<T> {
    senders: Mutex<Senders<T>>,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Senders<T> {
    list: Vec<Sender<Vec<T>>>,
    /// No more will come.
    ended: bool,
}

impl<T> Default for Subscribers<T> {
    fn default() -> Self {
        let senders = Senders { list: Vec::new(), ended: false };
        Subscribers { senders: Mutex::new(senders), lost: AtomicU64::new(0) }
    }
}

impl<T: Counted + Clone> Subscribers<T> {
    /// A reader from here on.
    pub(crate) fn subscribe(&self) -> RecordStream<T> {
        let (sender, receiver) = async_channel::bounded(BATCHES);
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if !senders.ended {
            senders.list.push(sender);
        }
        RecordStream { receiver: Box::pin(receiver), ready: VecDeque::new() }
    }

    /// Hands records to every reader.
    pub(crate) fn publish(&self, records: Vec<T>) {
        if records.is_empty() {
            return;
        }
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.list.retain(|sender| match sender.try_send(records.clone()) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(lost)) => {
                let lost = lost.iter().map(Counted::count).sum();
                self.lost.fetch_add(lost, Ordering::AcqRel);
                true
            }
        });
    }

    /// Ends the streams once what waits in them is read.
    pub(crate) fn end(&self) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.list.clear();
        senders.ended = true;
    }

    /// What readers did not take in time.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_records::dropped;

    #[test]
    fn every_reader_gets_every_record_and_what_it_leaves_is_counted() {
        let subscribers = Subscribers::default();
        subscribers.publish(vec![dropped(0)]);
        let (mut reader, mut slow) = (subscribers.subscribe(), subscribers.subscribe());
        for n in 0..BATCHES as u64 + 5 {
            subscribers.publish(vec![dropped(n)]);
            assert_eq!(reader.next(), Some(dropped(n)));
        }
        assert_eq!(subscribers.lost(), 5 * dropped(0).count);
        subscribers.end();
        assert_eq!(reader.next(), None);
        let kept: Vec<_> = std::iter::from_fn(|| slow.next()).collect();
        assert_eq!(kept, (0..BATCHES as u64).map(dropped).collect::<Vec<_>>());
        assert_eq!(subscribers.subscribe().next(), None, "nothing comes any more");
    }

    #[test]
    fn a_reader_that_goes_costs_nothing() {
        let subscribers = Subscribers::default();
        std::mem::drop(subscribers.subscribe());
        for n in 0..2 * BATCHES as u64 {
            subscribers.publish(vec![dropped(n)]);
        }
        assert_eq!(subscribers.lost(), 0);
    }
}
