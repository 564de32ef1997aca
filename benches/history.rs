//! History: what taking records in costs, what they take on disk, and how long questions take, beside
//! a scan of a plain vector.
//!
//! `NETSPY_BENCH_RECORDS=10000000 cargo bench --bench history`
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use netspy::Connection;
use netspy::event::ProcessInfo;
use netspy::query::{Filter, Page};
use netspy::store::{Columns, HistoryOptions, Selection, Store};
use records::*;
use rustix::time::{ClockId, clock_gettime};

#[path = "../tests/common/records.rs"]
mod records;

const BATCH: u64 = 512;
const DAY_US: i64 = 86_400_000_000;
/// How often each question is asked.
const ROUNDS: usize = 200;

fn processes() -> Vec<Arc<ProcessInfo>> {
    let names = ["curl", "nginx", "postgres", "python3", "java", "sshd", "node", "envoy"];
    (0..400).map(|pid| info(pid, names[pid as usize % names.len()])).collect()
}

/// The n-th of `count` records, which lie over a day: two thirds TCP that was closed, refused
/// attempts, datagrams; processes and remotes by chance.
fn record(n: u64, count: u64, random: &mut Random, processes: &[Arc<ProcessInfo>]) -> Connection {
    // Few make the most of it.
    let which = random.next(20) * random.next(20);
    let info = &processes[which as usize % processes.len()];
    let mut c = match n % 6 {
        0 => refused(n, info),
        1 => udp(n, info),
        _ => closed(n, info),
    };
    let time = (i128::from(n) * i128::from(DAY_US) / i128::from(count)) as i64;
    c.time = micros(time);
    c.id.start_ns = 1_000_000 + time as u64 * 1_000 + n % 1_000;
    c.latency_us = c.latency_us.map(|_| 80 + random.next(900));
    if let Some(local) = &mut c.local {
        local.port = 32_768 + random.next(28_000) as u16;
    }
    if let Some(remote) = &mut c.remote {
        let host = random.next(60) * random.next(60);
        remote.ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + host as u32).into();
    }
    if let Some(close) = &mut c.close {
        close.time = micros(time + 50_000 + random.next(1_000_000) as i64);
        close.duration_us = Some(50_000 + random.next(1_000_000));
        close.bytes_sent = Some(200 + random.next(5_000));
        close.bytes_received = Some(500 + random.next(100_000));
        close.srtt_us = Some(100 + random.next(1_000) as u32);
    }
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

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(place: &Place) -> Store {
    let options =
        HistoryOptions { directory: place.0.clone(), limit_bytes: 1 << 40, max_age: None };
    Store::open(64 << 20, &options).unwrap()
}

fn ingest(place: &Place, count: u64) {
    let store = open(place);
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
        store.apply(batch);
    }
    store.close();
    let spent = (cpu(ClockId::ProcessCPUTime) - before - making).as_secs_f64();
    println!(
        "ingest: {:.2} million records per CPU-second, {:.0} thousand per second; {:.0} MiB resident",
        count as f64 / spent / 1e6,
        count as f64 / began.elapsed().as_secs_f64() / 1e3,
        resident(),
    );
    let status = store.status();
    let history = status.history.unwrap();
    println!(
        "on disk: {:.1} bytes per record, {} segments",
        history.bytes as f64 / count as f64,
        history.segments
    );
    assert_eq!((status.records, status.evicted), (count, 0));
}

fn timed(name: &str, mut ask: impl FnMut(usize) -> u64) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|round| {
            let began = Instant::now();
            black_box(ask(round));
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    let ms = |part: usize| times[(ROUNDS * part).div_ceil(100) - 1].as_secs_f64() * 1e3;
    println!("{name}: p50 {:.2} ms, p99 {:.2} ms", ms(50), ms(99));
}

/// A window of this length, at another place of the day in each round.
fn window(round: usize, length_us: i64) -> (Option<Timestamp>, Option<Timestamp>) {
    let since = (DAY_US - length_us).max(0) / ROUNDS as i64 * round as i64;
    (Some(micros(since)), Some(micros(since + length_us)))
}

fn questions(store: &Store) {
    let process = || vec!["postgres".to_owned()];
    timed("count of one process over 60 s", |round| {
        let (since, until) = window(round, 60_000_000);
        store.count(&Filter { process: process(), since, until, ..Filter::default() }.into())
    });
    timed("latest 100 of one process", |_| {
        let filter = Filter { process: process(), ..Filter::default() };
        store.list(&filter.into(), &Page::default()).unwrap().connections.len() as u64
    });
    timed("top 10 remotes over 1 h", |round| {
        let (since, until) = window(round, 3_600_000_000);
        let selection = Selection::from(Filter { since, until, ..Filter::default() });
        let mut counts: HashMap<IpAddr, u64> = HashMap::new();
        store.for_each(&selection, Columns::REMOTE_IP, &mut |view| {
            if let Some(ip) = view.remote_ip() {
                *counts.entry(ip).or_default() += 1;
            }
        });
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts.into_iter().take(10).map(|(_, count)| count).sum()
    });
    let per_minute = |selection: &Selection| {
        let mut steps = vec![0_u64; 1440];
        let start = epoch().as_nanosecond() as i64;
        store.for_each(selection, Columns::NONE, &mut |view| {
            if let Some(step) = steps.get_mut(((view.time_ns() - start) / 60_000_000_000) as usize)
            {
                *step += 1;
            }
        });
        steps.iter().sum()
    };
    timed("per-minute series over 24 h", |_| per_minute(&Selection::default()));
    timed("per-minute series over 24 h of one process", |_| {
        per_minute(&Filter { process: process(), ..Filter::default() }.into())
    });
}

/// What the plainest way of keeping the same records needs.
fn plain(count: u64) {
    let processes = processes();
    let mut random = Random(1);
    let all: Vec<Connection> =
        (0..count).map(|n| record(n, count, &mut random, &processes)).collect();
    println!("a plain vector of {count}: {:.0} MiB resident", resident());
    let named = |c: &&Connection| c.process.as_ref().is_some_and(|p| &*p.comm == "postgres");
    timed("vector: count of one process over 60 s", |round| {
        let (since, until) = window(round, 60_000_000);
        let inside = |c: &&Connection| Some(c.time) >= since && Some(c.time) < until;
        all.iter().filter(inside).filter(named).count() as u64
    });
    timed("vector: latest 100 of one process", |_| {
        all.iter().rev().filter(named).take(100).map(|c| c.id.start_ns).max().unwrap_or(0)
    });
}

fn main() {
    let count = std::env::var("NETSPY_BENCH_RECORDS").ok().and_then(|n| n.parse().ok());
    let count = count.unwrap_or(1_000_000);
    let path = std::env::temp_dir().join(format!("netspy-bench-{}", std::process::id()));
    let place = Place(path);
    println!("{count} records");
    ingest(&place, count);
    let began = Instant::now();
    let store = open(&place);
    println!("start: {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    while store.status().history.unwrap().records < count {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    questions(&store);
    println!("after questions: {:.0} MiB resident", resident());
    drop(store);
    plain(count.min(1_000_000));
}
