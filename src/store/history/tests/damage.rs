//! Files that are not as they were written, or no files of this program at all.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::store::history::directory::Directory;
use crate::store::history::fuzzing::{journal_of as sample_journal, segment_of};
use crate::store::history::recovery::recover;
use crate::store::history::{decode::Decoder, encode, journal, segment::Segment};

/// A journal of some flushes, and where each ends.
fn journal_of(flushes: u64) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = journal::head().unwrap().to_vec();
    let mut ends = vec![bytes.len()];
    for n in 0..flushes {
        let mut encoder = encode::Encoder::default();
        encoder.push(&Fields::of(&refused(n, &info(7, "curl")), n), || None);
        let flush = journal::Sealed::flush(&encoder.finish().unwrap(), Vec::new());
        bytes.extend(flush.unwrap().to_vec());
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// The numbers of the records that are read from a journal, which has to be as they were.
fn numbers_in(contents: &journal::Contents) -> Vec<u64> {
    let mut numbers = Vec::new();
    for batch in &contents.batches {
        let mut decoder = Decoder::new(batch);
        for row in 0..decoder.rows() {
            let n = decoder.version(row).unwrap();
            assert_eq!(decoder.record(row), Some(refused(n, &info(7, "curl"))));
            numbers.push(n);
        }
    }
    numbers
}

#[test]
fn a_journal_that_is_cut_anywhere_yields_its_whole_flushes() {
    let (bytes, ends) = journal_of(2);
    for cut in 0..=bytes.len() {
        let found = journal::find(&bytes[..cut]);
        let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
        assert_eq!(found.flushes.len(), whole, "cut at {cut}");
        assert_eq!(found.corrupt, 0, "cut at {cut}");
        let at_an_end = cut == 0 || ends.contains(&cut);
        assert_eq!(found.torn == 0, at_an_end, "cut at {cut}");
        if cut % 211 == 0 || at_an_end {
            let numbers = numbers_in(&journal::read(&bytes[..cut]));
            assert_eq!(numbers, (0..whole as u64).collect::<Vec<_>>(), "cut at {cut}");
        }
    }
}

#[test]
fn a_server_starts_with_a_journal_that_is_cut_anywhere() {
    let (bytes, ends) = journal_of(2);
    for cut in (0..bytes.len()).step_by(701).chain(ends.iter().flat_map(|end| [end - 1, *end])) {
        let place = Place::new("cut");
        fs::create_dir(&place.0).unwrap();
        fs::write(place.0.join("000000000001.arrow"), &bytes[..cut]).unwrap();
        let store = place.open();
        let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1) as u64;
        assert_eq!(store.count(&everything()), whole, "cut at {cut}");
        let recovery = store.status().history.unwrap().recovery;
        let from = ends.iter().rfind(|end| **end <= cut).unwrap_or(&0);
        assert_eq!(recovery.torn_bytes, (cut - from) as u64, "cut at {cut}");
        assert!(recovery.set_aside.is_empty(), "cut at {cut}: {recovery:?}");
        // That is what a kill leaves; and nobody kept books.
        let trouble = store.history_trouble();
        assert!(trouble.is_none_or(|why| why.contains("books say nothing")), "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_costs_its_own_flush_and_is_never_taken_for_data() {
    let (bytes, ends) = journal_of(3);
    for flipped in (0..bytes.len()).step_by(11) {
        let mut broken = bytes.clone();
        broken[flipped] ^= 1 << (flipped % 8);
        let found = journal::find(&broken);
        // What the columns are is known without being told.
        let expected = if flipped < ends[0] { 3 } else { 2 };
        assert_eq!(found.flushes.len(), expected, "flipped at {flipped}");
        if flipped >= ends[0] {
            assert!(found.corrupt > 0 || found.torn > 0, "flipped at {flipped}");
        }
        if flipped < ends[0] || flipped % 7 == 0 {
            let numbers = numbers_in(&journal::read(&broken));
            assert_eq!(numbers.len(), expected, "flipped at {flipped}");
        }
    }
}

#[test]
fn what_a_journal_has_lost_of_its_middle_costs_what_was_there_alone() {
    let (bytes, ends) = journal_of(4);
    let mut random = Random(5);
    for _ in 0..60 {
        let from = random.next(bytes.len() as u64) as usize;
        let until = (from + 1 + random.next(4_000) as usize).min(bytes.len());
        let mut broken = bytes.clone();
        match random.next(3) {
            0 => broken[from..until].fill(0),
            1 => broken[from..until].iter_mut().for_each(|byte| *byte = random.next(256) as u8),
            // Flushes are looked for where they can begin.
            _ => drop(broken.drain(from / 8 * 8..until / 8 * 8)),
        }
        let whole = |n: &u64| {
            let (begin, end) = (ends[*n as usize], ends[*n as usize + 1]);
            end <= from / 8 * 8 || begin >= until
        };
        let numbers = numbers_in(&journal::read(&broken));
        let expected: Vec<u64> = (0..4).filter(whole).collect();
        assert!(expected.iter().all(|n| numbers.contains(n)), "{from}..{until}: {numbers:?}");
    }
}

#[test]
fn looking_for_flushes_ends_whatever_a_file_holds() {
    // Messages within the body of a message, and each with an end that is right: all of them are
    // flushes that are not whole.
    let (bytes, ends) = journal_of(1);
    let flush = &bytes[ends[0]..];
    let mut broken = flush.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let began = Instant::now();
    let many = [&bytes[..ends[0]], &broken.repeat(400)].concat();
    let found = journal::find(&many);
    assert_eq!((found.flushes.len(), found.corrupt), (0, 400));
    let last = [&many[..], flush].concat();
    assert_eq!(journal::find(&last).flushes.len(), 1);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

/// A history of two segments and a journal, in which no record has changed, and what it holds.
fn plain(name: &str) -> (Place, Vec<(PathBuf, u64)>, u64) {
    let place = Place::new(name);
    let curl = info(7, "curl");
    for part in 0..2 {
        let store = place.open();
        store.apply((part * 500..part * 500 + 500).map(|n| refused(n, &curl)).collect());
        drop(store);
        settled(&place.open(), part + 1);
    }
    place.open().apply((1_000..1_100).map(|n| refused(n, &curl)).collect());
    let rows = |path: PathBuf| {
        let rows = Segment::open(1, &path).unwrap().facts.rows;
        (path, u64::from(rows))
    };
    let segments: Vec<_> = place.files(".parquet").into_iter().map(rows).collect();
    assert_eq!((segments.len(), place.files(".arrow").len()), (2, 1));
    (place, segments, 1_100)
}

/// Opens the directory: these files are set aside, which is told, and the rest is served.
#[track_caller]
fn serves(place: &Place, records: u64, set_aside: &[&str]) -> Store {
    let store = place.open();
    let mut found = store.status().history.unwrap().recovery.set_aside;
    found.sort();
    assert_eq!(found, set_aside);
    assert_eq!(store.count(&everything()), records);
    assert_eq!(all(&store, Sort::Oldest).len() as u64, records);
    let trouble = store.history_trouble();
    match set_aside.first() {
        // Nobody kept books.
        None => assert!(trouble.is_none_or(|why| why.contains("books say nothing"))),
        Some(first) => {
            let trouble = trouble.expect("nothing was said");
            assert!(trouble.contains("set aside: ") && trouble.contains(first), "{trouble}");
        }
    }
    store
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn a_segment_that_is_damaged_anywhere_is_set_aside_and_the_rest_is_served() {
    let (place, segments, total) = plain("flipped");
    let mut random = Random(17);
    for round in 0..24 {
        let (path, rows) = random.one(&[&segments[0], &segments[1]]);
        let whole = fs::read(path).unwrap();
        let length = whole.len() as u64;
        let at = match round % 4 {
            0 => random.next(16),
            1 => length - 1 - random.next(16),
            _ => random.next(length),
        };
        let mut broken = whole.clone();
        match round % 3 {
            0 => broken.truncate(at as usize),
            _ => broken[at as usize] ^= 1 << random.next(8),
        }
        fs::write(path, &broken).unwrap();
        let aside = format!("{}.corrupt", name(path));
        drop(serves(&place, total - rows, &[&aside]));
        assert_eq!(fs::read(place.0.join(&aside)).unwrap(), broken);
        fs::remove_file(place.0.join(&aside)).unwrap();
        fs::write(path, whole).unwrap();
        serves(&place, total, &[]);
    }
}

#[test]
fn files_of_others_under_the_programs_names_are_set_aside_as_they_are() {
    let (place, _, total) = plain("foreign");
    let put = |name: &str, bytes: &[u8]| fs::write(place.0.join(name), bytes).unwrap();
    put("000000000007.arrow", b"notes, and not a journal");
    put("000000000008.arrow", &[0; 40_000]);
    put("000000000009-00000000.parquet", b"");
    let text = b"PAR1 is how these begin, and end: PAR1";
    let crc = crc32fast::hash(text);
    put(&format!("000000000010-{crc:08x}.parquet"), text);
    put("999999999999.arrow", b"");
    fs::create_dir(place.0.join("000000000011.arrow")).unwrap();
    fs::create_dir(place.0.join("000000000012-00000000.parquet")).unwrap();
    put("000000000012-00000000.parquet/within", b"x");
    let fifo = place.0.join("000000000013.arrow");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    symlink("/dev/zero", place.0.join("000000000014-00000000.parquet")).unwrap();
    symlink("nowhere", place.0.join("000000000015.arrow")).unwrap();
    // These are nobody's business.
    put("notes.txt", b"x");
    put("7.arrow", b"x");
    // These are the program's own, from when it was killed.
    put("000000000016.arrow", b"");
    put("000000000099.parquet.tmp", b"x");
    put("probe.tmp", b"x");
    let aside = [
        "000000000007.arrow.corrupt",
        "000000000008.arrow.corrupt",
        "000000000009-00000000.parquet.corrupt",
        &format!("000000000010-{crc:08x}.parquet.corrupt"),
        "000000000011.arrow.corrupt",
        "000000000012-00000000.parquet.corrupt",
        "000000000013.arrow.corrupt",
        "000000000014-00000000.parquet.corrupt",
        "000000000015.arrow.corrupt",
        "999999999999.arrow.corrupt",
    ];
    let store = serves(&place, total, &aside);
    store.apply(vec![refused(2_000, &info(7, "curl"))]);
    drop(store);
    assert!(place.files(".tmp").is_empty());
    for name in ["notes.txt", "7.arrow", "000000000012-00000000.parquet.corrupt/within"] {
        assert_eq!(fs::read(place.0.join(name)).unwrap(), b"x");
    }
    assert_eq!(fs::read(place.0.join(aside[0])).unwrap(), b"notes, and not a journal");
    serves(&place, total + 1, &[]);
}

#[test]
fn a_file_that_is_there_twice_is_served_once() {
    let (place, segments, total) = plain("twice");
    let (first, _) = &segments[0];
    // Copied to another number, and a number given twice.
    let copied = name(first).replacen("00000000000", "00000000002", 1);
    fs::copy(first, place.0.join(&copied)).unwrap();
    let number = &name(first)[..12];
    let again = (9_000..).find_map(|n| {
        let other = segment_of(vec![refused(n, &info(7, "curl"))], 10);
        let again = format!("{number}-{:08x}.parquet", crc32fast::hash(&other));
        // The first of the two by name is served.
        (again.as_str() > name(first)).then_some((again, other))
    });
    let (again, other) = again.unwrap();
    fs::write(place.0.join(&again), other).unwrap();
    let (copied, again) = (format!("{copied}.corrupt"), format!("{again}.corrupt"));
    serves(&place, total, &[&again, &copied]);
}

#[test]
fn what_is_set_aside_takes_no_place_of_what_was_before() {
    let (place, _, total) = plain("again");
    for (content, aside) in [
        ("one", "000000000077.arrow.corrupt"),
        ("two", "000000000077.arrow.2.corrupt"),
        ("three", "000000000077.arrow.3.corrupt"),
    ] {
        fs::write(place.0.join("000000000077.arrow"), content).unwrap();
        drop(serves(&place, total, &[aside]));
        assert_eq!(fs::read_to_string(place.0.join(aside)).unwrap(), content);
    }
}

#[test]
fn figures_that_nobody_wrote_are_not_believed() {
    let place = Place::new("figures-forged");
    fs::create_dir(&place.0).unwrap();
    let curl = info(7, "curl");
    // The greatest numbers that there are, in files whose checksums are right.
    let segment = segment_of(vec![refused(1, &curl)], u64::MAX - 1);
    let crc = crc32fast::hash(&segment);
    let name = format!("000000000001-{crc:08x}.parquet");
    fs::write(place.0.join(&name), segment).unwrap();
    let records = [refused(2, &curl), refused(3, &curl)];
    let journal = sample_journal(records.chunks(1), u64::MAX - 2);
    fs::write(place.0.join("000000000002.arrow"), journal).unwrap();
    let aside = [&format!("{name}.corrupt"), "000000000002.arrow.corrupt"];
    let mut aside = aside.map(String::from);
    aside.sort();
    let store = serves(&place, 0, &aside.each_ref().map(String::as_str));
    store.apply(vec![refused(4, &curl)]);
    assert_eq!(store.count(&everything()), 1);
}

/// What a start finds, before anything comes of it.
fn recovered(place: &Place) -> (Vec<u64>, Recovery) {
    let found = recover(&Directory::take(&place.0).unwrap()).unwrap();
    let starts = found.left.iter().map(|(_, c)| c.id.start_ns);
    (starts.map(|start| (start - 1_000_000) / 1_000).collect(), found.recovery)
}

#[test]
fn a_damaged_journal_stays_until_what_is_left_of_it_is_in_a_segment() {
    let (mut bytes, ends) = journal_of(3);
    bytes[ends[1] + 500] ^= 1;
    let place = Place::new("stays");
    fs::create_dir(&place.0).unwrap();
    fs::write(place.0.join("000000000001.arrow"), &bytes).unwrap();
    // As if the process were killed before it could write the segment, twice.
    for _ in 0..2 {
        let (left, recovery) = recovered(&place);
        assert_eq!((left, recovery.corrupt), (vec![0, 2], 1));
        assert_eq!(recovery.set_aside, ["000000000001.arrow.corrupt"]);
    }
    drop(serves(&place, 2, &["000000000001.arrow.corrupt"]));
    assert_eq!(place.files(".arrow").len(), 0);
    assert_eq!(fs::read(place.0.join("000000000001.arrow.corrupt")).unwrap(), bytes);
    serves(&place, 2, &[]);
}

#[test]
fn a_segment_from_elsewhere_does_not_stand_for_a_journal() {
    let place = Place::new("elsewhere");
    fs::create_dir(&place.0).unwrap();
    let (bytes, _) = journal_of(3);
    fs::write(place.0.join("000000000002.arrow"), &bytes).unwrap();
    // Of another host: with a greater number, and changes that came later.
    let other = segment_of(vec![refused(900, &info(8, "nginx"))], 5_000);
    let crc = crc32fast::hash(&other);
    fs::write(place.0.join(format!("000000000009-{crc:08x}.parquet")), other).unwrap();
    assert_eq!(recovered(&place).0, [0, 1, 2]);
    drop(serves(&place, 4, &[]));
    serves(&place, 4, &[]);
}

#[test]
fn a_journal_whose_records_are_in_a_segment_is_no_longer_needed() {
    let place = Place::new("needed");
    fs::create_dir(&place.0).unwrap();
    let records: Vec<_> = (0..3).map(|n| refused(n, &info(7, "curl"))).collect();
    // As if the process were killed between the two.
    let journal = sample_journal(records.chunks(2), 10);
    fs::write(place.0.join("000000000001.arrow"), journal).unwrap();
    let segment = segment_of(records, 10);
    let crc = crc32fast::hash(&segment);
    fs::write(place.0.join(format!("000000000001-{crc:08x}.parquet")), segment).unwrap();
    let (left, recovery) = recovered(&place);
    assert_eq!((left, recovery.journals), (vec![], 0));
    assert!(place.files(".arrow").is_empty());
    serves(&place, 3, &[]);
}

#[test]
fn a_segment_of_a_later_version_is_set_aside_and_said_to_be() {
    let place = Place::new("later");
    fs::create_dir(&place.0).unwrap();
    let mut segment = segment_of(vec![refused(1, &info(7, "curl"))], 10);
    let key = b"netspy.version";
    let at = segment.windows(key.len()).position(|window| window == key).unwrap();
    let version = segment[at..].iter().position(|byte| *byte == b'1').unwrap();
    segment[at + version] = b'2';
    let crc = crc32fast::hash(&segment);
    let path = place.0.join(format!("000000000001-{crc:08x}.parquet"));
    fs::write(&path, segment).unwrap();
    let error = Segment::open(1, &path).unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
    serves(&place, 0, &[&format!("{}.corrupt", name(&path))]);
}

#[test]
fn files_that_may_not_be_read_are_set_aside() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root may read everything");
        return;
    }
    let (place, segments, total) = plain("unreadable");
    let (path, rows) = &segments[0];
    let journal = place.files(".arrow").remove(0);
    for path in [path, &journal] {
        fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
    }
    let aside = [path, &journal].map(|path| format!("{}.corrupt", name(path)));
    let mut aside = aside.each_ref().map(String::as_str);
    aside.sort_unstable();
    serves(&place, total - rows - 100, &aside);
}

#[test]
fn a_lock_that_is_none_is_refused_at_once() {
    let place = Place::new("lock");
    fs::create_dir(&place.0).unwrap();
    let lock = place.0.join("lock");
    let refused = |says: &str| {
        let error = Store::open(1 << 20, &place.options()).unwrap_err().to_string();
        assert!(error.contains("lock") && error.contains(says), "{error}");
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        assert!(!place.options().check(me).unwrap().in_use);
    };
    fs::create_dir(&lock).unwrap();
    refused("directory");
    fs::remove_dir(&lock).unwrap();
    mknodat(CWD, &lock, FileType::Fifo, Mode::RWXU, 0).unwrap();
    refused("cannot open");
}
