//! What the system refuses a server that keeps history: the server goes on, counts, and says so.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::Server;
use common::records::*;
use netspy::server::Terms;
use netspy::store::{HistoryOptions, Selection, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

/// Set in the process that may not write large files.
const LIMITED: &str = "NETSPY_TEST_LIMITED";

/// A directory that goes with the test.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(directory: &Path) -> Store {
    let directory = directory.to_owned();
    Store::open(8 << 20, &HistoryOptions { directory, limit_bytes: 1 << 30, max_age: None })
        .unwrap()
}

/// What is there when the server has ended and another process opens the directory.
async fn opened_again(server: Server, place: &Place) -> Store {
    let store = server.store.clone();
    server.stop().await;
    store.close();
    drop(store);
    open(&place.0)
}

#[test]
fn a_limit_on_file_sizes_stops_history_and_nothing_else_until_it_is_lifted() {
    let name = "a_limit_on_file_sizes_stops_history_and_nothing_else_until_it_is_lifted";
    if let Ok(directory) = std::env::var(LIMITED) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(works_within_a_limit(Path::new(&directory)));
    }
    // The limit is one of the process.
    let place = std::env::temp_dir().join(format!("netspy-limited-{}", std::process::id()));
    let place = Place(place);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(LIMITED, &place.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    // And after it all, nothing is missing, and nothing there twice.
    let store = open(&place.0);
    let recovery = store.status().history.unwrap().recovery;
    assert!(recovery.set_aside.is_empty() && recovery.corrupt == 0, "{recovery:?}");
    assert_eq!(recovery.missing_changes, 0, "{recovery:?}");
    assert_eq!(store.count(&Selection::default()), RECORDS);
}

const RECORDS: u64 = 6_000;

fn limit_file_sizes(bytes: Option<u64>) {
    let limit = getrlimit(Resource::Fsize);
    let current = bytes.or(limit.maximum);
    setrlimit(Resource::Fsize, Rlimit { current, ..limit }).unwrap();
}

async fn works_within_a_limit(directory: &Path) {
    // As the server does.
    let _caught = signal(SignalKind::from_raw(libc::SIGXFSZ)).unwrap();
    let server = common::server_over(open(directory), Vec::new(), Terms::default()).await;
    let curl = info(7, "curl");
    let next = Cell::new(0);
    let add = |count: u64| {
        let from = next.replace(next.get() + count);
        server.store.apply((from..from + count).map(|n| refused(n, &curl)).collect());
    };
    add(1_000);
    let status = health(&server, |_, history| history["behind"] == 0).await;
    assert_eq!(status["status"], "healthy");
    // Less than a journal has already, and enough to try whether anything can be written.
    limit_file_sizes(Some(8 << 10));
    for _ in 0..20 {
        add(100);
    }
    let refused = health(&server, |health, _| health["status"] == "degraded").await;
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.starts_with("history is not written: cannot write"), "{reason}");
    for _ in 0..10 {
        add(100);
    }
    let list = server.get("/api/v1/connections?limit=1").await.json();
    assert_eq!(list["total"], next.get());
    health(&server, |_, history| history["unwritten"].as_u64() > Some(0)).await;
    // No file has them, and none says that it does.
    health(&server, |_, history| history["behind"].as_u64() > Some(0)).await;
    limit_file_sizes(None);
    health(&server, |health, _| health["status"] == "healthy").await;
    // What no journal could take is in a segment soon, though nothing new comes.
    let written =
        |history: &Value| history["segments"].as_u64() > Some(0) && history["behind"] == 0;
    health(&server, |_, history| written(history)).await;
    // At the end it is tried once more, also where nobody has noticed yet that there is room.
    limit_file_sizes(Some(8 << 10));
    for _ in 0..10 {
        add(100);
    }
    health(&server, |health, _| health["status"] == "degraded").await;
    limit_file_sizes(None);
    while next.get() < RECORDS {
        add(100);
    }
    let store = server.store.clone();
    server.stop().await;
    store.close();
}

