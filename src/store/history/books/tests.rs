use std::collections::BTreeMap;

use super::*;
use crate::Connection;
use crate::accounting::Lost;
use crate::capture::report::{AttachReport, Backend};
use crate::query::{CaptureHandle, Count, Filter, Source};
use crate::store::archive::Progress;
use crate::store::{HistoryOptions, LocalSource, Store};
use crate::test_records::{info, refused};

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netspy-books-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Place(path)
    }

    /// As a process does that begins.
    fn open(&self) -> Books {
        self.open_with(None, true)
    }

    fn open_with(&self, max_age: Option<Duration>, is_new: bool) -> Books {
        let directory = Directory::take(&self.0).unwrap();
        let contents = Books::read(&directory);
        Books::open(&directory, contents, max_age, is_new)
    }

    fn file(&self) -> PathBuf {
        self.0.join("books")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn noted(start: i64, second: i64, attempts: u64) -> Noted {
    let counters = Counters { attempts, delivered: attempts, ..Counters::default() };
    let (start, at) = (at(start), at(second));
    Noted { start, at, counters, after: 0, progress: Progress::default(), ended: None }
}

fn ended(noted: Noted, why: &str) -> Noted {
    Noted { ended: Some(why.to_owned()), ..noted }
}

/// A capture that did not say why it ended.
const UNNOTICED: &str = "";

/// Attempts at the end of each capture, when it began and ended, and why.
fn runs(past: &Past) -> Vec<(u64, i64, i64, &str)> {
    let second = |time: Timestamp| time.as_second() - at(0).as_second();
    let run = |run: &'_ Run| {
        let attempts = run.samples.last().unwrap().counters.attempts;
        (attempts, second(run.start), second(run.end()))
    };
    let runs = past.runs.iter();
    runs.map(|r| (run(r), r.why.as_deref().unwrap_or(UNNOTICED)))
        .map(|((a, s, e), why)| (a, s, e, why))
        .collect()
}

#[test]
fn a_capture_that_ends_in_order_is_known_with_its_figures_and_its_end() {
    let place = Place::new("order");
    let mut books = place.open();
    books.note(&noted(0, 1, 10));
    books.note(&ended(noted(0, 100, 70), "stopped"));
    drop(books);
    let mut books = place.open();
    assert_eq!(runs(books.past()), [(70, 0, 100, "stopped")]);
    books.note(&ended(noted(200, 300, 5), "stopped"));
    drop(books);
    // Whoever reads it writes it anew: nothing changes by that.
    for _ in 0..3 {
        assert_eq!(runs(place.open().past()), [(70, 0, 100, "stopped"), (5, 200, 300, "stopped")]);
    }
}

#[test]
fn a_capture_that_ends_at_any_byte_is_known_until_what_was_written_last() {
    let place = Place::new("torn");
    let mut books = place.open();
    for n in 0..20 {
        books.note(&noted(0, n * 10, n as u64 * 3));
    }
    drop(books);
    let whole = fs::read(place.file()).unwrap();
    for length in 0..whole.len() {
        let past = understand(&whole[..length]).past;
        assert!(past.damage.is_empty());
        for (attempts, start, end, why) in runs(&past) {
            assert_eq!((attempts as i64 * 10, start, why), (end * 3, 0, UNNOTICED), "{length}");
        }
    }
    fs::write(place.file(), &whole[..whole.len() - 20]).unwrap();
    let mut books = place.open();
    assert_eq!(runs(books.past()), [(54, 0, 180, UNNOTICED)]);
    books.note(&ended(noted(300, 310, 1), "stopped"));
    drop(books);
    let runs_after = [(54, 0, 180, UNNOTICED), (1, 300, 310, "stopped")];
    assert_eq!(runs(place.open().past()), runs_after);
}

