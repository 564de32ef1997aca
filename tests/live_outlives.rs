//! What the whole server lives through while it captures: a full disk, a clock that is set, clients
//! that are many, slow, broken or gone. Each time it answers afterwards, has let go of what it held,
//! and has seen every connect that was made meanwhile.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/malformed.rs"]
mod malformed;
#[path = "common/records.rs"]
mod records;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use daemon::{PATIENCE, Server};
use malformed::malformed;
use records::Random;
use rustix::net::{AddressFamily, SocketType};
use serde_json::Value;

/// What may come to stay of what clients did: buffers and threads that are kept for the next ones.
const KEPT_MEMORY: u64 = 48 << 20;
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
    server: Server,
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

impl Held {
    fn by(server: &Server) -> Self {
        let process = PathBuf::from(format!("/proc/{}", server.child.id()));
        let pages = std::fs::read_to_string(process.join("statm")).unwrap();
        let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
        Held {
            descriptors: std::fs::read_dir(process.join("fd")).unwrap().count(),
            resident: pages * rustix::param::page_size() as u64,
            stored: server.get("/api/v1/status")["store"]["bytes"].as_u64().unwrap(),
        }
    }
}

impl Trial {
    fn of(server: Server) -> Self {
        assert_eq!(server.get("/health")["status"], "healthy");
        let before = Held::by(&server);
        Trial { server, port: Arc::new(Refusing::new()), made: 0, before }
    }

    /// Does something to the server while connects are made.
    fn meanwhile<T>(&mut self, hardship: impl FnOnce(&Server) -> T) -> T {
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
        assert_eq!(self.server.get("/health")["status"], "healthy");
        assert!(self.made > 0);
        self.server.wait_until(&self.target(), |summary| summary["total"] == self.made);
        let books = &self.server.get("/api/v1/status")["accounting"];
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

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.address).unwrap();
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
    let mut trial = Trial::of(Server::start(&[]));
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
            assert_eq!(server.get("/health")["status"], "healthy");
        }
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    });
    trial.is_over();
    trial.server.stop();
}

#[test]
fn a_thousand_idle_clients_cost_no_record() {
    if is_root() {
        a_thousand_idle_clients(Trial::of(Server::start(&[])));
    }
}

#[test]
fn a_thousand_idle_clients_lock_nobody_out_where_descriptors_are_few() {
    if !is_root() {
        return;
    }
    let place = Place::new("few");
    let arguments = ["--data-dir", place.path()];
    a_thousand_idle_clients(Trial::of(Server::start_by(with_descriptors(256), &arguments)));
}

/// A client whose receive buffer is as small as it can be.
fn narrow(server: &Server, target: &str) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 2_048).unwrap();
    let address: SocketAddr = server.address.parse().unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let mut stream = TcpStream::from(socket);
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

#[test]
fn slow_readers_and_clients_that_leave_in_mid_answer_cost_no_record() {
    if !is_root() {
        return;
    }
    let mut trial = Trial::of(Server::start(&[]));
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
        for n in 0..200 {
            let mut leaving = narrow(server, if n % 2 == 0 { list } else { stream });
            if n % 4 < 2 {
                leaving.read_exact(&mut [0; 1_024]).unwrap();
            }
        }
        assert_eq!(server.get("/health")["status"], "healthy");
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
    let server = Server::start_by(on_a_small_disk(&place), &["--data-dir", place.path()]);
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.child.id(), place.path()));
    // Keeps the file system when the server has gone.
    let held = std::fs::File::open(&inside).unwrap();
    let mut trial = Trial::of(server);
    let history = |server: &Server| server.get("/api/v1/status")["store"]["history"].clone();
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
    let server = Server::start(&["--data-dir", copy.path()]);
    let target = format!("/api/v1/summary?port={}&outcome=refused", port.address.port());
    server.wait_until(&target, |summary| summary["total"] == made);
    server.stop();
}
