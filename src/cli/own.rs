//! Capture in this process, for a host on which no server runs.

use std::sync::Arc;

use crate::capture::error::CaptureError;
use crate::query::Source;

/// A running capture and the store that it fills. Dropping it detaches everything.
#[derive(Debug)]
pub struct OwnCapture {}

impl OwnCapture {
    /// Loads and attaches.
    pub fn start(_no_unix: bool) -> Result<Self, CaptureError> {
        Err(CaptureError::NoBtf)
    }

    /// Answers from what was captured.
    pub fn source(&self) -> Arc<dyn Source> {
        unreachable!()
    }

    /// Ends capture once everything captured so far is in the store.
    pub fn finish(&self) {}

    /// Why capture stopped by itself, if it did.
    pub fn stopped(&self) -> Option<String> {
        None
    }
}
