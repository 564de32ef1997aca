//! Questions to a segment on disk: which rows match, and what they say.

mod conditions;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use arrow_array::types::TimestampNanosecondType;

use super::block::Block;
use super::columns::numbers;
use super::decode::Decoder;
use super::find::find;
use super::schema::Column as C;
use super::segment::{Counted, Segment, SegmentError};
use crate::event::{Connection, ConnectionId, Outcome};
use crate::query::{Filter, Sort};
use crate::store::archive::{Part, Rows};
use crate::store::cursor::Rank;
use crate::store::matcher::Selection;
use crate::store::row::nanos;
use crate::store::segment::{Range, Segment as MemorySegment};
use crate::store::view::{Columns, View};
use conditions::NAMED;

/// Ids whose versions on disk are not the newest, though not hidden yet; with the last change of the
/// last segment of which that holds. A later one may come at any time, and have the newest version.
#[derive(Debug, Default)]
pub(super) struct Superseded(RwLock<Arc<UpTo>>);

pub(super) type UpTo = HashMap<ConnectionId, u64>;

impl Superseded {
    pub(super) fn now(&self) -> Arc<UpTo> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn add(&self, id: ConnectionId, change: u64) {
        let mut ids = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let up_to = Arc::make_mut(&mut ids).entry(id).or_default();
        *up_to = change.max(*up_to);
    }

    /// Forgets what is hidden by now, but for what was added meanwhile.
    pub(super) fn remove(&self, done: &UpTo) {
        let mut ids = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut ids).retain(|id, up_to| done.get(id).is_none_or(|done| done < up_to));
    }
}

/// Those of which a segment may have a version that is not the newest.
pub(super) fn superseded_in<'a>(
    superseded: &'a UpTo,
    segment: &'a Segment,
) -> impl Iterator<Item = ConnectionId> + 'a {
    let meant = superseded.iter().filter(|(_, up_to)| segment.facts.last <= **up_to);
    meant.map(|(id, _)| *id).filter(|id| segment.may_hold(*id))
}

/// A segment as one question sees it.
#[derive(Debug)]
pub(super) struct DiskPart {
    pub(super) segment: Arc<Segment>,
    pub(super) superseded: Arc<Superseded>,
    /// Set where memory has the records, but for patches of what it has no longer.
    pub(super) memory: Option<Arc<Vec<Arc<MemorySegment>>>>,
}

impl DiskPart {
    /// What can be read goes on; what cannot is said once, and left out.
    fn or_complain<T: Default>(&self, result: Result<T, SegmentError>) -> T {
        result.unwrap_or_else(|error| {
            self.segment.complain(&error);
            T::default()
        })
    }

    fn narrow(&self, selection: &Selection) -> Result<Rows, SegmentError> {
        let rows = self.in_memory_no_longer();
        let rows = self.in_window(selection, rows)?;
        if rows.len() == 0 {
            return Ok(rows);
        }
        let rows = self.matching_columns(selection, rows)?;
        // In this order: what is superseded no longer is hidden by now. And after memory was looked
        // at: what changes meanwhile is rather missed than shown twice.
        let superseded = self.superseded.now();
        let rows = without(rows, &self.segment.hidden());
        self.without_superseded(rows, &superseded)
    }

    /// Whether the answer depends on the segment alone, and on what is hidden of it.
    fn is_whole(&self, selection: &Selection) -> bool {
        let times = self.segment.times();
        let f = &selection.filter;
        let inside = f.since.is_none_or(|since| nanos(since) <= times.min)
            && f.until.is_none_or(|until| times.max < nanos(until));
        inside
            && self.memory.is_none()
            && !self.segment.is_unreadable()
            && superseded_in(&self.superseded.now(), &self.segment).next().is_none()
    }

    /// How many rows a question has that asks for processes by name, and for nothing else, where that
    /// can be told without reading those rows.
    fn count_named(&self, question: &Selection) -> Option<u64> {
        let names = &question.filter.process;
        let by_name = Filter { process: names.clone(), ..Filter::default() };
        if names.is_empty() || *question != (Selection { filter: by_name, ..Selection::default() })
        {
            return None;
        }
        let rows = self.segment.facts.rows_named(names)?;
        let hidden = Rows::List(self.segment.hidden().to_vec());
        let hidden = self.named(hidden, names, &NAMED).ok()?.len() as u64;
        rows.checked_sub(hidden)
    }

    fn in_memory_no_longer(&self) -> Rows {
        let Some(memory) = &self.memory else { return Rows::Range(0..self.segment.facts.rows) };
        let known = |id: ConnectionId| memory.iter().any(|m| m.read().find(id).is_some());
        let patches = self.segment.patches.iter();
        Rows::List(patches.filter(|(id, _)| !known(*id)).map(|(_, row)| *row).collect())
    }