#[test]
fn a_damaged_line_makes_the_time_before_a_gap() {
    let place = Place::new("damaged");
    let mut books = place.open();
    books.note(&noted(0, 1, 10));
    books.note(&ended(noted(0, 100, 70), "stopped"));
    drop(books);
    let damaged = place.text().replacen("\"attempts\":10", "\"attempts\":11", 1);
    fs::write(place.file(), damaged).unwrap();
    for _ in 0..2 {
        let books = place.open();
        let gap = Gap { since: at(0), until: at(100), why: DAMAGED.to_owned() };
        assert_eq!(
            (runs(books.past()), &books.past().damage),
            (vec![(70, 0, 100, "stopped")], &vec![gap])
        );
    }
    fs::write(place.file(), [0xff; 1_000]).unwrap();
    assert!(runs(place.open().past()).is_empty());
}

#[test]
fn damaged_books_are_set_aside_and_told_of_and_what_is_whole_of_them_stays() {
    let place = Place::new("aside");
    let mut books = place.open();
    books.note(&noted(0, 1, 10));
    books.note(&ended(noted(0, 100, 70), "stopped"));
    drop(books);
    let text = place.text();
    let options =
        HistoryOptions { directory: place.0.clone(), limit_bytes: 1 << 30, max_age: None };
    let told = || {
        let store = Store::open(8 << 20, &options).unwrap();
        store.status().history.unwrap().recovery.set_aside
    };
    // Its first line, which says when the capture began.
    let damaged = text.replacen("started", "starteb", 1);
    for (number, bytes) in [damaged.as_bytes(), &[0xff; 1_000], b"\x00\n"].into_iter().enumerate() {
        fs::write(place.file(), bytes).unwrap();
        let aside = match number {
            0 => "books.corrupt".to_owned(),
            n => format!("books.{}.corrupt", n + 1),
        };
        assert_eq!(told(), [aside.as_str()], "{number}");
        assert_eq!(fs::read(place.0.join(&aside)).unwrap(), bytes);
        assert!(told().is_empty(), "told once");
        if number == 0 {
            assert_eq!(runs(place.open().past()), [(70, 1, 100, "stopped")]);
        }
    }
    // What is no file at all.
    fs::remove_file(place.file()).unwrap();
    fs::create_dir(place.file()).unwrap();
    assert_eq!(told(), ["books.4.corrupt"]);
    assert!(place.file().is_file());
}

#[test]
fn a_loss_is_written_at_once_and_what_does_not_change_once_a_minute() {
    let place = Place::new("pace");
    let mut books = place.open();
    books.note(&noted(0, 1, 10));
    let lines = |place: &Place| place.text().lines().count();
    let before = lines(&place);
    books.note(&noted(0, 2, 11));
    books.note(&noted(0, 3, 12));
    assert_eq!(lines(&place), before);
    let mut lossy = noted(0, 4, 13);
    lossy.counters.lost = Lost { ring_full: 1, ..Lost::default() };
    books.note(&lossy);
    assert_eq!(lines(&place), before + 1);
    for second in 5..=125 {
        let same = Noted { at: at(second), ..lossy.clone() };
        books.note(&same);
    }
    assert_eq!(lines(&place), before + 3);
    drop(books);
    assert_eq!(runs(place.open().past()), [(13, 0, 124, UNNOTICED)]);
}

#[test]
fn a_year_of_figures_stays_small_and_exact_in_its_sums() {
    let place = Place::new("year");
    let mut books = place.open();
    let minutes = 365 * 24 * 60;
    let start = Timestamp::now().checked_sub(SignedDuration::from_mins(minutes)).unwrap();
    for minute in 1..=minutes {
        let at = start.checked_add(SignedDuration::from_mins(minute)).unwrap();
        books.note(&Noted { start, at, ..noted(0, 0, minute as u64) });
    }
    drop(books);
    let books = place.open();
    let run = &books.past().runs[0];
    assert_eq!(run.samples.last().unwrap().counters.attempts, minutes as u64);
    assert!(run.samples.len() <= SAMPLES, "{}", run.samples.len());
    assert!(place.text().len() < 4 << 20, "{}", place.text().len());
    // The last hour in steps of no more than a minute.
    let recent = run.samples.iter().rev().take(60).map(|sample| sample.first);
    let steps: Vec<_> = recent.collect();
    let longest = steps.windows(2).map(|pair| pair[0].duration_since(pair[1]).as_secs()).max();
    assert!(longest.unwrap() <= 60, "{longest:?}");
}

