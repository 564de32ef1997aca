//! Clients of event streams: some open one after the other, some stay and read.

use std::fmt;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::daemon::Daemon;
use crate::wrk::Figures;

/// Clients that open streams, each one after the other.
pub const OPENERS: usize = 4;
/// Of so many records, one is looked at for its age: what a client does costs the machine, too.
const LOOKED_AT: u64 = 64;
/// How long clients go on reading once the connects have ended.
const REST: Duration = Duration::from_secs(1);

/// The nearest rank, in milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

/// Opens streams, reads each up to its first record, and closes it.
pub fn open_and_close(daemon: &Daemon, target: &str, time: Duration) -> Figures {
    let began = Instant::now();
    let open = || {
        let (mut times, mut errors) = (Vec::new(), 0);
        while began.elapsed() < time {
            let asked = Instant::now();
            let answer = daemon.ask(target).map(BufRead::lines);
            match answer.map(|lines| lines.map_while(Result::ok).any(|l| l.starts_with("data:"))) {
                Ok(true) => times.push(asked.elapsed()),
                Ok(false) | Err(_) => errors += 1,
            }
        }
        (times, errors)
    };
    let clients: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..OPENERS).map(|_| scope.spawn(open)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let errors = clients.iter().map(|(_, errors)| errors).sum();
    let mut times: Vec<Duration> = clients.into_iter().flat_map(|(times, _)| times).collect();
    times.sort_unstable();
    Figures {
        per_second: times.len() as f64 / began.elapsed().as_secs_f64(),
        p50_ms: percentile(&times, 50),
        p99_ms: percentile(&times, 99),
        errors,
    }
}

/// What a client has read.
#[derive(Default)]
struct Read {
    records: u64,
    /// Times that the server said that it had nothing left of some changes, and ends that came
    /// before the client had enough.
    errors: u64,
    ages: Vec<Duration>,
}

impl Read {
    fn all(mut answer: BufReader<TcpStream>, over: &AtomicBool) -> Self {
        let mut read = Read::default();
        let mut line = String::new();
        loop {
            line.clear();
            match answer.read_line(&mut line) {
                Ok(1..) => read.line(&line),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        read.errors += u64::from(!over.load(Ordering::SeqCst));
        read
    }

    fn line(&mut self, line: &str) {
        if line.starts_with("event: skipped") {
            self.errors += 1;
        } else if let Some(record) = line.strip_prefix("data: {\"id\":") {
            if self.records.is_multiple_of(LOOKED_AT) {
                self.ages.extend(age(record));
            }
            self.records += 1;
        }
    }
}

/// How long ago the attempt of this record began.
fn age(record: &str) -> Option<Duration> {
    let (_, from) = record.split_once("\"time\":\"")?;
    let time: Timestamp = from.split_once('"')?.0.parse().ok()?;
    Duration::try_from(Timestamp::now().duration_since(time)).ok()
}

/// Clients that read all the time.
pub struct Following {
    began: Instant,
    over: Arc<AtomicBool>,
    clients: Vec<(TcpStream, JoinHandle<Read>)>,
}

impl Following {
    pub fn start(daemon: &Daemon, target: &str, clients: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let mut answer = daemon.ask(target).unwrap();
            let mut head = String::new();
            answer.read_line(&mut head).unwrap();
            assert!(head.contains(" 200 "), "{target}: {head}");
            let handle = answer.get_ref().try_clone().unwrap();
            let over = Arc::clone(&over);
            (handle, thread::spawn(move || Read::all(answer, &over)))
        };
        let clients = (0..clients).map(client).collect();
        Following { began: Instant::now(), over, clients }
    }

    pub fn end(self) -> Followed {
        thread::sleep(REST);
        self.over.store(true, Ordering::SeqCst);
        let time = self.began.elapsed() - REST;
        let count = self.clients.len() as f64;
        let (mut records, mut errors, mut ages) = (0, 0, Vec::new());
        for (handle, client) in self.clients {
            let _ = handle.shutdown(Shutdown::Both);
            let read = client.join().unwrap();
            records += read.records;
            errors += read.errors;
            ages.extend(read.ages);
        }
        ages.sort_unstable();
        Followed(Figures {
            per_second: records as f64 / count / time.as_secs_f64(),
            p50_ms: percentile(&ages, 50),
            p99_ms: percentile(&ages, 99),
            errors,
        })
    }
}

/// Records per second and client, and their ages.
pub struct Followed(Figures);

impl fmt::Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.p50_ms.is_nan() {
            true => write!(f, "{:.0} | | | {}", self.0.per_second, self.0.errors),
            false => self.0.fmt(f),
        }
    }
}
