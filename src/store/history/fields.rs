//! A record as it is written.

use std::net::IpAddr;
use std::sync::Arc;

use crate::event::{
    Close, Connection, ConnectionId, Direction, Endpoint, Evidence, Family, NameSource, Outcome,
    ProcessInfo, Protocol, SocketType, State,
};
use crate::store::row::{exceeds, nanos};

/// A record as it is written, with nothing copied.
pub(in crate::store) struct Fields<'a> {
    pub(in crate::store) version: u64,
    pub(in crate::store) patch: bool,
    pub(in crate::store) id: ConnectionId,
    pub(in crate::store) time: i64,
    pub(in crate::store) host: &'a str,
    pub(in crate::store) direction: Direction,
    pub(in crate::store) protocol: Protocol,
    pub(in crate::store) socket_type: SocketType,
    pub(in crate::store) family: Family,
    pub(in crate::store) state: State,
    pub(in crate::store) outcome: Outcome,
    pub(in crate::store) evidence: Option<Evidence>,
    pub(in crate::store) preexisting: bool,
    pub(in crate::store) local: Option<Endpoint>,
    pub(in crate::store) remote: Option<RemoteFields<'a>>,
    pub(in crate::store) remote_actual: Option<Endpoint>,
    pub(in crate::store) path: Option<&'a str>,
    /// Thread id, thread name, process.
    pub(in crate::store) process: Option<(u32, &'a str, &'a Arc<ProcessInfo>)>,
    pub(in crate::store) errno: Option<i32>,
    pub(in crate::store) error: Option<&'a str>,
    pub(in crate::store) latency_us: Option<u64>,
    pub(in crate::store) syn_retransmits: Option<u32>,
    pub(in crate::store) drop: Option<(&'a str, u64)>,
    pub(in crate::store) close: Option<Close>,
    /// The record itself, where it may not fit the columns.
    pub(in crate::store) whole: Option<&'a Connection>,
}

#[derive(Clone, Copy)]
pub(in crate::store) struct RemoteFields<'a> {
    pub(in crate::store) ip: IpAddr,
    pub(in crate::store) port: u16,
    pub(in crate::store) name: Option<&'a str>,
    pub(in crate::store) name_source: Option<NameSource>,
    pub(in crate::store) name_time: Option<i64>,
    pub(in crate::store) service: Option<&'a str>,
    pub(in crate::store) country: Option<&'a str>,
    pub(in crate::store) asn: Option<u32>,
    pub(in crate::store) as_name: Option<&'a str>,
}

impl<'a> Fields<'a> {
    pub(in crate::store) fn of(c: &'a Connection, version: u64) -> Self {
        let resolved = c.remote.as_ref().and_then(|remote| remote.name_time);
        Fields {
            version,
            patch: false,
            id: c.id,
            time: nanos(c.time),
            host: &c.host,
            direction: c.direction,
            protocol: c.protocol,
            socket_type: c.socket_type,
            family: c.family,
            state: c.state,
            outcome: c.outcome,
            evidence: c.evidence,
            preexisting: c.preexisting,
            local: c.local,
            remote: c.remote.as_ref().map(|remote| RemoteFields {
                ip: remote.ip,
                port: remote.port,
                name: remote.name.as_deref(),
                name_source: remote.name_source,
                name_time: remote.name_time.map(nanos),
                service: remote.service.as_deref(),
                country: remote.country.as_deref(),
                asn: remote.asn,
                as_name: remote.as_name.as_deref(),
            }),
            remote_actual: c.remote_actual,
            path: c.path.as_deref(),
            process: c.process.as_ref().map(|p| (p.tid, &*p.thread, &p.info)),
            errno: c.errno,
            error: c.error.as_deref(),
            latency_us: c.latency_us,
            syn_retransmits: c.syn_retransmits,
            drop: c.drop.as_ref().map(|drop| (drop.reason.as_str(), drop.count)),
            close: c.close,
            whole: (exceeds(c.time) || resolved.is_some_and(exceeds)).then_some(c),
        }
    }

    /// Whether a time lies beyond what a column can say, which only a hostile file holds.
    pub(super) fn is_beyond(&self) -> bool {
        let start = self.process.and_then(|(.., info)| info.start_time);
        self.close.is_some_and(|close| exceeds(close.time)) || start.is_some_and(exceeds)
    }
}
