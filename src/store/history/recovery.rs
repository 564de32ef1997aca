//! The start: what is there, what can be used of it, and what is cut or set aside.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use arrow_array::RecordBatch;
use jiff::Timestamp;

use super::changes::Changes;
use super::decode::Decoder;
use super::directory::{Directory, Name};
use super::find::{find_held, find_versions};
use super::reconcile::note_first;
use super::segment::{self, Segment, SegmentError};
use super::{HistoryError, Left, MAX_CHANGE, journal};
use crate::accounting::Gap;
use crate::event::{Connection, ConnectionId};
use crate::query::Recovery;
use crate::store::row::wide;

/// Bytes of the largest journal that is read: far more than any that is written.
const MAX_JOURNAL: u64 = 1 << 30;

/// What was found.
pub(super) struct Found {
    pub(super) segments: Vec<Arc<Segment>>,
    /// Records that are in no segment yet.
    pub(super) left: Left,
    /// The change before the first that journals have and segments have not.
    pub(super) left_after: u64,
    /// The first number that no file has.
    pub(super) next_number: u64,
    pub(super) recovery: Recovery,
    /// The changes that are in journals.
    pub(super) changes: Changes,
    /// Of the records in journals: their first changes there.
    pub(super) first_shown: HashMap<ConnectionId, u64>,
}

impl Found {
    /// The changes that are in files.
    pub(super) fn all_changes(&self) -> Changes {
        let mut all = self.changes.clone();
        self.segments.iter().for_each(|s| all.add((s.facts.after, s.facts.last)));
        all
    }

    /// Whether there was not a single file of records.
    pub(super) fn is_nothing(&self) -> bool {
        self.next_number == 1 && self.recovery.set_aside.is_empty()
    }
}

pub(super) fn recover(directory: &Directory) -> Result<Found, HistoryError> {
    let failed = |source| HistoryError::Directory {
        what: "cannot read",
        path: directory.path().to_owned(),
        source,
    };
    let mut recovery = Recovery::default();
    let mut segments = Vec::new();
    let mut journals = Vec::new();
    let mut next_number = 1;
    for (name, path) in directory.list().map_err(failed)? {
        match name {
            Name::Unfinished => {
                let _ = fs::remove_file(&path);
            }
            Name::Foreign(why) => {
                set_aside(directory, &path, &SegmentError::Foreign(why), &mut recovery);
            }
            Name::Journal(number) => {
                next_number = next_number.max(number + 1);
                journals.push((number, path));
            }
            Name::Segment(number, crc) => {
                next_number = next_number.max(number + 1);
                match open(number, crc, &path).and_then(|segment| alone(segment, &segments)) {
                    Ok(segment) => segments.push(Arc::new(segment)),
                    Err(error) => set_aside(directory, &path, &error, &mut recovery),
                }
            }
        }
    }
    hide_earlier(&segments);
    let mut left: HashMap<ConnectionId, (u64, Connection)> = HashMap::new();
    let (mut changes, mut first_shown) = (Changes::default(), HashMap::new());
    for (number, path) in journals {
        let from = segments.partition_point(|segment| segment.number < number);
        let later = segments.get(from..).unwrap_or_default();
        let found = read_journal(directory, &path, later, &mut left, &mut recovery);
        for (id, version) in &found {
            note_first(&mut first_shown, *id, *version);
        }
        changes.add_all(found.into_iter().map(|(_, version)| version).collect());
    }
    let mut left: Left = left.into_values().collect();
    left.sort_unstable_by_key(|(version, _)| *version);
    let in_segments = segments.iter().map(|segment| segment.facts.last).max().unwrap_or(0);
    renumber(&mut left, in_segments);
    // A version that was replaced before any segment was made is in none, and missing in none.
    let first = changes.ranges().map(|(after, _)| after).find(|after| *after >= in_segments);
    let left_after = first.unwrap_or(u64::MAX);
    recovery.records = left.len() as u64;
    recovery.set_aside.sort_unstable();
    report(directory, &segments, &recovery);
    Ok(Found { segments, left, left_after, next_number, recovery, changes, first_shown })
}

