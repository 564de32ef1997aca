//! History: records that outlive the process, in a directory.
//!
//! ```text
//! Store::apply ─> queue ─> journal N (Arrow IPC, a batch at least every second)
//!        └ group of segments, when enough changes have come ─> segment N (Parquet) ─> journal N goes
//! ```
//!
//! A segment is made from memory, under another name, and renamed when it is on disk; the journal
//! with its number goes only then. What a process left behind as journals is read at the next start,
//! and becomes a segment. Files are never changed: a later version of a record is a further row,
//! and the row before it is hidden.

mod block;
mod books;
mod changes;
mod check;
mod columns;
mod decode;
mod directory;
mod encode;
mod fields;
mod find;
mod footer;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod guard;
mod hybrid;
mod journal;
mod keep;
mod part;
mod reconcile;
mod recovery;
mod rotate;
mod schema;
mod segment;
mod segment_writer;
mod shared;
mod sync;
mod trouble;
mod write;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::event::{Connection, ConnectionId};
use crate::query::{HistoryStatus, Recovery};
use crate::store::archive::{Archive, Group, Noted, Part};
use crate::store::evictions::Evictions;
use crate::store::ledger::Past;
use crate::store::segment::{Range, Segment as MemorySegment};
use books::Books;
pub use check::HistoryReport;
use directory::Directory;
pub(in crate::store) use fields::{Fields, RemoteFields};
use keep::Kept;
use part::{DiskPart, Superseded};
use segment::Segment;
use sync::Unsynced;
use trouble::Trouble;

/// Changes that make a record batch of a journal.
const FLUSH_CHANGES: usize = 5_000;
/// A journal is at most so far behind, and a little.
const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Changes that wait to be written; who brings more waits. As many again are being written.
const QUEUE_CHANGES: usize = FLUSH_CHANGES;
/// For how long somebody who brings changes, or needs memory, waits for the disk. Tests count every
/// record, and may run where others keep the disk busy.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 1 });
/// How often it is tried again where the disk refused.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Changes are numbered on from a clock that counts microseconds: numbers beyond this are none.
const MAX_CHANGE: u64 = u64::MAX / 2;

/// Why the books of a capture end before it did.
const UNWRITTEN: &str = "the disk had refused history until the server was stopped";

/// Where history lies, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryOptions {
    /// The directory.
    pub directory: PathBuf,
    /// Bytes that its files may have.
    pub limit_bytes: u64,
    /// How old records may become.
    pub max_age: Option<Duration>,
}

impl HistoryOptions {
    /// Makes the directory where there is none, for this user and group: who opens the store may
    /// lack the privileges to. One that is there stays as it is.
    pub fn make_directory(&self, owner: Option<(u32, u32)>) -> Result<(), HistoryError> {
        Directory::make(&self.directory, owner)
    }
}

