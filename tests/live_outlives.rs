//! What the whole server lives through while it captures: a full disk, a clock that is set, clients
//! that are many, slow, broken or gone. Each time it answers afterwards, has let go of what it held,
//! and has seen every connect that was made meanwhile.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/malformed.rs"]
mod malformed;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::daemon::{Daemon, PATIENCE};
use common::records::Random;
use malformed::malformed;
use rustix::net::{AddressFamily, SocketType};
use serde_json::Value;

/// What may come to stay of what clients did: buffers and threads that are kept for the next ones.
const KEPT_MEMORY: u64 = 64 << 20;
/// Connects a second beside each hardship, from one thread.
const PAUSE: Duration = Duration::from_micros(500);

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// A port of loopback that refuses, and is nobody else's.
struct Refusing {
    _socket: OwnedFd,
    address: SocketAddr,
}

impl Refusing {
    fn new() -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        rustix::net::bind(&socket, &any).unwrap();
        let address = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
        Refusing { _socket: socket, address }
    }

    fn connect(&self) {
        TcpStream::connect(self.address).unwrap_err();
    }
}

/// Connects that are made all the time.
struct Connects {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Connects {
    fn start(to: &Arc<Refusing>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, to) = (Arc::clone(&stop), Arc::clone(to));
        let thread = thread::spawn(move || {
            let mut made = 0;
            while !stopping.load(Ordering::Relaxed) {
                to.connect();
                made += 1;
                thread::sleep(PAUSE);
            }
            made
        });
        Connects { stop, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A server, what it held before, and what it has to have seen in the end.
struct Trial {
    server: Daemon,
    port: Arc<Refusing>,
    made: u64,
    before: Held,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    resident: u64,
    /// In records, which may grow.
    stored: u64,
}

/// But for files of history, which come and go.
fn descriptors(process: &Path) -> usize {
    let open = std::fs::read_dir(process.join("fd")).unwrap();
    let open = open.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    let ends = |path: &PathBuf, end: &str| path.extension().is_some_and(|kind| kind == end);
    open.filter(|path| !ends(path, "arrow") && !ends(path, "parquet")).count()
}

impl Held {
    fn by(server: &Daemon) -> Self {
        let process = PathBuf::from(format!("/proc/{}", server.child.id()));
        let pages = std::fs::read_to_string(process.join("statm")).unwrap();
        let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
        Held {
            descriptors: descriptors(&process),
            resident: pages * rustix::param::page_size() as u64,
            stored: server.json("/api/v1/status")["store"]["bytes"].as_u64().unwrap(),
        }
    }
}

impl Trial {
    fn of(server: Daemon) -> Self {
        assert_eq!(server.json("/health")["status"], "healthy");
        let before = Held::by(&server);
        Trial { server, port: Arc::new(Refusing::new()), made: 0, before }
    }

    /// Does something to the server while connects are made.
    fn meanwhile<T>(&mut self, hardship: impl FnOnce(&Daemon) -> T) -> T {
        let connects = Connects::start(&self.port);
        let result = hardship(&self.server);
        self.made += connects.end();
        result
    }

    fn target(&self) -> String {
        format!("/api/v1/summary?port={}&outcome=refused", self.port.address.port())
    }

    /// The server is as it was, and has seen everything.
    fn is_over(&self) {
        assert_eq!(self.server.json("/health")["status"], "healthy");
        assert!(self.made > 0);
        self.server.wait_until(&self.target(), |summary| summary["total"] == self.made);
        let books = &self.server.json("/api/v1/status")["accounting"];
        let of = |name: &str| books[name].as_u64().unwrap();
        let lost = books["lost"].as_object().unwrap().values();
        let lost: u64 = lost.map(|n| n.as_u64().unwrap()).sum();
        assert_eq!((lost, of("updates_lost")), (0, 0), "{books:#}");
        assert_eq!(of("attempts"), of("delivered") + of("filtered") + of("pending"), "{books:#}");
        self.has_let_go();
    }

    fn has_let_go(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let (before, after) = (self.before, Held::by(&self.server));
            let more = after.stored.saturating_sub(before.stored) + KEPT_MEMORY;
            let descriptors = after.descriptors <= before.descriptors;
            if descriptors && after.resident <= before.resident + more {
                return;
            }
            assert!(Instant::now() < until, "{before:?}, then {after:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn connect(server: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// How many malformed requests are made; a hundred thousand before a release.
fn requests() -> u64 {
    std::env::var("NETSPY_MALFORMED_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000)
}

#[test]
fn malformed_requests_cost_no_record() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::of(Daemon::capture(&[]));
    trial.meanwhile(|server| {
        let mut wild = Random(23);
        for n in 0..requests() {
            let mut stream = connect(server);
            let bytes = malformed(&mut wild);
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            // A reset is an end, too.
            let _ = stream.read_to_end(&mut answer);
            let failed = answer.starts_with(b"HTTP/1.1 5");
            assert!(!failed, "request {n}, {}", String::from_utf8_lossy(&bytes));
        }
    });
    trial.is_over();
    trial.server.stop();
}

/// As service managers and shells set it: there are not even descriptors for them all.
fn with_descriptors(limit: u32) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={limit}:{limit}")).arg(env!("CARGO_BIN_EXE_ebpf-server"));
    command
}

fn a_thousand_idle_clients(mut trial: Trial) {
    trial.meanwhile(|server| {
        let mut herd = Vec::new();
        for n in 0..1_000 {
            let mut idle = connect(server);
            if n % 2 == 0 {
                // Some have sent the beginning of a request; those whose place is gone may not.
                let _ = idle.write_all(b"GET /health HTTP/1.1\r\nHost: local");
            }
            herd.push(idle);
        }
        // Nobody waits for any of them to run out of patience.
        let asked = Instant::now();
        for _ in 0..20 {
            assert_eq!(server.json("/health")["status"], "healthy");
        }
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    });
    trial.is_over();
    trial.server.stop();
}

#[test]
fn a_thousand_idle_clients_cost_no_record() {
    if is_root() {
        a_thousand_idle_clients(Trial::of(Daemon::capture(&[])));
    }
}

#[test]
fn a_thousand_idle_clients_lock_nobody_out_where_descriptors_are_few() {
    if !is_root() {
        return;
    }
    let place = Place::new("few");
    let arguments = ["--data-dir", place.path()];
    a_thousand_idle_clients(Trial::of(Daemon::capture_by(with_descriptors(256), &arguments)));
}

/// A client whose receive buffer is as small as it can be.
fn narrow(server: &Daemon, target: &str) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 2_048).unwrap();
    let address: SocketAddr = server.address().parse().unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

#[test]
fn slow_readers_and_clients_that_leave_in_mid_answer_cost_no_record() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::of(Daemon::capture(&[]));
    // Something to answer with that fits no buffer.
    for _ in 0..10_000 {
        trial.port.connect();
    }
    trial.made += 10_000;
    trial.server.wait_until(&trial.target(), |summary| summary["total"] == 10_000);
    trial.meanwhile(|server| {
        let list = "/api/v1/connections?limit=10000";
        let stream = "/api/v1/stream?after=0";
        let silent: Vec<_> =
            (0..40).map(|n| narrow(server, if n % 2 == 0 { list } else { stream })).collect();
        for n in 0..100 {
            let mut leaving = narrow(server, if n % 2 == 0 { list } else { stream });
            if n % 4 < 2 {
                // The beginning of an answer, be it that there are too many streams.
                assert_ne!(leaving.read(&mut [0; 1_024]).unwrap(), 0);
            }
        }
        assert_eq!(server.json("/health")["status"], "healthy");
        drop(silent);
    });
    trial.is_over();
    trial.server.stop();
}

/// A directory that is taken away in the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = format!("netspy-outlives-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(path);
        std::fs::create_dir(&path).unwrap();
        Place(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes a file until there is room for nothing more.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 20, 4_096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

/// In a mount namespace of its own, so that nobody else can run out of room.
fn on_a_small_disk(place: &Place) -> Command {
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=24m,mode=700 none \"$0\" && exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-ec", script, place.path()]);
    command.arg(env!("CARGO_BIN_EXE_ebpf-server"));
    command
}

#[test]
fn a_full_disk_stops_history_and_never_capture() {
    if !is_root() {
        return;
    }
    let probe = ["--mount", "mount", "-t", "tmpfs", "none", "/mnt"];
    if !Command::new("unshare").args(probe).status().is_ok_and(|status| status.success()) {
        println!("skipped: there can be no mount namespace with a file system here");
        return;
    }
    let place = Place::new("full");
    let server = Daemon::capture_by(on_a_small_disk(&place), &["--data-dir", place.path()]);
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.child.id(), place.path()));
    // Keeps the file system when the server has gone.
    let held = std::fs::File::open(&inside).unwrap();
    let mut trial = Trial::of(server);
    let history = |server: &Daemon| server.json("/api/v1/status")["store"]["history"].clone();
    trial.meanwhile(|server| {
        fill(&inside.join("filler"));
        let health = server.wait_until("/health", |health| health["status"] == "degraded");
        assert!(health.to_string().contains("history"), "{health:#}");
        let stopped = |status: &Value| status["store"]["history"]["unwritten"] != 0;
        server.wait_until("/api/v1/status", stopped);
    });
    assert!(history(&trial.server)["stopped"].is_string());
    trial.meanwhile(|server| {
        std::fs::remove_file(inside.join("filler")).unwrap();
        server.wait_until("/health", |health| health["status"] == "healthy");
    });
    trial.is_over();
    let Trial { server, port, made, .. } = trial;
    server.stop();
    // Nor is anything missing from what is on disk by then.
    let copy = Place::new("full-copy");
    let within = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    for file in std::fs::read_dir(within).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.0.join(file.file_name())).unwrap();
    }
    let server = Daemon::capture(&["--data-dir", copy.path()]);
    let target = format!("/api/v1/summary?port={}&outcome=refused", port.address.port());
    server.wait_until(&target, |summary| summary["total"] == made);
    server.stop();
}