#[test]
fn a_server_that_begins_again_and_again_does_not_fill_the_disk() {
    let place = Place::new("again");
    drop(place.open());
    let mut text = String::new();
    for n in 0..20_000 {
        add_run(
            &mut text,
            &Run {
                samples: vec![
                    Sample::zero(at(n * 10)),
                    Sample::new(at(n * 10 + 5), noted(0, 0, 1).counters),
                ],
                why: Some("stopped".to_owned()),
                ..Run::new(at(n * 10), false)
            },
        );
    }
    fs::write(place.file(), text).unwrap();
    drop(place.open());
    let books = place.open();
    let runs = runs(books.past());
    assert!((1_000..=SAMPLES).contains(&runs.len()), "{}", runs.len());
    assert_eq!(runs.last().unwrap(), &(1, 199_990, 199_995, "stopped"));
}

#[test]
fn what_was_let_go_or_damaged_is_remembered() {
    let place = Place::new("let-go");
    let mut books = place.open();
    books.note(&noted(0, 1, 10));
    let times = Range { min: nanos(at(0)), max: nanos(at(1)) };
    books.let_go(times, 7, (1, 9), vec![Stretch { times, records: 7 }]);
    let gap = Gap { since: at(2), until: at(3), why: "set aside".to_owned() };
    books.damaged(gap.clone());
    drop(books);
    for _ in 0..2 {
        let books = place.open();
        let evicted: Vec<_> = books.evicted().iter().map(|e| (e.times.min, e.records)).collect();
        assert_eq!((evicted, &books.past().damage), (vec![(times.min, 7)], &vec![gap.clone()]));
    }
}

#[test]
fn books_that_cannot_be_written_do_no_harm_and_go_on_when_they_can() {
    let place = Place::new("refused");
    let mut books = place.open();
    books.note(&noted(0, 1, 10));
    fs::remove_file(place.file()).unwrap();
    fs::create_dir(place.file()).unwrap();
    fs::write(place.file().join("x"), "").unwrap();
    books.file = None;
    books.note(&noted(0, 100, 20));
    assert!(books.trouble.is_some());
    fs::remove_dir_all(place.file()).unwrap();
    books.note(&noted(0, 200, 30));
    assert!(books.trouble.is_none());
    drop(books);
    assert_eq!(runs(place.open().past()), [(30, 0, 200, UNNOTICED)]);
}

/// A capture that began then, and has seen nothing.
struct Watching(Timestamp);

impl CaptureHandle for Watching {
    fn counters(&self) -> Counters {
        Counters::default()
    }
    fn drain(&self) {}
    fn since(&self) -> Timestamp {
        self.0
    }
    fn report(&self) -> AttachReport {
        let backend = Some(Backend::Tracepoint);
        AttachReport { backend, features: BTreeMap::new(), programs: Vec::new() }
    }
    fn stopped(&self) -> Option<String> {
        None
    }
}