/// Why there can be no history.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The directory is held by another server.
    #[error("{}: another server keeps its history there; stop it, or name another directory (--data-dir)", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused something about the directory.
    #[error("{what} {}: {source}; history needs a directory that it may write to (--data-dir)", path.display())]
    Directory {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Changes, and what they belong to, in their order.
#[derive(Debug)]
enum Item {
    Changes(u64, Arc<Vec<Connection>>),
    Group(Group),
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    changes: usize,
    /// When the oldest of the changes came.
    since: Option<Instant>,
    closed: bool,
    /// It was said what could not be written to the end.
    told: bool,
}

/// Groups that are to become segments, with their numbers.
#[derive(Debug, Default)]
struct Groups {
    waiting: VecDeque<(u64, Group)>,
    /// No more come.
    closed: bool,
    /// Up to which change memory has given up what is not in a segment by then.
    given_up: u64,
}

impl Groups {
    /// Takes out of a group what was given up, wherever the group was at that time.
    fn without_given_up(&self, group: &mut Group) {
        group.older.retain(|segment| segment.after >= self.given_up);
        if group.last <= self.given_up {
            group.segments.clear();
        }
    }
}

/// Records that memory has let go of: their times, how many, and the changes of their group.
type GivenUp = (Range<i64>, u64, (u64, u64));

/// What the threads and those who ask share.
#[derive(Debug)]
struct Shared {
    directory: Directory,
    options: HistoryOptions,
    queue: Mutex<Queue>,
    /// There is something in the queue, or room in it.
    moved: Condvar,
    groups: Mutex<Groups>,
    /// A group has come, or has become a segment.
    rotated_news: Condvar,
    /// When the oldest of what is being written came.
    writing_since: Mutex<Option<Instant>>,
    unsynced: Mutex<Unsynced>,
    /// There is something to sync.
    unsynced_news: Condvar,
    /// By number, which is the order of their changes.
    segments: RwLock<Arc<Vec<Arc<Segment>>>>,
    /// By boot: the latest start in the segments.
    starts: RwLock<Vec<(u32, u64)>>,
    superseded: Arc<Superseded>,
    rotated: AtomicU64,
    trouble: Mutex<Trouble>,
    failing: AtomicBool,
    /// A segment cannot be written: until one can, it does not help that there is room for less.
    segment_refused: AtomicBool,
    /// The journal lacks changes: its group should become a segment soon.
    wants_group: AtomicBool,
    journal_bytes: AtomicU64,
    /// Up to which change the journals go.
    written: AtomicU64,
    latest: AtomicU64,
    journaled: AtomicU64,
    unwritten: AtomicU64,
    /// What no file has since the disk refused it: its last change, and how many.
    lacking: Mutex<(u64, u64)>,
    evicted: AtomicU64,
    evictions: Mutex<Evictions>,
    /// What was let go of the files while memory had it.
    kept_in_memory: Mutex<Vec<Kept>>,
    /// Up to which change memory has let go.
    released: AtomicU64,
    books: Mutex<Books>,
    /// What memory has let go of that is in no segment, and not in the books yet.
    given_up: Mutex<Vec<GivenUp>>,
    recovery: Mutex<Recovery>,
}

/// Records in a directory.
#[derive(Debug)]
pub(super) struct History {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the last process left in its journals: records with the numbers of their changes.
pub(super) type Left = Vec<(u64, Connection)>;

/// The same, with the change before all of them.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) after: u64,
    pub(super) records: Left,
}

impl History {
    /// Takes the directory, and reads what is there.
    pub(super) fn open(options: &HistoryOptions) -> Result<(Self, Taken), HistoryError> {
        let directory = Directory::take(&options.directory)?;
        let mut found = recovery::recover(&directory)?;
        let first = found.next_number;
        let mut contents = Books::read(&directory);
        if let Some(why) = &contents.damage {
            recovery::keep_books_aside(&directory, why, &mut found.recovery);
        }
        let missing = reconcile::missing(&contents, &found);
        reconcile::add_found(&mut contents, &found);
        let mut books = Books::open(&directory, contents, options.max_age, found.is_nothing());
        for damage in recovery::damage(&directory, &found) {
            books.damaged(damage);
        }
        for (gap, changes) in missing {
            tracing::error!("{}: {}", options.directory.display(), gap.why);
            found.recovery.missing_changes += changes.1 - changes.0;
            books.damaged(gap);
            books.account(changes);
        }
        let shared = Arc::new(Shared::new(directory, options.clone(), found.segments, books));
        *lock(&shared.recovery) = found.recovery;
        shared.keep_limits();
        let spawn = |name: &str, run: fn(&Shared, u64)| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || run(&shared, first)).map_err(|source| HistoryError::Directory {
                what: "cannot start a thread for",
                path: options.directory.clone(),
                source,
            })
        };
        let threads = vec![
            spawn("netspy-journal", write::run)?,
            spawn("netspy-segments", |shared, _| rotate::run(shared))?,
            spawn("netspy-sync", |shared, _| sync::run(shared))?,
        ];
        let taken = Taken { after: found.left_after, records: found.left };
        Ok((History { shared, threads: Mutex::new(threads) }, taken))
    }

    /// The last change that is known.
    pub(super) fn last(&self) -> u64 {
        self.shared.rotated.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn new(
        directory: Directory,
        options: HistoryOptions,
        segments: Vec<Arc<Segment>>,
        books: Books,
    ) -> Self {
        let mut evictions = Evictions::default();
        books.evicted().iter().for_each(|gone| evictions.add(gone.times, gone.records));
        let last = segments.iter().map(|s| s.facts.last).max().unwrap_or(0);
        let shared = Shared {
            directory,
            options,
            queue: Mutex::default(),
            moved: Condvar::new(),
            groups: Mutex::default(),
            rotated_news: Condvar::new(),
            writing_since: Mutex::default(),
            unsynced: Mutex::default(),
            unsynced_news: Condvar::new(),
            segments: RwLock::default(),
            starts: RwLock::default(),
            superseded: Arc::default(),
            rotated: AtomicU64::new(last),
            trouble: Mutex::default(),
            failing: AtomicBool::new(false),
            segment_refused: AtomicBool::new(false),
            wants_group: AtomicBool::new(false),
            journal_bytes: AtomicU64::new(0),
            written: AtomicU64::new(last),
            latest: AtomicU64::new(last),
            journaled: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            lacking: Mutex::default(),
            evicted: AtomicU64::new(0),
            evictions: Mutex::new(evictions),
            kept_in_memory: Mutex::default(),
            released: AtomicU64::new(last),
            books: Mutex::new(books),
            given_up: Mutex::default(),
            recovery: Mutex::default(),
        };
        for segment in &segments {
            shared.note_starts(segment);
        }
        *shared.segments.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(segments);
        shared
    }

    fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_segments(&self, change: impl FnOnce(&mut Vec<Arc<Segment>>)) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Vec::clone(&segments);
        change(&mut changed);
        *segments = Arc::new(changed);
    }

    fn note_starts(&self, segment: &Segment) {
        let mut starts = self.starts.write().unwrap_or_else(PoisonError::into_inner);
        for (boot, _, max) in &segment.facts.starts {
            match starts.iter_mut().find(|(known, _)| known == boot) {
                Some((_, latest)) => *latest = (*latest).max(*max),
                None => starts.push((*boot, *max)),
            }
        }
    }
}

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
        let segment_bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let latest = shared.latest.load(Ordering::Relaxed);
        // What the queue refused is not written, and is in a file when its segment is.
        let done = shared.written.load(Ordering::Relaxed).max(self.rotated());
        let queued = latest.saturating_sub(done);
        HistoryStatus {
            directory: shared.directory.path().display().to_string(),
            segments: segments.len() as u64,
            records: self.records(),
            bytes: segment_bytes + shared.journal_bytes.load(Ordering::Relaxed),
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

impl Drop for History {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
