//! Attempts over time: what segments know of them without being read is what their rows say.

use std::collections::HashSet;
use std::sync::atomic::AtomicUsize;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::event::{Direction, Outcome, Protocol};
use crate::query::Window;
use crate::query::series::Point;
use crate::store::history::rollup::{ROLLUP_KEY, Rollup};

const MINUTE: i64 = 60_000;
const STEPS: [i64; 6] = [MINUTE, 5 * MINUTE, 60 * MINUTE, 24 * 60 * MINUTE, 30_000, 90_000];

fn at(ms: i64) -> Timestamp {
    epoch() + SignedDuration::from_millis(ms)
}

/// The same from single rows.
fn from_rows(store: &Store, selection: &Selection, window: Window, step_ms: i64) -> Vec<Point> {
    let (since, until) = (Some(window.since), Some(window.until));
    let filter = Filter { since, until, ..selection.filter.clone() };
    let selection = Selection { filter, attempts_only: true, ..selection.clone() };
    let mut points: Vec<Point> = Vec::new();
    let first = window.since.as_millisecond().div_euclid(step_ms) * step_ms;
    let mut time = first;
    let end = (window.until.as_nanosecond() - 1).div_euclid(1_000_000) as i64;
    while points.is_empty() || time <= end {
        let start = Timestamp::from_millisecond(time).unwrap();
        points.push(Point { time: start, count: 0, unsuccessful: 0, by_outcome: [].into() });
        time += step_ms;
    }
    store.for_each(&selection, Columns::NONE, &mut |view| {
        let ms = view.time_ns().div_euclid(1_000_000);
        let point = &mut points[((ms - first) / step_ms) as usize];
        point.count += 1;
        point.unsuccessful += u64::from(view.outcome().is_unsuccessful());
        *point.by_outcome.entry(view.outcome()).or_default() += 1;
    });
    points
}

/// Any record at all, most of them of some hours of the tests' time.
fn wild(random: &mut Random, n: u64) -> Connection {
    let mut c = random.connection();
    c.id.start_ns = n;
    if !random.one_in(50) {
        // In bursts, in which there are many in a minute, and some on its edge.
        let burst = random.next(40) as i64 * 9 * MINUTE;
        let within = random.next(3) as i64 * MINUTE / 2 + random.one(&[0, 0, 1, 29_999]);
        c.time = at(burst + within) + SignedDuration::from_nanos(random.next(2) as i64);
    }
    c
}

/// A question that counts may answer, or not.
fn question(random: &mut Random) -> Selection {
    let mut filter = Filter::default();
    if random.one_in(3) {
        filter.outcome = vec![Outcome::Refused, Outcome::TimedOut, Outcome::Listening];
    }
    if random.one_in(4) {
        filter.protocol = vec![Protocol::Tcp, Protocol::Unix];
    }
    if random.one_in(4) {
        filter.direction = vec![random.one(&[Direction::Inbound, Direction::Outbound])];
    }
    if random.one_in(6) {
        filter.preexisting = Some(random.one_in(2));
    }
    if random.one_in(8) {
        filter.process = vec!["curl".to_owned()];
    }
    Selection::from(filter)
}

/// Asks any questions, each of which has to be answered from counts as from rows.
fn agrees(store: &Store, random: &mut Random, questions: usize) {
    let mut attempts = 0;
    for _ in 0..questions {
        let step = random.one(&STEPS);
        let edge = |random: &mut Random| {
            let minute = random.next(6 * 60 + 20) as i64 * MINUTE - 10 * MINUTE;
            at(minute + random.one(&[0, 0, 1, 1_234, 30_000, 59_999]))
        };
        let (one, other) = (edge(random), edge(random));
        let window = Window { since: one.min(other), until: one.max(other) };
        let selection = question(random);
        let expected = from_rows(store, &selection, window, step);
        let found = store.series(&selection, window, step.unsigned_abs());
        assert_eq!(found, expected, "{selection:?} {window:?} {step}");
        attempts += found.iter().map(|point| point.count).sum::<u64>();
    }
    assert!(attempts > 0, "the questions were about nothing");
}

