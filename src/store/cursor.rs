//! The order of lists, and cursors into it.
//!
//! A cursor holds the time and the id of the last record of a page: records that arrive later
//! move nothing on the pages that follow. It also holds a hash of the question, as its place
//! means nothing in a list of other records.

use super::matcher::Selection;
use super::place;
use super::row::Row;
use crate::event::ConnectionId;
use crate::query::filter::invalid;
use crate::query::{QueryError, Sort};

/// The place of a record in a list: less comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    time: i64,
    start_ns: u64,
    tid: u32,
    boot: u32,
}

impl Rank {
    pub(super) fn of(row: &Row, sort: Sort) -> Self {
        Rank::new(row.time, row.id(), sort)
    }

    pub(super) fn new(time: i64, id: ConnectionId, sort: Sort) -> Self {
        let ConnectionId { start_ns, tid, boot } = id;
        Rank { time, start_ns, tid, boot }.turned(sort)
    }

    /// Whether no row of this time can come after `self`.
    pub(super) fn is_past(self, time: i64, sort: Sort) -> bool {
        Rank::bound(time, sort).time < self.time
    }

    /// The first place that a row of this time, and with the given order, can have.
    pub(super) fn bound(time: i64, sort: Sort) -> Self {
        match sort {
            Sort::Oldest => Rank { time, start_ns: 0, tid: 0, boot: 0 },
            Sort::Newest => Rank { time: !time, start_ns: 0, tid: 0, boot: 0 },
        }
    }

    /// Inverting all bits turns the order of a number round.
    fn turned(self, sort: Sort) -> Self {
        match sort {
            Sort::Oldest => self,
            Sort::Newest => Rank {
                time: !self.time,
                start_ns: !self.start_ns,
                tid: !self.tid,
                boot: !self.boot,
            },
        }
    }

    /// The cursor of a list that was asked for by this question (see [`question`]).
    pub(super) fn to_cursor(self, sort: Sort, question: u32) -> String {
        let Rank { time, start_ns, tid, boot } = self.turned(sort);
        format!("2{}{time:016x}{start_ns:016x}{tid:08x}{boot:08x}{question:08x}", letter(sort))
    }

    pub(super) fn from_cursor(cursor: &str, sort: Sort, question: u32) -> Result<Self, QueryError> {
        const ACCEPTED: &str = "the next_cursor of an earlier answer to the same question";
        let wrong = |problem| invalid("cursor", problem, ACCEPTED);
        let plain = cursor.len() == 58
            && cursor.bytes().skip(2).all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !plain || !cursor.starts_with('2') {
            return Err(wrong("is not a cursor of this server"));
        }
        if !cursor[1..].starts_with(letter(sort)) {
            return Err(wrong("belongs to a list in another order"));
        }
        let part = |from: usize, to: usize| {
            let digits = cursor.get(from..to).unwrap_or_default();
            u64::from_str_radix(digits, 16).map_err(|_| wrong("is not a cursor of this server"))
        };
        if part(50, 58)? != u64::from(question) {
            return Err(wrong("belongs to a list with other filters"));
        }
        let rank = Rank {
            time: part(2, 18)? as i64,
            start_ns: part(18, 34)?,
            tid: part(34, 42)? as u32,
            boot: part(42, 50)? as u32,
        };
        Ok(rank.turned(sort))
    }
}

/// A hash of what is selected, but for the window: `since=15m` is another time on each page.
pub(super) fn question(selection: &Selection) -> u32 {
    let mut filter = selection.filter.clone();
    (filter.since, filter.until) = (None, None);
    place::question(&(filter.to_pairs(), &selection.command, selection.attempts_only))
}

fn letter(sort: Sort) -> char {
    match sort {
        Sort::Newest => 'n',
        Sort::Oldest => 'o',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place_and_garbage_leads_nowhere() {
        for sort in [Sort::Newest, Sort::Oldest] {
            let rank = Rank { time: -5, start_ns: u64::MAX, tid: 7, boot: 9 }.turned(sort);
            let text = rank.to_cursor(sort, 7);
            assert_eq!(Rank::from_cursor(&text, sort, 7).unwrap(), rank);
            let other = if sort == Sort::Newest { Sort::Oldest } else { Sort::Newest };
            assert!(Rank::from_cursor(&text, other, 7).is_err());
            assert!(Rank::from_cursor(&text, sort, 8).is_err());
            assert!(Rank::from_cursor(&text[..57], sort, 7).is_err());
            assert!(Rank::from_cursor(&text.replacen('2', "1", 1), sort, 7).is_err());
        }
        for text in ["", "1", "é", &"é".repeat(29), &"z".repeat(58), &"2n+".repeat(20)[..58]] {
            assert!(Rank::from_cursor(text, Sort::Newest, 7).is_err(), "{text}");
        }
    }
}
