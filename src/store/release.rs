//! Memory and archive: what is handed over, and when memory may let go of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::archive::{Archive, Group};
use super::segment::Segment;
use super::{FullGroup, Store, Writer, lock};
use crate::event::Connection;

/// Changes after which a group is complete.
const GROUP_CHANGES: u64 = 131_072;
/// Of the memory, a group has one part in so many.
const GROUP_PART: usize = 6;
/// About what a row takes.
const ROW_BYTES: usize = 160;

impl Store {
    /// Closes the group that is being filled if it is full, and lets go of old ones.
    pub(super) fn keep_groups(&self, writer: &mut Writer, archive: &dyn Archive) {
        let by_memory = (self.segment_bytes / GROUP_PART / ROW_BYTES) as u64;
        let full = GROUP_CHANGES.min(by_memory.max(256));
        let changes = writer.next_seq - 1 - writer.group_after;
        if changes >= full || (changes > 0 && archive.wants_group()) {
            self.close_group(writer, archive);
        }
        self.release(writer, archive);
        self.bytes.store(writer.bytes as u64, Ordering::Relaxed);
    }

    /// Hands over what the archive still lacks, though nothing new comes.
    pub(super) fn catch_up(&self) {
        if let Some(archive) = self.archive.as_deref().filter(|archive| archive.wants_group()) {
            self.keep_groups(&mut lock(&self.writer), archive);
        }
    }

    /// The same at the end, also where the disk refused until now: it may have room by now.
    pub(super) fn hand_over_rest(&self, archive: &dyn Archive) {
        let mut writer = lock(&self.writer);
        if archive.lacks_changes() && writer.next_seq - 1 > writer.group_after {
            self.close_group(&mut writer, archive);
        }
    }

    fn close_group(&self, writer: &mut Writer, archive: &dyn Archive) {
        let (after, last) = (writer.group_after, writer.next_seq - 1);
        let own = |segment: &&Arc<Segment>| segment.after == after;
        let segments: Vec<_> = writer.segments.iter().filter(own).map(Arc::clone).collect();
        let older = writer.segments.iter().filter(|segment| segment.after != after);
        let older = older.map(Arc::clone).collect();
        writer.groups.push_back(FullGroup { last, segments: segments.len() });
        writer.group_after = last;
        self.add_segment(writer);
        archive.add_group(Group { after, last, segments, older });
    }

    /// Lets go of the oldest groups, which the archive has, until the rest fits.
    fn release(&self, writer: &mut Writer, archive: &dyn Archive) {
        while writer.bytes > self.segment_bytes
            && let Some(oldest) = writer.groups.front()
        {
            let (last, segments) = (oldest.last, oldest.segments);
            let mut lost = false;
            if archive.rotated() < last {
                // The archive is behind: a little more memory is used meanwhile.
                if writer.bytes <= self.segment_bytes + self.segment_bytes / 4 {
                    break;
                }
                lost = !archive.wait_rotated(last) && archive.give_up(last);
            }
            writer.groups.pop_front();
            let remaining = writer.segments.get(segments..).unwrap_or_default();
            archive.release(last, remaining);
            let mut carried = Vec::new();
            for _ in 0..segments {
                let segment = self.take_oldest(writer);
                match lost {
                    true => self.count_lost(&segment, last),
                    false => carried.extend(changed_since(&segment, last, archive)),
                }
            }
            self.publish(writer);
            for (version, connection) in carried {
                self.insert_version(writer, &connection, version);
            }
        }
    }

    /// Counts a segment of the group that ends with change `last`.
    fn count_lost(&self, segment: &Segment, last: u64) {
        let body = segment.read();
        let rows = body.rows.len() as u64;
        self.evicted.fetch_add(rows, Ordering::Relaxed);
        if let (Some(times), Some(archive)) = (body.times, &self.archive) {
            archive.count_given_up(times, rows, (segment.after, last));
        }
    }

    fn insert_version(&self, writer: &mut Writer, connection: &Connection, version: u64) {
        if writer.segments.last().is_some_and(|active| active.read().is_full()) {
            self.add_segment(writer);
        }
        let Some(active) = writer.segments.last().map(Arc::clone) else { return };
        let mut body = active.write();
        let before = body.bytes();
        body.insert(connection, version);
        writer.bytes += body.bytes() - before;
        self.records.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes records over that an earlier process left in no segment, by their last changes.
    #[cfg(feature = "history")]
    pub(super) fn take_over(
        &self,
        super::history::Taken { after, records }: super::history::Taken,
    ) {
        let Some(archive) = self.archive.as_deref() else { return };
        let Some((first, _)) = records.first() else { return };
        let mut writer = lock(&self.writer);
        // The group begins before them, not with this process.
        writer.group_after = first.saturating_sub(1).min(after);
        writer.segments.clear();
        writer.bytes = 0;
        self.add_segment(&mut writer);
        for (version, connection) in &records {
            if archive.may_hold(connection.id) {
                archive.supersede(connection.id, archive.rotated());
            }
            self.insert_version(&mut writer, connection, *version);
        }
        self.close_group(&mut writer, archive);
        self.bytes.store(writer.bytes as u64, Ordering::Relaxed);
    }

    /// Records held, each once.
    pub(super) fn held(&self) -> u64 {
        let Some(archive) = &self.archive else { return self.records.load(Ordering::Relaxed) };
        let rotated = archive.rotated();
        let memory = self.memory();
        let only_here = memory.iter().filter(|segment| segment.after >= rotated);
        only_here.map(|segment| segment.read().rows.len() as u64).sum::<u64>() + archive.records()
    }
}

/// Those records of a segment, of the group that ends with change `last`, that have changed since the
/// archive took it over: memory keeps them, and shows them from elsewhere. Who looks at newer
/// segments first sees none twice.
fn changed_since(segment: &Segment, last: u64, archive: &dyn Archive) -> Vec<(u64, Connection)> {
    let rotated = archive.rotated();
    let mut body = segment.write();
    if body.max_seq <= rotated {
        return Vec::new();
    }
    let changed = body.rows.iter().filter(|row| row.seq > rotated);
    let records = changed.filter_map(|row| Some((row.seq, body.tables.decode(row)?)));
    let records: Vec<_> = records.collect();
    body.carried_after = rotated;
    records.iter().for_each(|(_, connection)| archive.supersede(connection.id, last));
    records
}
