//! Disks that are full, or that take their time.

use std::fs::{self, File};
use std::io::Read;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// A file system of its own, which goes with the test.
struct Small(Place);

impl Small {
    fn mount(name: &str, size: &str) -> io::Result<Self> {
        use rustix::mount::{MountFlags, mount};
        let place = Place::new(name);
        fs::create_dir(&place.0)?;
        let options = std::ffi::CString::new(format!("size={size}"))?;
        mount("tmpfs", &place.0, "tmpfs", MountFlags::empty(), options.as_c_str())?;
        Ok(Small(place))
    }
}

/// Set in the process that may mount.
const MAY_MOUNT: &str = "NETSPY_TEST_MAY_MOUNT";

/// Runs a test once more, as root of a user namespace; whether it could.
fn ran_in_a_namespace(test: &str) -> bool {
    let unshare = |arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount"]).args(arguments);
        command.env(MAY_MOUNT, "1").output()
    };
    if std::env::var_os(MAY_MOUNT).is_some()
        || !unshare(&["true"]).is_ok_and(|o| o.status.success())
    {
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let test = format!("store::history::tests::disk::{test}");
    let output = unshare(&[program.to_str().unwrap(), "--exact", &test, "--nocapture"]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    true
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_stops_history_and_nothing_else_until_there_is_room() {
    let small = match Small::mount("full", "4m") {
        Ok(small) => small,
        Err(error) => {
            let test = "a_full_disk_stops_history_and_nothing_else_until_there_is_room";
            if !ran_in_a_namespace(test) {
                println!("skipped: a small file system cannot be mounted here: {error}");
            }
            return;
        }
    };
    let filler = small.0.0.join("filler");
    std::fs::write(&filler, vec![1; 2 << 20]).unwrap();
    let store = small.0.open();
    let curl = info(7, "curl");
    let mut next = 0;
    let mut add = |count: u64| {
        for n in (next..next + count).step_by(100) {
            store.apply((n..n + 100).map(|n| refused(n, &curl)).collect());
        }
        next += count;
    };
    for _ in 0..1_000 {
        add(1_000);
        if store.history_stopped().is_some() {
            break;
        }
    }
    let why = store.history_stopped().expect("the disk was never full");
    assert!(store.history_trouble().unwrap().contains("history is not written"));
    assert!(why.contains("nearly full") || why.contains("space"), "{why}");
    add(20_000);
    let status = store.status();
    assert!(status.history.as_ref().unwrap().unwritten > 0, "{status:?}");
    std::fs::remove_file(&filler).unwrap();
    until(|| store.history_stopped().is_none());
    let made = store.status().history.unwrap().segments;
    add(5_000);
    settled(&store, made + 1);
    let status = store.status();
    assert_eq!(status.records + status.evicted, next);
    assert_eq!(store.count(&everything()), status.records);
    drop(store);
}
/// Puts a pipe in the place of a file: who opens it waits for the other end.
fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn journals_go_on_while_a_segment_takes_long_to_read() {
    let place = Place::new("slow");
    let curl = info(7, "curl");
    place.open().apply((0..100).map(|n| established(n, &curl)).collect());
    settled(&place.open(), 1);
    let store = place.open();
    let segment = place.files(".parquet").remove(0);
    fs::remove_file(&segment).unwrap();
    pipe(&segment);
    let written = |store: &Store| {
        let history = store.status().history.unwrap();
        (history.written, history.behind)
    };
    // The segment has an earlier version of it, which is looked for there.
    store.apply(vec![closed(1, &curl)]);
    until(|| written(&store) == (1, 0));
    for n in 2..6 {
        store.apply(vec![refused(1_000 + n, &curl)]);
        until(|| written(&store) == (n, 0));
    }
    drop(File::options().write(true).open(&segment).unwrap());
    until(|| store.history_trouble().is_some());
    let trouble = store.history_trouble().unwrap();
    assert!(trouble.contains("lacks 1 of its segments"), "{trouble}");
    assert_eq!(store.status().history.unwrap().unreadable, 1);
    assert_eq!(store.count(&everything()), 5);
}

#[test]
fn a_disk_that_takes_nothing_is_told_until_it_does() {
    let place = Place::new("stalled");
    let store = place.open();
    let journal = place.0.join("000000000001.arrow");
    pipe(&journal);
    let curl = info(7, "curl");
    store.apply(vec![refused(1, &curl)]);
    until(|| store.history_trouble().is_some());
    let trouble = store.history_trouble().unwrap();
    assert!(trouble.contains("the disk has taken nothing for"), "{trouble}");
    // It is served all the same.
    store.apply(vec![refused(2, &curl)]);
    assert_eq!(store.count(&everything()), 2);
    let mut reader = File::open(&journal).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| reader.read_to_end(&mut Vec::new()));
        // A pipe cannot be synced: what is in it is in no file before there is a segment.
        until(|| {
            store.catch_up();
            store.status().history.unwrap().behind == 0 && store.history_trouble().is_none()
        });
        store.close();
        // The last who writes to the pipe.
        drop(store);
    });
}

#[test]
fn a_segment_that_cannot_be_written_is_told_of_until_it_is() {
    let place = Place::new("refused-segment");
    let curl = info(7, "curl");
    let store = place.open();
    let in_the_way = place.0.join("000000000001.parquet.tmp");
    fs::create_dir_all(in_the_way.join("x")).unwrap();
    store.apply((0..2_000).map(|n| refused(n, &curl)).collect());
    until(|| store.history_stopped().is_some());
    // That there is room for less is no reason to say that it goes on.
    let end = Instant::now() + RETRY_EVERY * 3;
    while Instant::now() < end {
        let why = store.history_stopped().expect("it cannot have gone on");
        assert!(why.contains("000000000001.parquet.tmp"), "{why}");
        std::thread::sleep(Duration::from_millis(5));
    }
    fs::remove_dir_all(&in_the_way).unwrap();
    settled(&store, 1);
    until(|| store.history_stopped().is_none());
}
