//! Questions to a segment on disk: which rows match, and what they say.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use arrow_array::RecordBatch;
use arrow_array::types::{TimestampNanosecondType, UInt16Type, UInt32Type};

use super::block::Block;
use super::columns::{Texts, flags, numbers, parsed, texts};
use super::decode::Decoder;
use super::find::find;
use super::schema::Column as C;
use super::segment::{Counted, Segment, SegmentError};
use crate::event::{Connection, ConnectionId, Direction, Outcome, Scope};
use crate::query::filter::{Texts as Wanted, any_of_addresses, host_name_matches};
use crate::query::{Filter, Sort};
use crate::store::archive::{Part, Rows};
use crate::store::cursor::Rank;
use crate::store::matcher::Selection;
use crate::store::row::nanos;
use crate::store::segment::{Range, Segment as MemorySegment};
use crate::store::view::{Columns, View};

/// Where a text is looked for, as in a record.
const SEARCHED: [C; 17] = [
    C::Path,
    C::Error,
    C::DropReason,
    C::Thread,
    C::RemoteName,
    C::Service,
    C::RemoteIp,
    C::ActualIp,
    C::Process,
    C::Exe,
    C::Unit,
    C::User,
    C::ContainerId,
    C::ContainerName,
    C::ContainerImage,
    C::Pod,
    C::PodNamespace,
];

