//! REST under load: how many questions a second `ebpf-server` answers and how fast, over how many
//! records, alone and while a steady stream of connects is captured, and whether any of these is lost.
//!
//! `sudo cargo bench --bench rest` (root, since it captures; `wrk` asks the questions). Beside that:
//! `NETSPY_BENCH_RECORDS=10000,1000000`, `NETSPY_BENCH_SECONDS=6` for each figure,
//! `NETSPY_BENCH_RATE=20000` connects a second, `NETSPY_BENCH_CONNECTIONS=8` of those who ask,
//! `NETSPY_BENCH_SERVER=PATH` for another build of the server, to compare.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod daemon;
mod fill;
#[path = "../../tests/common/records.rs"]
mod records;
mod streams;
#[path = "../history/traffic.rs"]
mod traffic;
mod wrk;

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};

use daemon::{Daemon, Place};
use streams::{Following, OPENERS};
use wrk::Figures;

/// What is asked, the first being an answer that costs nothing to find.
const QUESTIONS: &[(&str, &str)] = &[
    ("`/health`, the baseline", "/health"),
    ("list, newest 100", "/api/v1/connections"),
    ("list, newest 100 of one process", "/api/v1/connections?process=postgres"),
    ("list, 100 of the last minute", "/api/v1/connections?since=1m"),
    ("summary of all", "/api/v1/summary"),
    ("summary of the last minute", "/api/v1/summary?since=1m"),
    ("summary of one process", "/api/v1/summary?process=postgres"),
];

/// Who follows, and what.
const FOLLOWERS: &[(&str, usize, &str)] = &[
    ("stream, 1 client, every record", 1, "/api/v1/stream"),
    ("stream, 4 clients, every record", 4, "/api/v1/stream"),
    ("stream, 32 clients, one process that is silent", 32, "/api/v1/stream?process=postgres"),
];

/// A client that has lost its place and asks for everything that there is.
const OPENED: &str = "/api/v1/stream?after=0";

struct Terms {
    records: Vec<u64>,
    time: Duration,
    rate: u32,
    connections: u32,
}

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

impl Terms {
    fn of_environment() -> Self {
        let records = std::env::var("NETSPY_BENCH_RECORDS").unwrap_or("10000,1000000".to_owned());
        let count = |text: &str| text.trim().parse().expect("NETSPY_BENCH_RECORDS holds numbers");
        Terms {
            records: records.split(',').map(count).collect(),
            time: Duration::from_secs(variable("NETSPY_BENCH_SECONDS", 6)),
            rate: variable("NETSPY_BENCH_RATE", 20_000),
            connections: variable("NETSPY_BENCH_CONNECTIONS", 8),
        }
    }
}

impl Terms {
    fn ask(&self, daemon: &Daemon, target: &str) -> Figures {
        wrk::run(&daemon.url(target), self.connections, self.time)
    }
}

/// Connects in a process of their own, at a steady rate.
struct Connects(Child);

impl Connects {
    fn start(terms: &Terms) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let time = terms.time.as_secs();
        command.args(["--role", "connects", &terms.rate.to_string(), &time.to_string()]);
        Connects(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// How many were made, in how many seconds.
    fn end(self) -> (u64, f64) {
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (made, seconds) = text.trim().split_once(' ').unwrap();
        (made.parse().unwrap(), seconds.parse().unwrap())
    }
}

/// Connects to a closed port of loopback, as many in each millisecond as are due by then: unlike
/// spinning between them, that leaves the processors to those who are measured.
fn connects(rate: u32, seconds: u64) {
    const STEP: Duration = Duration::from_millis(1);
    // Bound, it does not listen, and nobody else can.
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&socket, &any).unwrap();
    let address: SocketAddr = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
    let (began, mut made) = (Instant::now(), 0);
    let end = Duration::from_secs(seconds);
    loop {
        let due = (began.elapsed().min(end).as_secs_f64() * f64::from(rate)) as u64;
        while made < due && began.elapsed() < end {
            TcpStream::connect(address).unwrap_err();
            made += 1;
        }
        if began.elapsed() >= end {
            break;
        }
        std::thread::sleep(STEP);
    }
    println!("{made} {}", began.elapsed().as_secs_f64());
}

