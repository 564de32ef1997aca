//! Any bytes at all as files of history: what is fuzzed, and replayed in the unit tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::encode::Encoder;
use super::fields::Fields;
use super::segment::{Facts, SegmentError};
use super::segment_writer::{self, Piece};
use super::{HistoryOptions, journal};
use crate::event::{Connection, ConnectionId};
use crate::query::top::TopBy;
use crate::query::{Page, Sort, Window};
use crate::store::{Columns, Selection, Store};
use crate::test_records::*;

/// Bits of the first byte: what the others are.
const SEGMENT: u8 = 1;
/// All checksums are made right, as who forges a file would.
const FORGED: u8 = 2;
/// Edits of a file that is right, of four bytes each, rather than the file.
const EDITS: u8 = 4;
/// There are other files, which are right.
const AMONG_OTHERS: u8 = 8;

/// A file of history, after a byte that says what it is: the directory is opened whatever is in it,
/// what is found can be asked for, survives the next start, and, but where somebody has forged
/// checksums, is what was written.
pub fn journal_recovery(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    let is = |bit| mode & bit != 0;
    let mut file = match (is(EDITS), is(SEGMENT)) {
        (true, true) => edited(good_segment(), data),
        (true, false) => edited(good_journal(), data),
        (false, _) => data.to_vec(),
    };
    let place = Place::new();
    if is(AMONG_OTHERS) {
        place.put_segment(1, good_segment_of_others());
        place.put_journal(2, good_journal_of_others());
    }
    match (is(SEGMENT), is(FORGED)) {
        (true, true) => place.put_segment(3, &file),
        // The checksum of the file that is right, or some.
        (true, false) if is(EDITS) => {
            place.put_segment_as(3, crc32fast::hash(good_segment()), &file)
        }
        (true, false) => place.put_segment_as(3, 7, &file),
        (false, true) => {
            journal::forge(&mut file);
            place.put_journal(3, &file);
        }
        (false, false) => place.put_journal(3, &file),
    }
    let store = place.open();
    let found = everything(&store);
    if is(AMONG_OTHERS) && !is(FORGED) {
        for other in others() {
            assert!(found.contains(&other), "{} is missing: {found:?}", other.id);
        }
    }
    if is(EDITS) && !is(FORGED) {
        let written = [records(), others()].concat();
        for c in &found {
            assert!(written.contains(c), "nobody wrote {c:?}");
        }
    }
    let new = refused(5_000, &info(9, "new"));
    store.apply(vec![new.clone()]);
    drop(store);
    let store = place.open();
    let again = list(&store);
    assert!(again.contains(&new), "the new record is missing");
    if !is(SEGMENT) {
        // What came of a journal is in a segment now, as it was.
        assert_eq!(again.len(), found.len() + 1);
        assert!(found.iter().all(|c| again.contains(c)));
    }
}

/// All that a store lists.
fn list(store: &Store) -> Vec<Connection> {
    let all = Selection::default();
    let (mut found, mut cursor) = (Vec::new(), None);
    // A forged file may have any number of rows.
    for _ in 0..3 {
        let page = Page { limit: Some(1_000), cursor, sort: Sort::Newest };
        let selected = store.list(&all, &page).unwrap();
        found.extend(selected.connections);
        cursor = selected.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    found
}

/// The same, asked for in every other way, too.
fn everything(store: &Store) -> Vec<Connection> {
    let found = list(store);
    for c in found.iter().take(10) {
        let text = serde_json::to_string(c).unwrap();
        assert_eq!(&serde_json::from_str::<Connection>(&text).unwrap(), c);
        store.get(c.id);
    }
    let all = Selection::default();
    store.totals(&all);
    store.newest(&all);
    store.top(&all, TopBy::Container, 10);
    let window = Window { since: micros(-3_600_000_000), until: micros(3_600_000_000) };
    store.series(&all, window, 60_000);
    let mut closes = 0;
    store.for_each(&all, Columns::ALL, &mut |view| closes += u64::from(view.close().is_some()));
    let filter = crate::query::filter::parse([
        ("process", "curl,nginx"),
        ("cidr", "192.0.2.0/24,::/0"),
        ("text", "a"),
        ("since", "2023-11-14T22:13:20Z"),
    ]);
    store.count(&filter.unwrap().0.into());
    let status = store.status();
    assert!(status.history.is_some_and(|history| history.stopped.is_none()));
    found
}

/// Changes a file: each four bytes say how, where (two of them), and with what.
fn edited(file: &[u8], edits: &[u8]) -> Vec<u8> {
    const WORDS: [u32; 8] =
        [0, 1, u32::MAX, i32::MAX as u32, i32::MIN as u32, 1 << 16, 1 << 24, u32::MAX - 7];
    let mut file = file.to_vec();
    for edit in edits.chunks_exact(4).take(64) {
        let &[how, high, low, with] = edit else { continue };
        let at = usize::from(u16::from_be_bytes([high, low])) % (file.len() + 1);
        let length = usize::from(with) * 8;
        let until = (at + length).min(file.len());
        match how % 7 {
            0 => file.get_mut(at).into_iter().for_each(|byte| *byte ^= with),
            1 => file.get_mut(at).into_iter().for_each(|byte| *byte = with),
            2 => {
                let word = WORDS[usize::from(with) % WORDS.len()].to_le_bytes();
                file.iter_mut().skip(at).zip(word).for_each(|(byte, new)| *byte = new);
            }
            3 => file.truncate(at),
            4 => drop(file.splice(at..at, vec![with; length])),
            5 => drop(file.drain(at..until)),
            _ => file.extend_from_within(at..until),
        }
    }
    file
}

/// What the files that are edited hold.
fn records() -> Vec<Connection> {
    let (curl, nginx) = (info(7, "curl"), info(8, "nginx"));
    let mut random = Random(3);
    let mut wild = random.connection();
    wild.id = ConnectionId { start_ns: 77, tid: 1, boot: 2 };
    vec![
        refused(0, &curl),
        closed(1, &nginx),
        unix(2, &curl, "/run/x.sock"),
        in_progress(3, &nginx),
        wild,
    ]
}

/// What the other files hold.
fn others() -> Vec<Connection> {
    let curl = info(7, "curl");
    vec![refused(1_000, &curl), established(1_001, &curl), closed(1_002, &curl)]
}

fn good_journal() -> &'static [u8] {
    static JOURNAL: OnceLock<Vec<u8>> = OnceLock::new();
    JOURNAL.get_or_init(|| journal_of(records().chunks(3), 100))
}

