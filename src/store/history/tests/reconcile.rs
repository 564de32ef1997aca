//! Books and files of a process that has ended: what one of them knows and the other does not.

use std::fs::{self, OpenOptions};

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::accounting::{Accounting, Counters};
use crate::store::archive::Noted;
use crate::store::ledger::Ledger;
use crate::store::row::nanos;

/// When the capture of the tests begins.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn figures(attempts: u64, delivered: u64) -> Counters {
    Counters { attempts, delivered, ..Counters::default() }
}

/// Takes in attempts with these numbers, which began then, until they are in a file.
fn take_in(store: &Store, numbers: std::ops::Range<u64>, second: i64) {
    let curl = info(7, "curl");
    let record = |n| Connection { time: at(second), ..refused(n, &curl) };
    store.apply(numbers.map(record).collect());
    until(|| store.status().history.unwrap().behind == 0);
}

fn note(store: &Store, second: i64, counters: Counters, ended: Option<&str>) {
    let (start, after, progress) = (at(0), store.start, store.progress());
    let ended = ended.map(str::to_owned);
    store.note_books(&Noted { start, at: at(second), counters, after, progress, ended });
}

/// What the next process says of the whole time of this one.
fn books(store: &Store) -> Accounting {
    let now = at(1_000);
    Ledger::after(store.past(), now).books(Some(at(0)), None, now, &Counters::default())
}

fn missing(store: &Store) -> u64 {
    store.status().history.unwrap().recovery.missing_changes
}

/// The gaps but for that between the two processes, in seconds.
fn gaps(books: &Accounting) -> Vec<(i64, i64)> {
    let second = |time: Timestamp| time.as_second() - at(0).as_second();
    let gaps = books.gaps.iter().map(|gap| (second(gap.since), second(gap.until)));
    gaps.filter(|(_, until)| *until < 1_000).collect()
}

/// A process that took in a hundred attempts three times, noted its figures after each, and ended in
/// order. How long its journal was each time.
fn ended_in_order(place: &Place) -> Vec<u64> {
    let store = place.open();
    let mut lengths = Vec::new();
    for part in 1..=3 {
        take_in(&store, part * 100 - 100..part * 100, part as i64 * 20);
        let ended = (part == 3).then_some("stopped");
        note(&store, part as i64 * 20 + 5, figures(part * 100, part * 100), ended);
        let [journal] = &place.files(".arrow")[..] else { panic!("there is one journal") };
        lengths.push(fs::metadata(journal).unwrap().len());
    }
    lengths
}

#[test]
fn what_a_file_has_lost_is_a_gap_of_its_time_alone_and_is_told_once() {
    // How much of the journal is left, what is missing, and of which time.
    let cases = [
        (Some(2), 0, None),
        (Some(1), 100, Some((43, 65))),
        (Some(0), 200, Some((23, 65))),
        (None, 300, Some((0, 65))),
    ];
    for (left, lost, expected) in cases {
        let place = Place::new("shortened");
        let lengths = ended_in_order(&place);
        let journal = place.files(".arrow").remove(0);
        match left {
            Some(part) => {
                let file = OpenOptions::new().write(true).open(&journal).unwrap();
                file.set_len(lengths[part]).unwrap();
            }
            None => fs::remove_file(&journal).unwrap(),
        }
        let expected: Vec<(i64, i64)> = expected.into_iter().collect();
        for start in 1..=3 {
            let store = place.open();
            let now = if start == 1 { lost } else { 0 };
            assert_eq!(missing(&store), now, "{left:?}, start {start}");
            let trouble = store.history_trouble().unwrap_or_default();
            assert_eq!(trouble.contains("lacks"), now > 0, "{left:?}: {trouble}");
            let books = books(&store);
            assert_eq!(gaps(&books), expected, "{left:?}, start {start}: {books:?}");
            assert_eq!((books.attempts, books.balances()), (300, true));
            assert_eq!(store.count(&everything()), 300 - lost);
        }
    }
}

#[test]
fn a_segment_that_somebody_removed_is_missed_and_one_that_was_let_go_is_not() {
    let place = Place::new("missed");
    ended_in_order(&place);
    settled(&place.open(), 1);
    fs::remove_file(&place.files(".parquet")[0]).unwrap();
    assert_eq!(missing(&place.open()), 300);
    let place = Place::new("let-go");
    ended_in_order(&place);
    settled(&place.open(), 1);
    let limit = HistoryOptions { limit_bytes: 1, ..place.options() };
    drop(Store::open(1 << 20, &limit).unwrap());
    assert!(place.files(".parquet").is_empty());
    for _ in 0..2 {
        let store = place.open();
        assert_eq!((missing(&store), store.history_trouble()), (0, None));
        assert!(gaps(&books(&store)).is_empty());
    }
}

