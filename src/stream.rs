//! [`ConnectionStream`]: the events of this host as a stream.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_channel::Receiver;
use futures_core::Stream;
use ipnet::IpNet;
use jiff::Timestamp;

use crate::accounting::{Accounting, Counters};
use crate::capture::driver::{self, Batch};
use crate::capture::error::CaptureError;
use crate::capture::privileges::{self, GiveUp, PrivilegeReport};
use crate::capture::report::{AttachReport, Backend};
use crate::capture::shared::Shared;
use crate::containers::{ContainerDetails, ContainerStatus};
use crate::event::{Connection, ConnectionId, Traffic};

mod beside;

pub(crate) use beside::Subscribers;
pub use beside::{DnsStream, DropStream, RecordStream};

/// What to capture: filters run in the kernel, before an event costs anything.
///
/// Within one member any value may match; all members that are set must match.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    /// Thread or process names (at most 15 bytes, as the kernel keeps them).
    pub only_process: Vec<String>,
    /// Process ids.
    pub only_pid: Vec<u32>,
    /// The processes that these start from then on, what those start in turn, and so on, whatever
    /// becomes of their parents; not these themselves. Ids as this process sees them. At most
    /// `max_sockets` descendants are followed at a time: attempts of others are `filtered`, and
    /// each of these counts as `missed`.
    pub only_descendants_of: Vec<u32>,
    /// User ids.
    pub only_uid: Vec<u32>,
    /// Remote ports; of inbound connections, local ports.
    pub only_port: Vec<u16>,
    /// Remote networks. Sockets that listen have none.
    pub only_cidr: Vec<IpNet>,
    /// cgroup v2 ids.
    pub only_cgroup: Vec<u64>,
    /// Leave out connections to and from this host's loopback addresses, and sockets that listen
    /// at them.
    pub no_loopback: bool,
    /// Leave out UNIX sockets.
    pub no_unix: bool,
    /// Leave out connections that are accepted, and sockets that listen.
    pub no_inbound: bool,
    /// Leave out what existed before capture began.
    pub no_preexisting: bool,
    /// Ring buffer size in bytes; a power of two, 8 MiB unless set.
    pub ring_bytes: Option<u32>,
    /// Sockets that can be followed at a time, and four times the destinations of datagrams sent
    /// without connect(); 65,536 unless set.
    pub max_sockets: Option<u32>,
    /// How long a socket may send nothing to a destination, without being connected to it, before
    /// the record of that ends; 60 seconds unless set.
    pub datagram_idle: Option<Duration>,
    /// The family of hooks; chosen by what the kernel can do unless set.
    pub backend: Option<Backend>,
    /// Do not look at packets that the kernel drops.
    pub no_drops: bool,
    /// Do not look at DNS answers, by which remotes get their names: a program that runs for every
    /// packet that a socket receives.
    pub no_dns: bool,
    /// Do not ask the kernel where address translation (NAT) sends connections.
    pub no_nat: bool,
    /// Ask that within the network namespaces of others, too, such as containers that have rules of
    /// their own: takes CAP_SYS_ADMIN, which the thread that asks then keeps.
    pub nat_namespaces: bool,
    /// Work out the SHA-256 of executables, in a thread of its own. A record comes without it first,
    /// and again when it is known.
    pub hash_exe: bool,
    /// Drop (and count) what the reader does not take in time, rather than let it wait in the
    /// kernel.
    pub drop_when_full: bool,
    /// Who tells more of containers than their cgroups do; nobody unless set. Records come again when
    /// there is an answer. Of one such, one capture takes the answers.
    pub containers: Option<Arc<dyn ContainerDetails>>,
    /// What the thread that captures gives up once everything is attached; nothing unless set. Other
    /// threads keep what they have; see [`StreamHandle::give_up_privileges`].
    pub give_up: Option<GiveUp>,
}

const DEFAULT_RING: u32 = 8 << 20;
const DEFAULT_SOCKETS: u32 = 65_536;
const DEFAULT_IDLE: Duration = Duration::from_secs(60);
/// Values of one kind that an in-kernel filter holds (`FILTER_ENTRIES` of config.h).
const FILTER_VALUES: usize = 1024;

impl Builder {
    pub(crate) fn ring_bytes(&self) -> u32 {
        self.ring_bytes.unwrap_or(DEFAULT_RING)
    }

    pub(crate) fn max_sockets(&self) -> u32 {
        self.max_sockets.unwrap_or(DEFAULT_SOCKETS)
    }

    pub(crate) fn datagram_idle(&self) -> Duration {
        self.datagram_idle.unwrap_or(DEFAULT_IDLE)
    }

    /// The features that are not wanted, each with the option that says so.
    pub(crate) fn left_out(&self) -> Vec<(&'static str, &'static str)> {
        let mut features = Vec::new();
        if self.no_inbound {
            features.extend([("inbound", "no_inbound"), ("listeners", "no_inbound")]);
        }
        if self.no_preexisting {
            features.push(("preexisting", "no_preexisting"));
        }
        if self.no_dns {
            features.push(("dns_names", "no_dns"));
        }
        features
    }