#[test]
fn counts_of_segments_say_what_their_rows_say_whatever_hides_them_and_wherever_they_lie() {
    let place = Place::new("rollup");
    let mut random = Random(11);
    let mut known: Vec<Connection> = Vec::new();
    for life in 0..4_u64 {
        let store = place.open();
        for n in 0..2_500_u64 {
            let c = wild(&mut random, life * 10_000 + n);
            known.push(c.clone());
            store.apply(vec![c]);
            // Later versions of what is in any segment, or in memory.
            if random.one_in(3) {
                let mut later = known[random.next(known.len() as u64) as usize].clone();
                later.state = crate::event::State::Closed;
                later.outcome = random.one(&[Outcome::Established, Outcome::Reset]);
                store.apply(vec![later]);
            }
            if n % 500 == 499 {
                agrees(&store, &mut random, 20);
            }
        }
        agrees(&store, &mut random, 60);
        drop(store);
        // As where a journal is left beside the segments.
        agrees(&place.open(), &mut random, 60);
    }
    // The oldest segments go.
    let store = place.open();
    let all = store.status().history.unwrap();
    drop(store);
    let options = HistoryOptions { limit_bytes: all.bytes / 2, ..place.options() };
    let store = Store::open(1 << 20, &options).unwrap();
    let left = store.status().history.unwrap();
    assert!((1..all.segments).contains(&left.segments), "{left:?}");
    agrees(&store, &mut random, 60);
}

/// A store of which nothing is in memory: attempts of three hours, one each second, and what changed
/// when they were in a segment.
fn on_disk(place: &Place) -> Store {
    let curl = info(7, "curl");
    let record = |n: u64| Connection { time: at(n as i64 * 1_000), ..established(n, &curl) };
    for (segments, from) in [(1, 0), (2, 10_000)] {
        let store = place.open();
        store.apply((from..from + 800).map(record).collect());
        if from > 0 {
            let later = |n: u64| Connection {
                state: crate::event::State::Closed,
                outcome: Outcome::Reset,
                ..record(n)
            };
            store.apply((300..310).map(later).collect());
        }
        drop(store);
        settled(&place.open(), segments);
    }
    place.open()
}

fn day() -> Window {
    Window { since: at(-MINUTE), until: at(24 * 60 * MINUTE) }
}

#[test]
fn a_series_reads_no_columns_but_where_it_has_to() {
    let place = Place::new("unread");
    let store = on_disk(&place);
    let ask = |store: &Store, step| -> u64 {
        let points = store.series(&everything(), day(), step);
        points.iter().map(|point| point.count).sum()
    };
    assert_eq!(ask(&store, 60_000), 1_600);
    for path in place.files(".parquet") {
        std::fs::remove_file(path).unwrap();
    }
    let reset: u64 = store
        .series(&everything(), day(), 3_600_000)
        .iter()
        .filter_map(|point| point.by_outcome.get(&Outcome::Reset))
        .sum();
    assert_eq!((ask(&store, 60_000), reset), (1_600, 10));
    assert_eq!(ask(&store, 1_000 * 90), 0, "what does not fit the minutes is read");
}

#[test]
fn nothing_is_counted_twice_while_records_move_from_memory_to_disk() {
    const RECORDS: u64 = 6_000;
    let place = Place::new("moving-counts");
    let store = place.open();
    let curl = info(7, "curl");
    let time = |n: u64| at(n as i64 * 100);
    let begun = |n: u64| Connection { time: time(n), ..in_progress(n, &curl) };
    let ended = |n: u64| Connection { time: time(n), ..refused(n, &curl) };
    let total = |store: &Store| -> u64 {
        store.series(&everything(), day(), 60_000).iter().map(|point| point.count).sum()
    };
    let (done, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) || looks.load(Ordering::SeqCst) < 3 {
                let total = total(&store);
                assert!(total <= RECORDS, "{total}");
                looks.fetch_add(1, Ordering::SeqCst);
            }
        });
        for start in (0..RECORDS).step_by(50) {
            store.apply((start..start + 50).map(begun).collect());
            let earlier = start.saturating_sub(2_500);
            store.apply((earlier..earlier + 50).map(ended).collect());
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(total(&store), RECORDS);
    drop(store);
    assert_eq!(total(&place.open()), RECORDS);
}

