//! History as others find it: files of earlier versions, and other people's tools.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netspy::Connection;
use netspy::event::Outcome;
use netspy::query::{Follow, Page, Sort, Window};
use netspy::store::{Follower, HistoryOptions, Selection, Store};
use records::*;

#[path = "common/python.rs"]
mod python;
#[path = "common/records.rs"]
mod records;

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netspy-h-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Place(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(directory: &Path) -> Store {
    let directory = directory.to_owned();
    Store::open(1 << 20, &HistoryOptions { directory, limit_bytes: 1 << 30, max_age: None })
        .unwrap()
}

fn until(holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < end, "it did not come to pass");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn segments(store: &Store) -> u64 {
    store.status().history.unwrap().segments
}

fn all(store: &Store) -> Vec<Connection> {
    let page = Page { limit: Some(10_000), cursor: None, sort: Sort::Oldest };
    store.list(&Selection::default(), &page).unwrap().connections
}

/// Records of all kinds, as they were when the files of the fixture were written.
fn first() -> Vec<Connection> {
    let (curl, nginx) = (info(7, "curl"), info(8, "nginx"));
    vec![
        refused(0, &curl),
        closed(1, &nginx),
        udp(2, &curl),
        listening(3, &nginx),
        unix(4, &curl, "/run/x.sock"),
        established(5, &curl),
        in_progress(6, &nginx),
    ]
}

/// What came when they were in a segment: one that is new, and the end of an earlier one.
fn second() -> Vec<Connection> {
    vec![refused(7, &info(7, "curl")), closed(5, &info(7, "curl"))]
}

fn expected() -> Vec<Connection> {
    let mut expected = first();
    expected[5] = closed(5, &info(7, "curl"));
    expected.push(refused(7, &info(7, "curl")));
    expected
}

/// Those without what was not known when the files were written.
fn known_then(records: Vec<Connection>) -> Vec<Connection> {
    let strip = |c: Connection| {
        let process = c.process.map(|process| {
            let info = netspy::event::ProcessInfo {
                exe_dev: None,
                exe_inode: None,
                cwd: None,
                ..(*process.info).clone()
            };
            netspy::event::Process { info: Arc::new(info), ..process }
        });
        Connection { process, ..c }
    };
    records.into_iter().map(strip).collect()
}

/// A segment, and a journal that is no segment yet.
fn write(directory: &Path) {
    let store = open(directory);
    store.apply(first());
    drop(store);
    let store = open(directory);
    until(|| segments(&store) == 1);
    store.apply(second());
}

/// As a series over time has it, which files of earlier versions say nothing of themselves.
fn by_outcome(store: &Store) -> BTreeMap<Outcome, u64> {
    let window = Window { since: micros(-60_000_000), until: micros(60_000_000) };
    let mut all = BTreeMap::new();
    for point in store.series(&Selection::default(), window, 60_000) {
        for (outcome, count) in point.by_outcome {
            *all.entry(outcome).or_default() += count;
        }
    }
    all
}

fn attempts(records: &[Connection]) -> BTreeMap<Outcome, u64> {
    let mut all = BTreeMap::new();
    for record in records.iter().filter(|record| record.is_attempt()) {
        *all.entry(record.outcome).or_default() += 1;
    }
    all
}

/// `NETSPY_WRITE_FIXTURE=tests/fixtures/history-vN cargo test --test store_history` writes those of
/// a new version.
#[test]
fn files_of_every_version_are_read() {
    if let Some(directory) = std::env::var_os("NETSPY_WRITE_FIXTURE") {
        write(Path::new(&directory));
    }
    for version in 1..=1 {
        let fixture = format!("{}/tests/fixtures/history-v{version}", env!("CARGO_MANIFEST_DIR"));
        let place = Place::new(&format!("v{version}"));
        std::fs::create_dir(&place.0).unwrap();
        for file in std::fs::read_dir(fixture).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), place.0.join(file.file_name())).unwrap();
        }
        let store = open(&place.0);
        let recovery = store.status().history.unwrap().recovery;
        assert_eq!((recovery.journals, recovery.set_aside.len()), (1, 0), "{recovery:?}");
        assert_eq!(all(&store), known_then(expected()));
        assert_eq!(by_outcome(&store), attempts(&expected()));
        until(|| segments(&store) == 2);
        drop(store);
        // A segment of that version, and one of this.
        let store = open(&place.0);
        assert_eq!(all(&store), known_then(expected()));
        assert_eq!(by_outcome(&store), attempts(&expected()));
    }
}

