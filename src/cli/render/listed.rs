//! Lists of what is seen beside connections (drops, questions for names), in every form of
//! [`Output`].

use std::io;

use jiff::Timestamp;
use serde::Serialize;

use super::answers::{Printer, beside, counted, gaps};
use super::screen::{DIM, ODD};
use super::table::{self, Cell, Steps};
use super::units::Clock;
use super::{Output, write_json};
use crate::accounting::Gap;

/// A list, and how its records are shown.
pub(super) struct Listed<'a, T> {
    pub(super) records: &'a [T],
    /// The sentence where there is none.
    pub(super) nothing: &'a str,
    pub(super) newest_outside_window: Option<Timestamp>,
    /// How to ask for what is not shown.
    pub(super) more: Option<String>,
    /// What a reader must know of the books.
    pub(super) incomplete: Option<String>,
    pub(super) titles: &'a [&'a str],
    pub(super) steps: Steps,
    /// With times to the fraction of a second, if so.
    pub(super) cells: fn(&T, &Clock, bool) -> Vec<Cell>,
    pub(super) csv_titles: &'a str,
    pub(super) csv: fn(&T) -> String,
}

impl Printer<'_> {
    /// A list, which is a part of this document.
    pub(super) fn listed<T: Serialize>(
        &mut self,
        document: &impl Serialize,
        listed: Listed<'_, T>,
        output: Output,
    ) -> io::Result<()> {
        match output {
            Output::Table => return self.listed_table(listed),
            Output::Json => return write_json(self.out, document, true),
            Output::Jsonl => {
                listed.records.iter().try_for_each(|r| write_json(self.out, r, false))?;
            }
            Output::Csv => {
                writeln!(self.out, "{}", listed.csv_titles)?;
                let line = |r| writeln!(self.out, "{}", (listed.csv)(r));
                listed.records.iter().try_for_each(line)?;
            }
        }
        beside(self.out, listed.more.into_iter().chain(listed.incomplete))
    }

    fn listed_table<T>(&mut self, listed: Listed<'_, T>) -> io::Result<()> {
        if listed.records.is_empty() {
            writeln!(self.out, "{}", listed.nothing)?;
            if let Some(time) = listed.newest_outside_window {
                let time = self.clock.full(time);
                writeln!(self.out, "The newest match outside the time asked for was {time}.")?;
            }
        } else {
            let fine = self.screen.is_wide();
            let cells = |r| (listed.cells)(r, &self.clock, fine);
            let rows: Vec<_> = listed.records.iter().map(cells).collect();
            table::write(self.out, &self.screen, listed.titles, &rows, listed.steps)?;
            if let Some(more) = listed.more {
                writeln!(self.out, "{}", self.screen.paint(&more, DIM))?;
            }
        }
        match listed.incomplete {
            Some(warning) => writeln!(self.out, "{}", self.screen.paint(&warning, ODD)),
            None => Ok(()),
        }
    }
}

/// The sentence for books from which something may be missing, with every cause.
pub(super) fn incomplete(counts: &[(u64, &str)], down: &[Gap], clock: &Clock) -> String {
    let mut causes = counted(counts);
    causes.extend(gaps(down, clock));
    if causes.is_empty() {
        causes.push("the server names no cause".to_owned());
    }
    format!("Incomplete: {}.", causes.join("; "))
}
