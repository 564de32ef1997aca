//! The newest records in bounded memory, and the questions about them.
//!
//! Records lie as compact rows in segments of some thousand. Ingest appends to the last segment
//! and replaces rows in place where a later version comes; when memory is used up, the oldest
//! segment goes as a whole. Each segment has its own lock, held for as long as one batch or one
//! look through the segment takes.

// Only history is one.
#[cfg_attr(not(feature = "history"), allow(dead_code))]
mod archive;
mod cursor;
mod dictionary;
mod dns;
mod drops;
mod evictions;
mod figures;
mod follow;
mod groups;
#[cfg(feature = "history")]
mod history;
pub mod ledger;
mod matcher;
mod place;
mod release;
mod row;
mod scan;
mod segment;
pub mod source;
mod table;
mod tallies;
mod view;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::event::{Connection, ConnectionId, DnsRecord, DropRecord};
use crate::query::dns::DnsFilter;
use crate::query::{Page, QueryError, StoreStatus};
use crate::stream::{DnsStream, DropStream};
use archive::{Archive, Noted, Part, Progress};
use dns::Questions;
use drops::Drops;
use evictions::Evictions;
use follow::Log;
use ledger::Past;
use row::wide;
use segment::{Body, MAX_ROWS, Range, Segment, Updated};

pub use dns::SelectedDns;
pub use drops::{DropSelection, SelectedDrops};
pub use figures::Differing;
pub use follow::{Changes, Follower};
pub use groups::Groups;
#[cfg(all(feature = "history", any(test, fuzzing)))]
#[doc(hidden)]
pub use history::fuzzing::journal_recovery;
#[cfg(feature = "history")]
pub use history::{HistoryError, HistoryOptions, HistoryReport};
pub use matcher::Selection;
pub use scan::{Selected, Totals};
pub use source::LocalSource;
pub use tallies::{ANSWER_BOUNDS_US, HANDSHAKE_BOUNDS_US, Tallies};
pub use view::{Columns, View, Who};

/// Changes that are kept as they came, for followers.
const LOG_CHANGES: usize = 8192;

/// Of the memory, drops have one part in so many.
const DROPS_PART: usize = 32;
/// The same of questions for names, and what one takes beside itself: its texts and addresses.
const DNS_PART: usize = 32;
const DNS_BESIDE: usize = 256;

/// The newest records, bounded by bytes.
#[derive(Debug)]
pub struct Store {
    limit_bytes: u64,
    segment_bytes: usize,
    segment_rows: usize,
    log_changes: usize,
    writer: Mutex<Writer>,
    segments: RwLock<Arc<Vec<Arc<Segment>>>>,
    log: Mutex<Log>,
    latest: watch::Sender<u64>,
    closed: AtomicBool,
    records: AtomicU64,
    bytes: AtomicU64,
    evicted: AtomicU64,
    evicted_up_to: AtomicU64,
    /// The change before the first of this life of the server.
    start: u64,
    /// The last change of earlier lives, where the archive knows of any.
    earlier: Option<u64>,
    evictions: Mutex<Evictions>,
    drops: Mutex<Drops>,
    questions: Mutex<Questions>,
    tallies: Tallies,
    /// Where records outlive memory, if they do.
    archive: Option<Box<dyn Archive>>,
    /// It had records when this process began.
    holds_earlier: bool,
}

/// What only ingest touches.
#[derive(Debug)]
struct Writer {
    segments: Vec<Arc<Segment>>,
    /// Of all segments but the last: which ids can be there.
    starts: Vec<Option<Range<u64>>>,
    /// The latest start in those segments: what starts later is new, or in the last segment.
    sealed_max: Option<u64>,
    next_seq: u64,
    /// Attempts that were taken in.
    attempts: u64,
    bytes: usize,
    /// The last change before the group that is being filled, and before those that are full.
    group_after: u64,
    groups: VecDeque<FullGroup>,
}

