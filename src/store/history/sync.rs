//! The thread that syncs journals. Who writes them does not wait for it: a disk that is busy with
//! others may take seconds to say that it has everything, and what is written is safe from the end
//! of the process without.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::{FLUSH_EVERY, Shared, lock};

/// What is written, and perhaps not on the disk yet.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    journals: Vec<Written>,
    /// A file has come.
    names: bool,
    /// No more come.
    closed: bool,
}

/// A journal, and what came into it since it was last synced.
#[derive(Debug)]
struct Written {
    path: PathBuf,
    file: Arc<File>,
    /// The last of the changes, and how many.
    last: u64,
    changes: u64,
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
        for journal in &unsynced.journals {
            if let Err(error) = journal.file.sync_data() {
                shared.fail("cannot sync", &journal.path, &error);
                // What was not written then never will be: memory has it for the segment.
                shared.note_lacking(journal.last, journal.changes);
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
    /// Has a journal synced to which so many changes were written, up to this one. It is new if these
    /// are the first.
    pub(super) fn sync_journal(
        &self,
        path: &Path,
        file: &Arc<File>,
        last: u64,
        new: u64,
        is_new: bool,
    ) {
        let mut unsynced = lock(&self.unsynced);
        unsynced.names |= is_new;
        match unsynced.journals.iter_mut().find(|known| Arc::ptr_eq(&known.file, file)) {
            Some(known) => {
                known.last = last;
                known.changes += new;
            }
            None => {
                let (path, file) = (path.to_owned(), Arc::clone(file));
                unsynced.journals.push(Written { path, file, last, changes: new });
                self.unsynced_news.notify_all();
            }
        }
    }

    /// Nothing more is to be synced than what there is now.
    pub(super) fn close_sync(&self) {
        lock(&self.unsynced).closed = true;
        self.unsynced_news.notify_all();
    }
}
