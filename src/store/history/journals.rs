//! What journals take on disk, and how much they may: theirs, and that of the segments, is one limit.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::directory::{Directory, Name};
use super::{PATIENCE, Shared, lock};

/// Of the limit, a journal has one part in so many before its group is closed: the rest is for others
/// that wait to become segments, and for those.
const JOURNAL_PART: u64 = 8;
/// A journal may become so large whatever the limit is: segments of very few records are large for
/// what they hold.
const LEAST_JOURNAL: u64 = 1 << 20;
/// What journals may have together, whatever the limit is.
const LEAST_ROOM: u64 = 4 * LEAST_JOURNAL;

/// Bytes of each journal that is there, by number.
#[derive(Debug, Default)]
pub(super) struct Journals(Mutex<BTreeMap<u64, u64>>);

impl Journals {
    /// Those that an earlier process left.
    pub(super) fn found(directory: &Directory) -> Self {
        let files = directory.list().unwrap_or_default();
        let found = files.into_iter().filter_map(|(name, path)| match name {
            Name::Journal(number) => Some((number, length(&path)?)),
            _ => None,
        });
        Journals(Mutex::new(found.collect()))
    }

    pub(super) fn note(&self, number: u64, bytes: u64) {
        lock(&self.0).insert(number, bytes);
    }

    /// Looks at a journal that somebody else has changed.
    pub(super) fn look(&self, number: u64, path: &Path) {
        match length(path) {
            Some(bytes) => drop(lock(&self.0).insert(number, bytes)),
            None => self.forget(number),
        }
    }

    pub(super) fn forget(&self, number: u64) {
        lock(&self.0).remove(&number);
    }

    /// All of them together.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.0).values().sum()
    }
}

fn length(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|file| file.len())
}

impl Shared {
    /// Bytes of all files of records.
    pub(super) fn bytes(&self) -> u64 {
        let segments: u64 = self.segments().iter().map(|segment| segment.bytes).sum();
        segments + self.journals.bytes()
    }

    /// Whether a journal has become so large that its group should become a segment.
    pub(super) fn is_long(&self, journal_bytes: u64) -> bool {
        journal_bytes >= (self.options.limit_bytes / JOURNAL_PART).max(LEAST_JOURNAL)
    }

    /// Makes room for what a journal is to take: segments go, and what waits to become one is waited
    /// for. An error where that does not make enough.
    pub(super) fn make_room(&self, bytes: u64) -> io::Result<()> {
        self.let_go_for(bytes);
        let limit = self.options.limit_bytes.max(LEAST_ROOM);
        let patience = Instant::now() + PATIENCE;
        let mut groups = lock(&self.groups);
        while self.journals.bytes().saturating_add(bytes) > limit {
            let left = patience.saturating_duration_since(Instant::now());
            if left.is_zero() || groups.waiting.is_empty() || self.is_failing() {
                return Err(io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    format!(
                        "journals that are to become segments have all {limit} bytes that history may \
                         use (--disk-limit)"
                    ),
                ));
            }
            let waited = self.rotated_news.wait_timeout(groups, left);
            groups = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}
