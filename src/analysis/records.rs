//! Records of the store, as the rules need them.

use jiff::Timestamp;

use super::{Seen, Tally};
use crate::event::Direction;
use crate::store::{Columns, Selection, Store, View};

impl Tally {
    /// Takes in the outbound attempts at IP addresses among what is selected.
    pub fn of(store: &Store, selection: &Selection, now: Timestamp) -> Tally {
        let mut tally = Tally::new(now);
        let columns = Columns::REMOTE_IP | Columns::PORTS | Columns::PROCESS_NAME;
        let columns = columns | Columns::DROP | Columns::REMOTE_NAME | Columns::LATENCY;
        store.for_each(selection, columns, &mut |view| {
            if let Some(seen) = seen(view) {
                tally.add(&seen);
            }
        });
        store.for_each_question(&mut |record| {
            if selection.filter.matches_question(record) {
                tally.add_question(record);
            }
        });
        tally
    }
}

fn seen(view: View<'_>) -> Option<Seen<'_>> {
    if !view.is_attempt() || view.direction() != Direction::Outbound {
        return None;
    }
    Some(Seen {
        id: view.id(),
        time_ns: view.time_ns(),
        outcome: view.outcome(),
        latency_us: view.latency_us(),
        remote: view.remote_ip()?,
        // Protocols that have no ports show 0.
        port: view.remote_port().filter(|port| *port != 0),
        process: view.process().map(|who| who.name()),
        is_named: view.remote_name().is_some(),
        dropped: view.dropped(),
    })
}
