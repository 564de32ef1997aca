//! History: what taking records in costs, what they take on disk, and how long questions take, beside
//! a scan of a plain vector and SQLite.
//!
//! `NETSPY_BENCH_RECORDS=10000000 cargo bench --bench history --features bench-sqlite`
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(feature = "bench-sqlite")]
mod sqlite;

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use netspy::Connection;
use netspy::accounting::Counters;
use netspy::capture::report::{AttachReport, Backend};
use netspy::event::ProcessInfo;
use netspy::query::series::Step;
use netspy::query::top::TopBy;
use netspy::query::{CaptureHandle, Filter, Page, Source};
use netspy::store::{HistoryOptions, LocalSource, Store};
use records::*;
use rustix::time::{ClockId, clock_gettime};
use traffic::{attempt, processes};

#[path = "../../tests/common/records.rs"]
mod records;
mod traffic;

const BATCH: u64 = 512;
const DAY_US: i64 = 86_400_000_000;
/// How often each question is asked.
const ROUNDS: usize = 200;
/// For how long a slow peer is asked at most, each question.
const ROUNDS_END: Duration = Duration::from_secs(20);

/// The n-th of `count` records, which lie over a day.
fn record(n: u64, count: u64, random: &mut Random, processes: &[Arc<ProcessInfo>]) -> Connection {
    let time = (i128::from(n) * i128::from(DAY_US) / i128::from(count)) as i64;
    let mut c = attempt(n, micros(time), random, processes);
    c.id.start_ns = 1_000_000 + time as u64 * 1_000 + n % 1_000;
    c
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident memory, in MiB.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / f64::from(1 << 20)
}

struct Place(PathBuf);

/// A place that is taken away in the end.
struct Away(Place);

impl Drop for Away {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0.0);
    }
}

type Part = fn(&Place, u64);

const PARTS: &[(&str, Part)] = &[
    ("ingest", ingest),
    ("questions", asked),
    ("vector", |_, count| plain(count)),
    #[cfg(feature = "bench-sqlite")]
    ("sqlite", sqlite::run),
];

fn open(place: &Place) -> Store {
    let options =
        HistoryOptions { directory: place.0.clone(), limit_bytes: 1 << 40, max_age: None };
    Store::open(64 << 20, &options).unwrap()
}

/// Makes all records, in batches, and measures what `take` does with them: CPU and wall time without
/// the making.
fn made(count: u64, mut take: impl FnMut(Vec<Connection>)) -> (Duration, Duration) {
    let processes = processes();
    let mut random = Random(1);
    let mut making = Duration::ZERO;
    let (began, before) = (Instant::now(), cpu(ClockId::ProcessCPUTime));
    for start in (0..count).step_by(BATCH as usize) {
        let thread = cpu(ClockId::ThreadCPUTime);
        let batch = (start..(start + BATCH).min(count))
            .map(|n| record(n, count, &mut random, &processes))
            .collect();
        making += cpu(ClockId::ThreadCPUTime) - thread;
        take(batch);
    }
    let spent = cpu(ClockId::ProcessCPUTime) - before;
    (spent.saturating_sub(making), began.elapsed().saturating_sub(making))
}

fn report(count: u64, (spent, wall): (Duration, Duration), bytes: u64) {
    println!(
        "ingest: {:.2} million records per CPU-second, {:.0} thousand per second; {:.0} MiB resident; \
         {:.1} bytes per record on disk",
        count as f64 / spent.as_secs_f64() / 1e6,
        count as f64 / wall.as_secs_f64() / 1e3,
        resident(),
        bytes as f64 / count as f64,
    );
}

fn ingest(place: &Place, count: u64) {
    let store = open(place);
    let (began, before) = (Instant::now(), cpu(ClockId::ProcessCPUTime));
    let (spent, wall) = made(count, |batch| {
        store.apply(batch);
    });
    let last = (Instant::now(), cpu(ClockId::ProcessCPUTime));
    store.close();
    // What is still to be written when the last record has come.
    let rest = (cpu(ClockId::ProcessCPUTime) - last.1, last.0.elapsed());
    let status = store.status();
    let history = status.history.unwrap();
    report(count, (spent + rest.0, wall + rest.1), history.bytes);
    println!(
        "{} segments; {:.1} s in all, {:.1} CPU-seconds with the making of the records",
        history.segments,
        began.elapsed().as_secs_f64(),
        (cpu(ClockId::ProcessCPUTime) - before).as_secs_f64(),
    );
    assert_eq!((status.records, status.evicted), (count, 0));
}

