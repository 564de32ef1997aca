//! What is not as it should be, and how that is told.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Shared, lock};
use crate::query::Recovery;

/// What has not been written for so long is told.
const STALLED: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// Why nothing is written.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    why: Option<String>,
    since: Option<Instant>,
}

impl Shared {
    /// Notes that the disk refuses, and says so once.
    pub(super) fn fail(&self, what: &str, path: &Path, error: &dyn std::fmt::Display) {
        let why = format!("{what} {}: {error}", path.display());
        let mut trouble = lock(&self.trouble);
        if trouble.why.is_none() {
            tracing::error!("history stops here, capture goes on: {why}");
            trouble.since = Some(Instant::now());
        }
        trouble.why = Some(why);
        self.failing.store(true, Ordering::SeqCst);
        // Nobody waits for a disk that refuses.
        self.moved.notify_all();
        self.rotated_news.notify_all();
    }

    /// Notes that the disk takes again what is written.
    pub(super) fn works(&self) {
        let mut trouble = lock(&self.trouble);
        if trouble.why.take().is_some() {
            let stopped = trouble.since.take().map_or(0, |since| since.elapsed().as_secs());
            tracing::info!("history goes on, after {stopped} s");
        }
        self.failing.store(false, Ordering::SeqCst);
    }

    /// Notes changes that the journal lacks, up to this one: the segment that is made from memory,
    /// which should come soon, will have them.
    pub(super) fn note_lacking(&self, last: u64, count: u64) {
        self.unwritten.fetch_add(count, Ordering::Relaxed);
        let mut lacking = lock(&self.lacking);
        *lacking = (lacking.0.max(last), lacking.1 + count);
        self.wants_group.store(true, Ordering::SeqCst);
    }

    /// How many changes are in no file since the disk refused them, as long as memory has them.
    pub(super) fn lacking(&self) -> u64 {
        let given_up = lock(&self.groups).given_up;
        let done = self.rotated.load(Ordering::SeqCst).max(given_up);
        let mut lacking = lock(&self.lacking);
        if lacking.0 <= done {
            lacking.1 = 0;
        }
        lacking.1.min(lacking.0.saturating_sub(done))
    }

    /// Says so where nothing has been written for long, though nothing was refused.
    fn stalled(&self) -> Option<String> {
        let writing = *lock(&self.writing_since);
        let since = writing.or_else(|| lock(&self.queue).since)?.elapsed();
        let path = self.directory.path().display();
        (since >= STALLED)
            .then(|| format!("{path}: the disk has taken nothing for {} s", since.as_secs()))
    }

    /// Whether what came more than a second ago may not be in a file yet.
    pub(super) fn is_behind(&self) -> bool {
        let writing = *lock(&self.writing_since);
        let since = [writing, lock(&self.queue).since];
        let late = |since: &Instant| since.elapsed() >= Duration::from_secs(1);
        self.is_failing() || self.lacking() > 0 || since.iter().flatten().any(late)
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::SeqCst)
    }

    /// Why nothing is written, if so.
    pub(super) fn stopped(&self) -> Option<String> {
        let refused = lock(&self.trouble).why.clone();
        refused.or_else(|| self.stalled())
    }

    /// That, or what cannot be shown.
    pub(super) fn trouble_of_all(&self) -> Option<String> {
        if let Some(why) = self.stopped() {
            return Some(format!("history is not written: {why}"));
        }
        let segments = self.segments();
        let unreadable = segments.iter().filter(|segment| segment.is_unreadable()).count();
        if unreadable > 0 {
            return Some(format!(
                "history lacks {unreadable} of its segments, which cannot be read"
            ));
        }
        let recovery = lock(&self.recovery);
        let Some(first) = recovery.set_aside.first() else {
            let missing = recovery.missing_changes;
            if missing == 0 {
                return (recovery.unbooked_changes > 0).then(|| unbooked(&recovery));
            }
            return Some(format!(
                "history lacks {missing} changes that were written: a file is gone, or cut"
            ));
        };
        let more = match recovery.set_aside.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("history lacks what the start found damaged and set aside: {first}{more}"))
    }
}

/// That there are files, and no books of their time.
pub(super) fn unbooked(recovery: &Recovery) -> String {
    format!(
        "history has {} changes of a time that its books say nothing of: the file `books` was removed or \
         cut, or could not be written; no answer about that time is complete",
        recovery.unbooked_changes
    )
}
