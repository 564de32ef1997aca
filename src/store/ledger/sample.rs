//! Figures of a moment, and of the moments around a window.

use jiff::Timestamp;

use crate::accounting::Counters;
use crate::store::archive::Progress;

/// A stretch in which the figures did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Sample {
    pub(in crate::store) first: Timestamp,
    pub(in crate::store) last: Timestamp,
    pub(in crate::store) counters: Counters,
    /// What was stored by then; nothing where that is not known.
    pub(in crate::store) progress: Progress,
}

impl Sample {
    /// Figures of one moment.
    pub(in crate::store) fn new(at: Timestamp, counters: Counters) -> Self {
        Sample { first: at, last: at, counters, progress: Progress::default() }
    }

    /// The figures when a capture begins.
    pub(in crate::store) fn zero(at: Timestamp) -> Self {
        Sample::new(at, Counters::default())
    }
}

/// What was read as `counters` before the first moment of a window: the latest figures of a moment
/// that was no later.
pub(super) fn before<'a>(
    mut samples: impl DoubleEndedIterator<Item = &'a Sample>,
    at: Timestamp,
) -> Counters {
    let sample = samples.rfind(|sample| sample.first <= at);
    sample.map(|sample| sample.counters).unwrap_or_default()
}

/// The first figures of a moment that was no earlier.
pub(super) fn after<'a>(
    mut samples: impl Iterator<Item = &'a Sample>,
    at: Timestamp,
) -> Option<Counters> {
    samples.find(|sample| sample.last >= at).map(|sample| sample.counters)
}
