//! The start: what is there, what can be used of it, and what is cut or set aside.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::decode::Decoder;
use super::directory::{Directory, Name};
use super::part::find_held;
use super::segment::{self, Segment, SegmentError};
use super::{HistoryError, Left, journal};
use crate::event::{Connection, ConnectionId};
use crate::query::Recovery;

/// What was found.
pub(super) struct Found {
    pub(super) segments: Vec<Arc<Segment>>,
    /// Records that are in no segment yet.
    pub(super) left: Left,
    /// The first number that no file has.
    pub(super) next_number: u64,
    pub(super) recovery: Recovery,
}

pub(super) fn recover(directory: &Directory) -> Result<Found, HistoryError> {
    let failed = |source| HistoryError::Directory {
        what: "cannot read",
        path: directory.path().to_owned(),
        source,
    };
    let mut recovery = Recovery::default();
    let mut segments: Vec<Arc<Segment>> = Vec::new();
    let mut journals = Vec::new();
    let mut next_number = 1;
    for (name, path) in directory.list().map_err(failed)? {
        match name {
            Name::Unfinished => {
                let _ = fs::remove_file(&path);
            }
            Name::Journal(number) => {
                next_number = next_number.max(number + 1);
                journals.push((number, path));
            }
            Name::Segment(number, crc) => {
                next_number = next_number.max(number + 1);
                match open(number, crc, &path) {
                    Ok(segment) => segments.push(Arc::new(segment)),
                    Err(error) => set_aside(directory, &path, &error, &mut recovery),
                }
            }
        }
    }
    hide_earlier(&segments);
    let in_segments = segments.iter().map(|segment| segment.number).max().unwrap_or(0);
    let mut left: HashMap<ConnectionId, (u64, Connection)> = HashMap::new();
    for (number, path) in journals {
        if number <= in_segments {
            // The process ended between the two.
            let _ = fs::remove_file(&path);
            continue;
        }
        read_journal(directory, &path, &mut left, &mut recovery);
    }
    let mut left: Left = left.into_values().collect();
    left.sort_unstable_by_key(|(version, _)| *version);
    recovery.records = left.len() as u64;
    report(directory, &segments, &recovery);
    Ok(Found { segments, left, next_number, recovery })
}

fn open(number: u64, crc: u32, path: &Path) -> Result<Segment, SegmentError> {
    match segment::checksum(path)? == crc {
        true => Segment::open(number, path),
        false => Err(SegmentError::Foreign("it is not as it was written")),
    }
}

fn read_journal(
    directory: &Directory,
    path: &Path,
    left: &mut HashMap<ConnectionId, (u64, Connection)>,
    recovery: &mut Recovery,
) {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return set_aside(directory, path, &error.into(), recovery),
    };
    recovery.journals += 1;
    let contents = journal::read(&bytes);
    if contents.torn > 0 {
        recovery.torn_bytes += contents.torn;
        let path = path.display();
        tracing::warn!("{path}: the last {} bytes were being written and are cut", contents.torn);
    }
    let mut corrupt = contents.corrupt;
    for batch in &contents.batches {
        let mut decoder = Decoder::new(batch);
        for row in 0..decoder.rows() {
            let Some((version, record)) = decoder.version(row).zip(decoder.record(row)) else {
                corrupt += 1;
                continue;
            };
            let known = left.get(&record.id).map(|(known, _)| *known);
            if known.is_none_or(|known| known <= version) {
                left.insert(record.id, (version, record));
            }
        }
    }
    if corrupt > 0 {
        recovery.corrupt += corrupt;
        // What can be read of it is in memory, and goes into the next segment.
        set_aside(directory, path, &SegmentError::Foreign("parts of it are damaged"), recovery);
    }
}

fn set_aside(directory: &Directory, path: &Path, error: &SegmentError, recovery: &mut Recovery) {
    match directory.set_aside(path) {
        Ok(aside) => {
            tracing::error!("{}: {error}; set aside as {}", path.display(), aside.display());
            let name = aside.file_name().unwrap_or_default();
            recovery.set_aside.push(name.to_string_lossy().into_owned());
        }
        Err(moving) => {
            tracing::error!("{}: {error}; cannot be set aside: {moving}", path.display());
        }
    }
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