fn open(number: u64, crc: u32, path: &Path) -> Result<Segment, SegmentError> {
    match segment::checksum(path)? == crc {
        true => Segment::open(number, path),
        false => Err(SegmentError::Foreign("it is not as it was written")),
    }
}

/// What two files say is shown once.
fn alone(segment: Segment, others: &[Arc<Segment>]) -> Result<Segment, SegmentError> {
    let is_copy = |other: &Arc<Segment>| {
        (other.bytes, &other.facts) == (segment.bytes, &segment.facts)
            && other.crc() == segment.crc()
    };
    if others.iter().any(|other| other.number == segment.number) {
        return Err(SegmentError::Foreign("there is another segment of its number"));
    }
    match others.iter().any(is_copy) {
        true => Err(SegmentError::Foreign("it is a copy of another segment")),
        false => Ok(segment),
    }
}

/// Takes over what a journal has and these segments, which came after it, have not. All that it has
/// comes back, with the numbers of the changes.
fn read_journal(
    directory: &Directory,
    path: &Path,
    later: &[Arc<Segment>],
    left: &mut HashMap<ConnectionId, (u64, Connection)>,
    recovery: &mut Recovery,
) -> Vec<(ConnectionId, u64)> {
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            set_aside(directory, path, &error, recovery);
            return Vec::new();
        }
    };
    let contents = journal::read(&bytes);
    drop(bytes);
    let (mut records, unreadable) = records(&contents.batches);
    let all: Vec<_> = records.iter().map(|(version, record)| (record.id, *version)).collect();
    retain_missing(&mut records, later);
    if !all.is_empty() && records.is_empty() {
        // It is a segment, and the process ended between the two.
        let _ = fs::remove_file(path);
        return all;
    }
    recovery.journals += 1;
    if contents.torn > 0 {
        recovery.torn_bytes += contents.torn;
        let path = path.display();
        tracing::warn!("{path}: the last {} bytes were being written and are cut", contents.torn);
    }
    let corrupt = contents.corrupt + unreadable;
    if corrupt > 0 {
        recovery.corrupt += corrupt;
        let damaged = SegmentError::Foreign("parts of it are damaged");
        match records.is_empty() {
            true => set_aside(directory, path, &damaged, recovery),
            // What can be read of it is in memory until it is in the next segment: until then it
            // has to stay.
            false => keep_aside(directory, path, &damaged, recovery),
        }
    }
    for (version, record) in records {
        let known = left.get(&record.id).map(|(known, _)| *known);
        if known.is_none_or(|known| known <= version) {
            left.insert(record.id, (version, record));
        }
    }
    all
}

/// Memory holds what came last: what is left has to come after all that is in segments. It does, unless
/// one of them is from elsewhere.
fn renumber(left: &mut Left, last: u64) {
    if left.first().is_some_and(|(first, _)| *first <= last) {
        (last + 1..).zip(left).for_each(|(number, (version, _))| *version = number);
    }
}

/// The whole of a journal. What is larger than any that this program writes would be more than
/// memory can take.
fn read(path: &Path) -> Result<Vec<u8>, SegmentError> {
    match fs::metadata(path)?.len() {
        0..=MAX_JOURNAL => Ok(fs::read(path)?),
        _ => Err(SegmentError::Foreign("it is larger than any journal of this program")),
    }
}

/// Records with the numbers of their changes, and how many rows make no record.
fn records(batches: &[RecordBatch]) -> (Left, u64) {
    let (mut records, mut unreadable) = (Vec::new(), 0);
    for batch in batches {
        let mut decoder = Decoder::new(batch);
        for row in 0..decoder.rows() {
            let version = decoder.version(row).filter(|version| *version <= MAX_CHANGE);
            match version.zip(decoder.record(row)) {
                Some(record) => records.push(record),
                None => unreadable += 1,
            }
        }
    }
    (records, unreadable)
}

