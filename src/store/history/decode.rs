//! Columns back into records.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::types::{Int32Type, TimestampNanosecondType, UInt16Type, UInt32Type, UInt64Type};
use jiff::Timestamp;

use super::columns::{Flags, Numbers, Parsed, Texts, flags, numbers, parsed, texts};
use super::schema::Column as C;
use crate::event::{
    Close, CloseReason, Connection, ConnectionId, Container, Direction, Dropped, Endpoint,
    Evidence, Family, NameSource, Outcome, Process, ProcessInfo, Protocol, Remote, SocketType,
    State,
};
use crate::store::row::wide;

/// All columns of a batch.
pub(super) struct Decoder {
    rows: usize,
    whole: Texts,
    time: Numbers<TimestampNanosecondType>,
    start: Numbers<UInt64Type>,
    id_tid: Numbers<UInt32Type>,
    boot: Numbers<UInt32Type>,
    version: Numbers<UInt64Type>,
    host: Texts,
    direction: Parsed<Direction>,
    protocol: Parsed<Protocol>,
    socket_type: Parsed<SocketType>,
    family: Parsed<Family>,
    state: Parsed<State>,
    outcome: Parsed<Outcome>,
    evidence: Parsed<Evidence>,
    preexisting: Flags,
    local_ip: Parsed<IpAddr>,
    local_port: Numbers<UInt16Type>,
    remote_ip: Parsed<IpAddr>,
    remote_port: Numbers<UInt16Type>,
    remote_name: Texts,
    name_source: Parsed<NameSource>,
    name_time: Numbers<TimestampNanosecondType>,
    service: Texts,
    country: Texts,
    asn: Numbers<UInt32Type>,
    as_name: Texts,
    actual_ip: Parsed<IpAddr>,
    actual_port: Numbers<UInt16Type>,
    path: Texts,
    processes: Processes,
    errno: Numbers<Int32Type>,
    error: Texts,
    latency: Numbers<UInt64Type>,
    syn: Numbers<UInt32Type>,
    drop_reason: Texts,
    drop_count: Numbers<UInt64Type>,
    close: Closes,
    shared: HashMap<String, Arc<str>>,
}

struct Closes {
    time: Numbers<TimestampNanosecondType>,
    duration: Numbers<UInt64Type>,
    bytes_sent: Numbers<UInt64Type>,
    bytes_received: Numbers<UInt64Type>,
    datagrams_sent: Numbers<UInt64Type>,
    retransmits: Numbers<UInt32Type>,
    srtt: Numbers<UInt32Type>,
    reason: Parsed<CloseReason>,
}

