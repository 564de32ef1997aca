//! What a person at the terminal has the live view do: wait, or show other connections.

use std::collections::VecDeque;

use super::keys::Key;
use crate::cli::render::text::{clean, truncate_middle};
use crate::cli::render::units;
use crate::event::{Connection, Outcome};

/// Lines that are kept while nothing is shown; of more, the latest.
const MOST_HELD: usize = 1_000;

/// Longer than any filter that is typed.
const LONGEST: usize = 1_000;

/// The keys, in a line.
pub const KEYS: &str = "Space pauses, / filters, q ends";

/// What a key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Nothing but, perhaps, another line at the bottom.
    Nothing,
    /// To see what was held back.
    GoOn,
    /// Other connections: those that this line stands for.
    Filter(String),
    /// The keys.
    Keys,
    /// An empty line, as a mark between what was and what comes.
    Mark,
    /// The end.
    Quit,
}

/// What is held back, and why.
#[derive(Debug, Default)]
pub struct Control {
    paused: bool,
    typing: Option<String>,
    /// The filter that was typed last.
    pub line: String,
    held: VecDeque<Connection>,
    /// Lines that were too many to hold.
    dropped: u64,
}

impl Control {
    /// Takes a connection that is not to be shown now; gives it back if it is.
    pub fn hold(&mut self, connection: Connection) -> Option<Connection> {
        if !self.paused && self.typing.is_none() {
            return Some(connection);
        }
        if self.held.len() >= MOST_HELD {
            self.held.pop_front();
            self.dropped += 1;
        }
        self.held.push_back(connection);
        None
    }

    /// Holds those on that fit, and gives the outcomes of the others.
    pub fn keep(&mut self, fits: impl Fn(&Connection) -> bool) -> Vec<Outcome> {
        let (held, others): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.held).into_iter().partition(fits);
        self.held = held;
        others.into_iter().map(|connection| connection.outcome).collect()
    }

    /// What was held, and how many lines before it were too many.
    pub fn release(&mut self) -> (u64, VecDeque<Connection>) {
        (std::mem::take(&mut self.dropped), std::mem::take(&mut self.held))
    }

    /// What a key asks for.
    pub fn key(&mut self, key: Key) -> Wish {
        let Some(typed) = &mut self.typing else { return self.command(key) };
        match key {
            Key::Char(c) if typed.len() < LONGEST => typed.push(c),
            Key::Char(_) => {}
            Key::Backspace => drop(typed.pop()),
            Key::Clear => typed.clear(),
            Key::Enter => return Wish::Filter(typed.clone()),
            Key::Escape => return self.typed(None),
        }
        Wish::Nothing
    }

    fn command(&mut self, key: Key) -> Wish {
        match key {
            Key::Char('p' | ' ') => {
                self.paused = !self.paused;
                if self.paused { Wish::Nothing } else { Wish::GoOn }
            }
            Key::Char('/' | 'f') => {
                self.typing = Some(self.line.clone());
                Wish::Nothing
            }
            Key::Char('?' | 'h') => Wish::Keys,
            Key::Char('q') => Wish::Quit,
            Key::Enter => Wish::Mark,
            _ => Wish::Nothing,
        }
    }

    /// The end of typing, with what is the filter from here on if it is another one.
    pub fn typed(&mut self, line: Option<String>) -> Wish {
        self.typing = None;
        if let Some(line) = line {
            self.line = line;
        }
        if self.paused { Wish::Nothing } else { Wish::GoOn }
    }

    /// The line at the bottom of the screen, if there is one, in so many columns.
    pub fn status(&self, columns: usize) -> Option<String> {
        let held = units::counted(self.held.len() as u64 + self.dropped, "line", "lines");
        let text = match &self.typing {
            Some(typed) => format!("filter: {typed}"),
            None if self.paused => format!("-- paused, {held} held; Space goes on --"),
            None => return None,
        };
        // The last column would wrap. Of what is typed the end counts.
        Some(truncate_middle(&clean(&text), columns.saturating_sub(1), columns / 2).into_owned())
    }
}