/// Leaves those of which none of the segments has this version or a later one.
fn retain_missing(records: &mut Left, segments: &[Arc<Segment>]) {
    let mut held: HashMap<ConnectionId, u64> = HashMap::new();
    for segment in segments {
        let ids = records.iter().map(|(_, record)| record.id);
        for (id, version) in find_versions(segment, ids) {
            let latest = held.entry(id).or_default();
            *latest = version.max(*latest);
        }
    }
    records.retain(|(version, record)| held.get(&record.id).is_none_or(|held| held < version));
}

fn set_aside(directory: &Directory, path: &Path, error: &SegmentError, recovery: &mut Recovery) {
    note_aside(directory.set_aside(path), path, error, recovery);
}

fn keep_aside(directory: &Directory, path: &Path, error: &SegmentError, recovery: &mut Recovery) {
    // Not every file system gives a file two names.
    let aside = directory.keep_aside(path).or_else(|_| directory.set_aside(path));
    note_aside(aside, path, error, recovery);
}

/// The books are not as they were written: they stay under another name when they are written anew.
pub(super) fn keep_books_aside(directory: &Directory, error: &str, recovery: &mut Recovery) {
    let path = directory.books();
    let is_file = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
    let kept = if is_file { directory.keep_aside(&path) } else { directory.set_aside(&path) };
    // Not every file system gives a file two names.
    let aside = kept.or_else(|_| directory.set_aside(&path));
    note_aside(aside, &path, &error, recovery);
}

fn note_aside(
    aside: io::Result<PathBuf>,
    path: &Path,
    error: &dyn std::fmt::Display,
    recovery: &mut Recovery,
) {
    let aside = match aside {
        Ok(aside) => {
            tracing::error!("{}: {error}; set aside as {}", path.display(), aside.display());
            aside
        }
        Err(moving) => {
            tracing::error!("{}: {error}; cannot be set aside: {moving}", path.display());
            path.to_owned()
        }
    };
    let name = aside.file_name().unwrap_or_default();
    recovery.set_aside.push(name.to_string_lossy().into_owned());
}

/// Hides what later segments have newer versions of.
fn hide_earlier(segments: &[Arc<Segment>]) {
    for (place, segment) in segments.iter().enumerate() {
        let later = segments.get(place + 1..).unwrap_or_default();
        let patches = later.iter().flat_map(|later| &later.patches);
        let found = find_held(segment, patches.map(|(id, _)| *id));
        if !found.is_empty() {
            segment.hide(found.into_iter().map(|(_, row)| row));
        }
    }
}

/// Of what was set aside: the time that its records may be of. That is what came after the segment
/// before it, until it was last written.
pub(super) fn damage(directory: &Directory, found: &Found) -> Vec<Gap> {
    let of_file = |name: &String| {
        let file = fs::symlink_metadata(directory.path().join(name)).ok()?;
        let until = Timestamp::try_from(file.modified().ok()?).ok()?;
        let number: u64 = name.get(..12)?.parse().ok()?;
        let earlier = found.segments.iter().filter(|segment| segment.number < number);
        let since = earlier.map(|segment| wide(segment.facts.last_time)).max();
        let since = since.unwrap_or(Timestamp::UNIX_EPOCH);
        let why = format!("a file of history was damaged, and is set aside as {name}");
        (since < until).then_some(Gap { since, until, why })
    };
    found.recovery.set_aside.iter().filter_map(of_file).collect()
}

fn report(directory: &Directory, segments: &[Arc<Segment>], recovery: &Recovery) {
    let records: u64 = segments.iter().map(|segment| segment.shown()).sum();
    tracing::info!(
        "history in {}: {records} records in {} segments, {} in {} journals",
        directory.path().display(),
        segments.len(),
        recovery.records,
        recovery.journals,
    );
}
