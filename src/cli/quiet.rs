//! Standard error, which keeps quiet while the whole screen is in use.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is kept for later at most; more has no reader.
const MOST_BYTES: usize = 64 * 1024;

/// What was written while nothing may be shown; `None` while it may.
static HELD: Mutex<Option<Vec<u8>>> = Mutex::new(None);

fn held() -> MutexGuard<'static, Option<Vec<u8>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on nothing is shown.
pub fn hold() {
    held().get_or_insert_default();
}

/// Whether nothing is shown at this time.
pub fn is_held() -> bool {
    held().is_some()
}

/// Shows what was held, and from here on everything.
pub fn release() {
    if let Some(bytes) = held().take() {
        // Nothing is done about a standard error that is closed.
        let _ = io::stderr().write_all(&bytes);
    }
}

/// Standard error, for messages and the log.
#[derive(Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match held().as_mut() {
            None => io::stderr().write(bytes),
            Some(kept) => {
                let room = MOST_BYTES.saturating_sub(kept.len()).min(bytes.len());
                kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
