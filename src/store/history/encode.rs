//! Records into columns.

mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, PrimitiveBuilder, StringBuilder};
use arrow_array::types::{
    ArrowPrimitiveType, Int32Type, TimestampNanosecondType, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;

use super::fields::{Fields, RemoteFields};
use super::schema::{Column, schema};
use crate::event::{
    Close, CloseReason, Connection, Direction, Evidence, Family, NameSource, Outcome, ProcessInfo,
    Protocol, Scope, SocketType, State,
};
use crate::query::filter::exe_base_name;
use crate::store::row::nanos;
use values::{Addresses, NULL, Processes, Shared, Words};

type Numbers<T> = PrimitiveBuilder<T>;

/// Names by which processes can be asked for.
#[derive(Debug, Default)]
pub(in crate::store) struct Names {
    /// With the number of rows of each.
    pub(in crate::store) processes: BTreeMap<Box<str>, u32>,
    /// Those of threads and executables, where they are not those of the processes.
    pub(in crate::store) others: BTreeSet<Box<str>>,
}

impl Names {
    pub(in crate::store) fn add(&mut self, more: Names) {
        for (name, rows) in more.processes {
            *self.processes.entry(name).or_default() += rows;
        }
        self.others.extend(more.others);
    }
}

/// Collects records as columns.
#[derive(Default)]
pub(in crate::store) struct Encoder {
    rows: usize,
    time: Numbers<TimestampNanosecondType>,
    start: Numbers<UInt64Type>,
    id_tid: Numbers<UInt32Type>,
    boot: Numbers<UInt32Type>,
    version: Numbers<UInt64Type>,
    patch: BooleanBuilder,
    host: Shared,
    direction: Words<Direction>,
    protocol: Words<Protocol>,
    socket_type: Words<SocketType>,
    family: Words<Family>,
    state: Words<State>,
    outcome: Words<Outcome>,
    evidence: Words<Evidence>,
    preexisting: BooleanBuilder,
    local_ip: Addresses,
    local_port: Numbers<UInt16Type>,
    remote_ip: Addresses,
    remote_port: Numbers<UInt16Type>,
    remote_name: Shared,
    name_source: Words<NameSource>,
    name_time: Numbers<TimestampNanosecondType>,
    service: Shared,
    remote_scope: Words<Scope>,
    remote_country: Shared,
    remote_asn: Numbers<UInt32Type>,
    remote_as_name: Shared,
    actual_ip: Addresses,
    actual_port: Numbers<UInt16Type>,
    path: Shared,
    processes: Processes,
    tid: Numbers<UInt32Type>,
    thread: Shared,
    /// By process: the key of its name among those of threads.
    same_threads: Vec<i32>,
    /// Names of threads that are not those of their processes.
    own_names: BTreeSet<Box<str>>,
    errno: Numbers<Int32Type>,
    error: Shared,
    latency: Numbers<UInt64Type>,
    syn_retransmits: Numbers<UInt32Type>,
    drop_reason: Shared,
    drop_count: Numbers<UInt64Type>,
    close_time: Numbers<TimestampNanosecondType>,
    duration: Numbers<UInt64Type>,
    bytes_sent: Numbers<UInt64Type>,
    bytes_received: Numbers<UInt64Type>,
    datagrams_sent: Numbers<UInt64Type>,
    retransmits: Numbers<UInt32Type>,
    srtt: Numbers<UInt32Type>,
    close_reason: Words<CloseReason>,
    whole: StringBuilder,
    wholes: usize,
}

impl Encoder {
    /// With room for so many records.
    pub(in crate::store) fn with_capacity(rows: usize) -> Self {
        fn numbers<T: ArrowPrimitiveType>(rows: usize) -> Numbers<T> {
            PrimitiveBuilder::with_capacity(rows)
        }
        let (flags, texts) = (BooleanBuilder::with_capacity, Shared::with_capacity);
        Encoder {
            time: numbers(rows),
            start: numbers(rows),
            id_tid: numbers(rows),
            boot: numbers(rows),
            version: numbers(rows),
            patch: flags(rows),
            host: texts(rows),
            direction: Words::with_capacity(rows),
            protocol: Words::with_capacity(rows),
            socket_type: Words::with_capacity(rows),
            family: Words::with_capacity(rows),
            state: Words::with_capacity(rows),
            outcome: Words::with_capacity(rows),
            evidence: Words::with_capacity(rows),
            preexisting: flags(rows),
            local_ip: Addresses::with_capacity(rows),
            local_port: numbers(rows),
            remote_ip: Addresses::with_capacity(rows),
            remote_port: numbers(rows),
            remote_name: texts(rows),
            name_source: Words::with_capacity(rows),
            name_time: numbers(rows),
            service: texts(rows),
            remote_scope: Words::with_capacity(rows),
            remote_country: texts(rows),
            remote_asn: numbers(rows),
            remote_as_name: texts(rows),
            actual_ip: Addresses::with_capacity(rows),
            actual_port: numbers(rows),
            path: texts(rows),
            processes: Processes::with_capacity(rows),
            tid: numbers(rows),
            thread: texts(rows),
            errno: numbers(rows),
            error: texts(rows),
            latency: numbers(rows),
            syn_retransmits: numbers(rows),
            drop_reason: texts(rows),
            drop_count: numbers(rows),
            close_time: numbers(rows),
            duration: numbers(rows),
            bytes_sent: numbers(rows),
            bytes_received: numbers(rows),
            datagrams_sent: numbers(rows),
            retransmits: numbers(rows),
            srtt: numbers(rows),
            close_reason: Words::with_capacity(rows),
            ..Encoder::default()
        }
    }

    pub(in crate::store) fn len(&self) -> usize {
        self.rows
    }

    /// Records that were written whole.
    pub(in crate::store) fn wholes(&self) -> usize {
        self.wholes
    }

    /// The names by which processes can be asked for.
    pub(in crate::store) fn names(&self) -> Names {
        let mut names = Names::default();
        let mut rows = vec![0; self.processes.list.len()];
        for number in &self.processes.rows {
            // Not for a row without a process.
            if let Some(rows) = rows.get_mut(*number as usize) {
                *rows += 1;
            }
        }
        for (info, rows) in self.processes.list.iter().zip(rows) {
            *names.processes.entry((*info.comm).into()).or_default() += rows;
            if let Some(base) = exe_base_name(info).filter(|base| **base != *info.comm) {
                names.others.insert(base.into());
            }
        }
        names.others.extend(self.own_names.iter().cloned());
        names
    }

    /// Adds a record. `decode` makes the record of it, for one that does not fit.
    pub(in crate::store) fn push(
        &mut self,
        f: &Fields<'_>,
        decode: impl FnOnce() -> Option<Connection>,
    ) {
        self.rows += 1;
        self.time.append_value(f.time);
        self.start.append_value(f.id.start_ns);
        self.id_tid.append_value(f.id.tid);
        self.boot.append_value(f.id.boot);
        self.version.append_value(f.version);
        self.patch.append_value(f.patch);
        self.host.push(Some(f.host));
        self.direction.push(Some(f.direction as usize));
        self.protocol.push(Some(f.protocol as usize));
        self.socket_type.push(Some(f.socket_type as usize));
        self.family.push(Some(f.family as usize));
        self.state.push(Some(f.state as usize));
        self.outcome.push(Some(f.outcome as usize));
        self.evidence.push(f.evidence.map(|e| e as usize));
        self.preexisting.append_value(f.preexisting);
        self.local_ip.push(f.local.map(|local| local.ip));
        self.local_port.append_option(f.local.map(|local| local.port));
        self.remote(f.remote);
        self.actual_ip.push(f.remote_actual.map(|actual| actual.ip));
        self.actual_port.append_option(f.remote_actual.map(|actual| actual.port));
        self.path.push(f.path);
        self.processes.push(f.process.map(|(.., info)| info));
        self.tid.append_option(f.process.map(|(tid, ..)| tid));
        self.thread(f.process.map(|(_, thread, info)| (thread, info)));
        self.errno.append_option(f.errno);
        self.error.push(f.error);
        self.latency.append_option(f.latency_us);
        self.syn_retransmits.append_option(f.syn_retransmits);
        self.drop_reason.push(f.drop.map(|(reason, _)| reason));
        self.drop_count.append_option(f.drop.map(|(_, count)| count));
        self.close(f.close);
        let made = if f.whole.is_none() && f.is_beyond() { decode() } else { None };
        let whole = f.whole.or(made.as_ref()).and_then(|c| serde_json::to_string(c).ok());
        self.wholes += usize::from(whole.is_some());
        self.whole.append_option(whole);
    }

    /// After the process of the row. Most threads have the name of their process, which needs no look-up.
    fn thread(&mut self, process: Option<(&str, &Arc<ProcessInfo>)>) {
        let Some((thread, info)) = process else { return self.thread.push(None) };
        let is_same = std::ptr::eq(thread, &*info.comm);
        let number = self.processes.rows.last().and_then(|number| usize::try_from(*number).ok());
        let known = number.filter(|_| is_same).and_then(|number| self.same_threads.get_mut(number));
        if let Some(key) = known.as_deref().copied().filter(|key| *key != NULL) {
            return self.thread.keys.push(key);
        }
        let key = self.thread.number(thread);
        self.thread.keys.push(key);
        if let Some(known) = known {
            *known = key;
        } else if let Some(number) = number.filter(|_| is_same) {
            self.same_threads.resize(number + 1, NULL);
            if let Some(known) = self.same_threads.get_mut(number) {
                *known = key;
            }
        }
        if !is_same && *thread != *info.comm && !self.own_names.contains(thread) {
            self.own_names.insert(thread.into());
        }
    }

    fn remote(&mut self, remote: Option<RemoteFields<'_>>) {
        self.remote_ip.push(remote.map(|r| r.ip));
        self.remote_port.append_option(remote.map(|r| r.port));
        self.remote_name.push(remote.and_then(|r| r.name));
        self.name_source.push(remote.and_then(|r| r.name_source).map(|s| s as usize));
        self.name_time.append_option(remote.and_then(|r| r.name_time));
        self.service.push(remote.and_then(|r| r.service));
        self.remote_scope.push(remote.map(|r| Scope::of(r.ip) as usize));
        self.remote_country.push(remote.and_then(|r| r.country));
        self.remote_asn.append_option(remote.and_then(|r| r.asn));
        self.remote_as_name.push(remote.and_then(|r| r.as_name));
    }

    fn close(&mut self, close: Option<Close>) {
        self.close_time.append_option(close.map(|c| nanos(c.time)));
        self.duration.append_option(close.and_then(|c| c.duration_us));
        self.bytes_sent.append_option(close.and_then(|c| c.bytes_sent));
        self.bytes_received.append_option(close.and_then(|c| c.bytes_received));
        self.datagrams_sent.append_option(close.and_then(|c| c.datagrams_sent));
        self.retransmits.append_option(close.and_then(|c| c.retransmits));
        self.srtt.append_option(close.and_then(|c| c.srtt_us));
        self.close_reason.push(close.map(|c| c.reason as usize));
    }

    /// The columns.
    pub(in crate::store) fn finish(self) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; Column::ALL.len()];
        let mut put = |column: Column, array: ArrayRef| {
            if let Some(place) = columns.get_mut(column as usize) {
                *place = Some(array);
            }
        };
        self.processes.columns(&mut put)?;
        let utc = |mut builder: Numbers<TimestampNanosecondType>| -> ArrayRef {
            Arc::new(builder.finish().with_timezone("UTC"))
        };
        fn array<T: ArrowPrimitiveType>(mut builder: Numbers<T>) -> ArrayRef {
            Arc::new(builder.finish())
        }
        let flags = |mut builder: BooleanBuilder| -> ArrayRef { Arc::new(builder.finish()) };
        put(Column::Time, utc(self.time));
        put(Column::StartNs, array(self.start));
        put(Column::IdTid, array(self.id_tid));
        put(Column::Boot, array(self.boot));
        put(Column::Version, array(self.version));
        put(Column::Patch, flags(self.patch));
        put(Column::Host, self.host.finish()?);
        put(Column::Direction, self.direction.finish()?);
        put(Column::Protocol, self.protocol.finish()?);
        put(Column::SocketType, self.socket_type.finish()?);
        put(Column::Family, self.family.finish()?);
        put(Column::State, self.state.finish()?);
        put(Column::Outcome, self.outcome.finish()?);
        put(Column::Evidence, self.evidence.finish()?);
        put(Column::Preexisting, flags(self.preexisting));
        put(Column::LocalIp, self.local_ip.finish()?);
        put(Column::LocalPort, array(self.local_port));
        put(Column::RemoteIp, self.remote_ip.finish()?);
        put(Column::RemotePort, array(self.remote_port));
        put(Column::RemoteName, self.remote_name.finish()?);
        put(Column::NameSource, self.name_source.finish()?);
        put(Column::Service, self.service.finish()?);
        put(Column::RemoteScope, self.remote_scope.finish()?);
        put(Column::RemoteCountry, self.remote_country.finish()?);
        put(Column::RemoteAsn, array(self.remote_asn));
        put(Column::RemoteAsName, self.remote_as_name.finish()?);
        put(Column::NameTime, utc(self.name_time));
        put(Column::ActualIp, self.actual_ip.finish()?);
        put(Column::ActualPort, array(self.actual_port));
        put(Column::Path, self.path.finish()?);
        put(Column::Tid, array(self.tid));
        put(Column::Thread, self.thread.finish()?);
        put(Column::Errno, array(self.errno));
        put(Column::Error, self.error.finish()?);
        put(Column::Latency, array(self.latency));
        put(Column::SynRetransmits, array(self.syn_retransmits));
        put(Column::DropReason, self.drop_reason.finish()?);
        put(Column::DropCount, array(self.drop_count));
        put(Column::CloseTime, utc(self.close_time));
        put(Column::Duration, array(self.duration));
        put(Column::BytesSent, array(self.bytes_sent));
        put(Column::BytesReceived, array(self.bytes_received));
        put(Column::DatagramsSent, array(self.datagrams_sent));
        put(Column::Retransmits, array(self.retransmits));
        put(Column::Srtt, array(self.srtt));
        put(Column::CloseReason, self.close_reason.finish()?);
        let mut whole = self.whole;
        put(Column::Whole, Arc::new(whole.finish()));
        let columns = columns.into_iter().flatten().collect();
        RecordBatch::try_new(schema(), columns)
    }
}