/// Waits until `/health`, and history in `/api/v1/status`, say what is waited for.
async fn health(server: &common::Server, wanted: impl Fn(&Value, &Value) -> bool) -> Value {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let health = server.get("/health").await;
        assert_eq!(health.status, 200);
        let (health, status) = (health.json(), server.get("/api/v1/status").await.json());
        if wanted(&health, &status["store"]["history"]) {
            return health;
        }
        assert!(Instant::now() < end, "it did not come to pass: {health} {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn health_tells_of_files_that_were_set_aside() {
    let place = std::env::temp_dir().join(format!("netspy-aside-{}", std::process::id()));
    let place = Place(place);
    open(&place.0).apply(vec![refused(1, &info(7, "curl"))]);
    std::fs::write(place.0.join("000000000077.arrow"), "notes").unwrap();
    let server = common::server_over(open(&place.0), Vec::new(), Terms::default()).await;
    let health = server.get("/health").await;
    assert_eq!((health.status, &health.json()["status"]), (200, &"degraded".into()));
    let reason = health.json()["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("set aside: 000000000077.arrow.corrupt"), "{reason}");
    let status = server.get("/api/v1/status").await.json();
    assert_eq!(status["health"], "degraded");
    let recovery = &status["store"]["history"]["recovery"];
    assert_eq!(recovery["set_aside"][0], "000000000077.arrow.corrupt");
    let list = server.get("/api/v1/connections").await.json();
    assert_eq!(list["total"], 1);
    server.stop().await;
    // Once it was told, the next start has nothing to say.
    let server = common::server_over(open(&place.0), Vec::new(), Terms::default()).await;
    assert_eq!(server.get("/health").await.json()["status"], "healthy");
    server.stop().await;
}

#[tokio::test]
async fn a_journal_or_a_directory_that_somebody_removes_is_told_of() {
    let place = std::env::temp_dir().join(format!("netspy-removed-{}", std::process::id()));
    let place = Place(place);
    let server = common::server_over(open(&place.0), Vec::new(), Terms::default()).await;
    let curl = info(7, "curl");
    let add = |n| server.store.apply(vec![refused(n, &curl)]);
    add(1);
    health(&server, |_, history| history["written"] == 1 && history["behind"] == 0).await;
    // What it held is in memory, and in a segment soon.
    std::fs::remove_file(place.0.join("000000000001.arrow")).unwrap();
    add(2);
    health(&server, |_, history| history["unwritten"].as_u64() > Some(0)).await;
    health(&server, |_, history| history["segments"] == 1 && history["behind"] == 0).await;
    health(&server, |health, _| health["status"] == "healthy").await;
    // Another directory in the place of its own may be another server's.
    let moved = Place(place.0.with_extension("moved"));
    std::fs::rename(&place.0, &moved.0).unwrap();
    std::fs::create_dir(&place.0).unwrap();
    add(3);
    // That its segment is not there may be seen before.
    let is_stopped = |health: &Value| {
        health["reason"].as_str().is_some_and(|why| why.contains("is not written"))
    };
    let told = health(&server, |health, _| is_stopped(health)).await;
    assert_eq!(told["status"], "degraded");
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("was removed or replaced while the server ran; start"), "{reason}");
    assert_eq!(std::fs::read_dir(&place.0).unwrap().count(), 0);
    std::fs::remove_dir(&place.0).unwrap();
    std::fs::rename(&moved.0, &place.0).unwrap();
    health(&server, |health, history| health["status"] == "healthy" && history["behind"] == 0)
        .await;
    let store = opened_again(server, &place).await;
    assert_eq!(store.count(&Selection::default()), 3);
    assert_eq!(store.status().history.unwrap().recovery.missing_changes, 0);
}

#[tokio::test]
async fn a_journal_that_somebody_cuts_is_noticed_though_nothing_comes_and_costs_no_record() {
    let place = std::env::temp_dir().join(format!("netspy-cut-{}", std::process::id()));
    let place = Place(place);
    for round in [0, 1] {
        let server = common::server_over(open(&place.0), Vec::new(), Terms::default()).await;
        let curl = info(7, "curl");
        let first = round * 100;
        for n in first..first + 50 {
            server.store.apply(vec![refused(n, &curl)]);
        }
        health(&server, |_, history| history["written"] == 50 && history["behind"] == 0).await;
        let journals = std::fs::read_dir(&place.0).unwrap().map(|file| file.unwrap().path());
        let journal = journals.filter(|path| path.extension().is_some_and(|end| end == "arrow"));
        let journal = journal.max().expect("a journal");
        // All of it, or half.
        let file = std::fs::OpenOptions::new().write(true).open(&journal).unwrap();
        file.set_len(file.metadata().unwrap().len() * round / 2).unwrap();
        health(&server, |_, history| history["unwritten"].as_u64() >= Some(50)).await;
        // It goes on in another, and memory has what the first had.
        server.store.apply(vec![refused(first + 50, &curl)]);
        let whole = |history: &Value| history["segments"].as_u64() > Some(round);
        health(&server, |health, history| {
            whole(history) && history["behind"] == 0 && health["status"] == "healthy"
        })
        .await;
        let store = opened_again(server, &place).await;
        assert_eq!(store.count(&Selection::default()), first / 100 * 51 + 51);
        let recovery = store.status().history.unwrap().recovery;
        assert_eq!((recovery.missing_changes, recovery.corrupt), (0, 0), "{recovery:?}");
        assert!(recovery.set_aside.is_empty(), "{recovery:?}");
    }
}