    /// Loads and attaches; events flow from here on.
    ///
    /// # Errors
    ///
    /// An option that makes no sense, or what the kernel or the privileges of this process lack;
    /// the text of each error says what to do.
    pub fn start(self) -> Result<ConnectionStream, CaptureError> {
        self.check()?;
        let containers = self.containers.clone();
        let (shared, receiver) = driver::start(self)?;
        Ok(ConnectionStream {
            handle: StreamHandle { shared, containers },
            receiver: Box::pin(receiver),
            ready: VecDeque::new(),
        })
    }

    fn check(&self) -> Result<(), CaptureError> {
        let invalid = |option, problem: String| CaptureError::InvalidOption { option, problem };
        let ring = self.ring_bytes();
        if !ring.is_power_of_two() || !(64 << 10..=1 << 30).contains(&ring) {
            let problem = format!("{ring} is not a power of two from 65536 to 1073741824");
            return Err(invalid("ring_bytes", problem));
        }
        let sockets = self.max_sockets();
        if !(1..=16 << 20).contains(&sockets) {
            return Err(invalid("max_sockets", format!("{sockets} is not from 1 to 16777216")));
        }
        let idle = self.datagram_idle();
        if !(Duration::from_millis(1)..=Duration::from_secs(86_400)).contains(&idle) {
            return Err(invalid("datagram_idle", format!("{idle:?} is not from 1 ms to a day")));
        }
        if let Some(name) = self.only_process.iter().find(|n| n.is_empty() || n.len() > 15) {
            let problem = format!("'{name}' is not of 1 to 15 bytes, as the kernel keeps names");
            return Err(invalid("only_process", problem));
        }
        let lengths = [
            ("only_process", self.only_process.len()),
            ("only_pid", self.only_pid.len()),
            ("only_descendants_of", self.only_descendants_of.len()),
            ("only_uid", self.only_uid.len()),
            ("only_port", self.only_port.len()),
            ("only_cidr", self.only_cidr.len()),
            ("only_cgroup", self.only_cgroup.len()),
        ];
        match lengths.into_iter().find(|(_, len)| *len > FILTER_VALUES) {
            Some((option, len)) => {
                Err(invalid(option, format!("{len} values, of at most {FILTER_VALUES}")))
            }
            None => Ok(()),
        }
    }
}

/// Every connection attempt of this host, as it happens: a [`Stream`] and a blocking
/// [`Iterator`]. Dropping it detaches everything.
///
/// A record comes again under the same id when it changes: an attempt without outcome after a
/// moment, then its outcome, then its close. The last version is the one to keep.
#[derive(Debug)]
pub struct ConnectionStream {
    handle: StreamHandle,
    receiver: Pin<Box<Receiver<Batch>>>,
    ready: VecDeque<Connection>,
}

impl ConnectionStream {
    /// Options with their defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The next records, in the order of their changes; waits for at least one. `None` when
    /// capture has ended.
    pub fn next_batch_blocking(&mut self) -> Option<Vec<Connection>> {
        if !self.ready.is_empty() {
            return Some(std::mem::take(&mut self.ready).into());
        }
        let batch = self.receiver.recv_blocking().ok()?;
        Some(self.accept(batch))
    }

    /// As [`next_batch_blocking`](Self::next_batch_blocking), for asynchronous callers.
    pub async fn next_batch(&mut self) -> Option<Vec<Connection>> {
        if !self.ready.is_empty() {
            return Some(std::mem::take(&mut self.ready).into());
        }
        let batch = self.receiver.recv().await.ok()?;
        Some(self.accept(batch))
    }

    /// From here on the records are the reader's.
    fn accept(&self, batch: Batch) -> Vec<Connection> {
        self.handle.shared.delivered.fetch_add(batch.first, Ordering::AcqRel);
        batch.connections
    }

    /// A handle for status and books, usable from any thread.
    pub fn handle(&self) -> StreamHandle {
        self.handle.clone()
    }

    /// The packets that the kernel drops, from here on. The filters of the [`Builder`] are about
    /// attempts, and leave drops alone. Where drops cannot be seen (the
    /// [capabilities](Self::capabilities) say so), none come.
    pub fn drops(&self) -> DropStream {
        self.handle.shared.drops.subscribers.subscribe()
    }

    /// Questions for names and what came of them, from here on. The filters of the [`Builder`] leave
    /// out the same as they would of the connections that carry them. A record comes again, under its
    /// id, with the connections that followed. Where they cannot be seen (the
    /// feature `dns_names` of the report says why), none come.
    pub fn dns(&self) -> DnsStream {
        self.handle.shared.dns.subscribers.subscribe()
    }

    /// What is observed, by which hooks.
    pub fn capabilities(&self) -> AttachReport {
        self.handle.capabilities()
    }

    /// The books since the start of capture.
    pub fn accounting(&self) -> Accounting {
        self.handle.accounting()
    }
}