/// What was captured meanwhile.
#[derive(Default)]
struct Captured {
    connects: u64,
    seconds: f64,
    slowest: f64,
}

impl Captured {
    fn add(&mut self, (connects, seconds): (u64, f64)) {
        let rate = connects as f64 / seconds;
        self.slowest = if self.connects == 0 { rate } else { self.slowest.min(rate) };
        self.connects += connects;
        self.seconds += seconds;
    }

    fn report(&self, daemon: &Daemon) {
        let books = daemon.books();
        let figure = |name: &str| books[name].as_u64().unwrap();
        let lost = books["lost"].as_object().unwrap();
        let causes: Vec<String> = lost
            .iter()
            .filter(|(_, n)| n.as_u64() != Some(0))
            .map(|(cause, n)| format!("{n} {cause}"))
            .collect();
        let lost = if causes.is_empty() { "none".to_owned() } else { causes.join(", ") };
        let (cpu, peak) = daemon.usage();
        println!(
            "\nCaptured beside that: {} connects, {:.0} per second, at the slowest {:.0}. Books: {} \
             attempts, {} delivered, {} filtered, {} pending, lost: {lost}; updates lost {}, missed \
             {}. The server holds {} records, took {cpu:.1} CPU-seconds and {peak:.0} \
             MiB at most.",
            self.connects,
            self.connects as f64 / self.seconds,
            self.slowest,
            figure("attempts"),
            figure("delivered"),
            figure("filtered"),
            figure("pending"),
            figure("updates_lost"),
            figure("missed"),
            daemon.status()["store"]["records"],
        );
        if figure("delivered") + figure("filtered") < self.connects {
            println!("\n**Fewer were delivered than made.**");
        }
    }
}

fn row(records: u64, load: &str, question: &str, figures: &str) {
    println!("| {records} | {load} | {question} | {figures} |");
}

fn measure(terms: &Terms, count: u64) {
    let place = Place::new();
    fill::run(&place, count);
    let daemon = Daemon::start(&place);
    daemon.wait_for_records(count);
    println!(
        "\n| records at first | connects/s | question | per second | p50 ms | p99 ms | errors |"
    );
    println!("|---:|---:|---|---:|---:|---:|---:|");
    let ask = |load: &str| {
        for (name, target) in QUESTIONS {
            row(count, load, name, &terms.ask(&daemon, target).to_string());
        }
    };
    ask("none");
    let opened = streams::open_and_close(&daemon, OPENED, terms.time);
    row(count, "none", "stream, opened, until the first record", &opened.to_string());

    let mut captured = Captured::default();
    let rate = terms.rate.to_string();
    for (name, target) in QUESTIONS {
        let connects = Connects::start(terms);
        let figures = terms.ask(&daemon, target);
        captured.add(connects.end());
        row(count, &rate, name, &figures.to_string());
    }
    for (name, clients, target) in FOLLOWERS {
        let following = Following::start(&daemon, target, *clients);
        captured.add(Connects::start(terms).end());
        row(count, &rate, name, &following.end().to_string());
    }
    captured.report(&daemon);
    daemon.stop();
}

/// Why nothing can be measured here, if so.
fn obstacle() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("capturing needs root");
    }
    let wrk = Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    wrk.is_err().then_some("there is no wrk (Debian's package of that name)")
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [_, "--role", "connects", rate, seconds] = arguments[..] {
        return connects(rate.parse().unwrap(), seconds.parse().unwrap());
    }
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return;
    }
    let terms = Terms::of_environment();
    println!(
        "{} processors; questions over {} connections that stay open, streams opened by \
         {OPENERS} clients, each for {} s. For streams that are followed: records per second and \
         client, and the age of a record when the client has read it.",
        std::thread::available_parallelism().unwrap(),
        terms.connections,
        terms.time.as_secs(),
    );
    for count in &terms.records {
        measure(&terms, *count);
    }
}