impl Decoder {
    pub(super) fn new(b: &RecordBatch) -> Self {
        Decoder {
            rows: b.num_rows(),
            whole: texts(b, C::Whole),
            time: numbers(b, C::Time),
            start: numbers(b, C::StartNs),
            id_tid: numbers(b, C::IdTid),
            boot: numbers(b, C::Boot),
            version: numbers(b, C::Version),
            host: texts(b, C::Host),
            direction: parsed(b, C::Direction),
            protocol: parsed(b, C::Protocol),
            socket_type: parsed(b, C::SocketType),
            family: parsed(b, C::Family),
            state: parsed(b, C::State),
            outcome: parsed(b, C::Outcome),
            evidence: parsed(b, C::Evidence),
            preexisting: flags(b, C::Preexisting),
            local_ip: parsed(b, C::LocalIp),
            local_port: numbers(b, C::LocalPort),
            remote_ip: parsed(b, C::RemoteIp),
            remote_port: numbers(b, C::RemotePort),
            remote_name: texts(b, C::RemoteName),
            name_source: parsed(b, C::NameSource),
            name_time: numbers(b, C::NameTime),
            service: texts(b, C::Service),
            country: texts(b, C::RemoteCountry),
            asn: numbers(b, C::RemoteAsn),
            as_name: texts(b, C::RemoteAsName),
            actual_ip: parsed(b, C::ActualIp),
            actual_port: numbers(b, C::ActualPort),
            path: texts(b, C::Path),
            processes: Processes::new(b),
            errno: numbers(b, C::Errno),
            error: texts(b, C::Error),
            latency: numbers(b, C::Latency),
            syn: numbers(b, C::SynRetransmits),
            drop_reason: texts(b, C::DropReason),
            drop_count: numbers(b, C::DropCount),
            close: Closes {
                time: numbers(b, C::CloseTime),
                duration: numbers(b, C::Duration),
                bytes_sent: numbers(b, C::BytesSent),
                bytes_received: numbers(b, C::BytesReceived),
                datagrams_sent: numbers(b, C::DatagramsSent),
                retransmits: numbers(b, C::Retransmits),
                srtt: numbers(b, C::Srtt),
                reason: parsed(b, C::CloseReason),
            },
            shared: HashMap::new(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn version(&self, row: usize) -> Option<u64> {
        self.version.get(row)
    }

    /// The record of a row; `None` if what no record can be without is missing or makes no sense.
    pub(super) fn record(&mut self, row: usize) -> Option<Connection> {
        if let Some(whole) = self.whole.get(row) {
            return serde_json::from_str(whole).ok();
        }
        let process = self.processes.process(row);
        let remote = self.remote(row);
        let local = self.local_ip.get(row).zip(self.local_port.get(row));
        let actual = self.actual_ip.get(row).zip(self.actual_port.get(row));
        let drop = self.drop_reason.get(row).zip(self.drop_count.get(row));
        Some(Connection {
            id: ConnectionId {
                start_ns: self.start.get(row)?,
                tid: self.id_tid.get(row)?,
                boot: self.boot.get(row)?,
            },
            host: share(&mut self.shared, self.host.get(row)?),
            time: wide(self.time.get(row)?),
            direction: self.direction.get(row)?,
            protocol: self.protocol.get(row)?,
            socket_type: self.socket_type.get(row)?,
            family: self.family.get(row)?,
            local: local.map(|(ip, port)| Endpoint { ip, port }),
            remote,
            remote_actual: actual.map(|(ip, port)| Endpoint { ip, port }),
            path: self.path.get(row).map(Into::into),
            process,
            state: self.state.get(row)?,
            outcome: self.outcome.get(row)?,
            errno: self.errno.get(row),
            error: self.error.get(row).map(|error| error.to_owned().into()),
            evidence: self.evidence.get(row),
            latency_us: self.latency.get(row),
            syn_retransmits: self.syn.get(row),
            drop: drop.map(|(reason, count)| Dropped { reason: reason.to_owned(), count }),
            traffic: None,
            close: self.close.get(row),
            preexisting: self.preexisting.get(row)?,
        })
    }

    fn remote(&mut self, row: usize) -> Option<Remote> {
        Some(Remote {
            name: self.remote_name.get(row).map(|name| share(&mut self.shared, name)),
            name_source: self.name_source.get(row),
            name_time: self.name_time.get(row).map(wide),
            service: self.service.get(row).map(|service| service.to_owned().into()),
            country: self.country.get(row).map(|country| share(&mut self.shared, country)),
            asn: self.asn.get(row),
            as_name: self.as_name.get(row).map(|name| share(&mut self.shared, name)),
            ..Remote::new(self.remote_ip.get(row)?, self.remote_port.get(row)?)
        })
    }
}

impl Closes {
    fn get(&self, row: usize) -> Option<Close> {
        Some(Close {
            time: wide(self.time.get(row)?),
            duration_us: self.duration.get(row),
            bytes_sent: self.bytes_sent.get(row),
            bytes_received: self.bytes_received.get(row),
            datagrams_sent: self.datagrams_sent.get(row),
            retransmits: self.retransmits.get(row),
            srtt_us: self.srtt.get(row),
            reason: self.reason.get(row)?,
        })
    }
}

fn share(shared: &mut HashMap<String, Arc<str>>, text: &str) -> Arc<str> {
    if let Some(known) = shared.get(text) {
        return Arc::clone(known);
    }
    let new: Arc<str> = text.into();
    shared.insert(text.to_owned(), Arc::clone(&new));
    new
}

/// The columns about processes.
struct Processes {
    texts: [(C, Texts); TEXTS.len()],
    pid: Numbers<UInt32Type>,
    tid: Numbers<UInt32Type>,
    thread: Texts,
    exe_deleted: Flags,
    exe_dev: Numbers<UInt64Type>,
    exe_inode: Numbers<UInt64Type>,
    uid: Numbers<UInt32Type>,
    ppid: Numbers<UInt32Type>,
    start_time: Numbers<TimestampNanosecondType>,
    netns: Numbers<UInt32Type>,
    known: HashMap<Key, Arc<ProcessInfo>>,
    shared: HashMap<String, Arc<str>>,
}

/// What tells the processes of one batch apart.
type Key =
    ([Option<usize>; TEXTS.len()], [Option<u32>; 4], Option<i64>, Option<bool>, [Option<u64>; 2]);

const TEXTS: [C; 18] = [
    C::Process,
    C::Exe,
    C::ExeSha256,
    C::Cmdline,
    C::Cwd,
    C::Unit,
    C::User,
    C::Parent,
    C::Ancestry,
    C::Cgroup,
    C::ContainerId,
    C::ContainerRuntime,
    C::ContainerName,
    C::Pod,
    C::PodNamespace,
    C::PodUid,
    C::ContainerImage,
    C::ContainerLabels,
];

impl Processes {
    fn new(b: &RecordBatch) -> Self {
        Processes {
            texts: TEXTS.map(|column| (column, texts(b, column))),
            pid: numbers(b, C::Pid),
            tid: numbers(b, C::Tid),
            thread: texts(b, C::Thread),
            exe_deleted: flags(b, C::ExeDeleted),
            exe_dev: numbers(b, C::ExeDev),
            exe_inode: numbers(b, C::ExeInode),
            uid: numbers(b, C::Uid),
            ppid: numbers(b, C::Ppid),
            start_time: numbers(b, C::StartTime),
            netns: numbers(b, C::Netns),
            known: HashMap::new(),
            shared: HashMap::new(),
        }
    }

    fn process(&mut self, row: usize) -> Option<Process> {
        let pid = self.pid.get(row)?;
        let numbers = [Some(pid), self.uid.get(row), self.ppid.get(row), self.netns.get(row)];
        let keys = std::array::from_fn(|n| self.texts.get(n).and_then(|(_, t)| t.key(row)));
        let file = [self.exe_dev.get(row), self.exe_inode.get(row)];
        let key = (keys, numbers, self.start_time.get(row), self.exe_deleted.get(row), file);
        let info = match self.known.get(&key) {
            Some(known) => Arc::clone(known),
            None => {
                let info = Arc::new(self.info(row, pid)?);
                self.known.insert(key, Arc::clone(&info));
                info
            }
        };
        let thread = self.thread.get(row)?;
        let thread = match *thread == *info.comm {
            true => Arc::clone(&info.comm),
            false => share(&mut self.shared, thread),
        };
        Some(Process { tid: self.tid.get(row)?, thread, info })
    }

    fn info(&mut self, row: usize, pid: u32) -> Option<ProcessInfo> {
        let text = |column: C| {
            let texts = self.texts.iter().find(|(c, _)| *c == column).map(|(_, texts)| texts);
            texts.and_then(|texts| texts.get(row))
        };
        let owned = |column: C| text(column).map(str::to_owned);
        let shared = |column: C| text(column).map(Arc::from);
        let container = owned(C::ContainerId).map(|id| {
            Arc::new(Container {
                id,
                runtime: owned(C::ContainerRuntime).unwrap_or_default(),
                name: owned(C::ContainerName),
                pod: owned(C::Pod),
                namespace: owned(C::PodNamespace),
                pod_uid: owned(C::PodUid),
                image: owned(C::ContainerImage),
                labels: text(C::ContainerLabels)
                    .and_then(|t| serde_json::from_str(t).ok())
                    .unwrap_or_default(),
            })
        });
        Some(ProcessInfo {
            pid,
            comm: shared(C::Process)?,
            exe: shared(C::Exe),
            exe_deleted: self.exe_deleted.get(row)?,
            exe_dev: self.exe_dev.get(row),
            exe_inode: self.exe_inode.get(row),
            exe_sha256: shared(C::ExeSha256),
            cmdline: shared(C::Cmdline),
            cwd: shared(C::Cwd),
            unit: shared(C::Unit),
            uid: self.uid.get(row)?,
            user: shared(C::User),
            ppid: self.ppid.get(row)?,
            parent: shared(C::Parent),
            ancestry: text(C::Ancestry)
                .and_then(|t| serde_json::from_str(t).ok())
                .unwrap_or_default(),
            start_time: self.start_time.get(row).map(|t: i64| -> Timestamp { wide(t) }),
            cgroup: shared(C::Cgroup),
            netns: self.netns.get(row)?,
            container,
        })
    }
}
