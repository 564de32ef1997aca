//! The thread that writes journals.

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::encode::Encoder;
use super::fields::Fields;
use super::journal::{Journal, Sealed};
use super::{FLUSH_CHANGES, FLUSH_EVERY, Item, RETRY_EVERY, Shared, lock};
use crate::event::Connection;

/// How often it is looked whether the journal is as it was written.
const LOOK_EVERY: Duration = Duration::from_secs(1);

struct Writer<'a> {
    shared: &'a Shared,
    /// Of the journal that is written now, and of the segment that its group becomes.
    number: u64,
    journal: Option<Journal>,
    /// Changes in this journal.
    in_journal: u64,
    /// It has become so large that its group should end.
    is_long: bool,
    encoder: Encoder,
    /// Memory that the last flush took.
    room: Vec<u8>,
    last: u64,
    /// When it was last tried whether the disk takes anything.
    tried: Instant,
    /// When it was last looked whether the journal is as it was written.
    looked: Instant,
}

/// Writes until the queue is closed; the first journal has this number.
pub(super) fn run(shared: &Shared, first: u64) {
    let mut writer = Writer {
        shared,
        number: first,
        journal: None,
        in_journal: 0,
        is_long: false,
        encoder: Encoder::default(),
        room: Vec::new(),
        last: 0,
        tried: Instant::now(),
        looked: Instant::now(),
    };
    loop {
        let (items, closed) = writer.next();
        for item in items {
            match item {
                Item::Changes(first, changes) => writer.changes(first, &changes),
                Item::Group(group) => writer.group(group),
            }
        }
        writer.flush();
        writer.look();
        *lock(&shared.writing_since) = None;
        writer.retry();
        shared.nudge_segments();
        if closed {
            break;
        }
    }
    shared.close_sync();
    lock(&shared.groups).closed = true;
    shared.rotated_news.notify_all();
}

