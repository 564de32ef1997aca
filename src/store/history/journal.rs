//! Journals: Arrow IPC stream files that are only appended to, one record batch per flush.
//!
//! The format has no checksums. It pads the header of each message, though, and leaves open with
//! what: the padding before a record batch holds the checksum of everything since the last one, so
//! that a flipped bit is found and other readers see nothing of it; so does the padding of the schema
//! of the schema itself. Each flush carries its own dictionaries, so that losing one harms no other.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::root_as_message;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Schema};

use super::guard::guarded;
use super::schema::{Column, first_schema, schema};

const CONTINUATION: [u8; 4] = [0xff; 4];
/// Stands before the checksum.
const MARK: [u8; 4] = *b"crc1";
const PREFIX: usize = 8;
/// Headers are a multiple of this long.
const ALIGN: usize = 64;
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// The schema message, with which a file begins.
pub(super) fn head() -> Result<Sealed, ArrowError> {
    head_of(&schema())
}

fn head_of(schema: &Schema) -> Result<Sealed, ArrowError> {
    let writer = StreamWriter::try_new(Vec::new(), schema)?;
    Sealed::new(writer.get_ref().clone(), 0)
}

fn spoiled() -> ArrowError {
    ArrowError::IpcError("a message was written that cannot be read".to_owned())
}

/// Messages with a checksum.
#[derive(Debug)]
pub(super) struct Sealed {
    bytes: Vec<u8>,
    /// Where the seal is to stand. It is not put there, since what follows it is long.
    place: usize,
    seal: [u8; ALIGN],
}

impl Sealed {
    /// One flush. `room` is memory that may be used for it, such as that of the last.
    pub(super) fn flush(batch: &RecordBatch, mut room: Vec<u8>) -> Result<Self, ArrowError> {
        room.clear();
        let mut writer = StreamWriter::try_new(room, &batch.schema())?;
        // Each file has the schema once.
        writer.get_mut().clear();
        writer.write(batch)?;
        let mut bytes = writer.into_inner()?;
        bytes.truncate(bytes.len() - END.len());
        // The last message is the record batch.
        let mut last = 0;
        let mut next = 0;
        while next < bytes.len() {
            let message = Message::read(&bytes, next).ok_or_else(spoiled)?;
            (last, next) = (next, message.end);
        }
        Sealed::new(bytes, last)
    }

    /// Makes room in the header of the message that begins at `last` for the mark and the checksum,
    /// which is of all of these bytes.
    fn new(bytes: Vec<u8>, last: usize) -> Result<Self, ArrowError> {
        let place = Message::read(&bytes, last).ok_or_else(spoiled)?.body;
        let mut sealed = Sealed { bytes, place, seal: [0; ALIGN] };
        sealed.stamp(last).ok_or_else(spoiled)?;
        Ok(sealed)
    }

    fn stamp(&mut self, last: usize) -> Option<()> {
        let length = u32::try_from(self.place - last - PREFIX + ALIGN).ok()?;
        self.bytes.get_mut(last + 4..last + 8)?.copy_from_slice(&length.to_le_bytes());
        let (padding, mark) = self.seal.split_last_chunk_mut::<8>()?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.bytes.get(..self.place)?);
        hasher.update(padding);
        hasher.update(self.bytes.get(self.place..)?);
        *mark = marked(hasher.finalize());
        Some(())
    }

    /// What is to be written, in this order.
    fn parts(&self) -> [&[u8]; 3] {
        let (before, after) = self.bytes.split_at(self.place);
        [before, &self.seal, after]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() + ALIGN
    }

    /// Memory to be used again.
    pub(super) fn into_room(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.parts().concat()
    }
}

fn marked(crc: u32) -> [u8; 8] {
    let [a, b, c, d] = MARK;
    let [e, f, g, h] = crc.to_le_bytes();
    [a, b, c, d, e, f, g, h]
}

/// Writes mark and checksum.
#[cfg(any(test, fuzzing))]
fn stamp(bytes: &mut [u8], place: usize) -> Option<()> {
    let crc = checksum(bytes, place);
    *bytes.get_mut(place..)?.first_chunk_mut()? = marked(crc);
    Some(())
}

/// Whether the checksum at this place is right; `None` if there is none.
fn is_sealed(bytes: &[u8], place: usize) -> Option<bool> {
    if bytes.get(place..place + 4)? != MARK {
        return None;
    }
    let crc = u32::from_le_bytes(bytes.get(place + 4..place + 8)?.try_into().ok()?);
    Some(checksum(bytes, place) == crc)
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
    is_schema: bool,
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
        let is_schema = message.header_as_schema().is_some();
        let is_batch = message.header_as_record_batch().is_some();
        (end <= bytes.len()).then_some(Message { is_schema, is_batch, body, end })
    }

    /// Whether everything up to its end is as it was written; `None` if that is not to be known.
    fn is_whole(&self, bytes: &[u8]) -> Option<bool> {
        is_sealed(bytes.get(..self.end)?, self.body.checked_sub(8)?)
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
    // What is not known to be as it was written is not believed: most likely the columns are these.
    let known = [schema(), first_schema()].map(|schema| head_of(&schema));
    let known: Vec<_> = known.into_iter().flatten().map(|head| head.to_vec()).collect();
    let own = bytes.get(..found.head).filter(|head| !head.is_empty());
    let heads: Vec<&[u8]> =
        own.map_or_else(|| known.iter().map(Vec::as_slice).collect(), |own| vec![own]);
    for flush in found.flushes {
        let flush = bytes.get(flush).unwrap_or_default();
        match heads.iter().find_map(|head| batch(head, flush)) {
            Some(batch) => contents.batches.push(batch),
            None => contents.corrupt += 1,
        }
    }
    contents
}