/// Where the name of a process is looked for.
const NAMED: [C; 3] = [C::Process, C::Thread, C::Exe];

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

    fn matching_columns(&self, selection: &Selection, rows: Rows) -> Result<Rows, SegmentError> {
        let f = &selection.filter;
        let mut rows = rows;
        // What leaves the fewest rows comes first, since the rest is then read of those alone.
        if !f.pid.is_empty() {
            let test = |b: &RecordBatch| {
                let pid = numbers::<UInt32Type>(b, C::Pid);
                move |row| pid.get(row).is_some_and(|pid| f.pid.contains(&pid))
            };
            rows = self.keep(rows, &[C::Pid], test)?;
        }
        if !f.process.is_empty() {
            rows = self.named(rows, &f.process, &NAMED)?;
        }
        if let Some(command) = &selection.command {
            rows = self.named(rows, std::slice::from_ref(command), &[C::Process, C::Thread])?;
        }
        if !f.scope.is_empty() {
            let meant =
                |text: &str| text.parse().is_ok_and(|ip: IpAddr| f.scope.contains(&Scope::of(ip)));
            rows = self.keep(rows, &[C::RemoteIp], |b| text_test(b, C::RemoteIp, meant))?;
        }
        if !f.remote.is_empty() || !f.cidr.is_empty() {
            let test = |b: &RecordBatch| {
                let meant = |text: &str| any_of_addresses(f, text.parse().ok(), None);
                let any = [C::RemoteIp, C::ActualIp].map(|c| Lookup::new(texts(b, c), meant));
                move |row| any.iter().any(|lookup| lookup.holds(row))
            };
            rows = self.keep(rows, &[C::RemoteIp, C::ActualIp], test)?;
        }
        rows = self.shared(selection, rows)?;
        rows = self.enumerations(selection, rows)?;
        if let Some(wanted) = Wanted::of(f) {
            let test = |b: &RecordBatch| {
                let look = |column: &C| Lookup::new(texts(b, *column), |t| wanted.found_in(t));
                let any: Vec<Lookup> = SEARCHED.iter().map(look).collect();
                move |row| any.iter().any(|lookup| lookup.holds(row))
            };
            rows = self.keep(rows, &SEARCHED, test)?;
        }
        if !f.port.is_empty() {
            let test = |b: &RecordBatch| {
                let direction = parsed::<Direction>(b, C::Direction);
                let local = numbers::<UInt16Type>(b, C::LocalPort);
                let remote = numbers::<UInt16Type>(b, C::RemotePort);
                move |row| {
                    let port = match direction.get(row) {
                        Some(Direction::Inbound) => local.get(row),
                        _ => remote.get(row),
                    };
                    port.is_some_and(|port| f.port.contains(&port))
                }
            };
            rows = self.keep(rows, &[C::Direction, C::LocalPort, C::RemotePort], test)?;
        }
        Ok(rows)
    }

    /// Rows of which one of these columns, the first of which is the name of the process, has one
    /// of the names.
    fn named(&self, rows: Rows, names: &[String], columns: &[C]) -> Result<Rows, SegmentError> {
        let facts = &self.segment.facts;
        let has = |known: &Option<Vec<Box<str>>>| {
            let has = |name: &String| {
                known
                    .as_ref()
                    .is_none_or(|known| known.binary_search_by(|k| (**k).cmp(name)).is_ok())
            };
            names.iter().any(has)
        };
        let columns = match (has(&facts.names), has(&facts.other_names)) {
            (false, false) => return Ok(Rows::List(Vec::new())),
            (true, false) => columns.get(..1).unwrap_or(columns),
            (false, true) => columns.get(1..).unwrap_or(columns),
            (true, true) => columns,
        };
        let named = |text: &str| names.iter().any(|name| name == text);
        let test = |b: &RecordBatch| {
            let lookup = |column: &C| {
                let is_path = *column == C::Exe;
                Lookup::new(texts(b, *column), |text| {
                    let name = if is_path { text.rsplit('/').next() } else { Some(text) };
                    name.is_some_and(|name| (!is_path || !name.is_empty()) && named(name))
                })
            };
            let any: Vec<Lookup> = columns.iter().map(lookup).collect();
            move |row| any.iter().any(|lookup| lookup.holds(row))
        };
        self.keep(rows, columns, test)
    }

    /// Conditions on texts that many rows share, and on users.
    fn shared(&self, selection: &Selection, rows: Rows) -> Result<Rows, SegmentError> {
        let f = &selection.filter;
        let mut rows = rows;
        if !f.uid.is_empty() {
            let test = |b: &RecordBatch| {
                let uid = numbers::<UInt32Type>(b, C::Uid);
                move |row| uid.get(row).is_some_and(|uid| f.uid.contains(&uid))
            };
            rows = self.keep(rows, &[C::Uid], test)?;
        }
        if !f.unit.is_empty() {
            let meant = |text: &str| f.unit.iter().any(|unit| unit == text);
            rows = self.keep(rows, &[C::Unit], |b| text_test(b, C::Unit, meant))?;
        }
        if !f.country.is_empty() {
            let meant = |text: &str| f.country.iter().any(|country| country == text);
            rows =
                self.keep(rows, &[C::RemoteCountry], |b| text_test(b, C::RemoteCountry, meant))?;
        }
        if !f.asn.is_empty() {
            let test = |b: &RecordBatch| {
                let asn = numbers::<UInt32Type>(b, C::RemoteAsn);
                move |row| asn.get(row).is_some_and(|asn| f.asn.contains(&asn))
            };
            rows = self.keep(rows, &[C::RemoteAsn], test)?;
        }
        if !f.container.is_empty() {
            let by_id = |id: &str| {
                let prefix = |wanted: &String| wanted.len() >= 6 && id.starts_with(wanted.as_str());
                f.container.iter().any(|wanted| prefix(wanted) || id == wanted)
            };
            let by_name = |name: &str| f.container.iter().any(|wanted| wanted == name);
            let test = |b: &RecordBatch| {
                let id = Lookup::new(texts(b, C::ContainerId), by_id);
                let name = Lookup::new(texts(b, C::ContainerName), by_name);
                move |row| id.holds(row) || name.holds(row)
            };
            rows = self.keep(rows, &[C::ContainerId, C::ContainerName], test)?;
        }
        for (column, wanted) in [(C::Pod, &f.pod), (C::PodNamespace, &f.namespace)] {
            if !wanted.is_empty() {
                let meant = |text: &str| wanted.iter().any(|wanted| wanted == text);
                rows = self.keep(rows, &[column], |b| text_test(b, column, meant))?;
            }
        }
        if !f.host_name.is_empty() {
            let meant = |name: &str| f.host_name.iter().any(|w| host_name_matches(w, name));
            rows = self.keep(rows, &[C::RemoteName], |b| text_test(b, C::RemoteName, meant))?;
        }
        Ok(rows)
    }

    fn enumerations(&self, selection: &Selection, rows: Rows) -> Result<Rows, SegmentError> {
        let f = &selection.filter;
        let mut rows = rows;
        let mut by_word = |column: C, words: Vec<&'static str>| -> Result<(), SegmentError> {
            if !words.is_empty() {
                let meant = |text: &str| words.contains(&text);
                let all = std::mem::replace(&mut rows, Rows::List(Vec::new()));
                rows = self.keep(all, &[column], |b| text_test(b, column, meant))?;
            }
            Ok(())
        };
        by_word(C::Outcome, f.outcome.iter().map(|word| word.as_str()).collect())?;
        by_word(C::Protocol, f.protocol.iter().map(|word| word.as_str()).collect())?;
        by_word(C::State, f.state.iter().map(|word| word.as_str()).collect())?;
        by_word(C::Direction, f.direction.iter().map(|word| word.as_str()).collect())?;
        let existed = if selection.attempts_only { Some(false) } else { f.preexisting };
        if f.preexisting.is_some_and(|wanted| existed != Some(wanted)) {
            return Ok(Rows::List(Vec::new()));
        }
        if let Some(wanted) = existed {
            let test = |b: &RecordBatch| {
                let existed = flags(b, C::Preexisting);
                move |row| existed.get(row) == Some(wanted)
            };
            rows = self.keep(rows, &[C::Preexisting], test)?;
        }
        if selection.attempts_only {
            let attempt = |outcome: &str| outcome != Outcome::Listening.as_str();
            rows = self.keep(rows, &[C::Outcome], |b| text_test(b, C::Outcome, attempt))?;
        }
        Ok(rows)
    }

    /// The rows for which a test of these columns holds.
    fn keep<T: Fn(usize) -> bool>(
        &self,
        rows: Rows,
        columns: &[C],
        test: impl FnOnce(&RecordBatch) -> T,
    ) -> Result<Rows, SegmentError> {
        if rows.len() == 0 {
            return Ok(rows);
        }
        let holds = test(&self.segment.read(columns, &rows)?);
        let kept: Vec<u32> = match &rows {
            Rows::Range(range) => {
                range.clone().zip(0..).filter(|(_, i)| holds(*i)).map(|(r, _)| r).collect()
            }
            Rows::List(list) => {
                list.iter().zip(0..).filter(|(_, i)| holds(*i)).map(|(r, _)| *r).collect()
            }
        };
        // All of them, as most often: to be read at one go.
        match rows {
            Rows::Range(_) if kept.len() == rows.len() => Ok(rows),
            _ => Ok(Rows::List(kept)),
        }
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

/// A test of a column of text, worked out once per value.
struct Lookup {
    texts: Texts,
    table: Vec<bool>,
}

impl Lookup {
    fn new(texts: Texts, test: impl Fn(&str) -> bool) -> Self {
        let table = texts.table(test).into_iter().map(|holds| holds == Some(true)).collect();
        Lookup { table, texts }
    }

    fn holds(&self, row: usize) -> bool {
        self.texts.key(row).is_some_and(|key| self.table.get(key) == Some(&true))
    }
}

fn text_test<T: Fn(&str) -> bool>(
    batch: &RecordBatch,
    column: C,
    test: T,
) -> impl Fn(usize) -> bool + use<T> {
    let lookup = Lookup::new(texts(batch, column), test);
    move |row| lookup.holds(row)
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
