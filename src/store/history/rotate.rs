//! The thread that makes segments of groups.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::directory::Name;
use super::encode::Encoder;
use super::find::find_held;
use super::part::superseded_in;
use super::segment::{Facts, Segment, SegmentError};
use super::segment_writer::{self, PAGE_ROWS, Piece};
use super::{RETRY_EVERY, Shared, lock};
use crate::event::ConnectionId;
use crate::store::archive::Group;
use crate::store::segment::{Range, Segment as MemorySegment};

/// How often files are looked at for their age.
const LIMITS_EVERY: Duration = Duration::from_secs(30);

/// Bytes that a row of a segment takes at most, in general.
const ROW_BYTES: u64 = 40;

/// Makes segments until no more groups come, and keeps them in order.
pub(super) fn run(shared: &Shared) {
    let mut looked = Instant::now();
    loop {
        let (next, closed) = next(shared);
        let nothing_waits = next.is_none();
        if nothing_waits {
            // What could not be written was given up.
            shared.segment_refused.store(false, Ordering::SeqCst);
        }
        if let Some((number, group)) = next
            && !rotate(shared, number, &group)
        {
            return;
        }
        // Of old segments, much may have to be read for that: journals do not wait for it.
        shared.hide_superseded();
        if looked.elapsed() >= LIMITS_EVERY {
            looked = Instant::now();
            shared.keep_limits();
        }
        if closed && nothing_waits {
            return;
        }
    }
}

/// Makes a segment of a group; whether to go on.
fn rotate(shared: &Shared, number: u64, group: &Group) -> bool {
    let made = shared.make(number, group);
    let groups = lock(&shared.groups);
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            let path = shared.directory.unfinished(number);
            shared.segment_refused.store(true, Ordering::SeqCst);
            shared.fail("cannot write", &path, &error);
            if groups.closed {
                // The journal has it, for the next start.
                return false;
            }
            let waited = shared.rotated_news.wait_timeout(groups, RETRY_EVERY);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            return true;
        }
    };
    shared.segment_refused.store(false, Ordering::SeqCst);
    // Memory may have run out meanwhile, and the group have been counted as lost.
    let wanted = groups.waiting.iter().any(|(waiting, _)| *waiting == number);
    let is_empty = made.is_none();
    match (made, wanted) {
        (Some(made), true) => shared.publish(made),
        (Some(made), false) => drop(fs::remove_file(&made.segment.path)),
        (None, _) => {}
    }
    if wanted {
        shared.rotated.fetch_max(group.last, Ordering::SeqCst);
    }
    shared.rotated_news.notify_all();
    drop(groups);
    if wanted && is_empty {
        // All that was in it was given up, and is counted as that.
        lock(&shared.books).account((group.after, group.last));
    }
    if wanted {
        shared.clear_journals(number);
        shared.keep_limits();
    }
    // Who waits for room has that of its journals by now.
    lock(&shared.groups).waiting.retain(|(waiting, _)| *waiting != number);
    shared.rotated_news.notify_all();
    true
}

/// A segment that is not shown yet, and the rows that it makes old, by segment.
struct Made {
    segment: Segment,
    earlier: HashMap<u64, Vec<(ConnectionId, u32)>>,
}

/// The oldest group that waits, which stays in the queue until it is a segment, and whether no more
/// come. Comes back without one, too, where there is something else to do.
fn next(shared: &Shared) -> (Option<(u64, Group)>, bool) {
    let mut groups = lock(&shared.groups);
    if groups.waiting.is_empty() && !groups.closed {
        let waited = shared.rotated_news.wait_timeout(groups, LIMITS_EVERY);
        groups = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    (groups.waiting.front().cloned(), groups.closed)
}

/// A row of memory that goes into a segment; sorted as lists are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    time: i64,
    start_ns: u64,
    tid: u32,
    boot: u32,
    segment: u32,
    row: u32,
}

impl Place {
    fn id(&self) -> ConnectionId {
        ConnectionId { start_ns: self.start_ns, tid: self.tid, boot: self.boot }
    }
}