    fn in_window(&self, selection: &Selection, rows: Rows) -> Result<Rows, SegmentError> {
        let times = self.segment.times();
        let since = selection.filter.since.map_or(i64::MIN, nanos);
        let until = selection.filter.until.map(nanos);
        let after_all = until.is_some_and(|until| times.min >= until);
        if times.max < since || after_all {
            return Ok(Rows::List(Vec::new()));
        }
        if since <= times.min && until.is_none_or(|until| times.max < until) {
            return Ok(rows);
        }
        let batch = self.segment.read(&[C::Time], &rows)?;
        let time = numbers::<TimestampNanosecondType>(&batch, C::Time);
        let time = time.all().ok_or(SegmentError::Foreign("a row has no time"))?;
        let from = time.partition_point(|time| *time < since);
        let to = until.map_or(time.len(), |until| time.partition_point(|time| *time < until));
        Ok(match rows {
            Rows::Range(range) => {
                Rows::Range(range.start + from as u32..range.start + to.max(from) as u32)
            }
            Rows::List(list) => Rows::List(list.get(from..to).unwrap_or_default().to_vec()),
        })
    }

    fn without_superseded(&self, rows: Rows, superseded: &UpTo) -> Result<Rows, SegmentError> {
        if rows.len() == 0 {
            return Ok(rows);
        }
        let here: HashSet<_> = superseded_in(superseded, &self.segment).collect();
        if here.is_empty() {
            return Ok(rows);
        }
        let ids = self.segment.ids(&rows)?;
        let kept = ids.iter().enumerate().filter(|(_, id)| !here.contains(id));
        Ok(Rows::List(kept.filter_map(|(index, _)| rows.get(index)).collect()))
    }
}

/// Rows but for these; both are sorted.
fn without(rows: Rows, hidden: &[u32]) -> Rows {
    if hidden.is_empty() {
        return rows;
    }
    let list: Vec<u32> = match rows {
        Rows::Range(range) => range.collect(),
        Rows::List(list) => list,
    };
    let mut hidden = hidden.iter().peekable();
    let shown = |row: &u32| {
        while hidden.next_if(|hidden| **hidden < *row).is_some() {}
        hidden.peek().is_none_or(|hidden| **hidden != *row)
    };
    let mut list = list;
    let mut shown = shown;
    list.retain(|row| shown(row));
    Rows::List(list)
}

impl Part for DiskPart {
    fn times(&self) -> Range<i64> {
        self.segment.times()
    }

    fn matching(&self, selection: &Selection) -> Rows {
        match self.narrow(selection) {
            Ok(rows) => rows,
            Err(error) => {
                self.segment.complain(&error);
                Rows::List(Vec::new())
            }
        }
    }

    fn count(&self, selection: &Selection) -> u64 {
        let hidden = self.segment.hidden().len();
        let counted =
            self.is_whole(selection).then(|| Counted { question: anytime(selection), hidden });
        if let Some(count) = counted.as_ref().and_then(|counted| self.segment.counted(counted)) {
            return count;
        }
        let known = counted.as_ref().and_then(|counted| self.count_named(&counted.question));
        let count = known.unwrap_or_else(|| self.matching(selection).len() as u64);
        if let Some(counted) = counted {
            self.segment.note_count(counted, count);
        }
        count
    }

    fn ranks(&self, rows: &Rows, sort: Sort) -> Vec<Rank> {
        let read = || -> Result<Vec<Rank>, SegmentError> {
            let ids = self.segment.ids(rows)?;
            let batch = self.segment.read(&[C::Time], rows)?;
            let time = numbers::<TimestampNanosecondType>(&batch, C::Time);
            let rank = |(row, id)| Rank::new(time.get(row).unwrap_or(0), id, sort);
            Ok(ids.into_iter().enumerate().map(rank).collect())
        };
        self.or_complain(read())
    }

    fn visit(&self, rows: &Rows, columns: Columns, visit: &mut dyn FnMut(View<'_>)) {
        if rows.len() == 0 {
            return;
        }
        match Block::read(&self.segment, rows, columns) {
            Ok(block) => (0..rows.len()).for_each(|row| visit(View::of_column(&block, row))),
            Err(error) => self.segment.complain(&error),
        }
    }

    fn over_time(
        &self,
        selection: &Selection,
        step_ms: u64,
        tell: &mut dyn FnMut(i64, Outcome, u64),
    ) {
        self.tell_over_time(selection, step_ms, tell);
    }

    fn records(&self, rows: &[u32]) -> Vec<Connection> {
        let rows = Rows::List(rows.to_vec());
        let read = || -> Result<Vec<Connection>, SegmentError> {
            let mut decoder = Decoder::new(&self.segment.read(C::ALL, &rows)?);
            let records: Option<_> = (0..rows.len()).map(|row| decoder.record(row)).collect();
            records.ok_or(SegmentError::Foreign("a row makes no record"))
        };
        self.or_complain(read())
    }

    fn get(&self, id: ConnectionId) -> Option<Connection> {
        let superseded = self.superseded.now();
        let is_superseded =
            || superseded.get(&id).is_some_and(|up_to| self.segment.facts.last <= *up_to);
        if !self.segment.may_hold(id) || is_superseded() {
            return None;
        }
        let row = self.or_complain(find(&self.segment, id))?;
        let shown = self.segment.hidden().binary_search(&row).is_err();
        if shown { self.records(&[row]).pop() } else { None }
    }
}

/// The question without its window.
fn anytime(selection: &Selection) -> Selection {
    let mut anytime = selection.clone();
    (anytime.filter.since, anytime.filter.until) = (None, None);
    anytime
}
