//! History under `kill -9`, again and again, on one directory: what the server had taken in a second
//! before is there once afterwards, in that version or a later one, and nothing is there twice.
//!
//! `NETSPY_KILLS=50` kills as often as is wanted before a release, `NETSPY_KILLS_SEED` repeats a run.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use common::records::*;
use netspy::Connection;
use netspy::client::{Address, HttpSource};
use netspy::event::{ConnectionId, Outcome, ProcessInfo};
use netspy::query::{Filter, Page, Sort, Source};
use netspy::server::Terms;
use netspy::store::{HistoryOptions, Store};
use rustix::time::{ClockId, clock_gettime};

/// Set in the process that is killed.
const DIRECTORY: &str = "NETSPY_TEST_SERVES";
const PATIENCE: Duration = Duration::from_secs(120);
/// What was taken in so long before the end has to be there after it.
const PROMISE_NS: u64 = 1_000_000_000;
/// Little, so that memory runs over and segments are made all the time.
const MEMORY: u64 = 2 << 20;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// By a clock that all processes share.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn options(directory: &Path) -> HistoryOptions {
    HistoryOptions { directory: directory.to_owned(), limit_bytes: 1 << 40, max_age: None }
}

/// What happens on the host in one life of the server: the same to who reports it and who checks it.
struct Script {
    random: Random,
    processes: Vec<Arc<ProcessInfo>>,
    /// The number of the next record.
    next: u64,
}

impl Script {
    fn new(seed: u64, next: u64) -> Self {
        let names = ["curl", "nginx", "sshd"];
        let process = |pid: u32| info(pid, names[pid as usize % names.len()]);
        Script { random: Random(seed), processes: (1..40).map(process).collect(), next }
    }

    fn batch(&mut self) -> Vec<Connection> {
        (0..=self.random.next(200)).map(|_| self.change()).collect()
    }

    /// A new record, or how one goes on that is new, or as old as any.
    fn change(&mut self) -> Connection {
        let began = self.next / 2;
        if began > 0 && self.random.one_in(3) {
            let among = if self.random.one_in(4) { began } else { began.min(300) };
            let n = (began - among + self.random.next(among)) * 2 + 1;
            let process = self.process(n);
            return if n % 4 == 1 { closed(n, process) } else { refused(n, process) };
        }
        let n = self.next;
        self.next += 1;
        let process = self.process(n);
        match n % 4 {
            0 => refused(n, process),
            1 => established(n, process),
            2 => unix(n, process, "/run/x"),
            _ => in_progress(n, process),
        }
    }

    fn process(&self, n: u64) -> &Arc<ProcessInfo> {
        &self.processes[n as usize % self.processes.len()]
    }
}

/// What one life of the server does: taken from the command line of the process.
#[derive(Debug, Clone, Copy)]
struct Life {
    seed: u64,
    first: u64,
    per_second: u64,
}

/// Serves the directory, and once it is told to, takes in what the script says. After each batch it
/// tells when it was taken in.
fn serve_until_it_is_killed(directory: &str) -> ! {
    let life = Life {
        seed: number("NETSPY_TEST_SEED").unwrap(),
        first: number("NETSPY_TEST_FIRST").unwrap(),
        per_second: number("NETSPY_TEST_RATE").unwrap(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(MEMORY, &options(Path::new(directory))).unwrap();
        let server = common::server_over(store, Vec::new(), Terms::default()).await;
        // The test harness leaves a line unfinished.
        println!("\nserves {}", server.unix.display());
        let store = server.store.clone();
        let run = tokio::task::spawn_blocking(move || take_in(&store, life));
        run.await.unwrap();
    });
    unreachable!("it takes records in for ever");
}

fn take_in(store: &Store, life: Life) {
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let mut script = Script::new(life.seed, life.first);
    let (begin, mut changes) = (Instant::now(), 0);
    for batch in 1u64.. {
        let records = script.batch();
        changes += records.len() as u64;
        store.apply(records);
        println!("has {batch} {}", now_ns());
        let due = begin + Duration::from_micros(changes * 1_000_000 / life.per_second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// The server in a process of its own.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(directory: &Path, temporary: &Path, life: Life) -> Self {
        let name = "what_was_taken_in_a_second_before_a_kill_is_there_once";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(DIRECTORY, directory)
            .env("TMPDIR", temporary)
            .env("NETSPY_TEST_SEED", life.seed.to_string())
            .env("NETSPY_TEST_FIRST", life.first.to_string())
            .env("NETSPY_TEST_RATE", life.per_second.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Running { child, lines: receiver }
    }

    /// Waits until it answers.
    fn source(&self) -> HttpSource {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("it did not come to serve");
            if let Some(path) = line.strip_prefix("serves ") {
                return HttpSource::new(Address::Unix(path.into()));
            }
        }
    }

    fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// Kills it after a while; how many batches it had a second before, and at the end.
    fn kill_after(mut self, after: Duration) -> (u64, u64) {
        let end = Instant::now() + after;
        let mut said = Vec::new();
        let alive = loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Timeout) => break true,
                Err(RecvTimeoutError::Disconnected) => break false,
            }
        };
        let killed = now_ns();
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert!(alive, "it ended by itself: {status}, {said:?}");
        said.extend(self.lines.iter());
        let batches = said.iter().filter_map(|line| {
            let (batch, at) = line.strip_prefix("has ")?.split_once(' ')?;
            Some((batch.parse::<u64>().ok()?, at.parse::<u64>().ok()?))
        });
        let batches: Vec<_> = batches.collect();
        let safe = batches.iter().rev().find(|(_, at)| at + PROMISE_NS < killed);
        let all = batches.last();
        (safe.map_or(0, |(batch, _)| *batch), all.map_or(0, |(batch, _)| *batch))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What may have become of a record in the last life.
