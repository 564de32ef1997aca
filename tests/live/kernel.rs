//! What the kernel itself says about loaded programs and their maps.

use std::collections::BTreeMap;

use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use netspy::capture::report::AttachReport;

/// Ids of all programs that are loaded.
pub fn loaded() -> Vec<u32> {
    ProgInfoIter::default().map(|program| program.id).collect()
}

/// The maps of the programs in a report, by name.
pub fn maps(report: &AttachReport) -> BTreeMap<String, MapHandle> {
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    let ours = |id| report.programs.iter().any(|program| program.id == id);
    ProgInfoIter::with_query_opts(options)
        .filter(|program| ours(program.id))
        .flat_map(|program| program.map_ids)
        .map(|id| {
            let map = MapHandle::from_map_id(id).unwrap();
            (map.name().to_string_lossy().into_owned(), map)
        })
        .collect()
}

/// How many runs of each program in a report the kernel skipped, since it ran already.
pub fn missed(report: &AttachReport) -> BTreeMap<String, u64> {
    ProgInfoIter::default()
        .filter(|program| report.programs.iter().any(|p| p.id == program.id))
        .map(|program| (program.name.to_string_lossy().into_owned(), program.recursion_misses))
        .collect()
}

/// How many runs the kernel skipped of the programs that have no other to stand in for.
pub fn skipped(report: &AttachReport) -> u64 {
    let counts =
        |id: u32| report.programs.iter().any(|p| p.id == id && !p.name.ends_with("_standin"));
    let counted = ProgInfoIter::default().filter(|program| counts(program.id));
    counted.map(|program| program.recursion_misses).sum()
}

/// Whether entries of the map come and go with what is observed.
fn holds_what_is_observed(map: &MapHandle) -> bool {
    matches!(
        map.map_type(),
        MapType::Hash | MapType::LruHash | MapType::PercpuHash | MapType::LruPercpuHash
    )
}

/// How many entries each map holds whose entries come and go, except filters.
pub fn entries(maps: &BTreeMap<String, MapHandle>) -> BTreeMap<&str, usize> {
    maps.iter()
        .filter(|(name, map)| holds_what_is_observed(map) && !name.starts_with("only_"))
        .map(|(name, map)| (name.as_str(), map.keys().count()))
        .collect()
}

/// Bytes of memory that the kernel charges for the maps.
pub fn memory(maps: &BTreeMap<String, MapHandle>) -> u64 {
    use std::os::fd::{AsFd, AsRawFd};
    let of = |map: &MapHandle| {
        let path = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    maps.values().map(of).sum()
}

/// A figure of all processors in a map of counters, by its place.
pub fn sum(map: &MapHandle, place: usize) -> u64 {
    let values = map.lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
    let of = |bytes: &Vec<u8>| u64::from_ne_bytes(bytes[8 * place..][..8].try_into().unwrap());
    values.iter().map(of).sum()
}

/// Adds to the figures of one processor in a map of counters, by their places.
pub fn add(map: &MapHandle, places: &[usize]) {
    let key = 0_u32.to_ne_bytes();
    let mut values = map.lookup_percpu(&key, MapFlags::ANY).unwrap().unwrap();
    for place in places {
        let bytes = &mut values[0][8 * place..8 * place + 8];
        let value = u64::from_ne_bytes((&*bytes).try_into().unwrap());
        bytes.copy_from_slice(&(value + 1).to_ne_bytes());
    }
    map.update_percpu(&key, &values, MapFlags::ANY).unwrap();
}