/// libfaketime, by which a process takes the time of day from a file.
fn faketime() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut found = found.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    let found = found.find(|path| path.exists());
    if found.is_none() {
        println!("skipped: there is no libfaketime (Debian's package of that name)");
    }
    found
}

/// A server whose clock can be set, while that of everybody else goes on.
struct SetClock {
    place: Place,
    port: Arc<Refusing>,
    made: u64,
}

impl SetClock {
    fn file(&self) -> PathBuf {
        self.place.0.join("clock")
    }

    fn set(&self, hours: i64) {
        // At once, since the server reads it all the time.
        let next = self.place.0.join("next");
        std::fs::write(&next, format!("{:+}h\n", hours)).unwrap();
        std::fs::rename(next, self.file()).unwrap();
    }

    fn start(&self, faketime: &Path) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-server"));
        command.env("LD_PRELOAD", faketime).env("FAKETIME_TIMESTAMP_FILE", self.file());
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let data = self.place.0.join("data");
        Daemon::capture_by(command, &["--data-dir", data.to_str().unwrap()])
    }

    fn target(&self, question: &str) -> String {
        format!("/api/v1/{question}?port={}&outcome=refused", self.port.address.port())
    }

    /// Connects once records have the time that was set, and looks at what they say.
    fn connects_at(&mut self, server: &Daemon, hours: i64) {
        let close = |time: &Value| {
            let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
            let now = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours);
            time.duration_since(now).abs() < jiff::SignedDuration::from_mins(10)
        };
        let until = Instant::now() + PATIENCE;
        loop {
            self.port.connect();
            self.made += 1;
            let total = |summary: &Value| summary["total"] == self.made;
            let summary = server.wait_until(&self.target("summary"), total);
            assert!(close(&summary["window"]["until"]), "{hours}: {summary:#}");
            let list = server.json(&(self.target("connections") + "&limit=10000"));
            let records = list["connections"].as_array().unwrap();
            if records.iter().any(|record| close(&record["time"])) {
                break;
            }
            assert!(Instant::now() < until, "{hours}: {list:#}");
        }
        for _ in 0..200 {
            self.port.connect();
        }
        self.made += 200;
        let total = |summary: &Value| summary["total"] == self.made;
        server.wait_until(&self.target("summary"), total);
        // What happened just now is in the window that says so.
        let recent = server.json(&(self.target("summary") + "&since=10m"));
        assert!(recent["total"].as_u64().unwrap() >= 200, "{hours}: {recent:#}");
    }

    /// Every record is on one page, newest first.
    fn pages_hold_everything(&self, server: &Daemon) {
        let first = self.target("connections") + "&limit=100";
        let (mut target, mut ids, mut times) = (first.clone(), Vec::new(), Vec::new());
        loop {
            let list = server.json(&target);
            for record in list["connections"].as_array().unwrap() {
                ids.push(record["id"].as_str().unwrap().to_owned());
                times.push(record["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
            }
            let Some(cursor) = list["next_cursor"].as_str() else { break };
            target = format!("{first}&cursor={cursor}");
        }
        assert!(times.is_sorted_by(|newer, older| newer >= older));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len() as u64, self.made);
    }
}

