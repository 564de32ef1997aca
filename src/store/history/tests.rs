use std::collections::HashMap;
use std::path::Path;

use super::*;
use crate::event::ConnectionId;
use crate::query::{Filter, Page, Sort};
use crate::store::archive::Rows;
use crate::store::{Columns, Selection, Store};
use crate::test_records::*;

mod damage;
mod disk;
mod limits;
mod over_time;
mod reconcile;
mod unbooked;

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netspy-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Place(path)
    }

    fn options(&self) -> HistoryOptions {
        HistoryOptions { directory: self.0.clone(), limit_bytes: 1 << 30, max_age: None }
    }

    fn open(&self) -> Store {
        Store::open(1 << 20, &self.options()).unwrap()
    }

    fn files(&self, end: &str) -> Vec<PathBuf> {
        let files = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            files.filter(|path| path.to_str().unwrap().ends_with(end)).collect();
        files.sort();
        files
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn everything() -> Selection {
    Selection::default()
}

/// All records, page by page.
fn all(store: &Store, sort: Sort) -> Vec<Connection> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = Page { limit: Some(3_000), cursor, sort };
        let selected = store.list(&everything(), &page).unwrap();
        all.extend(selected.connections);
        cursor = selected.next_cursor;
        if cursor.is_none() {
            assert_eq!(all.len() as u64, selected.total);
            return all;
        }
    }
}

/// Holds a store to what should be in it, by every way of asking.
fn holds(store: &Store, expected: &HashMap<ConnectionId, Connection>) {
    let listed = all(store, Sort::Newest);
    assert_eq!(listed.len(), expected.len());
    for c in &listed {
        assert_eq!(expected.get(&c.id), Some(c));
    }
    let mut oldest = all(store, Sort::Oldest);
    oldest.reverse();
    assert_eq!(listed, oldest);
    assert_eq!(store.count(&everything()), expected.len() as u64);
    assert_eq!(store.totals(&everything()).total, expected.len() as u64);
    let mut views = 0;
    store.for_each(&everything(), Columns::ALL, &mut |view| {
        let c = &expected[&view.id()];
        views += 1;
        assert_eq!(view.outcome(), c.outcome);
        assert_eq!(view.close().map(|close| close.bytes_sent), c.close.map(|c| c.bytes_sent));
        assert_eq!(view.remote_ip(), c.remote.as_ref().map(|remote| remote.ip));
        assert_eq!(view.process().map(|who| who.pid()), c.process.as_ref().map(|p| p.pid));
        let container = c.process.as_ref().and_then(|p| p.container.as_ref());
        let seen = view.process().and_then(|who| who.container_id().map(str::to_owned));
        assert_eq!(seen, container.map(|c| c.id.clone()));
    });
    assert_eq!(views, expected.len());
    for c in expected.values().step_by(expected.len() / 20 + 1) {
        assert_eq!(store.get(c.id).as_ref(), Some(c));
    }
}

/// Records of many kinds, and later versions of some, some of them much later.
fn fill(store: &Store, from: u64, count: u64) -> HashMap<ConnectionId, Connection> {
    let processes: Vec<_> =
        (0..50).map(|pid| info(pid, ["curl", "nginx"][pid as usize % 2])).collect();
    let mut expected = HashMap::new();
    let mut add = |batch: Vec<Connection>| {
        expected.extend(batch.iter().map(|c| (c.id, c.clone())));
        store.apply(batch);
    };
    for start in (from..from + count).step_by(100) {
        let info = |n: u64| &processes[n as usize % 50];
        let batch = (start..start + 100).map(|n| match n % 4 {
            0 => refused(n, info(n)),
            1 => established(n, info(n)),
            2 => unix(n, info(n), "/run/x"),
            _ => in_progress(n, info(n)),
        });
        add(batch.collect());
        add((start..start + 100).filter(|n| n % 4 == 3).map(|n| refused(n, info(n))).collect());
        // Of connections that were opened long ago.
        let late = start.saturating_sub(5_000).max(from) + 1;
        add(vec![closed(late - late % 4 + 1, info(late - late % 4 + 1))]);
    }
    expected
}

/// Waits for what comes to pass by itself.
#[track_caller]
fn until(holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < end, "it did not come to pass");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Waits until so many segments have been made.
#[track_caller]
fn settled(store: &Store, segments: u64) {
    until(|| store.status().history.unwrap().segments >= segments);
}