fn timed(name: &str, mut ask: impl FnMut(usize) -> u64) {
    let first = Instant::now();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .take_while(|_| first.elapsed() < ROUNDS_END)
        .map(|round| {
            let began = Instant::now();
            black_box(ask(round));
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    let ms = |part: usize| times[(times.len() * part).div_ceil(100) - 1].as_secs_f64() * 1e3;
    println!("{name}: p50 {:.2} ms, p99 {:.2} ms of {}", ms(50), ms(99), times.len());
}

/// A window of this length, at another place of the day in each round.
fn window(round: usize, length_us: i64) -> (Option<Timestamp>, Option<Timestamp>) {
    let since = (DAY_US - length_us).max(0) / ROUNDS as i64 * round as i64;
    (Some(micros(since)), Some(micros(since + length_us)))
}

/// Stands in for the capture that fed the store.
struct Over;

impl CaptureHandle for Over {
    fn counters(&self) -> Counters {
        Counters::default()
    }
    fn drain(&self) {}
    fn since(&self) -> Timestamp {
        epoch()
    }
    fn report(&self) -> AttachReport {
        AttachReport {
            backend: Some(Backend::Tracepoint),
            features: BTreeMap::new(),
            programs: Vec::new(),
        }
    }
    fn stopped(&self) -> Option<String> {
        None
    }
}

fn one_process() -> Filter {
    Filter { process: vec!["postgres".to_owned()], ..Filter::default() }
}

/// As the server asks them: with window, books and all.
fn questions(store: Arc<Store>) {
    let source = LocalSource::new(store, Arc::new(Over));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let day = || Filter { since: Some(epoch()), until: Some(micros(DAY_US)), ..Filter::default() };
    timed("count of one process over 60 s", |round| {
        let (since, until) = window(round, 60_000_000);
        let filter = Filter { since, until, ..one_process() };
        runtime.block_on(Source::count(&source, &filter)).unwrap().total
    });
    timed("latest 100 of one process", |_| {
        let list = runtime.block_on(source.list(&one_process(), &Page::default())).unwrap();
        assert_eq!(list.connections.len(), 100);
        list.total
    });
    timed("top 10 remotes over 1 h", |round| {
        let (since, until) = window(round, 3_600_000_000);
        let filter = Filter { since, until, ..Filter::default() };
        runtime.block_on(source.top(&filter, TopBy::Remote, Some(10))).unwrap().total
    });
    timed("per-minute series over 24 h", |_| {
        runtime.block_on(source.series(&day(), Step::of_millis(60_000))).unwrap().total
    });
    timed("per-minute series over 24 h of one process", |_| {
        let filter = Filter { process: one_process().process, ..day() };
        runtime.block_on(source.series(&filter, Step::of_millis(60_000))).unwrap().total
    });
}

fn asked(place: &Place, count: u64) {
    let began = Instant::now();
    let store = Arc::new(open(place));
    println!("start: {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    while store.status().history.unwrap().records < count {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    questions(Arc::clone(&store));
    println!("after questions: {:.0} MiB resident", resident());
}

/// What the plainest way of keeping the same records needs.
fn plain(count: u64) {
    let processes = processes();
    let mut random = Random(1);
    let all: Vec<Connection> =
        (0..count).map(|n| record(n, count, &mut random, &processes)).collect();
    println!("{:.0} MiB resident", resident());
    let named = |c: &&Connection| c.process.as_ref().is_some_and(|p| &*p.comm == "postgres");
    timed("count of one process over 60 s", |round| {
        let (since, until) = window(round, 60_000_000);
        let inside = |c: &&Connection| Some(c.time) >= since && Some(c.time) < until;
        all.iter().filter(inside).filter(named).count() as u64
    });
    timed("latest 100 of one process", |_| {
        all.iter().rev().filter(named).take(100).map(|c| c.id.start_ns).max().unwrap_or(0)
    });
    timed("top 10 remotes over 1 h", |round| {
        let (since, until) = window(round, 3_600_000_000);
        let inside = |c: &&Connection| Some(c.time) >= since && Some(c.time) < until;
        let mut counts: HashMap<IpAddr, u64> = HashMap::new();
        for remote in all.iter().filter(inside).filter_map(|c| c.remote.as_ref()) {
            *counts.entry(remote.ip).or_default() += 1;
        }
        let mut counts: Vec<u64> = counts.into_values().collect();
        counts.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
        counts.into_iter().take(10).sum()
    });
    timed("per-minute series over 24 h", |_| {
        let mut steps = vec![0_u64; 1440];
        for c in &all {
            let step = c.time.duration_since(epoch()).as_secs() / 60;
            steps[usize::try_from(step).unwrap().min(1439)] += 1;
        }
        steps.iter().sum()
    });
}

/// Each part in a process of its own, so that its memory is its own.
fn main() {
    let count = std::env::var("NETSPY_BENCH_RECORDS").ok().and_then(|n| n.parse().ok());
    let count = count.unwrap_or(1_000_000);
    let name = std::env::var("NETSPY_BENCH_PART").unwrap_or_default();
    if let Some((_, part)) = PARTS.iter().find(|(part, _)| *part == name) {
        let path = std::env::var_os("NETSPY_BENCH_PLACE").unwrap();
        return part(&Place(path.into()), count);
    }
    let path = std::env::temp_dir().join(format!("netspy-bench-{}", std::process::id()));
    let place = Away(Place(path));
    println!("{count} records");
    for (name, _) in PARTS {
        println!("\n{name}");
        let mut part = std::process::Command::new(std::env::current_exe().unwrap());
        // As the server has it (src/capture/allocator.rs).
        part.env("MALLOC_MMAP_THRESHOLD_", "262144").env("MALLOC_TRIM_THRESHOLD_", "1048576");
        part.env("NETSPY_BENCH_PART", name).env("NETSPY_BENCH_PLACE", &place.0.0);
        assert!(part.status().unwrap().success(), "{name} failed");
    }
}
