//! The load: a bounded number of calls at a steady rate, each one timed.
//!
//! This file knows nothing of tracers, so integration tests can take it in with
//! `#[path = "../benches/overhead/load.rs"] mod load;`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use serde::{Serialize, Serializer};

/// Calls whose mean is one sample: long enough to even out the clock, short enough that what
/// else happens on the machine spoils few of them.
pub const BATCH: u64 = 100;
/// No run makes more calls than this, nor lasts longer.
const MAX_CALLS: u64 = 10_000_000;
const MAX_TIME: Duration = Duration::from_secs(300);

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "kebab-case")]
pub enum Kind {
    /// TCP connect() to a closed port of 127.0.0.1, a new socket each time.
    TcpRefused,
    /// TCP connect() to a listening socket of this process, a new socket each time, then close()
    /// with a reset, which leaves nothing behind that waits.
    TcpEstablished,
    /// UDP connect() of one socket to the same address of 127.0.0.1 again and again.
    Udp,
    /// UDP connect() of a new socket each time, so binding a port is part of it.
    UdpNew,
    /// sendto() of one unconnected UDP socket to a socket that takes what it gets.
    UdpSend,
    /// getppid(): a system call that no tracer of connections has a reason to touch.
    Getppid,
}

/// How fast the calls follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    Max,
    PerSecond(u32),
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(n @ 1..) => Ok(Rate::PerSecond(n)),
            _ if text == "max" => Ok(Rate::Max),
            _ => Err("neither max nor a number of calls per second".into()),
        }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Rate::Max => f.write_str("max"),
            Rate::PerSecond(n) => write!(f, "{n}"),
        }
    }
}

/// One run of the load.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub kind: Kind,
    pub rate: Rate,
    pub count: u64,
}

/// What a run did.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// Calls made; fewer than planned if time ran out.
    pub attempted: u64,
    /// Calls that failed, by errno.
    pub errors: BTreeMap<i32, u64>,
    #[serde(rename = "elapsed_s", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// Nanoseconds per call, the median of the means of batches.
    pub call_ns: f64,
    /// The same with the close() of the socket, where each call has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_close_ns: Option<f64>,
}

fn seconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

/// Makes the calls, in this thread.
pub fn run(plan: &Plan) -> Result<Outcome, Errno> {
    run_in_batches(plan, BATCH)
}

/// The same with batches of another size: at least one call.
pub fn run_in_batches(plan: &Plan, batch: u64) -> Result<Outcome, Errno> {
    let batch = batch.max(1);
    let target = Target::new(plan.kind)?;
    let gap = match plan.rate {
        Rate::Max => Duration::ZERO,
        Rate::PerSecond(n) => Duration::from_secs(1) / n.max(1),
    };
    // A getppid() is about as short as reading the clock twice: unless each call has its own
    // time to start, a whole batch is timed at once.
    let group = if plan.kind == Kind::Getppid && gap.is_zero() { batch } else { 1 };
    let count = plan.count.min(MAX_CALLS);
    let mut outcome = Outcome::default();
    let (mut calls, mut closes) = (Samples::of(batch), Samples::of(batch));
    let start = Instant::now();
    let mut due = start;
    while outcome.attempted < count && start.elapsed() < MAX_TIME {
        if !gap.is_zero() {
            wait_until(due);
            // Whoever was held up does not catch up: a burst is not the rate that was asked for.
            due = (due + gap).max(Instant::now());
        }
        let group = group.min(count - outcome.attempted);
        let once = target.call(group)?;
        calls.add(once.call, group);
        if let Some(with_close) = once.with_close {
            closes.add(with_close, group);
        }
        if let Some(errno) = once.error {
            *outcome.errors.entry(errno.raw_os_error()).or_default() += group;
        }
        outcome.attempted += group;
    }
    outcome.elapsed = start.elapsed();
    outcome.call_ns = calls.median().unwrap_or_default();
    outcome.with_close_ns = closes.median();
    Ok(outcome)
}

