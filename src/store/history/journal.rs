//! Journals: Arrow IPC stream files that are only appended to, one record batch per flush.
//!
//! The format has no checksums. It pads the header of each message, though, and leaves open with
//! what: the padding before a record batch holds the checksum of everything since the last one, so
//! that a flipped bit is found and other readers see nothing of it. Each flush carries its own
//! dictionaries, so that losing one harms no other.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::root_as_message;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;

use super::schema::schema;

const CONTINUATION: [u8; 4] = [0xff; 4];
/// Stands before the checksum.
const MARK: [u8; 4] = *b"crc1";
const PREFIX: usize = 8;
/// Headers are a multiple of this long.
const ALIGN: usize = 64;
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// The schema message, with which a file begins.
pub(super) fn head() -> Result<Vec<u8>, ArrowError> {
    let writer = StreamWriter::try_new(Vec::new(), &schema())?;
    Ok(writer.get_ref().clone())
}

/// One flush.
pub(super) fn encode(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    let head = writer.get_ref().len();
    writer.write(batch)?;
    let mut bytes = writer.get_ref().clone();
    bytes.drain(..head);
    let spoiled = || ArrowError::IpcError("a message was written that cannot be read".to_owned());
    // The last message is the record batch: its header gets room for the mark and the checksum.
    let mut last = 0;
    let mut next = 0;
    while next < bytes.len() {
        let message = Message::read(&bytes, next).ok_or_else(spoiled)?;
        (last, next) = (next, message.end);
    }
    let message = Message::read(&bytes, last).ok_or_else(spoiled)?;
    let room = message.body;
    bytes.splice(room..room, [0; ALIGN]);
    let length = (message.body - last - PREFIX + ALIGN) as u32;
    bytes.get_mut(last + 4..last + 8).ok_or_else(spoiled)?.copy_from_slice(&length.to_le_bytes());
    let place = room + ALIGN - 8;
    let crc = checksum(&bytes, place);
    let mark = bytes.get_mut(place..place + 8).ok_or_else(spoiled)?;
    mark.copy_from_slice(&[MARK, crc.to_le_bytes()].concat());
    Ok(bytes)
}

/// Of everything but the mark and the checksum, which lie at `place`.
fn checksum(bytes: &[u8], place: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..place).unwrap_or_default());
    hasher.update(bytes.get(place + 8..).unwrap_or_default());
    hasher.finalize()
}

/// Where a message lies: its header begins after a prefix of 8 bytes.
struct Message {
    is_batch: bool,
    body: usize,
    end: usize,
}

impl Message {
    /// `None` if there is no whole message here.
    fn read(bytes: &[u8], at: usize) -> Option<Message> {
        if bytes.get(at..at + 4)? != CONTINUATION {
            return None;
        }
        let length = u32::from_le_bytes(bytes.get(at + 4..at + 8)?.try_into().ok()?);
        let body = at.checked_add(PREFIX)?.checked_add(usize::try_from(length).ok()?)?;
        let message = root_as_message(bytes.get(at + PREFIX..body)?).ok()?;
        let end = body.checked_add(usize::try_from(message.bodyLength()).ok()?)?;
        let is_batch = message.header_as_record_batch().is_some();
        (end <= bytes.len()).then_some(Message { is_batch, body, end })
    }
}

/// What a journal held.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) batches: Vec<RecordBatch>,
    /// Bytes at the end that are no whole flush: what was being written when the process ended.
    pub(super) torn: u64,
    /// Flushes in the middle, or bytes at the end, that are not what was written.
    pub(super) corrupt: u64,
}

/// Reads what can be read.
pub(super) fn read(bytes: &[u8]) -> Contents {
    let found = find(bytes);
    let mut contents = Contents { torn: found.torn, corrupt: found.corrupt, ..Contents::default() };
    for flush in found.flushes {
        match batch(bytes, found.head, flush) {
            Some(batch) => contents.batches.push(batch),
            None => contents.corrupt += 1,
        }
    }
    contents
}