#[test]
fn memory_and_segments_are_one_and_survive_a_restart() {
    let place = Place::new("one");
    let store = place.open();
    let mut expected = fill(&store, 0, 20_000);
    settled(&store, 3);
    holds(&store, &expected);
    assert!(store.status().evicted == 0, "{:?}", store.status());
    // What memory has newer versions of is found on disk within a moment, and counted once.
    until(|| store.status().records == expected.len() as u64);
    store.close();
    let latest = store.latest();
    drop(store);
    let store = place.open();
    assert!(store.latest() >= latest);
    holds(&store, &expected);
    settled(&store, 4);
    holds(&store, &expected);
    expected.extend(fill(&store, 20_000, 5_000));
    // Closed after a restart, and long after its segment was written.
    let old = closed(5_001, &info(1, "nginx"));
    store.apply(vec![old.clone()]);
    expected.insert(old.id, old);
    holds(&store, &expected);
    store.close();
    drop(store);
    holds(&place.open(), &expected);
}

#[test]
fn nothing_is_shown_twice_while_records_move_from_memory_to_disk() {
    let place = Place::new("moving");
    let store = place.open();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::SeqCst) || looks < 3 {
                let mut seen = std::collections::HashSet::new();
                store.for_each(&everything(), Columns::NONE, &mut |view| {
                    assert!(seen.insert(view.id()), "{} was shown twice", view.id());
                });
                let page = Page { limit: Some(3_000), ..Page::default() };
                let listed = store.list(&everything(), &page).unwrap().connections;
                let ranks: Vec<_> = listed.iter().map(|c| (c.time, c.id)).collect();
                assert!(ranks.is_sorted_by(|a, b| a > b));
                looks += 1;
            }
        });
        let expected = fill(&store, 0, 15_000);
        done.store(true, Ordering::SeqCst);
        reader.join().unwrap();
        holds(&store, &expected);
    });
}

#[test]
fn only_earlier_segments_are_hidden_by_what_is_superseded() {
    let place = Place::new("superseded");
    let curl = info(7, "curl");
    let mut rotated = Vec::new();
    for (segments, record) in [(1, established(1, &curl)), (2, closed(1, &curl))] {
        place.open().apply(vec![record]);
        let store = place.open();
        settled(&store, segments);
        rotated.push(store.archive.as_ref().unwrap().rotated());
    }
    let store = place.open();
    let newest = closed(1, &curl);
    let expected = HashMap::from([(newest.id, newest.clone())]);
    // As somebody says who knew of the first segment alone, and comes late.
    store.archive.as_ref().unwrap().supersede(newest.id, rotated[0]);
    holds(&store, &expected);
    // Its threads hide what they find before they end.
    store.close();
    holds(&store, &expected);
}

#[test]
fn what_is_superseded_once_more_is_not_forgotten() {
    let (superseded, id) = (Superseded::default(), refused(1, &info(7, "curl")).id);
    superseded.add(id, 5);
    let hidden = superseded.now();
    superseded.add(id, 9);
    superseded.add(id, 2);
    superseded.remove(&hidden);
    assert_eq!(superseded.now().get(&id), Some(&9));
    superseded.remove(&superseded.now());
    assert!(superseded.now().is_empty());
}

#[test]
fn any_record_at_all_comes_back_as_it_was() {
    let place = Place::new("any");
    let store = place.open();
    let mut random = Random(7);
    let mut expected = HashMap::new();
    for n in 0..4_000 {
        let mut c = random.connection();
        c.id.start_ns = n;
        store.apply(vec![c.clone()]);
        expected.insert(c.id, c);
    }
    store.close();
    drop(store);
    let store = place.open();
    holds(&store, &expected);
    settled(&store, 1);
    // Pushes them out of memory.
    expected.extend(fill(&store, 10_000, 8_000));
    settled(&store, 3);
    holds(&store, &expected);
    drop(store);
    holds(&place.open(), &expected);
}

