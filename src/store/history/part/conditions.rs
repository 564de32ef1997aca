//! Conditions on the columns of a segment: which rows they leave.

use std::net::IpAddr;

use arrow_array::RecordBatch;
use arrow_array::types::{UInt16Type, UInt32Type};

use super::DiskPart;
use crate::event::{Direction, Outcome, Scope};
use crate::query::filter::{
    Texts as Wanted, any_of_addresses, container_id_matches, host_name_matches,
};
use crate::store::archive::Rows;
use crate::store::history::columns::{Texts, flags, numbers, parsed, texts};
use crate::store::history::schema::Column as C;
use crate::store::history::segment::SegmentError;
use crate::store::matcher::Selection;

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
pub(super) const NAMED: [C; 3] = [C::Process, C::Thread, C::Exe];

impl DiskPart {
    /// Those of these rows whose columns match, whatever their time.
    pub(super) fn matching_columns(
        &self,
        selection: &Selection,
        rows: Rows,
    ) -> Result<Rows, SegmentError> {
        let f = &selection.filter;
        let mut rows = rows;
        // What leaves the fewest rows comes first, since the rest is then read of those alone.
        rows = self.numbered(rows, C::Pid, &f.pid)?;
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
    pub(super) fn named(
        &self,
        rows: Rows,
        names: &[String],
        columns: &[C],
    ) -> Result<Rows, SegmentError> {
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

    /// Rows of which a column has one of these numbers; all where none is named.
    fn numbered(&self, rows: Rows, column: C, wanted: &[u32]) -> Result<Rows, SegmentError> {
        if wanted.is_empty() {
            return Ok(rows);
        }
        let test = |b: &RecordBatch| {
            let number = numbers::<UInt32Type>(b, column);
            move |row| number.get(row).is_some_and(|number| wanted.contains(&number))
        };
        self.keep(rows, &[column], test)
    }

    /// Conditions on texts that many rows share, and on users.
    fn shared(&self, selection: &Selection, rows: Rows) -> Result<Rows, SegmentError> {
        let f = &selection.filter;
        let mut rows = rows;
        rows = self.numbered(rows, C::Uid, &f.uid)?;
        if !f.unit.is_empty() {
            let meant = |text: &str| f.unit.iter().any(|unit| unit == text);
            rows = self.keep(rows, &[C::Unit], |b| text_test(b, C::Unit, meant))?;
        }
        if !f.country.is_empty() {
            let meant = |text: &str| f.country.iter().any(|country| country == text);
            rows =
                self.keep(rows, &[C::RemoteCountry], |b| text_test(b, C::RemoteCountry, meant))?;
        }
        rows = self.numbered(rows, C::RemoteAsn, &f.asn)?;
        if !f.container.is_empty() {
            let by_id =
                |id: &str| f.container.iter().any(|wanted| container_id_matches(wanted, id));
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