impl Shared {
    /// Writes the segment of a group; `None` where there is nothing in it.
    fn make(&self, number: u64, group: &Group) -> Result<Option<Made>, SegmentError> {
        let sources: Vec<&Arc<MemorySegment>> = group.segments.iter().chain(&group.older).collect();
        let own = group.segments.len();
        let mut places = Vec::new();
        let mut maybe_earlier = HashSet::new();
        for (source, segment) in sources.iter().enumerate() {
            let body = segment.read();
            if source >= own && body.max_seq <= group.after {
                continue;
            }
            for (row_number, row) in body.rows.iter().enumerate() {
                // Of what was there before, only what has changed since.
                if source >= own && row.seq <= group.after {
                    continue;
                }
                let place = Place {
                    time: row.time,
                    start_ns: row.start_ns,
                    tid: row.id_tid,
                    boot: row.boot,
                    segment: source as u32,
                    row: row_number as u32,
                };
                if source >= own || self.may_hold(place.id()) {
                    maybe_earlier.insert(place.id());
                }
                places.push(place);
            }
        }
        places.sort_unstable();
        // A record that was carried from one segment of memory to another is in the later.
        places.dedup_by_key(|place| (place.time, place.id()));
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(None) };
        let times = Range { min: first.time, max: last.time };
        let earlier = self.find_earlier(&maybe_earlier);
        let patches: HashSet<ConnectionId> =
            earlier.values().flatten().map(|(id, _)| *id).collect();
        let facts = facts(group, &places, &patches, times);
        let segment = self.write_segment(number, &sources, &places, &patches, facts)?;
        Ok(Some(Made { segment, earlier }))
    }

    fn may_hold(&self, id: ConnectionId) -> bool {
        let starts = self.starts.read().unwrap_or_else(PoisonError::into_inner);
        starts.iter().any(|(boot, latest)| *boot == id.boot && id.start_ns <= *latest)
    }

    fn write_segment(
        &self,
        number: u64,
        sources: &[&Arc<MemorySegment>],
        places: &[Place],
        patches: &HashSet<ConnectionId>,
        facts: Facts,
    ) -> Result<Segment, SegmentError> {
        // Until the journal goes there are both.
        let bytes = places.len() as u64 * ROW_BYTES;
        self.let_go_for(bytes);
        self.needs_room_meanwhile(bytes)?;
        let unfinished = self.directory.unfinished(number);
        let _ = fs::remove_file(&unfinished);
        let file = self.directory.create(&unfinished)?;
        let batches = places.chunks(PAGE_ROWS).map(|chunk| encode(sources, chunk, patches));
        let mut path = unfinished.clone();
        let written = segment_writer::write(&file, batches, facts).and_then(|crc| {
            file.sync_all()?;
            let finished = self.directory.segment(number, crc);
            fs::rename(&unfinished, &finished)?;
            path = finished;
            self.directory.sync()?;
            Segment::open(number, &path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// Shows a new segment, and hides the earlier versions of what is in it.
    fn publish(&self, made: Made) {
        let Made { segment, earlier } = made;
        self.note_starts(&segment);
        for known in self.segments().iter() {
            if let Some(rows) = earlier.get(&known.number) {
                known.hide(rows.iter().map(|(_, row)| *row));
            }
        }
        let number = segment.number;
        self.change_segments(|segments| {
            segments.retain(|known| known.number != number);
            segments.push(Arc::new(segment));
        });
    }

    /// Has the thread of the segments look, where there is something to hide.
    pub(super) fn nudge_segments(&self) {
        if !self.superseded.now().is_empty() {
            self.rotated_news.notify_all();
        }
    }

    /// Finds and hides the rows of which memory has newer versions.
    fn hide_superseded(&self) {
        let ids = self.superseded.now();
        if ids.is_empty() {
            return;
        }
        for segment in self.segments().iter() {
            let found = find_held(segment, superseded_in(&ids, segment));
            if !found.is_empty() {
                segment.hide(found.into_iter().map(|(_, row)| row));
            }
        }
        self.superseded.remove(&ids);
    }

    /// Where earlier versions of these records lie, by segment.
    fn find_earlier(&self, ids: &HashSet<ConnectionId>) -> HashMap<u64, Vec<(ConnectionId, u32)>> {
        let mut earlier = HashMap::new();
        for segment in self.segments().iter() {
            let found = find_held(segment, ids.iter().copied());
            if !found.is_empty() {
                earlier.insert(segment.number, found);
            }
        }
        earlier
    }

    /// Removes journals whose records are in segments.
    fn clear_journals(&self, up_to: u64) {
        let files = self.directory.list().unwrap_or_default();
        for (name, path) in files {
            let Name::Journal(number) = name else { continue };
            if number > up_to {
                continue;
            }
            match fs::remove_file(&path) {
                Ok(()) => self.journals.forget(number),
                Err(error) => tracing::warn!("{}: cannot be removed: {error}", path.display()),
            }
        }
        if let Err(error) = self.directory.sync() {
            tracing::warn!("{}: {error}", self.directory.path().display());
        }
    }
}

fn facts(
    group: &Group,
    places: &[Place],
    patches: &HashSet<ConnectionId>,
    times: Range<i64>,
) -> Facts {
    let mut starts: Vec<(u32, u64, u64)> = Vec::new();
    for place in places.iter().filter(|place| !patches.contains(&place.id())) {
        match starts.iter_mut().find(|(boot, ..)| *boot == place.boot) {
            Some((_, min, max)) => {
                *min = (*min).min(place.start_ns);
                *max = (*max).max(place.start_ns);
            }
            None => starts.push((place.boot, place.start_ns, place.start_ns)),
        }
    }
    Facts {
        after: group.after,
        last: group.last,
        rows: places.len() as u32,
        patches: patches.len() as u32,
        wholes: 0,
        names: None,
        name_rows: None,
        other_names: None,
        first_time: times.min,
        last_time: times.max,
        starts,
    }
}

fn encode(
    sources: &[&Arc<MemorySegment>],
    places: &[Place],
    patches: &HashSet<ConnectionId>,
) -> Result<Piece, SegmentError> {
    let gone = SegmentError::Foreign("memory lost a row on the way");
    let mut encoder = Encoder::with_capacity(places.len());
    let mut places = places.iter().peekable();
    while let Some(first) = places.peek().map(|place| place.segment) {
        let source = sources.get(first as usize).ok_or(SegmentError::Foreign("no such source"))?;
        let body = source.read();
        while let Some(place) = places.next_if(|place| place.segment == first) {
            let row = body.rows.get(place.row as usize);
            let fields = row.and_then(|row| body.tables.fields(row));
            let (Some(row), Some(mut fields)) = (row, fields) else { return Err(gone) };
            fields.patch = patches.contains(&fields.id);
            encoder.push(&fields, || body.tables.decode(row));
        }
    }
    let wholes = encoder.wholes() as u32;
    let names = encoder.names();
    Ok(Piece { batch: encoder.finish()?, wholes, names })
}