#[test]
fn a_clock_that_is_set_back_and_forth_costs_no_record() {
    if !is_root() {
        return;
    }
    let Some(faketime) = faketime() else { return };
    let port = Arc::new(Refusing::new());
    let mut clock = SetClock { place: Place::new("clock"), port, made: 0 };
    clock.set(0);
    let server = clock.start(&faketime);
    let before = Held::by(&server);
    let mut following = connect(&server);
    write!(following, "GET /api/v1/stream?port={} HTTP/1.0\r\n\r\n", clock.port.address.port())
        .unwrap();
    for hours in [0, 2, -3, 20, -20, 1] {
        clock.set(hours);
        clock.connects_at(&server, hours);
        clock.pages_hold_everything(&server);
    }
    let mut followed = std::collections::HashSet::new();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(following));
    while (followed.len() as u64) < clock.made {
        let line = lines.next().expect("the stream goes on").unwrap();
        if let Some(record) = line.strip_prefix("data: ") {
            let record: Value = serde_json::from_str(record).unwrap();
            followed.insert(record["id"].as_str().unwrap().to_owned());
        }
    }
    drop(lines);
    let trial = Trial { server, port: Arc::clone(&clock.port), made: clock.made, before };
    trial.is_over();
    trial.server.stop();
    let server = clock.start(&faketime);
    clock.pages_hold_everything(&server);
    server.stop();
}
