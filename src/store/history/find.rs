//! Where the records with some ids lie in a segment.

use std::collections::HashSet;

use arrow_array::types::UInt64Type;

use super::columns::numbers;
use super::schema::Column as C;
use super::segment::{Segment, SegmentError};
use crate::event::ConnectionId;
use crate::store::archive::Rows;

/// The row with this id.
pub(super) fn find(segment: &Segment, id: ConnectionId) -> Result<Option<u32>, SegmentError> {
    Ok(find_all(segment, &HashSet::from([id]))?.first().map(|(_, row)| *row))
}

/// The rows of a segment with those of these ids that it may hold. One that cannot be read says so,
/// and has none.
pub(super) fn find_held(
    segment: &Segment,
    ids: impl Iterator<Item = ConnectionId>,
) -> Vec<(ConnectionId, u32)> {
    let held: HashSet<_> = ids.filter(|id| segment.may_hold(*id)).collect();
    if held.is_empty() {
        return Vec::new();
    }
    find_all(segment, &held).unwrap_or_else(|error| {
        segment.complain(&error);
        Vec::new()
    })
}

/// The versions that a segment has of the records with these ids.
pub(super) fn find_versions(
    segment: &Segment,
    ids: impl Iterator<Item = ConnectionId>,
) -> Vec<(ConnectionId, u64)> {
    let mut found = find_held(segment, ids);
    found.sort_unstable_by_key(|(_, row)| *row);
    let rows = Rows::List(found.iter().map(|(_, row)| *row).collect());
    if rows.len() == 0 {
        return Vec::new();
    }
    let read = segment.read(&[C::Version], &rows);
    let versions = read.map(|batch| numbers::<UInt64Type>(&batch, C::Version));
    match versions {
        Ok(versions) => {
            let of = |(place, (id, _))| Some((id, versions.get(place)?));
            found.into_iter().enumerate().filter_map(of).collect()
        }
        Err(error) => {
            segment.complain(&error);
            Vec::new()
        }
    }
}

/// The rows with these ids.
fn find_all(
    segment: &Segment,
    ids: &HashSet<ConnectionId>,
) -> Result<Vec<(ConnectionId, u32)>, SegmentError> {
    let all = Rows::Range(0..segment.facts.rows);
    let starts: HashSet<u64> = ids.iter().map(|id| id.start_ns).collect();
    let start = numbers::<UInt64Type>(&segment.read(&[C::StartNs], &all)?, C::StartNs);
    let may = (0..segment.facts.rows)
        .filter(|row| start.get(*row as usize).is_some_and(|start| starts.contains(&start)));
    let rows = Rows::List(may.collect());
    if rows.len() == 0 {
        return Ok(Vec::new());
    }
    let found = segment.ids(&rows)?.into_iter().enumerate();
    let found = found.filter(|(_, id)| ids.contains(id));
    Ok(found.filter_map(|(index, id)| Some((id, rows.get(index)?))).collect())
}
