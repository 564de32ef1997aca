//! From nanoseconds since boot to wall-clock time.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

fn nanoseconds(clock: ClockId) -> i128 {
    let now = clock_gettime(clock);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

/// Now, in nanoseconds since boot (`CLOCK_BOOTTIME`), as the programs count.
pub(crate) fn boot_ns() -> u64 {
    u64::try_from(nanoseconds(ClockId::Boottime)).unwrap_or(0)
}

/// The distance between the two clocks. It changes when the wall clock is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    offset_ns: i128,
}

/// Smaller differences are the time between the two readings.
const NOISE_NS: i128 = 1_000_000;

impl Clock {
    /// Reads both clocks.
    pub(crate) fn new() -> Self {
        Clock { offset_ns: offset() }
    }

    /// Follows the wall clock if it was set. Small differences are left alone, so that times of
    /// one run stay comparable.
    pub(crate) fn refresh(&mut self) {
        let now = offset();
        if (now - self.offset_ns).abs() > NOISE_NS {
            self.offset_ns = now;
        }
    }

    /// The wall-clock time of a moment since boot.
    pub(crate) fn wall(&self, boot_ns: u64) -> Timestamp {
        Timestamp::from_nanosecond(self.offset_ns + i128::from(boot_ns))
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

fn offset() -> i128 {
    // The time of day as everything else here reads it: where something stands in between (faketime),
    // records and the windows that are asked for go by one clock.
    let wall = Timestamp::now().as_nanosecond();
    wall - nanoseconds(ClockId::Boottime)
}
