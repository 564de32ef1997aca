//! What the store asks of history.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::part::DiskPart;
use super::segment::Segment;
use super::{FLUSH_CHANGES, History, Item, PATIENCE, QUEUE_CHANGES, UNWRITTEN, lock};
use crate::event::{Connection, ConnectionId};
use crate::query::HistoryStatus;
use crate::store::archive::{Archive, Group, Noted, Part};
use crate::store::ledger::Past;
use crate::store::segment::{Range, Segment as MemorySegment};

impl Archive for History {
    fn add(&self, first: u64, changes: &Arc<Vec<Connection>>) {
        let shared = &self.shared;
        let count = changes.len();
        shared.latest.store(first + count as u64 - 1, Ordering::Relaxed);
        let mut queue = lock(&shared.queue);
        let patience = Instant::now() + PATIENCE;
        while queue.changes >= QUEUE_CHANGES && !shared.is_failing() && !queue.closed {
            let left = patience.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = shared.moved.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if queue.changes >= QUEUE_CHANGES || shared.is_failing() || queue.closed {
            // The journal will lack them, the segment that is made from memory will not.
            shared.note_lacking(first + count as u64 - 1, count as u64);
            return;
        }
        let was_below = queue.changes < FLUSH_CHANGES;
        queue.changes += count;
        queue.since.get_or_insert_with(Instant::now);
        queue.items.push_back(Item::Changes(first, Arc::clone(changes)));
        if was_below && queue.changes >= FLUSH_CHANGES {
            shared.moved.notify_all();
        }
    }

    fn add_group(&self, group: Group) {
        self.shared.wants_group.store(false, Ordering::SeqCst);
        lock(&self.shared.queue).items.push_back(Item::Group(group));
        self.shared.moved.notify_all();
    }

    fn wants_group(&self) -> bool {
        self.shared.wants_group.load(Ordering::SeqCst) && !self.shared.is_failing()
    }

    fn lacks_changes(&self) -> bool {
        let shared = &self.shared;
        shared.is_failing() || shared.wants_group.load(Ordering::SeqCst) || shared.lacking() > 0
    }

    fn rotated(&self) -> u64 {
        self.shared.rotated.load(Ordering::SeqCst)
    }

    fn wait_rotated(&self, change: u64) -> bool {
        let shared = &self.shared;
        let patience = Instant::now() + PATIENCE;
        let mut groups = lock(&shared.groups);
        loop {
            if self.rotated() >= change {
                return true;
            }
            let left = patience.saturating_duration_since(Instant::now());
            if left.is_zero() || shared.is_failing() || groups.closed {
                return false;
            }
            let waited = shared.rotated_news.wait_timeout(groups, left);
            groups = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn give_up(&self, change: u64) -> bool {
        // Unless the process ends before the next segment is made, in which case the journals tell.
        let mut groups = lock(&self.shared.groups);
        if self.rotated() >= change {
            return false;
        }
        groups.given_up = groups.given_up.max(change);
        let mut waiting = std::mem::take(&mut groups.waiting);
        waiting.iter_mut().for_each(|(_, group)| groups.without_given_up(group));
        waiting.retain(|(_, group)| !group.segments.is_empty());
        groups.waiting = waiting;
        // What is still on its way here comes by that, too; its memory need not wait for it.
        for item in &mut lock(&self.shared.queue).items {
            if let Item::Group(group) = item {
                groups.without_given_up(group);
            }
        }
        true
    }

    fn release(&self, change: u64, remaining: &[Arc<MemorySegment>]) {
        self.shared.note_released(change);
        // The records whose later versions are in the segment of this group have been with memory
        // so far, if they changed once more: now they would be shown twice.
        let segments = self.shared.segments();
        let Some(segment) = segments.iter().find(|segment| segment.facts.last == change) else {
            return;
        };
        for (id, _) in &segment.patches {
            if remaining.iter().any(|memory| memory.read().find(*id).is_some()) {
                self.shared.superseded.add(*id, change);
            }
        }
    }

    fn may_hold(&self, id: ConnectionId) -> bool {
        let starts = self.shared.starts.read().unwrap_or_else(PoisonError::into_inner);
        starts.iter().any(|(boot, latest)| *boot == id.boot && id.start_ns <= *latest)
    }

    fn supersede(&self, id: ConnectionId, up_to: u64) {
        self.shared.superseded.add(id, up_to);
    }

    fn parts(&self, memory: &Arc<Vec<Arc<MemorySegment>>>) -> Vec<Box<dyn Part>> {
        let held_from = memory.first().map_or(u64::MAX, |oldest| oldest.after);
        let segments = self.shared.segments();
        let part = |segment: &Arc<Segment>| -> Option<Box<dyn Part>> {
            let in_memory = segment.facts.after >= held_from;
            let nothing = in_memory && segment.facts.patches == 0;
            if nothing || segment.is_unreadable() {
                return None;
            }
            Some(Box::new(DiskPart {
                segment: Arc::clone(segment),
                superseded: Arc::clone(&self.shared.superseded),
                memory: in_memory.then(|| Arc::clone(memory)),
            }))
        };
        segments.iter().rev().filter_map(part).collect()
    }

    fn records(&self) -> u64 {
        self.shared.segments().iter().map(|segment| segment.shown()).sum()
    }

    fn oldest(&self) -> Option<i64> {
        self.shared.segments().iter().map(|segment| segment.facts.first_time).min()
    }

    fn evicted(&self) -> u64 {
        self.shared.evicted.load(Ordering::Relaxed)
    }

    fn evicted_between(&self, since: jiff::Timestamp, until: jiff::Timestamp) -> u64 {
        lock(&self.shared.evictions).between(since, until)
    }

    fn count_given_up(&self, times: Range<i64>, records: u64, changes: (u64, u64)) {
        lock(&self.shared.evictions).add(times, records);
        // Who takes records in waits for no disk: the next to note the books writes it.
        lock(&self.shared.given_up).push((times, records, changes));
    }

    fn unreadable(&self) -> Vec<Range<i64>> {
        let segments = self.shared.segments();
        let unreadable = segments.iter().filter(|segment| segment.is_unreadable());
        unreadable.map(|segment| segment.times()).collect()
    }

    fn past(&self) -> Arc<Past> {
        Arc::clone(lock(&self.shared.books).past())
    }

    fn note_books(&self, noted: &Noted) {
        let shared = &self.shared;
        let mut books = lock(&shared.books);
        let given_up = std::mem::take(&mut *lock(&shared.given_up));
        for (times, records, changes) in given_up {
            books.let_go(times, records, changes, shared.all_let_go());
        }
        match shared.is_behind() {
            false => books.note(noted),
            true if noted.ended.is_some() => books.break_off(UNWRITTEN),
            true => {}
        }
    }

    fn status(&self) -> HistoryStatus {
        let shared = &self.shared;
        let segments = shared.segments();
        let latest = shared.latest.load(Ordering::Relaxed);
        // What the queue refused is not written, and is in a file when its segment is.
        let done = shared.written.load(Ordering::Relaxed).max(self.rotated());
        let queued = latest.saturating_sub(done);
        HistoryStatus {
            directory: shared.directory.path().display().to_string(),
            segments: segments.len() as u64,
            records: self.records(),
            bytes: shared.bytes(),
            limit_bytes: shared.options.limit_bytes,
            max_age_s: shared.options.max_age.map(|age| age.as_secs()),
            room_bytes: shared.directory.room().unwrap_or(0),
            behind: queued.max(shared.lacking()),
            written: shared.journaled.load(Ordering::Relaxed),
            unwritten: shared.unwritten.load(Ordering::Relaxed),
            unreadable: segments.iter().filter(|segment| segment.is_unreadable()).count() as u64,
            stopped: self.stopped(),
            recovery: lock(&shared.recovery).clone(),
        }
    }

    fn stopped(&self) -> Option<String> {
        self.shared.stopped()
    }

    fn trouble(&self) -> Option<String> {
        self.shared.trouble_of_all()
    }

    fn close(&self) {
        lock(&self.shared.queue).closed = true;
        self.shared.moved.notify_all();
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that writes history had failed");
            }
        }
        let lacking = self.shared.lacking();
        if lacking == 0 && self.shared.is_failing() {
            // What the disk had refused is in a segment after all.
            self.shared.works();
        }
        if lacking > 0 && !lock(&self.shared.queue).told {
            let why = self.shared.stopped().unwrap_or_default();
            tracing::error!("{lacking} changes could not be written, and end here: {why}");
            lock(&self.shared.queue).told = true;
        }
    }
}
