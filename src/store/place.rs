//! The place of what is listed beside connections (drops, questions for names), and cursors into
//! such a list.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::query::QueryError;
use crate::query::drops::wrong_cursor;

/// The place of a record in a list: less is older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) time: i64,
    /// Of the id of the record, as is the rest.
    pub(super) start_ns: u64,
    pub(super) number: u32,
    pub(super) boot: u32,
}

impl Place {
    /// The cursor of a list of this kind that was asked for by this question (see [`question`]).
    pub(super) fn to_cursor(self, kind: char, question: u32) -> String {
        let Place { time, start_ns, number, boot } = self;
        format!("{kind}{time:016x}{start_ns:016x}{number:08x}{boot:08x}{question:08x}")
    }

    pub(super) fn from_cursor(cursor: &str, kind: char, question: u32) -> Result<Self, QueryError> {
        let foreign = || wrong_cursor("is not a cursor of this list");
        let digits = cursor.strip_prefix(kind).filter(|digits| {
            digits.len() == 56 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        let digits = digits.ok_or_else(foreign)?;
        let part = |from: usize, to: usize| {
            let part = digits.get(from..to).unwrap_or_default();
            u64::from_str_radix(part, 16).map_err(|_| foreign())
        };
        if part(48, 56)? != u64::from(question) {
            return Err(wrong_cursor("belongs to a list with other filters"));
        }
        Ok(Place {
            time: part(0, 16)? as i64,
            start_ns: part(16, 32)?,
            number: part(32, 40)? as u32,
            boot: part(40, 48)? as u32,
        })
    }
}

/// A hash of what is selected. What is not to count, as the window does not (`since=15m` is another
/// time on each page), is left out by who asks.
pub(super) fn question(selected: &impl Hash) -> u32 {
    let mut hasher = DefaultHasher::new();
    selected.hash(&mut hasher);
    hasher.finish() as u32
}