impl Stream for ConnectionStream {
    type Item = Connection;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Connection>> {
        loop {
            if let Some(connection) = self.ready.pop_front() {
                return Poll::Ready(Some(connection));
            }
            match self.receiver.as_mut().poll_next(cx) {
                Poll::Ready(Some(batch)) => self.ready = self.accept(batch).into(),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Iterator for ConnectionStream {
    type Item = Connection;

    fn next(&mut self) -> Option<Connection> {
        if self.ready.is_empty() {
            self.ready = self.next_batch_blocking()?.into();
        }
        self.ready.pop_front()
    }
}

impl Drop for ConnectionStream {
    fn drop(&mut self) {
        // Wakes the thread, which may wait on the full channel or on the ring.
        self.receiver.close();
        self.handle.stop();
    }
}

/// Status and books of a running [`ConnectionStream`].
#[derive(Debug, Clone)]
pub struct StreamHandle {
    shared: Arc<Shared>,
    containers: Option<Arc<dyn ContainerDetails>>,
}

impl StreamHandle {
    /// The figures since the start of capture.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// The books since the start of capture.
    pub fn accounting(&self) -> Accounting {
        let until = Timestamp::now();
        Accounting::between(&Counters::default(), &self.counters(), self.since(), until)
    }

    /// Hands over everything that waits in the kernel, so that the figures are current. Waits for
    /// half a second at most, should the reader of the stream be slow.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// What the connections that are open now have carried so far, by their id; those that the
    /// kernel side follows, where the capabilities have `traffic`. An answer may be a fifth of a
    /// second old.
    pub fn traffic(&self) -> Arc<HashMap<ConnectionId, Traffic>> {
        self.shared.traffic.figures()
    }

    /// How many descendants are followed now; 0 unless
    /// [`only_descendants_of`](Builder::only_descendants_of) is set. A process is followed until
    /// its last thread has ended.
    pub fn descendants(&self) -> usize {
        self.shared.descendants()
    }

    /// Start of capture.
    pub fn since(&self) -> Timestamp {
        self.shared.since
    }

    /// What is observed, by which hooks.
    pub fn capabilities(&self) -> AttachReport {
        let mut report = self.shared.report.clone();
        report.features.insert("nat".to_owned(), self.shared.nat.feature());
        if let Some(status) = self.containers() {
            report.features.insert("container_names".to_owned(), status.feature());
        }
        report
    }

    /// How asking about containers goes, if anybody is asked.
    pub fn containers(&self) -> Option<ContainerStatus> {
        self.containers.as_ref().map(|containers| containers.status())
    }

    /// `None` while capture runs; why it stopped otherwise.
    pub fn stopped(&self) -> Option<String> {
        self.shared.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the thread that captures gave up, once it has; `None` if it was not to.
    pub fn privileges(&self) -> Option<PrivilegeReport> {
        self.shared.privileges()
    }

    /// Waits until the thread that captures has given up its privileges. It looks at what existed
    /// before capture first, for which somebody has to read the stream.
    pub fn wait_for_privileges(&self) -> Option<PrivilegeReport> {
        self.shared.settled()
    }

    /// Gives up the privileges of the calling thread, but for what reading the figures takes. The
    /// threads that it starts have none either; those that there are keep theirs.
    ///
    /// # Errors
    ///
    /// What the system refused; some privileges may be gone then.
    pub fn give_up_privileges(&self, to: GiveUp) -> std::io::Result<PrivilegeReport> {
        privileges::give_up_beside(to, &self.shared)
    }

    /// Ends capture: the stream yields what was captured so far, then ends.
    pub fn stop(&self) {
        self.shared.stop();
    }
}

#[cfg(feature = "store")]
impl crate::query::CaptureHandle for StreamHandle {
    fn counters(&self) -> Counters {
        self.counters()
    }
    fn drain(&self) {
        self.drain();
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
    fn traffic(&self) -> Arc<HashMap<ConnectionId, Traffic>> {
        self.traffic()
    }
    fn privileges(&self) -> Option<PrivilegeReport> {
        self.privileges()
    }
    fn containers(&self) -> Option<ContainerStatus> {
        self.containers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_no_sense_are_refused_before_anything_is_loaded() {
        let base = ConnectionStream::builder;
        let cases = [
            ("ring_bytes", Builder { ring_bytes: Some(100_000), ..base() }),
            ("ring_bytes", Builder { ring_bytes: Some(4096), ..base() }),
            ("max_sockets", Builder { max_sockets: Some(0), ..base() }),
            ("datagram_idle", Builder { datagram_idle: Some(Duration::ZERO), ..base() }),
            ("only_process", Builder { only_process: vec!["x".repeat(16)], ..base() }),
            ("only_descendants_of", Builder { only_descendants_of: vec![1; 1025], ..base() }),
            ("only_pid", Builder { only_pid: vec![1; 1025], ..base() }),
        ];
        for (option, builder) in cases {
            let error = builder.start().unwrap_err().to_string();
            assert!(error.starts_with(option), "{error}");
        }
    }
}
