//! What all files together may take, also those that wait to become others.

use std::sync::atomic::AtomicU64;

use super::*;

/// Bytes of all files, as others see them.
fn on_disk(place: &Place) -> u64 {
    let files = std::fs::read_dir(&place.0).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

#[test]
fn all_files_together_keep_within_the_limit_while_records_come() {
    // The books, and a segment while its journal is still there.
    const SLACK: u64 = 2 << 20;
    let place = Place::new("limit");
    let limit = HistoryOptions { limit_bytes: 16 << 20, ..place.options() };
    // The journal of a group as large as this much memory allows would be larger than the limit.
    let store = Store::open(64 << 20, &limit).unwrap();
    let (most, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut random, mut next) = (Random(11), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                most.fetch_max(on_disk(&place), Ordering::SeqCst);
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        let first = |path: &PathBuf| path.to_str().unwrap().contains("/000000000001-");
        let lets_go = || place.files(".parquet").first().is_some_and(|oldest| !first(oldest));
        while !lets_go() {
            let batch = (next..next + 500).map(|n| {
                let mut c = random.connection();
                c.id.start_ns = n;
                c
            });
            store.apply(batch.collect());
            next += 500;
            assert!(next < 300_000, "the limit was never reached: {:?}", store.status());
        }
        done.store(true, Ordering::SeqCst);
    });
    let most = most.load(Ordering::SeqCst);
    assert!((8 << 20..=limit.limit_bytes + SLACK).contains(&most), "{most} bytes");
    // Whoever has to share the processor may be behind for a while, and says so.
    until(|| store.status().history.is_some_and(|h| (h.unwritten, h.stopped) == (0, None)));
    store.close();
    assert!(on_disk(&place) <= limit.limit_bytes + SLACK, "{}", on_disk(&place));
    // Each is there, or was let go and counted.
    assert_eq!(store.count(&everything()) + store.evicted_so_far(), next);
}