#[test]
fn filters_mean_the_same_on_disk_as_on_records() {
    use crate::query::filter::parse_at;
    let place = Place::new("filters");
    let store = place.open();
    let mut random = Random(3);
    let mut all: HashMap<ConnectionId, Connection> = HashMap::new();
    for n in 0..3_000 {
        let mut c = random.connection();
        c.id.start_ns = n;
        all.insert(c.id, c.clone());
        store.apply(vec![c]);
    }
    drop(store);
    let store = place.open();
    settled(&store, 1);
    drop(store);
    // Nothing is in memory.
    let store = place.open();
    let parameters: [(&str, &[&str]); 22] = [
        ("process", &["curl", "a\\,b,docker"]),
        ("pid", &["1,2", "7"]),
        ("uid", &["0", "1,2"]),
        ("unit", &["nginx.service", "curl"]),
        ("container", &["012345", "short,docker"]),
        ("pod", &["curl", "docker,x"]),
        ("namespace", &["docker,curl"]),
        ("remote", &["10.0.0.1,10.0.0.2", "0:0:0:3::1"]),
        ("cidr", &["10.0.0.0/30", "::/0"]),
        ("scope", &["private", "global,loopback"]),
        ("country", &["DE", "de,FR"]),
        ("asn", &["64500", "AS64500,7"]),
        ("host_name", &[".example.com", "curl"]),
        ("port", &["1", "2,3"]),
        ("protocol", &["tcp,udp", "unix"]),
        ("direction", &["inbound"]),
        ("state", &["open", "closed,connecting"]),
        ("outcome", &["unsuccessful", "established,in_progress"]),
        ("text", &["CURL", "10.0.0.1,econn", "a\\,b,.service"]),
        ("preexisting", &["true", "false"]),
        ("since", &["2023-11-14T22:13:20Z", "2023-11-14T22:13:20.2Z", "1011-11-14T00:00:00Z"]),
        ("until", &["2023-11-14T22:13:20.3Z", "2300-01-01T00:00:00Z"]),
    ];
    for round in 0..120 {
        let mut pairs = Vec::new();
        for (name, values) in &parameters {
            if random.one_in(5) {
                pairs.push((*name, random.one(values)));
            }
        }
        let mut selection = Selection::from(parse_at(pairs.clone(), epoch()).unwrap().0);
        if round % 7 == 0 {
            selection.command = Some("curl".to_owned());
            selection.attempts_only = true;
        }
        let expected = all.values().filter(|c| selection.matches(c)).count() as u64;
        assert_eq!(store.count(&selection), expected, "{pairs:?}");
        let newest = all.values().filter(|c| selection.matches(c)).map(|c| c.time).max();
        let newest = newest.map(|time| crate::store::row::wide(crate::store::row::nanos(time)));
        assert_eq!(store.newest(&selection), newest, "{pairs:?}");
    }
}

#[test]
fn figures_are_the_same_from_disk_as_from_memory() {
    use crate::analysis::Tally;
    use crate::query::Window;
    use crate::query::top::TopBy;
    use strum::VariantArray;
    let place = Place::new("figures");
    let (memory, store) = (Store::new(64 << 20), place.open());
    let mut random = Random(4);
    for n in 0..2_000 {
        let mut c = random.connection();
        c.id.start_ns = n;
        memory.apply(vec![c.clone()]);
        store.apply(vec![c]);
    }
    drop(store);
    settled(&place.open(), 1);
    // Nothing is in memory.
    let store = place.open();
    for by in TopBy::VARIANTS {
        let mut top = [&memory, &store].map(|store| store.top(&everything(), *by, 1_000));
        // Of several names that are equally new, any may be shown.
        top.iter_mut().flat_map(|top| &mut top.groups).for_each(|group| group.label = None);
        let [expected, found] = top;
        assert!(expected.total == 2_000 && !expected.groups.is_empty(), "{by}");
        assert_eq!(found, expected, "{by}");
    }
    let at = |ms: i64| epoch() + jiff::SignedDuration::from_millis(ms);
    let windows = [(0, 1_000), (1_000, 2_000)]
        .map(|(since, until)| Window { since: at(since), until: at(until) });
    let [expected, found] =
        [&memory, &store].map(|store| store.diff(&everything(), windows, 1_000));
    assert!(expected.totals != [0, 0]);
    assert_eq!(found, expected);
    let whole = Window { since: at(0), until: at(10_000) };
    let [expected, found] = [&memory, &store].map(|store| store.series(&everything(), whole, 100));
    assert_eq!(found, expected);
    let findings = |store: &Store| Tally::of(store, &everything(), at(100_000)).findings();
    assert_eq!(findings(&store), findings(&memory));
}

