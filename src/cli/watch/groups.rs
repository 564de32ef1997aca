//! Equal lines under load are shown as one.

use std::collections::HashMap;

use jiff::Timestamp;

use super::super::render::record;
use super::super::render::screen::{DIM, Screen};
use super::super::render::table::Cell;
use super::super::render::units::{self, Clock};
use crate::event::{Connection, Outcome, Protocol};

/// Lines per period that are shown one by one; a reader does not follow more.
pub const SINGLE_LINES: usize = 25;

/// Kinds of lines held at a time.
const MOST_GROUPS: usize = 4096;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    comm: Box<str>,
    protocol: Protocol,
    remote: String,
    outcome: Outcome,
    error: String,
}

/// Connections that read the same.
#[derive(Debug)]
struct Group {
    order: usize,
    time: Timestamp,
    pid: Option<u32>,
    /// How often the pid changed from one to the next.
    pids: u64,
    count: u64,
    slowest_us: Option<u64>,
    first: Box<Connection>,
}

/// The lines that wait for the end of the period.
#[derive(Debug, Default)]
pub struct Groups {
    groups: HashMap<Key, Group>,
}

impl Groups {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Whether there are so many different lines that they should be shown now.
    pub fn is_full(&self) -> bool {
        self.groups.len() >= MOST_GROUPS
    }

    /// Adds a connection.
    pub fn add(&mut self, connection: Connection) {
        let key = Key {
            comm: connection.process.as_ref().map(|p| &*p.comm).unwrap_or_default().into(),
            protocol: connection.protocol,
            remote: record::remote(&connection),
            outcome: connection.outcome,
            error: record::error(&connection),
        };
        let (order, pid) = (self.groups.len(), connection.process.as_ref().map(|p| p.pid));
        let latency = connection.latency_us;
        let group = self.groups.entry(key).or_insert_with(|| Group {
            order,
            time: connection.time,
            pid,
            pids: 1,
            count: 0,
            slowest_us: None,
            first: Box::new(connection),
        });
        group.count += 1;
        group.slowest_us = group.slowest_us.max(latency);
        if group.pid != pid {
            group.pid = pid;
            group.pids += 1;
        }
    }

    /// Takes everything, as lines in the order in which their kinds first came.
    pub fn take(&mut self, clock: &Clock, screen: &Screen) -> Vec<Vec<Cell>> {
        let mut groups: Vec<Group> = self.groups.drain().map(|(_, group)| group).collect();
        groups.sort_unstable_by_key(|group| group.order);
        groups.iter().map(|group| group.cells(clock, screen)).collect()
    }
}

impl Group {
    fn cells(&self, clock: &Clock, screen: &Screen) -> Vec<Cell> {
        let mut cells = record::cells(&self.first, clock, screen);
        if self.count == 1 {
            return cells;
        }
        debug_assert_eq!(self.time, self.first.time);
        if self.pids > 1
            && let (Some(process), Some(cell)) = (&self.first.process, cells.get_mut(1))
        {
            let comm = super::super::render::text::clean(&process.comm);
            cell.text = format!("{comm}[several]");
        }
        if let Some(cell) = cells.get_mut(6) {
            let times = format!("×{}", units::count(self.count));
            cell.text = match self.slowest_us {
                // The figure that matters for many is the worst.
                Some(us) if screen.is_wide() => format!("{times} ≤{}", units::duration(us)),
                _ => times,
            };
        }
        if let Some(id) = cells.get_mut(7) {
            *id = Cell { text: String::new(), style: DIM };
        }
        cells
    }
}
