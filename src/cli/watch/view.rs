//! What the live view shows, line by line.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use jiff::Timestamp;

use super::super::failure::note;
use super::super::render::answers::Printer;
use super::super::render::record;
use super::super::render::screen::{BAD, DIM, Screen};
use super::super::render::table::{Cell, Layout};
use super::super::render::text::{clean, wrap};
use super::super::render::{units, write_json};
use super::columns::{fit, layout};
use super::control::{Control, KEYS, Wish};
use super::groups::Groups;
use super::keys::Key;
use super::lines::Lines;
use crate::event::{Connection, Outcome};
use crate::query::{Filter, Follow};

/// The lines, and what is held back of them.
pub struct View<'a, 'b> {
    /// Where they go.
    pub printer: &'a mut Printer<'b>,
    json: bool,
    layout: Layout,
    /// What is a line of its own.
    pub lines: Lines,
    groups: Groups,
    left: Option<u64>,
    outcomes: BTreeMap<Outcome, u64>,
    /// What a person wants.
    pub control: Control,
    /// The line at the bottom of the terminal that is no connection.
    status: Option<String>,
}

impl<'a, 'b> View<'a, 'b> {
    /// Lines from now on.
    pub fn new(printer: &'a mut Printer<'b>, json: bool, limit: Option<u64>) -> Self {
        View {
            layout: layout(&printer.screen),
            printer,
            json,
            lines: Lines::new(Timestamp::now()),
            groups: Groups::default(),
            left: limit,
            outcomes: BTreeMap::new(),
            control: Control::default(),
            status: None,
        }
    }

    /// The titles.
    pub fn begin(&mut self) -> io::Result<()> {
        if !self.json {
            let header = self.layout.header(&record::TITLES[..7], &self.printer.screen);
            writeln!(self.printer.out, "{header}")?;
        }
        self.flush()
    }

    /// Whether as many lines were shown as were asked for.
    pub fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Shows what came, or holds it back.
    pub fn take(&mut self, item: Follow) -> io::Result<()> {
        let connection = match item {
            Follow::Change(change) => change.connection,
            Follow::Skipped { changes } => {
                self.clear_status()?;
                match changes.map(units::count) {
                    Some(n) => note(&format!("{n} changes came faster than they could be shown")),
                    None => note("changes of before the server was restarted are not shown"),
                }
                return Ok(());
            }
        };
        let new = self.lines.is_new(&connection);
        if new {
            *self.outcomes.entry(connection.outcome).or_default() += 1;
        }
        if self.json {
            self.count_down();
            return write_json(self.printer.out, &connection, false);
        }
        if !new {
            return Ok(());
        }
        self.count_down();
        match self.control.hold(connection) {
            Some(connection) => self.group(connection),
            None => Ok(()),
        }
    }

    /// Shows a connection, by itself or as one of many.
    fn group(&mut self, connection: Connection) -> io::Result<()> {
        match self.groups.take(connection) {
            Some(connection) => self.single(&connection),
            None if self.groups.is_full() => self.show_groups(),
            None => Ok(()),
        }
    }

    /// Does what a key asks for, as far as that is about what is shown.
    pub fn key(&mut self, key: Key) -> io::Result<Wish> {
        let wish = self.control.key(key);
        match wish {
            Wish::GoOn => self.go_on()?,
            Wish::Keys => self.remark(KEYS)?,
            Wish::Mark => self.remark("")?,
            Wish::Nothing | Wish::Filter(_) | Wish::Quit => {}
        }
        Ok(wish)
    }

    /// From here on other connections come: those that `filter` means, which was typed as `line`.
    pub fn filtered(&mut self, line: String, filter: &Filter) -> io::Result<()> {
        let mut text = match line.trim() {
            "" => "-- no filter".to_owned(),
            line => format!("-- filter: {}", clean(line)),
        };
        // What waits to be shown as one of many came before; so did what was held while it was typed,
        // but what is held on is shown after it.
        if self.control.typed(Some(line)) == Wish::GoOn {
            self.go_on()?;
        } else {
            let others = self.control.keep(|connection| filter.matches(connection));
            if !others.is_empty() {
                let lines = units::counted(others.len() as u64, "held line", "held lines");
                text.push_str(&format!("; {lines} left out"));
            }
            self.take_back(&others);
        }
        self.show_groups()?;
        self.remark(&format!("{text} --"))
    }

