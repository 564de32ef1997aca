//! Some rows of a segment, as figures are computed from them.

use std::net::IpAddr;

use arrow_array::RecordBatch;
use arrow_array::types::{Int32Type, TimestampNanosecondType, UInt16Type, UInt32Type, UInt64Type};

use super::columns::{Flags, Lazy, Numbers, Parsed, Texts, flags, numbers, parsed, texts};
use super::schema::Column as C;
use super::segment::{Segment, SegmentError};
use crate::event::{
    Close, CloseReason, ConnectionId, Direction, Evidence, Outcome, Protocol, State,
};
use crate::query::top::TopBy;
use crate::store::archive::Rows;
use crate::store::row::wide;
use crate::store::view::{Columnar, Columns};

/// Columns of some rows: those that were named are read at once, the others when asked for.
#[derive(Debug)]
pub(super) struct Block<'s> {
    segment: &'s Segment,
    rows: &'s Rows,
    batch: RecordBatch,
    /// Whether the names of processes were named, and read at once.
    has_names: bool,
    start: Lazy<Numbers<UInt64Type>>,
    id_tid: Lazy<Numbers<UInt32Type>>,
    boot: Lazy<Numbers<UInt32Type>>,
    direction: Lazy<Parsed<Direction>>,
    protocol: Lazy<Parsed<Protocol>>,
    state: Lazy<Parsed<State>>,
    outcome: Lazy<Parsed<Outcome>>,
    preexisting: Lazy<Flags>,
    time: Lazy<Numbers<TimestampNanosecondType>>,
    remote_ip: Lazy<Parsed<IpAddr>>,
    remote_port: Lazy<Numbers<UInt16Type>>,
    local_port: Lazy<Numbers<UInt16Type>>,
    latency: Lazy<Numbers<UInt64Type>>,
    pid: Lazy<Numbers<UInt32Type>>,
    start_time: Lazy<Numbers<TimestampNanosecondType>>,
    uid: Lazy<Numbers<UInt32Type>>,
    asn: Lazy<Numbers<UInt32Type>>,
    errno: Lazy<Numbers<Int32Type>>,
    evidence: Lazy<Parsed<Evidence>>,
    drop_count: Lazy<Numbers<UInt64Type>>,
    close: Lazy<Closes>,
    texts: [Lazy<Texts>; TEXTS.len()],
}

const TEXTS: [C; 15] = [
    C::RemoteName,
    C::RemoteCountry,
    C::RemoteAsName,
    C::Process,
    C::Exe,
    C::User,
    C::Unit,
    C::ContainerId,
    C::ContainerName,
    C::ContainerImage,
    C::Pod,
    C::PodNamespace,
    C::Host,
    C::Error,
    C::DropReason,
];

#[derive(Debug)]
struct Closes {
    time: Numbers<TimestampNanosecondType>,
    duration: Numbers<UInt64Type>,
    sent: Numbers<UInt64Type>,
    received: Numbers<UInt64Type>,
    datagrams: Numbers<UInt64Type>,
    retransmits: Numbers<UInt32Type>,
    srtt: Numbers<UInt32Type>,
    reason: Parsed<CloseReason>,
}

const CLOSE: [C; 8] = [
    C::CloseTime,
    C::Duration,
    C::BytesSent,
    C::BytesReceived,
    C::DatagramsSent,
    C::Retransmits,
    C::Srtt,
    C::CloseReason,
];

/// The columns of a file for those that a question names.
fn named(columns: Columns) -> Vec<C> {
    let sets: [(Columns, &[C]); 16] = [
        (Columns::REMOTE_IP, &[C::RemoteIp]),
        (Columns::PORTS, &[C::LocalPort, C::RemotePort, C::Direction]),
        (Columns::REMOTE_NAME, &[C::RemoteName]),
        (Columns::LATENCY, &[C::Latency]),
        (Columns::PID, &[C::Pid, C::StartTime]),
        (Columns::PROCESS_NAME, &[C::Process]),
        (Columns::EXE, &[C::Exe]),
        (Columns::USER, &[C::Uid, C::User]),
        (Columns::UNIT, &[C::Unit]),
        (Columns::CONTAINER, &[C::ContainerId, C::ContainerName]),
        (Columns::POD, &[C::Pod, C::PodNamespace, C::ContainerImage]),
        (Columns::HOST, &[C::Host]),
        (Columns::ERROR, &[C::Errno, C::Error, C::Evidence]),
        (Columns::DROP, &[C::DropReason, C::DropCount]),
        (Columns::CLOSE, &CLOSE),
        (Columns::PLACE, &[C::RemoteCountry, C::RemoteAsn, C::RemoteAsName]),
    ];
    let wanted = sets.iter().filter(|(set, _)| columns.contains(*set));
    wanted.flat_map(|(_, columns)| columns.iter().copied()).collect()
}

