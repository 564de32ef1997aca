//! A history for the server to find at its start, taken in as the server itself takes records in.

use jiff::{SignedDuration, Timestamp};
use netspy::store::{HistoryOptions, Store};

use crate::daemon::Place;
use crate::records::Random;
use crate::traffic::{attempt, processes};

const BATCH: u64 = 512;
const HOURS: i64 = 24;

pub fn run(place: &Place, count: u64) {
    let processes = processes();
    let day = SignedDuration::from_hours(HOURS);
    let mut random = Random(1);
    let options = HistoryOptions { directory: place.data(), limit_bytes: 1 << 40, max_age: None };
    // Memory for all of it: nothing is let go before it is in a file, however slow the disk.
    let store = Store::open(1 << 30, &options).unwrap();
    for start in (0..count).step_by(BATCH as usize) {
        let ns = start..(start + BATCH).min(count);
        // Over the last day.
        let time = |n| Timestamp::now() - day + day.mul_f64(n as f64 / count as f64);
        let make = |n| attempt(n, time(n), &mut random, &processes);
        store.apply(ns.map(make).collect());
    }
    store.close();
    assert_eq!(store.status().records, count);
}
