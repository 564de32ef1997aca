//! Bringing a recording into a store, with its books.

use std::io::BufRead;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::{Header, Reader, RecordError};
use crate::accounting::{Accounting, Counters};
use crate::capture::report::AttachReport;
use crate::query::{CaptureHandle, RecordingEnd};
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
    end: Mutex<Option<RecordingEnd>>,
}

impl ReplayCapture {
    /// For a recording with this header; `name` says where it comes from.
    pub fn new(header: &Header, name: impl Into<String>) -> Self {
        let counters = Mutex::default();
        let end = Mutex::default();
        ReplayCapture { since: header.started, name: name.into(), counters, end }
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

    /// Counts lines that could not be read: each may have been an attempt.
    fn unread(&self, lines: u64) {
        let mut counters = self.lock();
        counters.lost.undecodable += lines;
        counters.attempts += lines;
    }

    fn ended(&self, end: RecordingEnd) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
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

    fn recorded_until(&self) -> Option<RecordingEnd> {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
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
    let mut latest = reader.header().started;
    let mut broken = None;
    for item in &mut *reader {
        match item {
            Ok(connection) => {
                replayed.records += 1;
                latest = latest.max(connection.time);
                batch.push(connection);
                if batch.len() >= BATCH {
                    hand_on(std::mem::take(&mut batch));
                }
            }
            Err(error) => {
                replayed.bad_lines += 1;
                broken = match error {
                    RecordError::BadLine { .. } => None,
                    RecordError::Torn { .. } => Some("the recording ends in the middle of a line"),
                    _ => Some("the recording could not be read to its end"),
                };
                if broken.is_some() || replayed.errors.len() < ERRORS {
                    replayed.errors.push(error);
                }
            }
        }
    }
    hand_on(batch);
    let books = reader.accounting();
    if let Some(books) = books {
        replayed.finished = true;
        capture.recorded(books);
    }
    capture.unread(replayed.bad_lines - u64::from(broken.is_some()));
    capture.ended(RecordingEnd {
        time: books.map_or(latest, |books| books.until.max(latest)),
        broken: match books {
            Some(_) => broken,
            None => broken.or(Some("the recording was not finished")),
        },
    });
    replayed
}