#[test]
fn duckdb_reads_the_directory_as_documented() {
    let Some(tools) = python::environment("history-tools") else { return };
    let place = Place::new("duckdb");
    write(&place.0);
    let store = open(&place.0);
    until(|| segments(&store) == 2);
    let files = place.0.join("*.parquet");
    let files = files.display();
    // The questions of docs/history.md.
    let script = format!(
        r#"
import duckdb
top = duckdb.sql("""SELECT process, remote_ip, remote_port, count(*) FROM '{files}'
    WHERE outcome = 'refused' GROUP BY ALL ORDER BY 4 DESC LIMIT 10""").fetchall()
newest = duckdb.sql("""SELECT *, printf('%08x-%x-%x', id_boot, id_start_ns, id_tid) AS id FROM '{files}'
    QUALIFY row_number() OVER (PARTITION BY id_boot, id_start_ns, id_tid ORDER BY version DESC) = 1
    ORDER BY time""")
print(sorted(top))
print(newest.select("id, process, outcome, state, bytes_sent").fetchall())
print(duckdb.sql("SELECT count(*), count(*) FILTER (patch) FROM '{files}'").fetchall())
"#
    );
    let output = Command::new(tools.join("python")).args(["-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines = text.lines();
    let refused = "[('curl', '192.0.2.0', 443, 1), ('curl', '192.0.2.7', 443, 1)]";
    assert_eq!(lines.next(), Some(refused));
    let row = |c: &Connection| {
        let sent = c.close.and_then(|close| close.bytes_sent);
        let sent = sent.map_or_else(|| "None".to_owned(), |sent| sent.to_string());
        let name = &c.process.as_ref().unwrap().comm;
        format!("('{}', '{name}', '{}', '{}', {sent})", c.id, c.outcome, c.state)
    };
    let rows: Vec<_> = expected().iter().map(row).collect();
    assert_eq!(lines.next(), Some(format!("[{}]", rows.join(", ")).as_str()));
    assert_eq!(lines.next(), Some("[(9, 1)]"));
}

#[tokio::test]
async fn a_follower_that_has_had_everything_before_a_restart_is_told_of_nothing_and_others_truly() {
    let place = Place::new("followed");
    let curl = info(7, "curl");
    let store = open(&place.0);
    store.apply((0..100).map(|n| refused(n, &curl)).collect());
    let (before, last) = (store.latest() - 50, store.latest());
    store.close();
    drop(store);
    let store = Arc::new(open(&place.0));
    store.apply(vec![refused(1_000, &curl)]);
    let seen = async |after| {
        let mut follower = Follower::new(Arc::clone(&store), Selection::default(), Some(after));
        let (mut changes, mut skipped) = (0, Vec::new());
        loop {
            for follow in follower.next().await.unwrap() {
                match follow {
                    Follow::Change(change) if change.seq == store.latest() => {
                        return (changes, skipped);
                    }
                    Follow::Change(_) => changes += 1,
                    Follow::Skipped { changes } => skipped.push(changes),
                }
            }
        }
    };
    assert_eq!(seen(last).await, (0, vec![]));
    // Whether they are still in memory is a matter of time.
    match seen(before).await {
        (50, skipped) => assert_eq!(skipped, []),
        (_, skipped) => assert_eq!(skipped, [None]),
    }
    // Of this life of the server it is known how many there were.
    let after = store.latest();
    let mut slow = Follower::new(Arc::clone(&store), Selection::default(), Some(after));
    for n in 2_000..40_000 {
        store.apply(vec![refused(n, &curl)]);
    }
    let first = slow.next().await.unwrap().swap_remove(0);
    let all = store.latest() - after;
    assert!(
        matches!(first, Follow::Skipped { changes: Some(n) } if n > 1_000 && n <= all)
            || matches!(first, Follow::Change(ref change) if change.seq == after + 1),
        "{first:?} of {all}"
    );
}
