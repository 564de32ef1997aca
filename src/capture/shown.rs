//! Which attempts were shown before: each counts once, however often its record comes.
//!
//! The events of one socket come in order, and say themselves whether they are updates. A sweep
//! puts records of what waits beside them, at any time: it may show an attempt whose outcome is
//! on its way, or even just ahead of it in the ring. What tells the two apart is that everything
//! that a sweep can have been overtaken by is in the ring when the sweep ends, and so in the drain
//! after it.

use foldhash::{HashSet, HashSetExt};

use super::decoder::Decoded;
use crate::event::{ConnectionId, State};

/// Attempts remembered; only outcomes that were lost could make it more than there are sockets.
const REMEMBERED: usize = 1 << 20;

/// What a record is to those who have seen the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// The attempt was not shown before.
    First,
    /// A later version, or of what is no attempt.
    Update,
    /// Overtaken by a later version that was shown already.
    Outdated,
}

/// What was shown by sweeps, and since the last one.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Shown by a sweep, and not closed or failed since.
    by_sweep: HashSet<ConnectionId>,
    /// Shown by their own events, in the drain after a sweep.
    since_sweep: Option<HashSet<ConnectionId>>,
}

impl Shown {
    /// A sweep runs.
    pub(super) fn swept(&mut self) {
        self.since_sweep = Some(HashSet::new());
    }

    /// The ring is empty.
    pub(super) fn drained(&mut self) {
        self.since_sweep = None;
    }

    /// Takes note of a record, in the order of the ring.
    pub(super) fn note(&mut self, decoded: &Decoded) -> Sight {
        let id = decoded.connection.id;
        let first = if decoded.is_attempt { Sight::First } else { Sight::Update };
        if decoded.is_swept {
            if self.since_sweep.as_ref().is_some_and(|shown| shown.contains(&id)) {
                return Sight::Outdated;
            }
            if self.by_sweep.len() >= REMEMBERED {
                self.by_sweep.clear();
            }
            // An update where a sweep came upon an end that no program has seen.
            let is_new = self.by_sweep.insert(id) && !decoded.is_update;
            return if is_new { first } else { Sight::Update };
        }
        if let Some(shown) = &mut self.since_sweep {
            shown.insert(id);
        }
        let was_swept = !self.by_sweep.is_empty() && self.by_sweep.contains(&id);
        if was_swept && decoded.connection.state == State::Closed {
            self.by_sweep.remove(&id);
        }
        if decoded.is_update || was_swept { Sight::Update } else { first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_records::{info, refused};

    fn record(is_swept: bool) -> Decoded {
        let connection = refused(1, &info(1, "x"));
        Decoded { connection, is_attempt: true, is_update: false, is_swept }
    }

    #[test]
    fn an_outcome_after_a_sweep_is_an_update() {
        let mut shown = Shown::default();
        shown.swept();
        assert_eq!(shown.note(&record(true)), Sight::First);
        shown.drained();
        assert_eq!(shown.note(&record(false)), Sight::Update);
        assert!(shown.by_sweep.is_empty());
    }

    #[test]
    fn a_sweep_that_was_overtaken_by_the_outcome_shows_nothing() {
        let mut shown = Shown::default();
        shown.swept();
        assert_eq!(shown.note(&record(false)), Sight::First);
        assert_eq!(shown.note(&record(true)), Sight::Outdated);
    }

    #[test]
    fn an_end_that_only_a_sweep_came_upon_is_an_update_of_what_was_shown() {
        let mut shown = Shown::default();
        assert_eq!(shown.note(&record(false)), Sight::First);
        shown.swept();
        let end = Decoded { is_update: true, ..record(true) };
        assert_eq!(shown.note(&end), Sight::Update);
    }

    #[test]
    fn what_is_no_attempt_is_never_counted_as_one() {
        let mut shown = Shown::default();
        for is_swept in [false, true] {
            let listener = Decoded { is_attempt: false, ..record(is_swept) };
            assert_eq!(shown.note(&listener), Sight::Update);
        }
    }
}
