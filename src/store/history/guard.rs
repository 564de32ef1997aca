//! Reading files by crates of others, which answer what is damaged with an error, and some of what is
//! forged with a panic. Checksums keep the first from them; that is no reason for a server not to
//! start because of the second.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::segment::SegmentError;

/// What is read, or an error in place of a panic. What was being read is not used any further.
pub(super) fn guarded<T>(
    read: impl FnOnce() -> Result<T, SegmentError>,
) -> Result<T, SegmentError> {
    #[cfg(fuzzing)]
    let _within = fuzzing::Within::new();
    let gave_up = SegmentError::Foreign("it makes no sense to the library that reads it");
    catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(gave_up))
}

/// The fuzzer ends at every panic, caught or not, unless it is told of these.
#[cfg(fuzzing)]
pub(super) mod fuzzing {
    use std::cell::Cell;
    use std::panic::{set_hook, take_hook};
    use std::sync::Once;

    thread_local!(static GUARDED: Cell<bool> = const { Cell::new(false) });

    pub(super) struct Within;

    impl Within {
        pub(super) fn new() -> Self {
            static HOOK: Once = Once::new();
            HOOK.call_once(|| {
                let before = take_hook();
                set_hook(Box::new(move |panic| {
                    if !GUARDED.get() {
                        before(panic);
                    }
                }));
            });
            GUARDED.set(true);
            Within
        }
    }

    impl Drop for Within {
        fn drop(&mut self) {
            GUARDED.set(false);
        }
    }
}
