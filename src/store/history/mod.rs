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

mod archive;
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
mod journals;
mod keep;
mod over_time;
mod packed;
mod part;
mod reconcile;
mod recovery;
mod rollup;
mod rotate;
mod schema;
mod segment;
mod segment_writer;
mod shared;
mod sync;
mod trouble;
mod unbooked;
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

use crate::event::Connection;
use crate::query::Recovery;
use crate::store::archive::{Archive, Group};
use crate::store::evictions::Evictions;
use crate::store::segment::Range;
use books::Books;
pub use check::HistoryReport;
use directory::Directory;
pub(in crate::store) use fields::{Fields, RemoteFields};
use journals::Journals;
use keep::Kept;
use part::Superseded;
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
    /// The journal lacks changes, or is long: its group should become a segment soon.
    wants_group: AtomicBool,
    journals: Journals,
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
        found.recovery.unbooked_changes = unbooked::add(&mut contents, &found);
        if found.recovery.unbooked_changes > 0 {
            tracing::error!(
                "{}: {}",
                options.directory.display(),
                trouble::unbooked(&found.recovery)
            );
        }
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
        let journals = Journals::found(&directory);
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
            journals,
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

impl Drop for History {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
