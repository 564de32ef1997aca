//! What existed before capture began.

use std::cell::RefCell;
use std::io::{ErrorKind, Read};
use std::sync::atomic::Ordering;

use libbpf_rs::{Iter, RingBuffer};

use super::Driver;
use crate::capture::decode::{self, DecodeError, Raw};
use crate::capture::loader::Loaded;

/// Bytes read at a time: no less than the kernel writes at once.
const BYTES: usize = 1 << 20;

impl Driver<'_> {
    /// Hands it on. The ring is drained in between: what the programs saw of a socket after it was
    /// found is in there, and comes after it. Returns whether anybody still reads.
    pub(super) fn existing(
        &mut self,
        loaded: &Loaded<'_>,
        ring: &RingBuffer<'_>,
        pending: &RefCell<Vec<Result<Raw, DecodeError>>>,
    ) -> bool {
        let Some(link) = &loaded.existing else { return true };
        let mut iter = match Iter::new(link) {
            Ok(iter) => iter,
            Err(error) => return self.existing_failed(&format!("{error:#}")),
        };
        let mut bytes = vec![0; BYTES];
        while !self.shared.is_stopping() {
            match iter.read(&mut bytes) {
                Ok(0) => break,
                Ok(len) => {
                    let found = decode::decode_all(bytes.get(..len).unwrap_or_default());
                    let batch = self.batch(found.collect());
                    if !self.send(batch) || self.drain(ring, pending, loaded).is_none() {
                        return false;
                    }
                }
                // After a million files without a socket.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return self.existing_failed(&error.to_string()),
            }
        }
        true
    }

    fn existing_failed(&self, why: &str) -> bool {
        tracing::warn!("cannot list what existed before capture began: {why}");
        self.shared.updates_lost.fetch_add(1, Ordering::AcqRel);
        true
    }
}
