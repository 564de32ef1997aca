//! Recorded event streams: one JSON object per line.
//!
//! The first line says what the file is; then each version of a record is a line, in the order of
//! the changes; a recording that was finished ends with the books. Whatever is built on the
//! stream can so run, and be tested, without privileges.
//!
//! ```text
//! {"netspy_recording":1,"host":"web-1","started":"2026-11-22T10:00:00Z","version":"0.1.0"}
//! {"id":"1f0c22ab-3b9aca00-4d2","host":"web-1","time":…}
//! {"netspy_accounting":{"attempts":1,…}}
//! ```

mod read;
#[cfg(feature = "store")]
mod replay;
#[cfg(test)]
mod tests;
mod write;

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::accounting::Accounting;

pub use read::Reader;
#[cfg(feature = "store")]
pub use replay::{ReplayCapture, Replayed, replay};
pub use write::Writer;

/// The version of the form of the file.
pub const FORMAT: u32 = 1;

/// The longest line that is read.
pub const MAX_LINE: usize = 1 << 20;

/// The first line: what the file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the form of the file.
    pub netspy_recording: u32,
    /// Name of the host.
    pub host: Arc<str>,
    /// Start of the capture.
    #[serde(serialize_with = "crate::event::time::serialize")]
    pub started: Timestamp,
    /// Version of the program that recorded.
    pub version: String,
}

impl Header {
    /// The header of a recording of this host by this version.
    pub fn new(host: impl Into<Arc<str>>, started: Timestamp) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Header { netspy_recording: FORMAT, host: host.into(), started, version }
    }
}

/// The last line of a recording that was finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Footer {
    netspy_accounting: Accounting,
}

/// Why a recording, or a line of it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The file cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file to record into exists, or cannot be made.
    #[error("cannot record into {}: {}", path.display(), why_not(source))]
    Create {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Reading failed on the way.
    #[error("reading the recording failed after line {line}: {source}")]
    Read {
        /// The last line that was read.
        line: u64,
        /// The system's error.
        source: std::io::Error,
    },
    /// Writing failed.
    #[error("writing the recording failed: {0}")]
    Write(std::io::Error),
    /// What is wrong with a file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<RecordError>,
    },
    /// There is nothing in the file.
    #[error("the file is empty: it is no recording")]
    Empty,
    /// The first line is not the one that a recording begins with.
    #[error("the file is no netspy recording: {why}")]
    NotARecording {
        /// What is wrong with it.
        why: String,
    },
    /// A later version wrote the file.
    #[error("the recording is of format {found}; this version reads format {FORMAT}")]
    Version {
        /// The format of the file.
        found: u32,
    },
    /// A line is not a record. Those after it can still be read.
    #[error("line {line} is no record: {why}")]
    BadLine {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The file ends within a line: whoever recorded was cut off. All before it was read.
    #[error("the recording ends within line {line}; everything before it was read")]
    Torn {
        /// The number of the incomplete line.
        line: u64,
    },
}

/// Why a file could not be made, and the way out where there is one.
fn why_not(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            "the file exists, and a recording is never written over: name another file, or move \
             that one away"
                .to_owned()
        }
        _ => error.to_string(),
    }
}
