//! Equal lines under load are shown as one.

use std::collections::HashMap;

use super::super::render::record;
use super::super::render::screen::{DIM, Screen};
use super::super::render::table::{Cell, Cut};
use super::super::render::text::clean;
use super::super::render::units::{self, Clock};
use crate::event::{Connection, Outcome, Protocol};

/// Lines per period that are shown one by one; a reader does not follow more.
const SINGLE_LINES: usize = 25;

/// Of equal lines of one process, as many are shown one by one.
const EQUAL_LINES: u64 = 5;

/// Kinds of lines held at a time.
const MOST_GROUPS: usize = 4096;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    comm: Box<str>,
    /// `None` in a flood, in which processes of one name are shown as one.
    pid: Option<u32>,
    protocol: Protocol,
    remote: String,
    outcome: Outcome,
    error: String,
}

/// Connections that read the same.
#[derive(Debug)]
struct Group {
    order: usize,
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
    /// Lines of this period that were shown one by one.
    shown: HashMap<Key, u64>,
    singles: usize,
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

    /// A new period begins.
    pub fn begin_period(&mut self) {
        self.shown.clear();
        self.singles = 0;
    }

    /// Takes a connection that is to be shown as one of many; gives it back if it is to be shown
    /// by itself.
    pub fn take(&mut self, connection: Connection) -> Option<Connection> {
        let pid = connection.process.as_ref().map(|p| p.pid);
        let flood = self.singles >= SINGLE_LINES;
        let key = Key {
            comm: connection.process.as_ref().map(|p| &*p.comm).unwrap_or_default().into(),
            pid: if flood { None } else { pid },
            protocol: connection.protocol,
            remote: record::remote(&connection),
            outcome: connection.outcome,
            error: record::error(&connection),
        };
        if !flood && self.shown.get(&key).is_none_or(|n| *n < EQUAL_LINES) {
            *self.shown.entry(key).or_default() += 1;
            self.singles += 1;
            return Some(connection);
        }
        let (order, latency) = (self.groups.len(), connection.latency_us);
        let group = self.groups.entry(key).or_insert_with(|| Group {
            order,
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
        None
    }

    /// Everything that waits, as lines in the order in which their kinds first came.
    pub fn lines(&mut self, clock: &Clock, screen: &Screen) -> Vec<Vec<Cell>> {
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
        if self.pids > 1
            && let (Some(process), Some(cell)) = (&self.first.process, cells.get_mut(1))
        {
            cell.text = format!("{}[several]", clean(&process.comm));
            cell.cut = Cut::Before("[several]".len());
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
            *id = Cell::new("", DIM);
        }
        cells
    }
}
