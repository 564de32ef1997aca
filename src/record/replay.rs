//! Bringing a recording into a store, with its books.

use std::io::BufRead;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::{Header, Reader, RecordError};
use crate::accounting::{Accounting, Counters};
use crate::capture::report::AttachReport;
use crate::query::CaptureHandle;
use crate::store::Store;

/// Records that are stored at a time.
const BATCH: usize = 1024;
/// Errors of single lines that are told; more are only counted.
const ERRORS: usize = 10;

/// Stands in for the capture where records come from a recording.
///
/// Its books balance: what was delivered is what the recording holds, what was lost or filtered
/// is what its own books say.
#[derive(Debug)]
pub struct ReplayCapture {
    since: Timestamp,
    name: String,
    counters: Mutex<Counters>,
}

impl ReplayCapture {
    /// For a recording with this header; `name` says where it comes from.
    pub fn new(header: &Header, name: impl Into<String>) -> Self {
        let counters = Mutex::default();
        ReplayCapture { since: header.started, name: name.into(), counters }
    }

    /// Counts attempts that were handed on.
    pub fn delivered(&self, attempts: u64) {
        let mut counters = self.lock();
        counters.delivered += attempts;
        counters.attempts += attempts;
    }

    /// Takes over what the recording says of what is not in it.
    pub fn recorded(&self, books: &Accounting) {
        let mut counters = self.lock();
        counters.filtered = books.filtered;
        counters.lost = books.lost;
        counters.updates_lost = books.updates_lost;
        counters.missed = books.missed;
        counters.attempts = counters.delivered + books.filtered + books.lost.total();
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CaptureHandle for ReplayCapture {
    fn counters(&self) -> Counters {
        *self.lock()
    }

    fn drain(&self) {}

    fn since(&self) -> Timestamp {
        self.since
    }

    fn report(&self) -> AttachReport {
        AttachReport::replay(&self.name)
    }

    fn stopped(&self) -> Option<String> {
        None
    }
}

/// What became of a recording.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Lines that were records.
    pub records: u64,
    /// Lines that were not.
    pub bad_lines: u64,
    /// The first errors. A recording that was cut off has one at its end.
    pub errors: Vec<RecordError>,
    /// Whether the recording was finished.
    pub finished: bool,
}

/// Reads a recording into a store.
pub fn replay<R: BufRead>(
    reader: &mut Reader<R>,
    store: &Store,
    capture: &ReplayCapture,
) -> Replayed {
    let mut replayed = Replayed::default();
    let mut batch = Vec::new();
    let hand_on = |batch: Vec<_>| capture.delivered(store.apply(batch).attempts);
    for item in &mut *reader {
        match item {
            Ok(connection) => {
                replayed.records += 1;
                batch.push(connection);
                if batch.len() >= BATCH {
                    hand_on(std::mem::take(&mut batch));
                }
            }
            Err(error) => {
                replayed.bad_lines += 1;
                let last = !matches!(error, RecordError::BadLine { .. });
                if last || replayed.errors.len() < ERRORS {
                    replayed.errors.push(error);
                }
            }
        }
    }
    hand_on(batch);
    if let Some(books) = reader.accounting() {
        replayed.finished = true;
        capture.recorded(books);
    }
    replayed
}
