//! The thread that syncs journals. Who writes them does not wait for it: a disk that is busy with
//! others may take seconds to say that it has everything, and what is written is safe from the end
//! of the process without.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::{FLUSH_EVERY, Shared, lock};

/// What is written, and perhaps not on the disk yet.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    journals: Vec<(PathBuf, Arc<File>)>,
    /// A file has come.
    names: bool,
    /// No more come.
    closed: bool,
}

impl Unsynced {
    fn is_empty(&self) -> bool {
        self.journals.is_empty() && !self.names
    }
}

/// Syncs until no more comes.
pub(super) fn run(shared: &Shared) {
    loop {
        let unsynced = next(shared);
        for (path, journal) in &unsynced.journals {
            if let Err(error) = journal.sync_data() {
                shared.fail("cannot sync", path, &error);
                // What was not written then never will be: memory has it for the segment.
                shared.wants_group.store(true, Ordering::SeqCst);
            }
        }
        if unsynced.names
            && let Err(error) = shared.directory.sync()
        {
            shared.fail("cannot sync", shared.directory.path(), &error);
        }
        if unsynced.closed {
            return;
        }
        // What comes meanwhile is synced together.
        let unsynced = lock(&shared.unsynced);
        let wait = shared.unsynced_news.wait_timeout_while(unsynced, FLUSH_EVERY, |u| !u.closed);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Waits for what is to be synced, or the end.
fn next(shared: &Shared) -> Unsynced {
    let unsynced = lock(&shared.unsynced);
    let nothing = |unsynced: &mut Unsynced| unsynced.is_empty() && !unsynced.closed;
    let waited = shared.unsynced_news.wait_while(unsynced, nothing);
    let mut unsynced = waited.unwrap_or_else(PoisonError::into_inner);
    let closed = unsynced.closed;
    Unsynced { closed, ..std::mem::take(&mut *unsynced) }
}

impl Shared {
    /// Has a journal synced that was written to.
    pub(super) fn sync_journal(&self, path: &Path, journal: &Arc<File>, is_new: bool) {
        let mut unsynced = lock(&self.unsynced);
        unsynced.names |= is_new;
        if !unsynced.journals.iter().any(|(_, known)| Arc::ptr_eq(known, journal)) {
            unsynced.journals.push((path.to_owned(), Arc::clone(journal)));
            self.unsynced_news.notify_all();
        }
    }

    /// Nothing more is to be synced than what there is now.
    pub(super) fn close_sync(&self) {
        lock(&self.unsynced).closed = true;
        self.unsynced_news.notify_all();
    }
}
