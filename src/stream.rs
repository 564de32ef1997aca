//! [`ConnectionStream`]: the events of this host as a stream.

use ipnet::IpNet;
use jiff::Timestamp;

use crate::accounting::{Accounting, Counters};
use crate::capture::error::CaptureError;
use crate::capture::report::{AttachReport, Backend};
use crate::event::Connection;

/// What to capture: filters run in the kernel, before an event costs anything.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    /// Thread or process names (at most 15 bytes, as the kernel keeps them).
    pub only_process: Vec<String>,
    /// Process ids.
    pub only_pid: Vec<u32>,
    /// User ids.
    pub only_uid: Vec<u32>,
    /// Remote ports.
    pub only_port: Vec<u16>,
    /// Remote networks.
    pub only_cidr: Vec<IpNet>,
    /// cgroup v2 ids.
    pub only_cgroup: Vec<u64>,
    /// Leave out connections to this host's loopback addresses.
    pub no_loopback: bool,
    /// Leave out UNIX sockets.
    pub no_unix: bool,
    /// Ring buffer size in bytes; a power of two, 8 MiB unless set.
    pub ring_bytes: Option<u32>,
    /// Sockets that can be followed at a time; 65,536 unless set.
    pub max_sockets: Option<u32>,
    /// The family of hooks; chosen by what the kernel can do unless set.
    pub backend: Option<Backend>,
    /// Drop (and count) what the reader does not take in time, rather than let it wait in the
    /// kernel.
    pub drop_when_full: bool,
}

impl Builder {
    /// Loads and attaches; events flow from here on.
    pub fn start(self) -> Result<ConnectionStream, CaptureError> {
        Err(CaptureError::NoBtf)
    }
}

/// Every connection attempt of this host, as it happens. Dropping it detaches everything.
#[derive(Debug)]
pub struct ConnectionStream {
    handle: StreamHandle,
}

impl ConnectionStream {
    /// Options with their defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The next records, in the order of their changes; waits for at least one. `None` when
    /// capture has ended.
    pub fn next_batch_blocking(&mut self) -> Option<Vec<Connection>> {
        None
    }

    /// A handle for status and books, usable from any thread.
    pub fn handle(&self) -> StreamHandle {
        self.handle.clone()
    }
}

/// Status and books of a running [`ConnectionStream`].
#[derive(Debug, Clone)]
pub struct StreamHandle {}

impl StreamHandle {
    /// The figures since the start of capture.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
    /// The books since the start of capture.
    pub fn accounting(&self) -> Accounting {
        let now = Timestamp::now();
        Accounting::between(&Counters::default(), &self.counters(), now, now)
    }
    /// Hands over everything that waits in the kernel, so that the figures are current.
    pub fn drain(&self) {}
    /// Start of capture.
    pub fn since(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
    /// What is observed, by which hooks.
    pub fn capabilities(&self) -> AttachReport {
        AttachReport::replay("nothing")
    }
    /// `None` while capture runs; why it stopped otherwise.
    pub fn stopped(&self) -> Option<String> {
        None
    }
    /// Ends capture: the stream yields what was captured so far, then ends.
    pub fn stop(&self) {}
}

#[cfg(feature = "store")]
impl crate::query::CaptureHandle for StreamHandle {
    fn counters(&self) -> Counters {
        self.counters()
    }
    fn drain(&self) {
        self.drain()
    }
    fn since(&self) -> Timestamp {
        self.since()
    }
    fn report(&self) -> AttachReport {
        self.capabilities()
    }
    fn stopped(&self) -> Option<String> {
        self.stopped()
    }
}