#[test]
fn processes_are_counted_by_name_whatever_hides_and_whoever_is_named_like_them() {
    let place = Place::new("named");
    let store = place.open();
    let mut expected = fill(&store, 0, 12_000);
    // A thread that is named as a process.
    let mut odd = refused(20_000, &info(60, "postgres"));
    odd.process.as_mut().unwrap().thread = "nginx".into();
    expected.insert(odd.id, odd.clone());
    store.apply(vec![odd]);
    drop(store);
    settled(&place.open(), 3);
    let store = place.open();
    for names in [&["curl"][..], &["nginx"], &["curl", "nginx", "curl"], &["nobody"], &["postgres"]]
    {
        let process = names.iter().map(|name| (*name).to_owned()).collect();
        let selection = Selection::from(Filter { process, ..Filter::default() });
        let named = expected.values().filter(|c| selection.matches(c)).count() as u64;
        assert_eq!(store.count(&selection), named, "{names:?}");
    }
}

#[test]
fn a_segment_of_many_pages_reads_as_it_was_written() {
    use decode::Decoder;
    use encode::Encoder;
    use schema::Column;
    use segment_writer::{PAGE_ROWS, Piece};
    let place = Place::new("pages");
    std::fs::create_dir(&place.0).unwrap();
    let curl = info(7, "curl");
    let mut random = Random(5);
    // Columns begin with a page that says nothing, texts come page by page, or never.
    let mut records: Vec<Connection> = (0..PAGE_ROWS as u64).map(|n| udp(n, &curl)).collect();
    let path = |n: u64| format!("/run/{}.sock", n % 5_000);
    records.extend((0..6_000).map(|n| unix(n, &curl, &path(n))));
    records.extend((0..12_000).map(|_| random.connection()));
    let pieces = records.chunks(PAGE_ROWS).zip(0..).map(|(chunk, page)| {
        let mut encoder = Encoder::default();
        for (c, row) in chunk.iter().zip(1..) {
            encoder.push(&Fields::of(c, page * PAGE_ROWS as u64 + row), || Some(c.clone()));
        }
        let (wholes, names) = (encoder.wholes() as u32, encoder.names());
        Ok(Piece { batch: encoder.finish()?, wholes, names })
    });
    let rows = records.len() as u32;
    let facts = segment::Facts {
        after: 0,
        last: rows.into(),
        rows,
        patches: 0,
        wholes: 0,
        names: None,
        name_rows: None,
        other_names: None,
        first_time: i64::MIN,
        last_time: i64::MAX,
        starts: Vec::new(),
    };
    let path = place.0.join("segment");
    segment_writer::write(&std::fs::File::create(&path).unwrap(), pieces, facts).unwrap();
    let segment = Segment::open(1, &path).unwrap();
    let some = (0..rows).filter(|row| row % 997 < 3).collect();
    for rows in [Rows::Range(0..rows), Rows::Range(8_000..17_000), Rows::List(some)] {
        let mut decoder = Decoder::new(&segment.read(Column::ALL, &rows).unwrap());
        for index in 0..rows.len() {
            let expected = &records[rows.get(index).unwrap() as usize];
            assert_eq!(decoder.record(index).as_ref(), Some(expected));
        }
    }
}

