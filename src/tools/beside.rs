//! How answers end that are about what is kept beside connections: drops, and look-ups of names.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::parts;
use crate::accounting::Gap;
use crate::query::Window;
use crate::text;

/// What an answer has to say of itself.
#[derive(Debug)]
pub(super) struct Beside<'a> {
    /// What it is about, in the plural.
    pub(super) what: &'a str,
    pub(super) not_seen: Option<&'a str>,
    pub(super) total: u64,
    pub(super) newest_outside: Option<Timestamp>,
    pub(super) window: Window,
    /// Whether the books say that nothing can be missing; their figures, and the gaps.
    pub(super) is_complete: bool,
    pub(super) figures: Map<String, Value>,
    pub(super) gaps: &'a [Gap],
}

impl Beside<'_> {
    /// Hints, the window, and whether anything can be missing.
    pub(super) fn end(
        mut self,
        content: &mut Map<String, Value>,
        now: Timestamp,
        mut hints: Vec<String>,
    ) {
        if let Some(why) = self.not_seen {
            let why = text::short(why, 200);
            hints.insert(0, format!("{} are not seen here: {why}.", self.what));
        } else if self.total == 0 {
            hints.push(parts::nothing(self.newest_outside));
        }
        parts::put_hints(content, &hints);
        parts::put_window(content, self.window, now);
        let complete = self.is_complete && self.not_seen.is_none();
        content.insert("complete".to_owned(), complete.into());
        if !self.is_complete {
            parts::put_gaps(&mut self.figures, self.gaps);
            content.insert("accounting".to_owned(), self.figures.into());
        }
    }
}