/// Where the flushes lie whose checksums are right.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    /// Where the schema ends.
    head: usize,
    pub(super) flushes: Vec<Range<usize>>,
    pub(super) torn: u64,
    pub(super) corrupt: u64,
}

pub(super) fn find(bytes: &[u8]) -> Flushes {
    let mut found = Flushes::default();
    let Some(head) = Message::read(bytes, 0) else {
        // The very first write was cut, or it is no journal.
        match bytes.len() < 16 << 10 && !bytes.windows(4).any(|word| word == MARK) {
            true => found.torn = bytes.len() as u64,
            false => found.corrupt = 1,
        }
        return found;
    };
    found.head = head.end;
    let mut at = head.end;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest == END {
            break;
        }
        let mut dead = HashSet::new();
        let flush = flush(bytes, at, &mut dead);
        if let Some((end, true)) = flush {
            found.flushes.push(at..end);
            at = end;
            continue;
        }
        // The end was cut off, or a part is not what was written: a later flush that is whole tells.
        match (next_flush(bytes, at, &mut dead), flush) {
            (Some(next), _) => {
                found.corrupt += 1;
                at = next;
            }
            (None, Some((end, _))) => {
                found.corrupt += 1;
                at = end;
            }
            (None, None) => {
                found.torn = rest.len() as u64;
                break;
            }
        }
    }
    found
}

/// Where the flush that begins here ends, and whether its checksum is right. `dead` are places from
/// which no end is reached: one that is known of needs no further look.
fn flush(bytes: &[u8], start: usize, dead: &mut HashSet<usize>) -> Option<(usize, bool)> {
    let mut at = start;
    let mut passed = Vec::new();
    loop {
        let message = if dead.contains(&at) { None } else { Message::read(bytes, at) };
        passed.push(at);
        let Some(message) = message else {
            dead.extend(passed);
            return None;
        };
        at = message.end;
        if message.is_batch {
            let place = message.body.checked_sub(8)?.checked_sub(start)?;
            let flush = bytes.get(start..message.end)?;
            let mark = flush.get(place..place + 4)?;
            let crc = u32::from_le_bytes(flush.get(place + 4..place + 8)?.try_into().ok()?);
            return Some((message.end, mark == MARK && checksum(flush, place) == crc));
        }
    }
}

/// The next place after a broken one at which a whole flush begins.
fn next_flush(bytes: &[u8], after: usize, dead: &mut HashSet<usize>) -> Option<usize> {
    // Every message begins at a multiple of 8, and is marked.
    let mut places = (after / 8 * 8 + 8..bytes.len()).step_by(8);
    let marked = |at: &usize| bytes.get(*at..*at + 4) == Some(&CONTINUATION[..]);
    places.find(|at| marked(at) && flush(bytes, *at, dead).is_some_and(|(_, whole)| whole))
}

fn batch(bytes: &[u8], head: usize, flush: Range<usize>) -> Option<RecordBatch> {
    let parts = [bytes.get(..head)?, bytes.get(flush)?].concat();
    StreamReader::try_new(io::Cursor::new(parts), None).ok()?.next()?.ok()
}

/// A journal that is being written.
#[derive(Debug)]
pub(super) struct Journal {
    file: Arc<File>,
    /// Up to where whole flushes reach.
    length: u64,
}

impl Journal {
    pub(super) fn begin(file: File) -> io::Result<Self> {
        let mut journal = Journal { file: Arc::new(file), length: 0 };
        let head = head().map_err(io::Error::other)?;
        journal.append(&head)?;
        Ok(journal)
    }

    /// Appends; what was written of it is taken back if not all of it can be.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = (&*self.file).write_all(bytes);
        match written {
            Ok(()) => self.length += bytes.len() as u64,
            Err(_) => self.file.set_len(self.length).unwrap_or(()),
        }
        written
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.length
    }
}