/// Where the flushes lie whose checksums are right.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    /// Where the schema ends, or 0 where it is not known to be as it was written.
    head: usize,
    pub(super) flushes: Vec<Range<usize>>,
    pub(super) torn: u64,
    pub(super) corrupt: u64,
}

pub(super) fn find(bytes: &[u8]) -> Flushes {
    let mut found = Flushes::default();
    let mut at = 0;
    let head = Message::read(bytes, 0).filter(|message| message.is_schema);
    if let Some(head) = &head {
        at = head.end;
        match head.is_whole(bytes) {
            Some(true) => found.head = head.end,
            Some(false) => found.corrupt = 1,
            // Of before schemas had checksums.
            None => {}
        }
    } else if is_cut_head(bytes) {
        found.torn = bytes.len() as u64;
        return found;
    }
    let mut search = Search::new(bytes);
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest == END {
            break;
        }
        let flush = search.flush(at);
        if let Some((end, true)) = flush {
            found.flushes.push(at..end);
            at = end;
            continue;
        }
        // The end was cut off, or a part is not what was written: a later flush that is whole tells.
        match (search.next_flush(at), flush) {
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
    if head.is_none() && found.flushes.is_empty() {
        // It is no journal, or nothing is left of it.
        (found.torn, found.corrupt) = (0, 1);
    }
    found
}

/// Whether this is all of a file whose very first write was cut.
fn is_cut_head(bytes: &[u8]) -> bool {
    let begins = bytes.iter().zip(CONTINUATION).all(|(byte, begin)| *byte == begin);
    let length = bytes.get(4..8).and_then(|length| length.try_into().ok());
    let is_longer = |length| {
        let length = u32::from_le_bytes(length) as usize;
        (bytes.len()..16 << 10).contains(&(length + PREFIX - 1))
    };
    begins && length.is_none_or(is_longer)
}

/// Looks for flushes. A hostile file cannot make that take for ever.
struct Search<'a> {
    bytes: &'a [u8],
    /// Places from which no end is reached: one that is known of needs no further look.
    dead: HashSet<usize>,
    /// From here on there is no flush that is whole.
    nothing_from: usize,
    /// Bytes of which the checksum may still be computed.
    budget: usize,
}

impl<'a> Search<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        // A flush may be taken to begin at each of its messages, of which there is one per column at
        // most.
        let budget = bytes.len().saturating_mul(2 + Column::ALL.len());
        Search { bytes, dead: HashSet::new(), nothing_from: bytes.len(), budget }
    }

    /// Where the flush that begins here ends, and whether its checksum is right.
    fn flush(&mut self, start: usize) -> Option<(usize, bool)> {
        let mut at = start;
        let mut passed = Vec::new();
        loop {
            let message = match self.dead.contains(&at) {
                true => None,
                false => Message::read(self.bytes, at),
            };
            passed.push(at);
            let Some(message) = message else {
                self.dead.extend(passed);
                return None;
            };
            at = message.end;
            if message.is_batch {
                let place = message.body.checked_sub(8)?.checked_sub(start)?;
                let flush = self.bytes.get(start..message.end)?;
                let affordable = self.budget.checked_sub(flush.len());
                self.budget = affordable.unwrap_or(0);
                let whole = affordable.is_some() && is_sealed(flush, place) == Some(true);
                return Some((message.end, whole));
            }
        }
    }

    /// The next place after a broken one at which a whole flush begins.
    fn next_flush(&mut self, after: usize) -> Option<usize> {
        // Every message begins at a multiple of 8, and is marked.
        for at in (after / 8 * 8 + 8..self.nothing_from).step_by(8) {
            let marked = self.bytes.get(at..at + 4) == Some(&CONTINUATION[..]);
            if marked && self.flush(at).is_some_and(|(_, whole)| whole) {
                return Some(at);
            }
        }
        self.nothing_from = self.nothing_from.min(after);
        None
    }
}

fn batch(head: &[u8], flush: &[u8]) -> Option<RecordBatch> {
    let parts = [head, flush].concat();
    let read = || Ok(StreamReader::try_new(io::Cursor::new(parts), None)?.next().transpose()?);
    guarded(read).ok()?
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
    pub(super) fn append(&mut self, sealed: &Sealed) -> io::Result<()> {
        if let Some(why) = self.is_lost() {
            return Err(io::Error::other(why));
        }
        let mut parts = sealed.parts().into_iter();
        let written = parts.try_for_each(|part| (&*self.file).write_all(part));
        match written {
            Ok(()) => self.length += sealed.len() as u64,
            // Where it cannot be taken back, readers find the next flush behind it.
            Err(_) => {
                if self.file.set_len(self.length).is_err() {
                    self.length = self.file.metadata().map_or(self.length, |file| file.len());
                }
            }
        }
        written
    }

    /// What somebody has done to the file, if it does not have any more what was written to it.
    pub(super) fn is_lost(&self) -> Option<&'static str> {
        let file = self.file.metadata().ok()?;
        if file.nlink() == 0 {
            return Some("it was removed while it was written");
        }
        // What is no file has no length.
        (file.is_file() && file.len() != self.length)
            .then_some("it was cut, or somebody else wrote to it, while it was written")
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn bytes(&self) -> u64 {
        self.length
    }
}

/// Makes all checksums right, as who forges a file would.
#[cfg(any(test, fuzzing))]
pub(super) fn forge(bytes: &mut [u8]) {
    let (mut at, mut start) = (0, 0);
    while let Some(message) = Message::read(bytes, at) {
        if let Some(place) = message.body.checked_sub(start + 8)
            && (message.is_schema || message.is_batch)
            && let Some(flush) = bytes.get_mut(start..message.end)
        {
            stamp(flush, place);
            start = message.end;
        }
        at = message.end;
    }
}