/// A group that was handed to the archive.
#[derive(Debug)]
struct FullGroup {
    last: u64,
    segments: usize,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Records that are new.
    pub inserted: u64,
    /// Of these, attempts: what existed before capture began, or listens, is none.
    pub attempts: u64,
    /// Records that were replaced by a later version.
    pub updated: u64,
    /// Versions that were known already.
    pub unchanged: u64,
}

impl Store {
    /// A store that uses about this many bytes at most.
    pub fn new(limit_bytes: u64) -> Self {
        Store::with_archive(limit_bytes, None, 0)
    }

    /// A store whose records outlive memory, and the process: what lies in the directory is part
    /// of every answer.
    #[cfg(feature = "history")]
    pub fn open(limit_bytes: u64, options: &HistoryOptions) -> Result<Self, HistoryError> {
        let (history, left) = history::History::open(options)?;
        let rotated = history.last();
        let last = left.records.last().map_or(0, |(version, _)| *version).max(rotated);
        let mut store = Store::with_archive(limit_bytes, Some(Box::new(history)), last);
        store.earlier = Some(last).filter(|last| *last > 0);
        // What lies in journals comes into memory, where followers find it.
        store.evicted_up_to = AtomicU64::new(if last > 0 { rotated } else { store.start });
        store.take_over(left);
        store.holds_earlier = store.held() > 0 || !store.past().damage.is_empty();
        Ok(store)
    }