impl<'s> Block<'s> {
    pub(super) fn read(
        segment: &'s Segment,
        rows: &'s Rows,
        columns: Columns,
    ) -> Result<Self, SegmentError> {
        let batch = segment.read(&named(columns), rows)?;
        Ok(Block {
            segment,
            rows,
            has_names: batch.column_by_name(C::Process.name()).is_some(),
            batch,
            start: Lazy::new(),
            id_tid: Lazy::new(),
            boot: Lazy::new(),
            direction: Lazy::new(),
            protocol: Lazy::new(),
            state: Lazy::new(),
            outcome: Lazy::new(),
            preexisting: Lazy::new(),
            time: Lazy::new(),
            remote_ip: Lazy::new(),
            remote_port: Lazy::new(),
            local_port: Lazy::new(),
            latency: Lazy::new(),
            pid: Lazy::new(),
            start_time: Lazy::new(),
            uid: Lazy::new(),
            asn: Lazy::new(),
            errno: Lazy::new(),
            evidence: Lazy::new(),
            drop_count: Lazy::new(),
            close: Lazy::new(),
            texts: std::array::from_fn(|_| Lazy::new()),
        })
    }

    /// The batch that has these columns: what was read already, or just now.
    fn with(&self, columns: &[C]) -> RecordBatch {
        if columns.iter().all(|column| self.batch.column_by_name(column.name()).is_some()) {
            return self.batch.clone();
        }
        self.segment.read(columns, self.rows).unwrap_or_else(|error| {
            self.segment.complain(&error);
            RecordBatch::new_empty(super::schema::schema())
        })
    }

    fn texts_of(&self, column: C) -> Option<&Texts> {
        let place = TEXTS.iter().position(|known| *known == column)?;
        Some(self.texts.get(place)?.get_or_init(|| texts(&self.with(&[column]), column)))
    }

    fn text(&self, column: C, row: usize) -> Option<&str> {
        self.texts_of(column)?.get(row)
    }
}

/// What a column says, which is read when it is first asked for.
macro_rules! ask {
    ($block:expr, $cell:ident, $read:ident, $column:expr, $row:expr) => {
        $block.$cell.get_or_init(|| $read(&$block.with(&[$column]), $column)).get($row)
    };
}

