//! Books that somebody removed or cut while no server ran.

use std::fs;

use jiff::Timestamp;

use super::*;
use crate::accounting::{Accounting, Counters};
use crate::store::archive::Noted;
use crate::store::ledger::Ledger;

/// How many attempts a capture sees, in two halves a minute apart.
const SEEN: u64 = 200;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A capture that began then, and ended in order; its figures were written after each half.
fn life(place: &Place, start: i64) {
    let store = place.open();
    let curl = info(7, "curl");
    let first = start.unsigned_abs() * 10;
    for (half, ended) in [(1, None), (2, Some("stopped".to_owned()))] {
        let seen = SEEN / 2 * half;
        let begun = at(start + 60 * half as i64);
        let record = |n| Connection { time: begun, ..refused(first + n, &curl) };
        store.apply((seen - SEEN / 2..seen).map(record).collect());
        until(|| store.status().history.unwrap().behind == 0);
        let counters = Counters { attempts: seen, delivered: seen, ..Counters::default() };
        let noted = begun + jiff::SignedDuration::from_secs(5);
        let (after, progress) = (store.start, store.progress());
        store.note_books(&Noted { start: at(start), at: noted, counters, after, progress, ended });
    }
}

fn books(store: &Store, since: i64, until: i64) -> Accounting {
    let now = at(5_000);
    let ledger = Ledger::after(store.past(), now);
    ledger.books(Some(at(since)), Some(at(until)), now, &Counters::default())
}

/// The same directory with other books.
fn with_books(from: &Place, name: &str, books: Option<&str>) -> Place {
    let place = Place::new(name);
    fs::create_dir(&place.0).unwrap();
    for path in from.files("") {
        fs::copy(&path, place.0.join(path.file_name().unwrap())).unwrap();
    }
    match books {
        Some(text) => fs::write(place.0.join("books"), text).unwrap(),
        None => fs::remove_file(place.0.join("books")).unwrap(),
    }
    place
}

fn unbooked(store: &Store) -> u64 {
    store.status().history.unwrap().recovery.unbooked_changes
}

const STARTS: [i64; 3] = [0, 1_000, 2_000];

#[test]
fn books_that_are_cut_at_any_line_or_gone_are_told_and_answer_for_nothing_that_they_do_not_know() {
    let whole = Place::new("booked");
    STARTS.into_iter().for_each(|start| life(&whole, start));
    let text = fs::read_to_string(whole.0.join("books")).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let cuts = (0..lines.len()).map(|left| Some(lines[..left].concat())).chain([None]);
    for (number, cut) in cuts.enumerate() {
        let place = with_books(&whole, "cut-books", cut.as_deref());
        for start in 1..=2 {
            let store = place.open();
            let told = unbooked(&store);
            assert_eq!(store.count(&everything()), 3 * SEEN);
            // Without the last line it is as after a kill at the end of the last capture.
            let is_as_killed = number + 1 == lines.len();
            let is_told = start == 1 && !is_as_killed;
            assert_eq!(told > 0, is_told, "{number} of {} lines: {told}", lines.len());
            let trouble = store.history_trouble().unwrap_or_default();
            assert_eq!(trouble.contains("its books say nothing of"), is_told, "{trouble}");
            let all = books(&store, 0, 5_000);
            assert_eq!((all.attempts, all.delivered), (3 * SEEN, 3 * SEEN), "{number}: {all:?}");
            assert!(all.balances() && !all.complete);
            for from in STARTS.into_iter().flat_map(|start| [start + 55, start + 115]) {
                let part = books(&store, from, from + 9);
                let knows = part.attempts >= SEEN / 2;
                assert!(knows || !part.complete, "{number}, {from}: {part:?}");
            }
            if number == 0 || cut.is_none() {
                assert_eq!(books(&store, 60, 61).gaps.len(), 1);
                let changes = if start == 1 { 3 * SEEN } else { 0 };
                assert_eq!(told, changes);
            }
            // As the capture of the next process says that it begins.
            let noted = Noted {
                start: at(4_000),
                at: at(4_001),
                counters: Counters::default(),
                after: store.start,
                progress: store.progress(),
                ended: Some("stopped".to_owned()),
            };
            store.note_books(&noted);
        }
    }
}

#[test]
fn what_a_kill_leaves_is_not_taken_for_books_that_were_cut() {
    let place = Place::new("no-cut");
    life(&place, 0);
    let store = place.open();
    let curl = info(7, "curl");
    let begun = |n: u64| Connection { time: at(1_000 + n as i64), ..refused(n + 5_000, &curl) };
    let noted = Noted {
        start: at(1_000),
        at: at(1_000),
        counters: Counters::default(),
        after: store.start,
        progress: store.progress(),
        ended: None,
    };
    store.note_books(&noted);
    store.apply((0..12).map(begun).collect());
    drop(store);
    let store = place.open();
    assert_eq!((unbooked(&store), store.history_trouble()), (0, None));
    assert_eq!(books(&store, 0, 5_000).attempts, SEEN + 12);
}

#[test]
fn changes_that_the_books_do_not_know_are_counted_one_by_one_in_a_segment_that_has_others_too() {
    let (place, later) = (Place::new("spanned"), Place::new("spanned-later"));
    life(&place, 0);
    life(&later, 1_000);
    // As where the second process ended before it had made a segment of what the first one left.
    fs::copy(&later.files(".arrow")[0], place.0.join("000000000002.arrow")).unwrap();
    let text = fs::read_to_string(place.0.join("books")).unwrap();
    settled(&place.open(), 1);
    let half: String = text.split_inclusive('\n').take(2).collect();
    for (known, expected) in
        [(text.as_str(), SEEN), (half.as_str(), SEEN + SEEN / 2), ("", 2 * SEEN)]
    {
        let cut = with_books(&place, "spanned-cut", Some(known));
        assert_eq!(unbooked(&cut.open()), expected, "{known}");
    }
}

#[test]
fn changes_that_the_books_do_not_know_are_counted_once_where_journal_and_segment_have_them() {
    let place = Place::new("in-both");
    life(&place, 0);
    let path = place.files(".arrow").remove(0);
    let journal = fs::read(&path).unwrap();
    settled(&place.open(), 1);
    // As where a process is killed after it has made a segment.
    fs::write(&path, journal).unwrap();
    assert_eq!(unbooked(&with_books(&place, "in-both-cut", None).open()), SEEN);
}
