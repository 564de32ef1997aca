//! A history for the server to find at its start, taken in as the server itself takes records in.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use netspy::Connection;
use netspy::event::ProcessInfo;
use netspy::store::{HistoryOptions, Store};

use crate::daemon::Place;
use crate::records::{Random, closed, info, refused, udp};

const BATCH: u64 = 512;
const HOURS: i64 = 24;

/// The n-th of `count` records, which lie over the last day: two thirds TCP that was closed, refused
/// attempts, datagrams; processes and remotes by chance, few of which make the most of it.
fn record(n: u64, part: f64, random: &mut Random, processes: &[Arc<ProcessInfo>]) -> Connection {
    let which = random.next(20) * random.next(20);
    let info = &processes[which as usize % processes.len()];
    let mut c = match n % 6 {
        0 => refused(n, info),
        1 => udp(n, info),
        _ => closed(n, info),
    };
    let day = SignedDuration::from_hours(HOURS);
    c.time = Timestamp::now() - day + day.mul_f64(part);
    c.latency_us = c.latency_us.map(|_| 80 + random.next(900));
    if let Some(local) = &mut c.local {
        local.port = 32_768 + random.next(28_000) as u16;
    }
    if let Some(remote) = &mut c.remote {
        let host = random.next(60) * random.next(60);
        remote.ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + host as u32).into();
    }
    if let Some(close) = &mut c.close {
        close.time = c.time + SignedDuration::from_micros(50_000 + random.next(1_000_000) as i64);
        close.bytes_sent = Some(200 + random.next(5_000));
        close.bytes_received = Some(500 + random.next(100_000));
    }
    c
}

pub fn run(place: &Place, count: u64) {
    let names = ["curl", "nginx", "postgres", "python3", "java", "sshd", "node", "envoy"];
    let processes: Vec<_> =
        (0..400).map(|pid| info(pid, names[pid as usize % names.len()])).collect();
    let mut random = Random(1);
    let options = HistoryOptions { directory: place.data(), limit_bytes: 1 << 40, max_age: None };
    // Memory for all of it: nothing is let go before it is in a file, however slow the disk.
    let store = Store::open(1 << 30, &options).unwrap();
    for start in (0..count).step_by(BATCH as usize) {
        let ns = start..(start + BATCH).min(count);
        let make = |n| record(n, n as f64 / count as f64, &mut random, &processes);
        store.apply(ns.map(make).collect());
    }
    store.close();
    assert_eq!(store.status().records, count);
}