fn good_segment() -> &'static [u8] {
    static SEGMENT: OnceLock<Vec<u8>> = OnceLock::new();
    SEGMENT.get_or_init(|| segment_of(records(), 100))
}

fn good_journal_of_others() -> &'static [u8] {
    static JOURNAL: OnceLock<Vec<u8>> = OnceLock::new();
    JOURNAL.get_or_init(|| journal_of(others().get(2..).into_iter(), 50))
}

fn good_segment_of_others() -> &'static [u8] {
    static SEGMENT: OnceLock<Vec<u8>> = OnceLock::new();
    SEGMENT.get_or_init(|| segment_of(others()[..2].to_vec(), 10))
}

/// A journal of these flushes, whose changes are numbered from here.
pub(super) fn journal_of<'a>(
    flushes: impl Iterator<Item = &'a [Connection]>,
    mut version: u64,
) -> Vec<u8> {
    let mut bytes = journal::head().unwrap().to_vec();
    for flush in flushes {
        let mut encoder = Encoder::default();
        for c in flush {
            encoder.push(&Fields::of(c, version), || Some(c.clone()));
            version += 1;
        }
        let flush = journal::Sealed::flush(&encoder.finish().unwrap(), Vec::new());
        bytes.extend(flush.unwrap().to_vec());
    }
    bytes
}

/// A segment of these records, the first of which is a later version of one that is elsewhere.
pub(super) fn segment_of(mut records: Vec<Connection>, first: u64) -> Vec<u8> {
    records.sort_by_key(|c| (c.time, c.id));
    let mut encoder = Encoder::default();
    for (place, c) in records.iter().enumerate() {
        let mut fields = Fields::of(c, first + place as u64);
        fields.patch = place == 0;
        encoder.push(&fields, || Some(c.clone()));
    }
    let rows = records.len() as u32;
    let times = records.iter().map(|c| crate::store::row::nanos(c.time));
    let starts = records.iter().map(|c| (c.id.boot, c.id.start_ns, c.id.start_ns));
    let facts = Facts {
        after: first - 1,
        last: first + u64::from(rows) - 1,
        rows,
        patches: 1,
        wholes: 0,
        first_time: times.clone().min().unwrap(),
        last_time: times.max().unwrap(),
        starts: starts.collect(),
        names: None,
        name_rows: None,
        other_names: None,
    };
    let names = encoder.names();
    let wholes = encoder.wholes() as u32;
    let piece = encoder.finish().map(|batch| Piece { batch, wholes, names });
    let place = Place::new();
    let path = place.0.join("segment");
    let pieces = std::iter::once(piece.map_err(SegmentError::from));
    segment_writer::write(&File::create(&path).unwrap(), pieces, facts).unwrap();
    fs::read(path).unwrap()
}

/// A directory that goes with its use.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("netspy-fuzz-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Place(path)
    }

    fn put_journal(&self, number: u64, bytes: &[u8]) {
        fs::write(self.0.join(format!("{number:012}.arrow")), bytes).unwrap();
    }

    fn put_segment(&self, number: u64, bytes: &[u8]) {
        self.put_segment_as(number, crc32fast::hash(bytes), bytes);
    }

    fn put_segment_as(&self, number: u64, crc: u32, bytes: &[u8]) {
        fs::write(self.0.join(format!("{number:012}-{crc:08x}.parquet")), bytes).unwrap();
    }

    fn open(&self) -> Store {
        let directory = self.0.clone();
        let options = HistoryOptions { directory, limit_bytes: 1 << 30, max_age: None };
        Store::open(1 << 20, &options).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The others are as good as what this holds true.
    #[test]
    fn what_is_edited_is_right_before() {
        for mode in [EDITS, EDITS | SEGMENT, EDITS | FORGED, EDITS | SEGMENT | AMONG_OTHERS] {
            journal_recovery(&[mode]);
        }
        for (file, is_segment) in [(good_journal(), false), (good_segment(), true)] {
            let place = Place::new();
            match is_segment {
                true => place.put_segment(3, file),
                false => place.put_journal(3, file),
            }
            let store = place.open();
            let ids = |all: Vec<Connection>| all.iter().map(|c| c.id).collect::<HashSet<_>>();
            assert_eq!(ids(everything(&store)), ids(records()));
            let recovery = store.status().history.unwrap().recovery;
            assert!(recovery.set_aside.is_empty() && recovery.torn_bytes == 0, "{recovery:?}");
        }
    }
}