impl Writer<'_> {
    /// Waits for what is to be written, for a while; whether this is all.
    fn next(&self) -> (VecDeque<Item>, bool) {
        let has_group =
            |items: &VecDeque<Item>| items.iter().any(|item| matches!(item, Item::Group(_)));
        let mut queue = lock(&self.shared.queue);
        let until = Instant::now() + FLUSH_EVERY;
        while queue.changes < FLUSH_CHANGES && !queue.closed && !has_group(&queue.items) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.moved.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.changes = 0;
        *lock(&self.shared.writing_since) = queue.since.take();
        let taken = (std::mem::take(&mut queue.items), queue.closed);
        drop(queue);
        self.shared.moved.notify_all();
        taken
    }

    fn changes(&mut self, first: u64, changes: &[Connection]) {
        for (version, c) in (first..).zip(changes) {
            self.encoder.push(&Fields::of(c, version), || Some(c.clone()));
            self.last = version;
            if self.encoder.len() >= FLUSH_CHANGES {
                self.flush();
            }
        }
    }

    /// Ends the journal of this group and hands the group on, to become a segment.
    fn group(&mut self, mut group: crate::store::archive::Group) {
        self.flush();
        self.journal = None;
        (self.in_journal, self.is_long) = (0, false);
        let mut groups = lock(&self.shared.groups);
        groups.without_given_up(&mut group);
        if !group.segments.is_empty() {
            groups.waiting.push_back((self.number, group));
            self.shared.rotated_news.notify_all();
        }
        drop(groups);
        self.number += 1;
    }

    fn flush(&mut self) {
        if self.encoder.len() == 0 {
            return;
        }
        // The next is most likely as long.
        let next = Encoder::with_capacity(self.encoder.len());
        let encoder = std::mem::replace(&mut self.encoder, next);
        let count = encoder.len() as u64;
        if self.shared.is_failing() || self.append(encoder).is_err() {
            self.shared.note_lacking(self.last, count);
            self.leave_lost();
        } else {
            self.shared.journaled.fetch_add(count, Ordering::Relaxed);
            self.in_journal += count;
        }
        self.shared.written.store(self.last, Ordering::Relaxed);
    }

    /// Looks whether the journal is as it was written, though nothing new comes.
    fn look(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY || self.shared.is_failing() {
            return;
        }
        self.looked = Instant::now();
        if let Some(why) = self.journal.as_ref().and_then(Journal::is_lost) {
            let path = self.shared.directory.journal(self.number);
            self.shared.fail("cannot go on with", &path, &why);
            self.leave_lost();
        }
    }

    /// What is in a journal that somebody has removed or cut is in no file: memory has it, for the
    /// segment. What comes until then goes to another journal.
    fn leave_lost(&mut self) {
        if self.journal.as_ref().is_none_or(|journal| journal.is_lost().is_none()) {
            return;
        }
        self.journal = None;
        self.is_long = false;
        self.shared.note_lacking(self.last, std::mem::take(&mut self.in_journal));
        self.shared.journals.look(self.number, &self.shared.directory.journal(self.number));
        // It is also the number of the segment, with which all journals up to it go.
        self.number += 1;
    }

    fn append(&mut self, encoder: Encoder) -> io::Result<()> {
        let path = self.shared.directory.journal(self.number);
        let count = encoder.len() as u64;
        let write = || -> io::Result<()> {
            let room = std::mem::take(&mut self.room);
            let flush = encoder.finish().and_then(|batch| Sealed::flush(&batch, room));
            let flush = flush.map_err(io::Error::other)?;
            self.shared.needs_room(flush.len() as u64)?;
            self.shared.make_room(flush.len() as u64)?;
            let is_new = self.journal.is_none();
            let journal = match &mut self.journal {
                Some(journal) => journal,
                None => self.journal.insert(Journal::begin(self.shared.directory.create(&path)?)?),
            };
            journal.append(&flush)?;
            self.room = flush.into_room();
            self.shared.journals.note(self.number, journal.bytes());
            // Asked for once, since more may come into it before the group ends.
            if !self.is_long && self.shared.is_long(journal.bytes()) {
                self.is_long = true;
                self.shared.wants_group.store(true, Ordering::SeqCst);
            }
            self.shared.sync_journal(&path, journal.file(), self.last, count, is_new);
            Ok(())
        };
        let written = write();
        if let Err(error) = &written {
            self.shared.fail("cannot write", &path, error);
        }
        written
    }

    /// Looks whether there is room again.
    fn retry(&mut self) {
        let refused = self.shared.segment_refused.load(Ordering::SeqCst);
        if !self.shared.is_failing() || refused || self.tried.elapsed() < RETRY_EVERY {
            return;
        }
        self.tried = Instant::now();
        let probe = self.shared.directory.probe();
        let written = self.shared.needs_room(1 << 20).and_then(|()| {
            let mut file = self.shared.directory.create(&probe)?;
            io::Write::write_all(&mut file, &[0; 4096])?;
            file.sync_data()
        });
        let _ = std::fs::remove_file(&probe);
        if written.is_ok() {
            self.shared.works();
        }
    }
}

impl Shared {
    /// An error where there is no room for so many bytes, or the directory is not what it was.
    pub(super) fn needs_room(&self, bytes: u64) -> io::Result<()> {
        self.directory.is_there()?;
        enough(self.directory.room()?, bytes)
    }

    /// The same for a segment. When it is there its journal, which is several times as large, goes: it
    /// may have what is left to others meanwhile.
    pub(super) fn needs_room_meanwhile(&self, bytes: u64) -> io::Result<()> {
        self.directory.is_there()?;
        enough(self.directory.whole_room()?, bytes)
    }
}

fn enough(room: u64, bytes: u64) -> io::Result<()> {
    if room >= bytes {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::StorageFull,
        format!(
            "the file system is nearly full: {room} bytes may still be used, {bytes} are needed; make \
             room, or lower --disk-limit"
        ),
    ))
}