    /// What was typed is no filter: why, in as many lines as that takes.
    pub fn refused(&mut self, why: &str) -> io::Result<()> {
        let room = self.printer.screen.width.unwrap_or(100);
        let why = clean(why);
        wrap(&why, room).iter().try_for_each(|line| self.write(line, BAD))
    }

    /// Lines that are not shown after all.
    fn take_back(&mut self, lines: &[Outcome]) {
        self.left = self.left.map(|n| n.saturating_add(lines.len() as u64));
        for outcome in lines {
            if let Some(n) = self.outcomes.get_mut(outcome) {
                *n = n.saturating_sub(1);
            }
        }
        self.outcomes.retain(|_, n| *n > 0);
    }

    /// Shows what was held back.
    pub fn go_on(&mut self) -> io::Result<()> {
        let (dropped, held) = self.control.release();
        if dropped > 0 {
            let lines = units::counted(dropped, "line", "lines");
            self.remark(&format!("-- {lines} more than could be held --"))?;
        }
        held.into_iter().try_for_each(|connection| self.group(connection))
    }

    /// A line that is no connection.
    pub fn remark(&mut self, text: &str) -> io::Result<()> {
        self.write(text, DIM)
    }

    fn write(&mut self, text: &str, style: anstyle::Style) -> io::Result<()> {
        self.clear_status()?;
        writeln!(self.printer.out, "{}", self.printer.screen.paint(text, style))
    }

    /// Whether nothing has come yet that is shown.
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// Takes the line at the bottom away, before another one is written.
    pub fn clear_status(&mut self) -> io::Result<()> {
        match self.status.take() {
            Some(_) => {
                self.printer.out.write_all(b"\r\x1b[K")?;
                self.printer.out.flush()
            }
            None => Ok(()),
        }
    }

    fn show_status(&mut self) -> io::Result<()> {
        let status = self.control.status(self.printer.screen.width.unwrap_or(80));
        if status == self.status {
            return Ok(());
        }
        self.clear_status()?;
        if let Some(status) = &status {
            self.printer.out.write_all(status.as_bytes())?;
        }
        self.status = status;
        Ok(())
    }

    /// Fits the columns to a terminal that has another size now.
    pub fn resize(&mut self) -> io::Result<()> {
        if self.printer.screen.width.is_none() {
            return Ok(());
        }
        self.printer.screen = Screen::of_stdout();
        let layout = layout(&self.printer.screen);
        if layout != self.layout {
            self.layout = layout;
            self.clear_status()?;
            self.begin()?;
        }
        Ok(())
    }

    fn count_down(&mut self) {
        self.left = self.left.map(|n| n.saturating_sub(1));
    }

    /// Shows a connection by itself.
    pub fn single(&mut self, connection: &Connection) -> io::Result<()> {
        let cells = record::cells(connection, &self.printer.clock, &self.printer.screen);
        self.line(cells)
    }

    fn line(&mut self, mut cells: Vec<Cell>) -> io::Result<()> {
        fit(&mut cells, &self.printer.screen);
        self.clear_status()?;
        writeln!(self.printer.out, "{}", self.layout.line(&cells, &self.printer.screen))
    }

    fn show_groups(&mut self) -> io::Result<()> {
        for cells in self.groups.lines(&self.printer.clock, &self.printer.screen) {
            self.line(cells)?;
        }
        Ok(())
    }

    /// The end of a period: what was grouped is shown.
    pub fn period(&mut self) -> io::Result<()> {
        self.groups.begin_period();
        if !self.groups.is_empty() {
            self.show_groups()?;
            self.flush()?;
        }
        if self.control.status(0).is_some() {
            self.flush()?;
        }
        Ok(())
    }

    /// Brings everything to the screen, and the line at the bottom up to date.
    pub fn flush(&mut self) -> io::Result<()> {
        self.show_status()?;
        self.printer.out.flush()
    }

    /// What was shown, in a line.
    pub fn totals(&self, elapsed: Duration) -> String {
        let ended: u64 = self.outcomes.values().sum();
        let words: Vec<String> = self
            .outcomes
            .iter()
            .map(|(outcome, n)| format!("{} {outcome}", units::count(*n)))
            .collect();
        let words =
            if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) };
        let lines = units::counted(ended, "line", "lines");
        format!("{lines} in {}{words}", units::seconds(elapsed.as_secs()))
    }
}