#[derive(Default)]
struct May {
    be_missing: bool,
    be: Vec<Connection>,
}

/// What has to be there.
struct Books {
    /// As it was when the server was last asked.
    known: HashMap<ConnectionId, Connection>,
    since: HashMap<ConnectionId, May>,
    /// The first record of the last life.
    first: u64,
    next: u64,
}

impl Books {
    /// The server took in so many batches of this life, the first of which are `safe`.
    fn note(&mut self, life: Life, safe: u64, all: u64) {
        let mut script = Script::new(life.seed, life.first);
        // One more may have been taken in, and not told.
        for batch in 1..=all + 1 {
            for c in script.batch() {
                let may = self.since.entry(c.id).or_insert_with(|| {
                    let known = self.known.get(&c.id);
                    May { be_missing: known.is_none(), be: known.into_iter().cloned().collect() }
                });
                if batch <= safe {
                    *may = May::default();
                }
                may.be.push(c);
            }
        }
        (self.first, self.next) = (life.first, script.next);
    }

    fn settle(&mut self, id: ConnectionId, found: Option<Connection>) {
        let Some(may) = self.since.remove(&id) else {
            assert_eq!(found.as_ref(), self.known.get(&id), "{id} has changed");
            return;
        };
        match found {
            None => assert!(may.be_missing, "{id} is missing"),
            Some(found) => {
                assert!(may.be.contains(&found), "{found:?} should be one of {:?}", may.be);
                self.known.insert(id, found);
            }
        }
    }

    /// Holds the server to it: the records of the last life, and what changed in it, by list and one
    /// by one, all others by their totals.
    async fn check(&mut self, source: &HttpSource) {
        let filter = Filter { since: Some(micros(self.first as i64)), ..Filter::default() };
        for found in list(source, &filter).await {
            self.settle(found.id, Some(found));
        }
        for id in self.since.keys().copied().collect::<Vec<_>>() {
            let found = source.get(id).await.unwrap();
            self.settle(id, found);
        }
        let mut outcomes: BTreeMap<Outcome, u64> = BTreeMap::new();
        self.known.values().for_each(|c| *outcomes.entry(c.outcome).or_default() += 1);
        let summary = source.summary(&Filter::default()).await.unwrap();
        assert_eq!(summary.total, self.known.len() as u64);
        assert_eq!(summary.by_outcome, outcomes);
        let status = source.status().await.unwrap();
        assert_eq!(status.health, "healthy");
        let recovery = status.store.history.unwrap().recovery;
        assert!(recovery.set_aside.is_empty() && recovery.corrupt == 0, "{recovery:?}");
        assert_eq!(recovery.missing_changes, 0, "{recovery:?}");
    }
}

/// All pages. No record may be on two of them.
async fn list(source: &HttpSource, filter: &Filter) -> Vec<Connection> {
    let mut all: Vec<Connection> = Vec::new();
    let mut cursor = None;
    loop {
        let page = Page { limit: Some(Page::MAX_LIMIT), cursor, sort: Sort::Oldest };
        let list = source.list(filter, &page).await.unwrap();
        all.extend(list.connections);
        cursor = list.next_cursor;
        if cursor.is_none() {
            assert!(all.is_sorted_by(|a, b| (a.time, a.id) < (b.time, b.id)));
            assert_eq!(all.len() as u64, list.total);
            return all;
        }
    }
}

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("netspy-killed-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("tmp")).unwrap();
        Place(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_was_taken_in_a_second_before_a_kill_is_there_once() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        serve_until_it_is_killed(&directory);
    }
    let kills = number("NETSPY_KILLS").unwrap_or(4);
    let seed = number("NETSPY_KILLS_SEED").unwrap_or_else(now_ns);
    println!("NETSPY_KILLS_SEED={seed}");
    let place = Place::new();
    let (directory, temporary) = (place.0.join("history"), place.0.join("tmp"));
    let mut random = Random(seed);
    let mut books = Books { known: HashMap::new(), since: HashMap::new(), first: 0, next: 0 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut safe_batches = 0;
    for kill in 1..=kills {
        let life = Life {
            seed: random.next(u64::from(u32::MAX)),
            first: books.next,
            per_second: random.one(&[300, 2_000, 8_000]),
        };
        let mut running = Running::start(&directory, &temporary, life);
        if kill > 1 && random.one_in(4) {
            // While it looks through what the one before left.
            running.kill_after(Duration::from_micros(random.next(400_000)));
            continue;
        }
        let source = running.source();
        runtime.block_on(books.check(&source));
        let second = Store::open(MEMORY, &options(&directory)).unwrap_err().to_string();
        assert!(second.contains("another server keeps its history there"), "{second}");
        running.go();
        // The first one lives for long enough that something is safe.
        let least = if kill == 1 { 1_500 } else { 200 };
        let (safe, all) = running.kill_after(Duration::from_millis(least + random.next(2_000)));
        println!("kill {kill}: {life:?}, {safe} batches of {all} were a second old");
        safe_batches += safe;
        books.note(life, safe, all);
    }
    assert!(safe_batches > 0, "nothing was ever a second old");
    let life = Life { seed: 0, first: books.next, per_second: 1 };
    let running = Running::start(&directory, &temporary, life);
    let source = running.source();
    runtime.block_on(async {
        books.check(&source).await;
        let all = list(&source, &Filter::default()).await;
        assert_eq!(all.len(), books.known.len());
        assert!(all.iter().all(|c| books.known.get(&c.id) == Some(c)));
    });
    println!("{kills} kills, {} records, each there once", books.known.len());
}