    /// `last` is the last change that the archive knows.
    fn with_archive(limit_bytes: u64, archive: Option<Box<dyn Archive>>, last: u64) -> Self {
        let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX).max(64 * 1024);
        let log_changes = (limit / 16 / size_of::<Connection>()).clamp(16, LOG_CHANGES);
        let drop_records = limit / DROPS_PART / size_of::<DropRecord>();
        let dns_records = limit / DNS_PART / (size_of::<DnsRecord>() + DNS_BESIDE);
        let beside = limit / DROPS_PART + limit / DNS_PART;
        let segment_bytes = limit - log_changes * size_of::<Connection>() - beside;
        // Changes are numbered on from the clock: a number from an earlier life of the server
        // lies before all of this life's.
        let start = Timestamp::now().as_microsecond().max(0).unsigned_abs().max(last);
        let store = Store {
            limit_bytes: limit as u64,
            segment_bytes,
            segment_rows: (segment_bytes / 32 / 128).clamp(16, MAX_ROWS),
            log_changes,
            writer: Mutex::new(Writer {
                segments: Vec::new(),
                starts: Vec::new(),
                sealed_max: None,
                next_seq: start + 1,
                attempts: 0,
                bytes: 0,
                group_after: start,
                groups: VecDeque::new(),
            }),
            segments: RwLock::default(),
            log: Mutex::default(),
            latest: watch::channel(start).0,
            closed: AtomicBool::new(false),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            evicted_up_to: AtomicU64::new(start),
            start,
            earlier: None,
            evictions: Mutex::default(),
            drops: Mutex::new(Drops::new(drop_records)),
            questions: Mutex::new(Questions::new(dns_records)),
            tallies: Tallies::default(),
            archive,
            holds_earlier: false,
        };
        store.add_segment(&mut lock(&store.writer));
        store
    }

    /// Takes records in: new ones, and later versions of known ones.
    pub fn apply(&self, mut batch: Vec<Connection>) -> Applied {
        let mut applied = Applied::default();
        let mut writer = lock(&self.writer);
        let first_seq = writer.next_seq;
        batch.retain_mut(|connection| self.apply_one(&mut writer, connection, &mut applied));
        self.bytes.store(writer.bytes as u64, Ordering::Relaxed);
        if batch.is_empty() {
            return applied;
        }
        // Lists of records may be much longer than what is left in them.
        if batch.capacity() > 2 * batch.len() {
            batch.shrink_to_fit();
        }
        let latest = writer.next_seq - 1;
        let batch = Arc::new(batch);
        if let Some(archive) = &self.archive {
            archive.add(first_seq, &batch);
            self.keep_groups(&mut writer, &**archive);
        }
        lock(&self.log).push(first_seq, batch, self.log_changes);
        self.latest.send_replace(latest);
        applied
    }

    /// Whether the record is a change.
    fn apply_one(&self, writer: &mut Writer, c: &mut Connection, applied: &mut Applied) -> bool {
        let seq = writer.next_seq;
        let Some(active) = writer.segments.last().map(Arc::clone) else { return false };
        let mut body = active.write();
        let update = |body: &mut Body, bytes: &mut usize, c: &mut Connection, row: usize| {
            let before = body.bytes();
            let updated = body.update(row, c, seq);
            *bytes = (*bytes + body.bytes()).saturating_sub(before);
            updated
        };
        let mut known = body.find(c.id).map(|row| update(&mut body, &mut writer.bytes, c, row));
        if known.is_none() && writer.sealed_max.is_some_and(|max| c.id.start_ns <= max) {
            for (segment, starts) in writer.segments.iter().zip(&writer.starts).rev() {
                if !starts.is_some_and(|starts| starts.contains(c.id.start_ns)) {
                    continue;
                }
                let mut body = segment.write();
                if let Some(row) = body.find(c.id) {
                    known = Some(update(&mut body, &mut writer.bytes, c, row));
                    break;
                }
            }
        }
        match known {
            Some(Updated::Same) => {
                applied.unchanged += 1;
                return false;
            }
            Some(Updated::Changed(before)) => {
                applied.updated += 1;
                self.tallies.note(c, Some(before));
            }
            None => {
                let before = body.bytes();
                if let Some(archive) = self.archive.as_ref().filter(|a| a.may_hold(c.id)) {
                    // What memory has let go of: of the rest it knows that it has a newer one.
                    archive.supersede(c.id, writer.segments.first().map_or(seq, |s| s.after));
                }
                body.insert(c, seq);
                writer.bytes += body.bytes() - before;
                applied.inserted += 1;
                self.tallies.note(c, None);
                applied.attempts += u64::from(c.is_attempt());
                writer.attempts += u64::from(c.is_attempt());
                self.records.fetch_add(1, Ordering::Relaxed);
            }
        }
        writer.next_seq += 1;
        let full = body.is_full() || body.bytes() > self.segment_bytes / 8;
        drop(body);
        if full {
            self.add_segment(writer);
        }
        if writer.bytes > self.segment_bytes && self.archive.is_none() {
            self.evict(writer);
        }
        true
    }

    fn add_segment(&self, writer: &mut Writer) {
        if let Some(last) = writer.segments.last() {
            let mut body = last.write();
            body.seal();
            writer.sealed_max = writer.sealed_max.max(body.starts.map(|starts| starts.max));
            writer.starts.push(body.starts);
        }
        let segment = Segment::new(self.segment_rows, writer.group_after);
        writer.bytes += segment.read().bytes();
        writer.segments.push(Arc::new(segment));
        self.publish(writer);
    }

    /// Drops the oldest segments until the rest fits.
    fn evict(&self, writer: &mut Writer) {
        while writer.bytes > self.segment_bytes && writer.segments.len() > 1 {
            let oldest = self.take_oldest(writer);
            let body = oldest.read();
            let rows = body.rows.len() as u64;
            self.evicted.fetch_add(rows, Ordering::Relaxed);
            if let Some(times) = body.times {
                lock(&self.evictions).add(times, rows);
            }
        }
        self.publish(writer);
    }

    /// Takes the oldest segment out of memory. There must be another.
    fn take_oldest(&self, writer: &mut Writer) -> Arc<Segment> {
        let oldest = writer.segments.remove(0);
        writer.starts.remove(0);
        let body = oldest.read();
        writer.bytes = writer.bytes.saturating_sub(body.bytes());
        // Told before it is gone, so that no follower misses it unawares.
        self.evicted_up_to.fetch_max(body.max_seq, Ordering::SeqCst);
        self.records.fetch_sub(body.rows.len() as u64, Ordering::Relaxed);
        drop(body);
        oldest
    }

    fn publish(&self, writer: &Writer) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        *segments = Arc::new(writer.segments.clone());
    }

    /// The segments of memory as they are now, oldest first.
    fn memory(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is to be looked at beside these segments.
    fn parts(&self, memory: &Arc<Vec<Arc<Segment>>>) -> Vec<Box<dyn Part>> {
        self.archive.as_ref().map_or_else(Vec::new, |archive| archive.parts(memory))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// The record with this id.
    pub fn get(&self, id: ConnectionId) -> Option<Connection> {
        let memory = self.memory();
        let here = memory.iter().rev().find_map(|segment| {
            let body = segment.read();
            let row = body.rows.get(body.find(id)?)?;
            body.tables.decode(row)
        });
        here.or_else(|| self.parts(&memory).iter().find_map(|part| part.get(id)))
    }

    /// How far it has come, in one moment.
    fn progress(&self) -> Progress {
        let writer = lock(&self.writer);
        Progress { change: writer.next_seq - 1, attempts: writer.attempts }
    }

    /// The number of the latest change.
    pub fn latest(&self) -> u64 {
        *self.latest.borrow()
    }

    /// Tells of each change.
    fn news(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// Up to which change something may have been evicted.
    fn evicted_up_to(&self) -> u64 {
        self.evicted_up_to.load(Ordering::SeqCst)
    }

    /// Takes drops in.
    pub fn apply_drops(&self, drops: Vec<DropRecord>) {
        drops.iter().for_each(|drop| self.tallies.note_drop(drop));
        lock(&self.drops).add(drops);
    }

    /// One page of the drops that are selected.
    pub fn drops(
        &self,
        selection: &DropSelection,
        page: &Page,
    ) -> Result<SelectedDrops, QueryError> {
        lock(&self.drops).select(selection, page)
    }

    /// Takes questions for names in: new ones, and later versions of known ones.
    pub fn apply_dns(&self, records: Vec<DnsRecord>) {
        let mut questions = lock(&self.questions);
        for record in records {
            let (outcome, latency) = (record.outcome, record.latency_us);
            if questions.add(record) {
                self.tallies.note_dns(outcome, latency);
            }
        }
    }

    /// One page of the questions for names that match.
    pub fn dns(&self, filter: &DnsFilter, page: &Page) -> Result<SelectedDns, QueryError> {
        lock(&self.questions).select(filter, page)
    }

    /// Shows each question for a name, in the order of their times. No other can come in meanwhile:
    /// `visit` must be quick.
    pub fn for_each_question(&self, visit: &mut dyn FnMut(&DnsRecord)) {
        lock(&self.questions).for_each(visit);
    }

    /// The time of the newest question for a name that matches.
    pub fn newest_dns(&self, filter: &DnsFilter) -> Option<Timestamp> {
        lock(&self.questions).newest(filter)
    }

    /// Questions for names of this time that have aged out.
    pub fn dns_evicted_between(&self, since: Timestamp, until: Timestamp) -> u64 {
        lock(&self.questions).evicted_between(since, until)
    }

    /// The time of the newest drop that is selected.
    pub fn newest_drop(&self, selection: &DropSelection) -> Option<Timestamp> {
        lock(&self.drops).newest(selection)
    }

    /// Packets of drops of this time that have aged out.
    pub fn dropped_evicted_between(&self, since: Timestamp, until: Timestamp) -> u64 {
        lock(&self.drops).evicted_between(since, until)
    }

    /// No more records come: followers end when they have read everything.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.latest.send_modify(|_| {});
        if let Some(archive) = &self.archive {
            self.hand_over_rest(&**archive);
            archive.close();
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Start of the oldest record held.
    pub fn oldest(&self) -> Option<Timestamp> {
        let memory = self.memory().iter().filter_map(|segment| segment.read().oldest()).min();
        let archived = self.archive.as_ref().and_then(|archive| archive.oldest()).map(wide);
        memory.into_iter().chain(archived).min()
    }

    /// How many records of this time have aged out; at the edges rather too many than too few.
    pub fn evicted_between(&self, since: Timestamp, until: Timestamp) -> u64 {
        let archived = self.archive.as_ref().map_or(0, |a| a.evicted_between(since, until));
        lock(&self.evictions).between(since, until) + archived
    }

    /// The times of records that can no longer be read.
    fn unreadable(&self) -> Vec<Range<i64>> {
        self.archive.as_ref().map_or_else(Vec::new, |archive| archive.unreadable())
    }

    /// What is known of captures before this process.
    fn past(&self) -> Arc<Past> {
        self.archive.as_ref().map_or_else(Arc::default, |archive| archive.past())
    }

    /// Attempts that earlier captures had not shown when they ended, as far as their books are kept.
    pub fn lost_at_ends(&self) -> u64 {
        self.past().lost_at_ends()
    }

    /// Whether the books outlive this process.
    fn keeps_books(&self) -> bool {
        self.archive.is_some()
    }

    /// Takes figures of this capture into the books that outlive it.
    fn note_books(&self, noted: &Noted) {
        if let Some(archive) = &self.archive {
            self.catch_up();
            archive.note_books(noted);
        }
    }

    /// How many records have aged out since the start.
    pub fn evicted_so_far(&self) -> u64 {
        let archived = self.archive.as_ref().map_or(0, |archive| archive.evicted());
        self.evicted.load(Ordering::Relaxed) + archived
    }

    /// What was taken in since the start, whether it is still held or not.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// What the store holds.
    pub fn status(&self) -> StoreStatus {
        let kind = if self.archive.is_some() { "disk" } else { "memory" };
        StoreStatus {
            kind: kind.to_owned(),
            records: self.held(),
            bytes: self.bytes.load(Ordering::Relaxed),
            limit_bytes: self.limit_bytes,
            evicted: self.evicted_so_far(),
            oldest: self.oldest(),
            history: self.archive.as_ref().map(|archive| archive.status()),
        }
    }

    /// Whether some records are, or were, of a process before this one.
    fn holds_earlier(&self) -> bool {
        self.holds_earlier
    }

    /// What is not as it should be with history, if there is one: that it is not written, or that a
    /// part of it cannot be shown.
    pub fn history_trouble(&self) -> Option<String> {
        self.archive.as_ref().and_then(|archive| archive.trouble())
    }

    /// Why history is not being written, if there is one and it is not.
    pub fn history_stopped(&self) -> Option<String> {
        self.archive.as_ref().and_then(|archive| archive.stopped())
    }
}

/// Stores what a stream of drops yields, on a thread that ends with the stream.
#[cfg_attr(not(any(feature = "server", feature = "cli")), allow(dead_code))]
pub(crate) fn store_drops(
    mut stream: DropStream,
    store: &Arc<Store>,
) -> std::io::Result<JoinHandle<()>> {
    let store = Arc::clone(store);
    std::thread::Builder::new().name("netspy-drops".to_owned()).spawn(move || {
        while let Some(drops) = stream.next_batch_blocking() {
            store.apply_drops(drops);
        }
    })
}

/// The same with questions for names.
#[cfg_attr(not(any(feature = "server", feature = "cli")), allow(dead_code))]
pub(crate) fn store_dns(
    mut stream: DnsStream,
    store: &Arc<Store>,
) -> std::io::Result<JoinHandle<()>> {
    let store = Arc::clone(store);
    std::thread::Builder::new().name("netspy-dns".to_owned()).spawn(move || {
        while let Some(records) = stream.next_batch_blocking() {
            store.apply_dns(records);
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
