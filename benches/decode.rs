//! From the bytes of a ring record to a record: what each event costs the capture thread.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netspy::capture::decoder::Decoder;

/// `struct netspy_conn` of src/bpf/connect.h: a TCP connect to 127.0.0.1:443 that was refused.
fn refused(n: u64) -> Vec<u8> {
    let mut bytes = vec![0; 224];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &1_u32.to_ne_bytes());
    put(5, &[2, 3]);
    put(8, &(1_000_000 + n).to_ne_bytes());
    put(16, &(1_020_000 + n).to_ne_bytes());
    put(48, &7_u64.to_ne_bytes());
    // A process that does not exist: /proc is asked once and found empty.
    put(72, &(u32::MAX - 1).to_ne_bytes());
    put(92, &111_i32.to_ne_bytes());
    put(112, &2_u16.to_ne_bytes());
    put(114, &1_u16.to_ne_bytes());
    put(116, &6_u16.to_ne_bytes());
    put(120, &443_u16.to_ne_bytes());
    put(144, &[127, 0, 0, 1]);
    put(160, b"curl");
    put(176, b"curl");
    bytes
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(1));
    let mut decoder = Decoder::default();
    let record = refused(1);
    group.bench_function("refused tcp", |b| {
        b.iter(|| decoder.decode(black_box(&record)));
    });
    let mut malformed = refused(1);
    malformed.truncate(100);
    group.bench_function("malformed", |b| {
        b.iter(|| decoder.decode(black_box(&malformed)).is_err());
    });
    group.finish();
    let decoded = decoder.decode(&record);
    assert!(matches!(decoded, Ok(Some(d)) if d.connection.errno == Some(111)));
}

criterion_group!(benches, decode);
criterion_main!(benches);