/// Spins, since a CPU that slept is slow at first; only long waits begin with a sleep.
fn wait_until(due: Instant) {
    const SPIN: Duration = Duration::from_millis(1);
    let left = due.saturating_duration_since(Instant::now());
    if left > SPIN {
        std::thread::sleep(left - SPIN);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

/// The sockets that a run needs, and the address that it connects to.
struct Target {
    kind: Kind,
    address: SocketAddrV4,
    /// Holds the port: bound but not listening, it refuses TCP and nobody else can open it.
    port: OwnedFd,
    reused: OwnedFd,
}

const DATAGRAM: &[u8] = b"netspy overhead\n";

/// The times of one call.
struct Once {
    call: Duration,
    with_close: Option<Duration>,
    error: Option<Errno>,
}

impl Target {
    fn new(kind: Kind) -> Result<Self, Errno> {
        let stream = matches!(kind, Kind::TcpRefused | Kind::TcpEstablished);
        let port = socket(if stream { SocketType::STREAM } else { SocketType::DGRAM })?;
        net::bind(&port, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        if kind == Kind::TcpEstablished {
            net::listen(&port, 1)?;
        }
        let SocketAddr::V4(address) = net::getsockname(&port)?.try_into()? else {
            return Err(Errno::AFNOSUPPORT);
        };
        Ok(Target { kind, address, port, reused: socket(SocketType::DGRAM)? })
    }

    fn call(&self, group: u64) -> Result<Once, Errno> {
        match self.kind {
            Kind::TcpRefused => Ok(self.connect_new(socket(SocketType::STREAM)?)),
            Kind::TcpEstablished => self.connect_and_accept(),
            Kind::UdpNew => Ok(self.connect_new(socket(SocketType::DGRAM)?)),
            Kind::Udp => {
                let start = Instant::now();
                let result = net::connect(&self.reused, &self.address);
                Ok(Once { call: start.elapsed(), with_close: None, error: result.err() })
            }
            Kind::UdpSend => {
                let start = Instant::now();
                let result =
                    net::sendto(&self.reused, DATAGRAM, SendFlags::DONTWAIT, &self.address);
                let call = start.elapsed();
                // Taken at once, since a datagram that finds no room is dropped: another matter.
                net::recv(&self.port, &mut [0_u8; DATAGRAM.len()], RecvFlags::DONTWAIT)?;
                Ok(Once { call, with_close: None, error: result.err() })
            }
            Kind::Getppid => {
                let start = Instant::now();
                for _ in 0..group {
                    std::hint::black_box(rustix::process::getppid());
                }
                Ok(Once { call: start.elapsed(), with_close: None, error: None })
            }
        }
    }

    fn connect_new(&self, socket: OwnedFd) -> Once {
        let start = Instant::now();
        let result = net::connect(&socket, &self.address);
        let call = start.elapsed();
        drop(socket);
        Once { call, with_close: Some(start.elapsed()), error: result.err() }
    }

    /// The other side accepts in between, which is not in the figures. Over loopback the
    /// handshake runs within connect(), so nobody has to wait for it.
    fn connect_and_accept(&self) -> Result<Once, Errno> {
        let socket = socket(SocketType::STREAM)?;
        net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        let start = Instant::now();
        let result = net::connect(&socket, &self.address);
        let call = start.elapsed();
        let accepted = net::accept(&self.port)?;
        let start = Instant::now();
        drop(socket);
        let close = start.elapsed();
        drop(accepted);
        Ok(Once { call, with_close: Some(call + close), error: result.err() })
    }
}

fn socket(kind: SocketType) -> Result<OwnedFd, Errno> {
    net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)
}

/// Times, gathered in batches. The mean of a batch keeps what only some calls pay, such as waking
/// a reader; the median of the batches leaves out what the machine did meanwhile.
struct Samples {
    batch: u64,
    means: Vec<f64>,
    sum: Duration,
    calls: u64,
}

impl Samples {
    fn of(batch: u64) -> Self {
        Samples { batch, means: Vec::new(), sum: Duration::ZERO, calls: 0 }
    }

    fn add(&mut self, time: Duration, calls: u64) {
        self.sum += time;
        self.calls += calls;
        if self.calls >= self.batch {
            self.close_batch();
        }
    }

    fn close_batch(&mut self) {
        self.means.push(self.sum.as_nanos() as f64 / self.calls as f64);
        (self.sum, self.calls) = (Duration::ZERO, 0);
    }

    fn median(mut self) -> Option<f64> {
        if self.means.is_empty() && self.calls > 0 {
            self.close_batch();
        }
        // The first batch warms caches and the tracer up.
        let warm = usize::from(self.means.len() > 1);
        median(self.means.get_mut(warm..)?)
    }
}

/// The median, of an even number the mean of the two in the middle.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}