#[test]
fn counts_that_cannot_be_true_of_their_segment_are_not_believed() {
    let place = Place::new("untrue");
    drop(on_disk(&place));
    let path = place.files(".parquet").remove(0);
    let file = std::fs::read(&path).unwrap();
    let facts = Segment::open(1, &path).unwrap().facts;
    let key = ROLLUP_KEY.as_bytes();
    let start = file.windows(key.len()).rposition(|part| part == key).unwrap();
    let from = start + file[start..].iter().position(|byte| *byte == b'{').unwrap();
    let to = from + file[from..].windows(2).position(|part| part == b"]}").unwrap() + 2;
    let text = std::str::from_utf8(&file[from..to]).unwrap();
    assert!(Rollup::of_text(text, &facts).is_some(), "{text}");
    let mut written: serde_json::Value = serde_json::from_str(text).unwrap();
    let good = written.clone();
    let counts = good["counts"].as_array().unwrap();
    let mut changed = |member: &str, value: serde_json::Value| {
        written[member] = value;
        let text = std::mem::replace(&mut written, good.clone()).to_string();
        Rollup::of_text(&text, &facts).is_some()
    };
    assert!(changed("minutes", 1.into()));
    for minutes in [0, 7] {
        assert!(!changed("minutes", minutes.into()));
    }
    assert!(!changed("others", 1.into()));
    assert!(!changed("kinds", serde_json::json!([])));
    let listens =
        serde_json::json!([{"outcome": "listening", "protocol": "tcp", "direction": "inbound"}]);
    let foreign =
        serde_json::json!([{"outcome": "unheard", "protocol": "tcp", "direction": "inbound"}]);
    assert!(!changed("kinds", listens) && !changed("kinds", foreign));
    for place in 0..counts.len() {
        let with = |n: u64| {
            let mut counts = counts.clone();
            counts[place] = n.into();
            counts.into()
        };
        for n in [0, 77, u64::from(u32::MAX), u64::MAX] {
            let is_same = counts[place] == n;
            assert!(!changed("counts", with(n)) || is_same, "{place} {n}");
        }
        let cut: Vec<_> = counts[..place].to_vec();
        assert!(!changed("counts", cut.into()));
    }
    for text in ["", "{}", "[]", "null", "\u{0}"] {
        assert!(Rollup::of_text(text, &facts).is_none());
    }
}

#[test]
fn where_attempts_are_rare_their_counts_are_by_hour_or_day() {
    let curl = info(7, "curl");
    for (apart, counted, read) in [(20 * MINUTE, 60, 1), (7 * 60 * MINUTE, 24 * 60, 60)] {
        let place = Place::new("rare");
        let record = |n: u64| Connection { time: at(n as i64 * apart), ..refused(n, &curl) };
        let store = Store::open(64 << 20, &place.options()).unwrap();
        store.apply((0..9_000).map(record).collect());
        drop(store);
        settled(&Store::open(64 << 20, &place.options()).unwrap(), 1);
        let store = place.open();
        let window = Window { since: at(-5), until: at(9_000 * apart) };
        let ask = |minutes: i64| -> u64 {
            let step = (minutes * MINUTE).unsigned_abs();
            let points = store.series(&everything(), window, step);
            points.iter().map(|point| point.count).sum()
        };
        let starts: HashSet<_> = (0..9_000).map(|n| record(n).time).collect();
        assert_eq!((ask(read), ask(counted)), (starts.len() as u64, 9_000));
        std::fs::remove_file(&place.files(".parquet")[0]).unwrap();
        assert_eq!((ask(counted), ask(read)), (9_000, 0), "{apart}");
    }
}