#[test]
fn a_second_server_is_refused_and_files_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("second");
    let store = place.open();
    let error = Store::open(1 << 20, &place.options()).unwrap_err().to_string();
    assert!(error.contains("another server keeps its history there"), "{error}");
    store.apply(vec![refused(1, &info(1, "curl"))]);
    store.close();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.0), 0o700);
    assert_eq!(place.files(".arrow").len(), 1);
    for path in place.files("") {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn the_oldest_go_first_by_size_and_by_age() {
    let place = Place::new("limits");
    let limited = HistoryOptions { limit_bytes: 400_000, ..place.options() };
    let store = Store::open(1 << 20, &limited).unwrap();
    fill(&store, 0, 40_000);
    store.close();
    let status = store.status();
    let history = status.history.clone().unwrap();
    assert!(history.bytes <= 400_000 + 200_000, "{history:?}");
    assert!(status.evicted > 0);
    assert!(store.get(refused(0, &info(0, "curl")).id).is_none());
    assert!(store.count(&everything()) >= history.records);
    assert!(store.evicted_between(micros(0), micros(1_000_000)) >= status.evicted);
    drop(store);
    // The records of the tests are years old.
    let aged = HistoryOptions { max_age: Some(Duration::from_secs(3600)), ..place.options() };
    let store = Store::open(1 << 20, &aged).unwrap();
    assert_eq!(store.status().history.unwrap().segments, 0);
    assert!(place.files(".parquet").is_empty());
}

#[test]
fn what_is_too_old_goes_though_the_clock_was_once_ahead() {
    let place = Place::new("ahead");
    let curl = info(7, "curl");
    let now = jiff::Timestamp::now();
    let at = |hours: i64, n| Connection {
        time: now + jiff::SignedDuration::from_hours(hours),
        ..refused(n, &curl)
    };
    for (segment, hours) in [1_000, -100, -2].into_iter().enumerate() {
        place.open().apply(vec![at(hours, segment as u64)]);
        settled(&place.open(), segment as u64 + 1);
    }
    let day = Some(Duration::from_secs(24 * 3600));
    let store = Store::open(1 << 20, &HistoryOptions { max_age: day, ..place.options() }).unwrap();
    let left: Vec<_> = all(&store, Sort::Newest).into_iter().map(|c| c.id).collect();
    assert_eq!(left, [refused(0, &curl).id, refused(2, &curl).id]);
    assert_eq!(store.status().evicted, 1);
}

#[test]
fn times_that_jump_back_and_forth_are_in_order_wherever_they_lie() {
    let place = Place::new("jumping");
    let mut random = Random(23);
    let (curl, mut clock) = (info(7, "curl"), 0);
    let mut expected: HashMap<ConnectionId, Connection> = HashMap::new();
    for round in 0..4 {
        let store = place.open();
        for n in 0..1_000 {
            if random.one_in(50) {
                clock = random.next(4_000_000_000_000) as i64 - 2_000_000_000_000;
            }
            clock += 1;
            let began = Connection { time: micros(clock), ..in_progress(round * 1_000 + n, &curl) };
            store.apply(vec![began.clone()]);
            // Its end comes when the clock has been set once more.
            let ended = Connection { time: began.time, ..refused(round * 1_000 + n, &curl) };
            if random.one_in(3) {
                store.apply(vec![ended.clone()]);
                expected.insert(ended.id, ended);
            } else {
                expected.insert(began.id, began);
            }
        }
        holds(&store, &expected);
        drop(store);
        holds(&place.open(), &expected);
    }
    let store = place.open();
    settled(&store, 4);
    for _ in 0..20 {
        let [mut since, mut until] =
            [0, 1].map(|_| micros(random.next(4_000_000_000_000) as i64 - 2_000_000_000_000));
        if since > until {
            std::mem::swap(&mut since, &mut until);
        }
        let filter = Filter { since: Some(since), until: Some(until), ..Filter::default() };
        let selection = Selection::from(filter);
        let inside = expected.values().filter(|c| selection.matches(c)).count() as u64;
        assert_eq!(store.count(&selection), inside);
    }
}

#[test]
fn a_window_reads_only_what_lies_in_it() {
    let place = Place::new("window");
    let store = place.open();
    let expected = fill(&store, 0, 12_000);
    settled(&store, 2);
    for (since, until) in
        [(0, 12_000), (10, 20), (3_000, 9_000), (11_990, 20_000), (20_000, 30_000)]
    {
        let filter =
            Filter { since: Some(micros(since)), until: Some(micros(until)), ..Filter::default() };
        let selection = Selection::from(filter);
        let inside = expected.values().filter(|c| selection.matches(c)).count() as u64;
        assert_eq!(store.count(&selection), inside);
    }
}

#[test]
fn a_clock_that_is_set_back_makes_no_later_version_the_older() {
    let place = Place::new("clock");
    let store = place.open();
    let curl = info(7, "curl");
    // As if the clock had been years ahead.
    lock(&store.writer).next_seq += 1_000_000_000_000_000;
    store.apply((0..2_000).map(|n| established(n, &curl)).collect());
    settled(&store, 1);
    let latest = store.latest();
    drop(store);
    let store = place.open();
    assert!(store.latest() >= latest);
    // Attempts that seem to come before those that are there.
    let before = |n: u64| Connection { time: micros(-(n as i64)), ..refused(5_000 + n, &curl) };
    store.apply((0..2_000).map(before).collect());
    store.apply(vec![closed(3, &curl)]);
    settled(&store, 2);
    let check = |store: &Store| {
        assert_eq!(store.get(closed(3, &curl).id), Some(closed(3, &curl)));
        assert_eq!(all(store, Sort::Newest).len(), 4_000);
        let filter = Filter { until: Some(micros(0)), ..Filter::default() };
        assert_eq!(store.count(&filter.into()), 1_999);
    };
    check(&store);
    drop(store);
    check(&place.open());
}