impl Columnar for Block<'_> {
    fn id(&self, row: usize) -> Option<ConnectionId> {
        Some(ConnectionId {
            start_ns: ask!(self, start, numbers, C::StartNs, row)?,
            tid: ask!(self, id_tid, numbers, C::IdTid, row)?,
            boot: ask!(self, boot, numbers, C::Boot, row)?,
        })
    }

    fn time(&self, row: usize) -> Option<i64> {
        ask!(self, time, numbers, C::Time, row)
    }

    fn direction(&self, row: usize) -> Option<Direction> {
        ask!(self, direction, parsed, C::Direction, row)
    }

    fn protocol(&self, row: usize) -> Option<Protocol> {
        ask!(self, protocol, parsed, C::Protocol, row)
    }

    fn state(&self, row: usize) -> Option<State> {
        ask!(self, state, parsed, C::State, row)
    }

    fn outcome(&self, row: usize) -> Option<Outcome> {
        ask!(self, outcome, parsed, C::Outcome, row)
    }

    fn preexisting(&self, row: usize) -> Option<bool> {
        ask!(self, preexisting, flags, C::Preexisting, row)
    }

    fn remote_ip(&self, row: usize) -> Option<IpAddr> {
        ask!(self, remote_ip, parsed, C::RemoteIp, row)
    }

    fn remote_port(&self, row: usize) -> Option<u16> {
        ask!(self, remote_port, numbers, C::RemotePort, row)
    }

    fn local_port(&self, row: usize) -> Option<u16> {
        ask!(self, local_port, numbers, C::LocalPort, row)
    }

    fn remote_name(&self, row: usize) -> Option<&str> {
        self.text(C::RemoteName, row)
    }

    fn country(&self, row: usize) -> Option<&str> {
        self.text(C::RemoteCountry, row)
    }

    fn asn(&self, row: usize) -> Option<u32> {
        ask!(self, asn, numbers, C::RemoteAsn, row)
    }

    fn as_name(&self, row: usize) -> Option<&str> {
        self.text(C::RemoteAsName, row)
    }

    fn latency_us(&self, row: usize) -> Option<u64> {
        ask!(self, latency, numbers, C::Latency, row)
    }

    fn host(&self, row: usize) -> Option<&str> {
        self.text(C::Host, row)
    }

    fn errno(&self, row: usize) -> Option<i32> {
        ask!(self, errno, numbers, C::Errno, row)
    }

    fn error(&self, row: usize) -> Option<&str> {
        self.text(C::Error, row)
    }

    fn evidence(&self, row: usize) -> Option<Evidence> {
        ask!(self, evidence, parsed, C::Evidence, row)
    }

    fn dropped(&self, row: usize) -> Option<(&str, u64)> {
        let count = ask!(self, drop_count, numbers, C::DropCount, row)?;
        Some((self.text(C::DropReason, row)?, count))
    }

    fn close(&self, row: usize) -> Option<Close> {
        let close = self.close.get_or_init(|| {
            let b = self.with(&CLOSE);
            Closes {
                time: numbers(&b, C::CloseTime),
                duration: numbers(&b, C::Duration),
                sent: numbers(&b, C::BytesSent),
                received: numbers(&b, C::BytesReceived),
                datagrams: numbers(&b, C::DatagramsSent),
                retransmits: numbers(&b, C::Retransmits),
                srtt: numbers(&b, C::Srtt),
                reason: parsed(&b, C::CloseReason),
            }
        });
        Some(Close {
            time: wide(close.time.get(row)?),
            duration_us: close.duration.get(row),
            bytes_sent: close.sent.get(row),
            bytes_received: close.received.get(row),
            datagrams_sent: close.datagrams.get(row),
            retransmits: close.retransmits.get(row),
            srtt_us: close.srtt.get(row),
            reason: close.reason.get(row)?,
        })
    }

    fn has_process(&self, row: usize) -> bool {
        match self.has_names {
            true => self.text(C::Process, row).is_some(),
            false => self.pid(row).is_some(),
        }
    }

    fn pid(&self, row: usize) -> Option<u32> {
        ask!(self, pid, numbers, C::Pid, row)
    }

    fn start_time(&self, row: usize) -> Option<i64> {
        ask!(self, start_time, numbers, C::StartTime, row)
    }

    fn process_name(&self, row: usize) -> Option<&str> {
        self.text(C::Process, row)
    }

    fn exe(&self, row: usize) -> Option<&str> {
        self.text(C::Exe, row)
    }

    fn uid(&self, row: usize) -> Option<u32> {
        ask!(self, uid, numbers, C::Uid, row)
    }

    fn user(&self, row: usize) -> Option<&str> {
        self.text(C::User, row)
    }

    fn unit(&self, row: usize) -> Option<&str> {
        self.text(C::Unit, row)
    }

    fn container_id(&self, row: usize) -> Option<&str> {
        self.text(C::ContainerId, row)
    }

    fn container_name(&self, row: usize) -> Option<&str> {
        self.text(C::ContainerName, row)
    }

    fn container_image(&self, row: usize) -> Option<&str> {
        self.text(C::ContainerImage, row)
    }

    fn pod(&self, row: usize) -> Option<&str> {
        self.text(C::Pod, row)
    }

    fn pod_namespace(&self, row: usize) -> Option<&str> {
        self.text(C::PodNamespace, row)
    }

    fn code(&self, by: TopBy, row: usize) -> Option<usize> {
        let text = match by {
            TopBy::Remote => {
                let remotes = || parsed(&self.with(&[C::RemoteIp]), C::RemoteIp);
                return self.remote_ip.get_or_init(remotes).code(row);
            }
            TopBy::Process => C::Process,
            TopBy::HostName => C::RemoteName,
            TopBy::Country => C::RemoteCountry,
            TopBy::Container => C::ContainerId,
            TopBy::Pod => C::Pod,
            TopBy::Namespace => C::PodNamespace,
            TopBy::Image => C::ContainerImage,
            TopBy::Unit => C::Unit,
            TopBy::Error => C::Error,
            TopBy::Host => C::Host,
            _ => return None,
        };
        self.texts_of(text)?.key(row)
    }
}