/// What a server says of all that there is, which began then and saw this.
fn life(place: &Place, start: Timestamp, seen: Vec<Connection>) -> Count {
    let directory = place.0.clone();
    let options = HistoryOptions { directory, limit_bytes: 1 << 30, max_age: None };
    let store = Arc::new(Store::open(1 << 20, &options).unwrap());
    store.apply(seen);
    let source = LocalSource::new(Arc::clone(&store), Arc::new(Watching(start)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let count = runtime.block_on(Source::count(&source, &Filter::default())).unwrap();
    source.close_books(Timestamp::now());
    store.close();
    count
}

#[test]
fn who_names_no_start_asks_as_far_back_as_there_are_books_if_there_always_were() {
    const GONE: &str = "the books of this time were removed or cut, or could not be written";
    let place = Place::new("whole");
    let start = Timestamp::now() - SignedDuration::from_secs(1_000);
    let curl = info(7, "curl");
    let mut earlier = refused(0, &curl);
    (earlier.time, earlier.preexisting) = (start - SignedDuration::from_secs(1_000), true);
    let seen = Connection { time: start + SignedDuration::from_secs(1), ..refused(1, &curl) };
    let why = |count: &Count| {
        let gaps = count.accounting.gaps.iter();
        gaps.map(|gap| gap.why.clone()).collect::<Vec<_>>()
    };
    let first = life(&place, start, vec![earlier.clone(), seen]);
    assert_eq!((first.total, first.window.since, why(&first)), (2, start, vec![]));
    for restarts in 1..=3 {
        let later = life(&place, Timestamp::now(), Vec::new());
        assert_eq!((later.total, later.window.since), (2, start));
        assert_eq!(why(&later), vec!["the server had been stopped"; restarts]);
    }
    // Nobody knows what the records of a history were seen by whose books are gone.
    fs::remove_file(place.file()).unwrap();
    for _ in 0..3 {
        let later = life(&place, Timestamp::now(), Vec::new());
        assert_eq!((later.total, later.window.since), (2, earlier.time));
        assert_eq!(why(&later).first().map(String::as_str), Some(GONE));
    }
}

#[test]
fn every_stop_is_a_gap_though_the_clock_was_an_hour_ahead_and_is_set_back() {
    let place = Place::new("set-back");
    let ahead = Timestamp::now() + SignedDuration::from_hours(1);
    let seen = Connection { time: ahead, ..refused(1, &info(7, "curl")) };
    life(&place, ahead, vec![seen]);
    for stops in 1..=3 {
        let later = life(&place, Timestamp::now(), Vec::new());
        let gaps = &later.accounting.gaps;
        assert_eq!((later.total, gaps.len(), later.accounting.complete), (1, stops, false));
        assert!(gaps[0].why.contains("the clock set back meanwhile, by 35"), "{gaps:?}");
        assert!(gaps.iter().all(|gap| gap.why.starts_with("the server had been stopped")));
    }
}

#[test]
fn books_that_lost_their_beginning_do_not_say_that_they_have_it() {
    let place = Place::new("beginning");
    let mut books = place.open();
    books.note(&ended(noted(0, 100, 70), "stopped"));
    drop(books);
    let mut books = place.open();
    assert_eq!(books.past().whole_since(), Some(at(0)));
    books.note(&ended(noted(200, 300, 5), "stopped"));
    drop(books);
    let lines: Vec<String> = place.text().lines().map(|line| format!("{line}\n")).collect();
    fs::write(place.file(), lines[1..].concat()).unwrap();
    assert_eq!(place.open().past().whole_since(), None);
    // What is too old is gone from history, too.
    fs::write(place.file(), lines.concat()).unwrap();
    let age = Timestamp::now().duration_since(at(200)).unsigned_abs();
    for _ in 0..2 {
        let books = place.open_with(Some(age), false);
        drop(books);
    }
    assert_eq!(runs(place.open().past()).len(), 1);
    assert_eq!(place.open().past().whole_since(), Some(at(200)));
}

#[test]
fn what_was_let_go_by_age_is_known_as_long_as_the_capture_that_saw_it() {
    let place = Place::new("age");
    let now = Timestamp::now().as_second() - at(0).as_second();
    let mut books = place.open();
    books.note(&noted(now - 1_000, now - 900, 10));
    let times = Range { min: nanos(at(now - 1_000)), max: nanos(at(now - 950)) };
    books.let_go(times, 7, (1, 9), vec![Stretch { times, records: 7 }]);
    books.note(&ended(noted(now - 1_000, now - 5, 70), "stopped"));
    drop(books);
    for _ in 0..2 {
        let books = place.open_with(Some(Duration::from_secs(60)), false);
        assert_eq!(books.evicted().iter().map(|gone| gone.records).sum::<u64>(), 7);
    }
}
