//! The store: records inserted, versions replaced, questions over 10 thousand and 1 million.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use netspy::Connection;
use netspy::event::ProcessInfo;
use netspy::query::Page;
use netspy::query::filter::parse_at;
use netspy::store::{Selection, Store};
use records::*;

#[path = "../tests/common/records.rs"]
mod records;

/// Records per batch, as capture hands them over under load.
const BATCH: u64 = 512;

fn processes() -> Vec<Arc<ProcessInfo>> {
    let names = ["curl", "nginx", "postgres", "python3"];
    (0..200).map(|pid| info(pid, names[pid as usize % names.len()])).collect()
}

/// The n-th record of a mixture: TCP refused and closed, UDP.
fn record(n: u64, processes: &[Arc<ProcessInfo>]) -> Connection {
    let info = &processes[(n / 16) as usize % processes.len()];
    match n % 4 {
        0 => refused(n, info),
        1 | 2 => closed(n, info),
        _ => udp(n, info),
    }
}

fn batches(from: u64, count: u64, processes: &[Arc<ProcessInfo>]) -> Vec<Vec<Connection>> {
    let starts = (from..from + count).step_by(BATCH as usize);
    starts
        .map(|start| {
            (start..(start + BATCH).min(from + count)).map(|n| record(n, processes)).collect()
        })
        .collect()
}

fn filled(count: u64) -> Store {
    let processes = processes();
    let store = Store::new(1 << 30);
    for batch in batches(0, count, &processes) {
        store.apply(batch);
    }
    let status = store.status();
    eprintln!("{count} records: {:.1} bytes each", status.bytes as f64 / count as f64);
    store
}

fn insert(c: &mut Criterion) {
    let processes = processes();
    let mut group = c.benchmark_group("insert");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    let count = 100_000;
    group.throughput(Throughput::Elements(count));
    let apply = |store: &Store, batches| {
        for batch in batches {
            store.apply(batch);
        }
    };
    group.bench_function("new", |b| {
        let make = || (Store::new(1 << 30), batches(0, count, &processes));
        b.iter_batched(
            make,
            |(store, batches)| {
                apply(&store, batches);
                store
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("while evicting", |b| {
        let store = Store::new(8 << 20);
        let mut next = 0;
        b.iter_batched(
            || {
                next += count;
                batches(next, count, &processes)
            },
            |batches| apply(&store, batches),
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(2 * count));
    group.bench_function("open, then closed", |b| {
        let versions = || {
            let both = |n| {
                let info = &processes[(n / 16) as usize % processes.len()];
                (established(n, info), closed(n, info))
            };
            let chunk = |start: u64| (start..start + BATCH).map(both).unzip();
            let pairs: Vec<(Vec<_>, Vec<_>)> =
                (0..count).step_by(BATCH as usize).map(chunk).collect();
            pairs.into_iter().flat_map(|(open, closed)| [open, closed]).collect::<Vec<_>>()
        };
        b.iter_batched(
            || (Store::new(1 << 30), versions()),
            |(store, batches)| {
                apply(&store, batches);
                store
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn query(c: &mut Criterion) {
    for count in [10_000, 1_000_000] {
        let store = filled(count);
        let mut group = c.benchmark_group(format!("query of {count}"));
        group.sample_size(20).measurement_time(Duration::from_secs(4));
        let last_second = micros(count as i64 - 1_000).to_string();
        let cases = [
            ("latest 100", vec![]),
            ("latest 100 of a process", vec![("process", "nginx")]),
            ("failures to a network", vec![("outcome", "unsuccessful"), ("cidr", "192.0.2.0/28")]),
            ("the last 1000 records", vec![("since", last_second.as_str())]),
        ];
        for (name, pairs) in cases {
            let selection = Selection::from(parse_at(pairs, epoch()).unwrap().0);
            group.bench_with_input(BenchmarkId::from_parameter(name), &selection, |b, s| {
                b.iter(|| black_box(store.list(s, &Page::default()).unwrap().total));
            });
        }
        group.bench_function("summary", |b| {
            b.iter(|| black_box(store.totals(&Selection::default()).total));
        });
        let id = refused(count / 2 / 4 * 4, &info(0, "x")).id;
        let id = store.get(id).map_or(id, |c| c.id);
        group.bench_function("one by id", |b| b.iter(|| black_box(store.get(id).is_some())));
        group.finish();
    }
}

criterion_group!(benches, insert, query);
criterion_main!(benches);