#[test]
fn what_a_killed_process_had_shown_is_in_its_books_and_no_loss() {
    let place = Place::new("killed");
    let store = place.open();
    take_in(&store, 0..8, 1);
    // Two are pending, of which one is shown before the end, and three begin later.
    note(&store, 10, figures(10, 8), None);
    take_in(&store, 8..9, 10);
    take_in(&store, 9..12, 12);
    // A later version of what was shown before is nothing new.
    let changed = Connection { latency_us: Some(7), time: at(1), ..refused(3, &info(7, "curl")) };
    store.apply(vec![changed]);
    drop(store);
    for start in 1..=3 {
        let store = place.open();
        let books = books(&store);
        let counted = (books.attempts, books.delivered, books.lost.capture_ended);
        assert_eq!(counted, (13, 12, 1), "start {start}");
        assert!(books.balances() && !books.complete);
        let gap = books.gaps.first().map(|gap| (gap.since, gap.why.as_str()));
        assert_eq!(gap, Some((at(10), "the server had ended without notice")));
        assert_eq!(store.count(&everything()), 12);
    }
}

#[test]
fn books_that_do_not_know_the_changes_are_believed_as_before() {
    let place = Place::new("before");
    ended_in_order(&place);
    let path = place.0.join("books");
    let text: String = fs::read_to_string(&path).unwrap().lines().map(without_changes).collect();
    fs::write(&path, text).unwrap();
    fs::remove_file(&place.files(".arrow")[0]).unwrap();
    let store = place.open();
    assert_eq!((missing(&store), store.history_trouble()), (0, None));
    assert_eq!(books(&store).attempts, 300);
}

/// A line of the books as it was before they knew of changes.
fn without_changes(line: &str) -> String {
    let mut entry: serde_json::Value = serde_json::from_str(&line[9..]).unwrap();
    for inner in entry.as_object_mut().unwrap().values_mut() {
        if let Some(inner) = inner.as_object_mut() {
            inner.remove("change");
            inner.remove("stored");
            inner.remove("after");
        }
    }
    let json = entry.to_string();
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

#[test]
fn a_window_that_the_books_know_whole_stays_complete() {
    let place = Place::new("whole-window");
    let lengths = ended_in_order(&place);
    let journal = place.files(".arrow").remove(0);
    OpenOptions::new().write(true).open(&journal).unwrap().set_len(lengths[1]).unwrap();
    let store = place.open();
    let (now, none) = (at(1_000), Counters::default());
    let ledger = Ledger::after(store.past(), now);
    assert!(ledger.books(Some(at(0)), Some(at(40)), now, &none).complete);
    assert!(!ledger.books(Some(at(0)), Some(at(50)), now, &none).complete);
    let later = at(65) + SignedDuration::from_millis(1);
    assert!(!ledger.books(Some(later), None, now, &none).complete);
}

#[test]
fn a_version_that_was_replaced_before_there_was_a_segment_is_not_missed() {
    let place = Place::new("replaced");
    let curl = info(7, "curl");
    let store = place.open();
    store.apply(vec![Connection { latency_us: None, ..refused(1, &curl) }]);
    take_in(&store, 1..3, 1);
    note(&store, 5, figures(2, 2), Some("stopped"));
    drop(store);
    for segments in 1..=2 {
        let store = place.open();
        settled(&store, 1);
        assert_eq!((missing(&store), store.history_trouble()), (0, None), "start {segments}");
        assert_eq!(store.count(&everything()), 2);
    }
}

#[test]
fn a_segment_that_somebody_removes_meanwhile_is_told_of_and_may_come_back() {
    let place = Place::new("meanwhile");
    ended_in_order(&place);
    settled(&place.open(), 1);
    let store = place.open();
    let (path, moved) = (place.files(".parquet").remove(0), place.0.join("moved"));
    fs::rename(&path, &moved).unwrap();
    let page = Page { limit: Some(10), cursor: None, sort: Sort::Newest };
    assert_eq!(store.list(&everything(), &page).unwrap().connections.len(), 0);
    assert_eq!(store.status().history.unwrap().unreadable, 1);
    assert!(!store.unreadable().is_empty(), "no answer says that it is whole");
    fs::rename(&moved, &path).unwrap();
    // Segments are looked at whenever one is made.
    take_in(&store, 300..2_000, 70);
    settled(&store, 2);
    until(|| store.status().history.unwrap().unreadable == 0);
    assert_eq!(store.count(&everything()), 2_000);
}

#[test]
fn what_memory_still_has_of_a_file_that_was_let_go_is_evicted_for_the_next_process() {
    let place = Place::new("kept");
    let store =
        Store::open(1 << 20, &HistoryOptions { limit_bytes: 1, ..place.options() }).unwrap();
    take_in(&store, 0..2_000, 1);
    until(|| place.files(".parquet").is_empty() && store.archive.as_ref().unwrap().rotated() > 0);
    note(&store, 5, figures(2_000, 2_000), None);
    let times = Range { min: nanos(at(1)), max: nanos(at(1)) };
    store.archive.as_ref().unwrap().count_given_up(times, 7, (0, 1));
    note(&store, 6, figures(2_007, 2_007), Some("stopped"));
    let in_memory = store.count(&everything());
    drop(store);
    let store = place.open();
    let gone = store.evicted_between(at(0), at(2));
    assert_eq!(gone + store.count(&everything()), 2_007, "memory had {in_memory}");
}
