//! The compact form of a record.
//!
//! A record takes a row of fixed size; what only some records have (the end of a connection, IPv6
//! addresses, a path) lies in side tables, and what many share in dictionaries. What does not fit
//! (a value out of range, such as a hostile file may hold) is kept whole, so that every record
//! comes out as it went in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use jiff::Timestamp;

pub(super) use crate::query::filter::nanos;

use super::dictionary::{Endpoints, Moments, NONE, Place, Places, Processes, SAME, Strings, Use};
#[cfg(feature = "history")]
use super::history::{Fields, RemoteFields};
use crate::event::{
    Close, CloseReason, Connection, ConnectionId, Direction, Dropped, Endpoint, Evidence, Family,
    NameSource, Outcome, Process, Protocol, Remote, SocketType, State,
};

const LOCAL: u8 = 1;
const LOCAL_V6: u8 = 2;
const REMOTE: u8 = 4;
const REMOTE_V6: u8 = 8;
const PREEXISTING: u8 = 16;
/// Two bits: where the name is from, if there is one.
const NAME_SOURCE: u8 = 96;
const NAME_DNS_NETNS: u8 = 32;
const NAME_DNS_HOST: u8 = 64;
const NAME_HOSTS: u8 = 96;
const WHOLE: u8 = 128;

const NO_LATENCY: u32 = u32::MAX;
const NO_ERRNO: i16 = i16::MIN;
const NO_SYN: u8 = u8::MAX;
const NO_SRTT: u32 = u32::MAX;
const NO_RETRANSMITS: u32 = u32::MAX;
const NO_COUNT: u64 = u64::MAX;
const NO_DURATION: u64 = u64::MAX;

#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) start_ns: u64,
    /// Nanoseconds since 1970; the edge of the range where the time is beyond it.
    pub(super) time: i64,
    pub(super) id_tid: u32,
    pub(super) boot: u32,
    tid: u32,
    /// The IPv4 address, or the place of the IPv6 address in the table.
    local_ip: u32,
    remote_ip: u32,
    latency: u32,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
    close: u16,
    extra: u16,
    pub(super) host: u16,
    pub(super) thread: u16,
    pub(super) name: u16,
    pub(super) service: u16,
    pub(super) error: u16,
    pub(super) process: u16,
    pub(super) place: u16,
    /// When the name was resolved.
    moment: u16,
    actual: u16,
    errno: i16,
    pub(super) direction: Direction,
    pub(super) protocol: Protocol,
    socket_type: SocketType,
    family: Family,
    pub(super) state: State,
    pub(super) outcome: Outcome,
    evidence: Option<Evidence>,
    close_reason: Option<CloseReason>,
    syn: u8,
    flags: u8,
}

/// Fixed so that a change of the layout is a decision.
const _: () = assert!(size_of::<Row>() == 88);

#[derive(Debug, Clone, Copy)]
struct CloseRow {
    time: i64,
    duration_us: u64,
    bytes_sent: u64,
    bytes_received: u64,
    datagrams_sent: u64,
    retransmits: u32,
    srtt_us: u32,
}

#[derive(Debug)]
enum Extra {
    /// What an earlier version of the record had here is gone.
    Nothing,
    Path(Arc<str>),
    /// Reason (a string) and number of packets.
    Dropped(u16, u64),
    Whole(Box<Connection>),
}

impl Extra {
    fn bytes(&self) -> usize {
        match self {
            Extra::Nothing | Extra::Dropped(..) => 0,
            Extra::Path(path) => path.len() + 16,
            Extra::Whole(c) => whole_bytes(c),
        }
    }
}

fn whole_bytes(c: &Connection) -> usize {
    size_of::<Connection>()
        + c.path.as_ref().map_or(0, |path| path.len())
        + c.drop.as_ref().map_or(0, |drop| drop.reason.len())
        + c.error.as_ref().map_or(0, |error| error.len())
        + c.host.len()
        + 64
}

impl Row {
    pub(super) fn id(&self) -> ConnectionId {
        ConnectionId { start_ns: self.start_ns, tid: self.id_tid, boot: self.boot }
    }

    pub(super) fn has_remote(&self) -> bool {
        self.flags & REMOTE != 0
    }

    pub(super) fn has_local(&self) -> bool {
        self.flags & LOCAL != 0
    }

    fn name_source(&self) -> Option<NameSource> {
        (self.name != NONE).then_some(match self.flags & NAME_SOURCE {
            NAME_DNS_NETNS => NameSource::DnsNetns,
            NAME_DNS_HOST => NameSource::DnsHost,
            NAME_HOSTS => NameSource::Hosts,
            _ => NameSource::Dns,
        })
    }

    pub(super) fn errno(&self) -> Option<i32> {
        (self.errno != NO_ERRNO).then(|| self.errno.into())
    }

    pub(super) fn evidence(&self) -> Option<Evidence> {
        self.evidence
    }

    pub(super) fn preexisting(&self) -> bool {
        self.flags & PREEXISTING != 0
    }

    pub(super) fn is_attempt(&self) -> bool {
        !self.preexisting() && self.outcome != Outcome::Listening
    }

    pub(super) fn is_whole(&self) -> bool {
        self.flags & WHOLE != 0
    }

    pub(super) fn latency_us(&self) -> Option<u32> {
        (self.latency != NO_LATENCY).then_some(self.latency)
    }

    /// The local port for connections that came in, else the remote port.
    pub(super) fn port(&self) -> Option<u16> {
        match self.direction {
            Direction::Inbound => (self.flags & LOCAL != 0).then_some(self.local_port),
            Direction::Outbound => (self.flags & REMOTE != 0).then_some(self.remote_port),
        }
    }
}

/// The tables that rows point into.
#[derive(Debug, Default)]
pub(super) struct Tables {
    closes: Vec<CloseRow>,
    extras: Vec<Extra>,
    v6: Vec<[u8; 16]>,
    pub(super) strings: Strings,
    pub(super) processes: Processes,
    pub(super) places: Places,
    moments: Moments,
    actuals: Endpoints,
    extra_bytes: usize,
    has_whole: bool,
}

impl Tables {
    pub(super) fn bytes(&self) -> usize {
        self.closes.len() * size_of::<CloseRow>()
            + self.extras.len() * size_of::<Extra>()
            + self.v6.len() * 16
            + self.strings.bytes
            + self.processes.bytes
            + self.places.bytes
            + self.moments.bytes()
            + self.actuals.bytes()
            + self.extra_bytes
    }

    /// Whether any record ever was kept whole here.
    pub(super) fn has_whole(&self) -> bool {
        self.has_whole
    }

    pub(super) fn seal(&mut self) {
        self.processes.seal();
    }

    /// Writes a record as a row; `old` is the row that it replaces, whose places it takes over.
    pub(super) fn encode(&mut self, c: &Connection, seq: u64, old: Option<&Row>) -> Row {
        let mut fits = true;
        let mut or_whole = |id: Option<u16>| {
            fits &= id.is_some();
            id.unwrap_or(NONE)
        };
        let strings = &mut self.strings;
        let host = or_whole(strings.id(Use::Host, &c.host));
        let mut thread = NONE;
        let mut process = NONE;
        if let Some(p) = &c.process {
            process = or_whole(self.processes.id(&p.info));
            thread = match *p.thread == *p.info.comm {
                true => SAME,
                false => or_whole(strings.id(Use::Thread, &p.thread)),
            };
        }
        let (mut name, mut service, mut place, mut moment) = (NONE, NONE, NONE, NONE);
        if let Some(remote) = &c.remote {
            if let Some(text) = &remote.name {
                name = or_whole(strings.id(Use::Name, text));
            }
            if let Some(text) = &remote.service {
                service = or_whole(strings.id(Use::Service, text));
            }
            place = or_whole(self.places.id(remote));
            if let Some(time) = remote.name_time {
                let before = old.map_or(NONE, |old| old.moment);
                moment = or_whole(self.moments.id(nanos(time), before));
            }
        }
        let actual = or_whole(self.actuals.id(c.remote_actual));
        let error = match &c.error {
            Some(text) => or_whole(strings.id(Use::Error, text)),
            None => NONE,
        };
        let time = narrow(c.time, &mut fits);
        let latency = below(c.latency_us, NO_LATENCY, &mut fits);
        let syn = below(c.syn_retransmits, NO_SYN, &mut fits);
        let errno = match c.errno.map(i16::try_from) {
            None => NO_ERRNO,
            Some(Ok(n)) if n != NO_ERRNO => n,
            Some(_) => {
                fits = false;
                NO_ERRNO
            }
        };
        let mut flags = if c.preexisting { PREEXISTING } else { 0 };
        let source = c.remote.as_ref().and_then(|remote| remote.name_source);
        // One without the other has no place here.
        fits &= source.is_some() == (name != NONE);
        let resolved = c.remote.as_ref().and_then(|remote| remote.name_time);
        fits &= resolved.is_none_or(|time| !exceeds(time));
        fits &= c.remote_actual.is_none() || c.remote.is_some();
        flags |= match source {
            None | Some(NameSource::Dns) => 0,
            Some(NameSource::DnsNetns) => NAME_DNS_NETNS,
            Some(NameSource::DnsHost) => NAME_DNS_HOST,
            Some(NameSource::Hosts) => NAME_HOSTS,
        };
        let mut row = Row {
            seq,
            start_ns: c.id.start_ns,
            time,
            id_tid: c.id.tid,
            boot: c.id.boot,
            tid: c.process.as_ref().map_or(0, |p| p.tid),
            local_ip: old.map_or(0, |old| old.local_ip),
            remote_ip: old.map_or(0, |old| old.remote_ip),
            latency,
            local_port: c.local.map_or(0, |local| local.port),
            remote_port: c.remote.as_ref().map_or(0, |remote| remote.port),
            close: old.map_or(NONE, |old| old.close),
            extra: old.map_or(NONE, |old| old.extra),
            host,
            thread,
            name,
            service,
            error,
            process,
            place,
            moment,
            actual,
            errno,
            direction: c.direction,
            protocol: c.protocol,
            socket_type: c.socket_type,
            family: c.family,
            state: c.state,
            outcome: c.outcome,
            evidence: c.evidence,
            close_reason: c.close.map(|close| close.reason),
            syn,
            flags,
        };
        self.addresses(c, &mut row, old.map_or(0, |old| old.flags));
        if let Some(close) = &c.close {
            row.close = self.close(row.close, close, &mut fits);
        }
        fits &= c.path.is_none() || (c.family == Family::Unix && c.drop.is_none());
        let dropped = match &c.drop {
            Some(dropped) => {
                let reason = self.strings.id(Use::Reason, &dropped.reason);
                fits &= reason.is_some();
                reason.map(|reason| Extra::Dropped(reason, dropped.count))
            }
            None => None,
        };
        self.extra(c, &mut row, dropped, fits);
        row
    }

    fn addresses(&mut self, c: &Connection, row: &mut Row, old_flags: u8) {
        if let Some(local) = c.local {
            row.flags |= LOCAL;
            if self.address(local.ip, &mut row.local_ip, old_flags & LOCAL_V6 != 0) {
                row.flags |= LOCAL_V6;
            }
        }
        if let Some(remote) = &c.remote {
            row.flags |= REMOTE;
            if self.address(remote.ip, &mut row.remote_ip, old_flags & REMOTE_V6 != 0) {
                row.flags |= REMOTE_V6;
            }
        }
    }

    /// Writes an address to its place; whether it is IPv6. `had_v6`: the place leads to an entry
    /// of the table, which is used again.
    fn address(&mut self, ip: IpAddr, place: &mut u32, had_v6: bool) -> bool {
        match ip {
            IpAddr::V4(v4) => {
                *place = v4.to_bits();
                false
            }
            IpAddr::V6(v6) => {
                let known = had_v6.then(|| self.v6.get_mut(*place as usize)).flatten();
                if let Some(entry) = known {
                    *entry = v6.octets();
                } else {
                    *place = self.v6.len() as u32;
                    grow(&mut self.v6);
                    self.v6.push(v6.octets());
                }
                true
            }
        }
    }

    fn close(&mut self, place: u16, close: &Close, fits: &mut bool) -> u16 {
        let entry = CloseRow {
            time: narrow(close.time, fits),
            duration_us: below(close.duration_us, NO_DURATION, fits),
            bytes_sent: below(close.bytes_sent, NO_COUNT, fits),
            bytes_received: below(close.bytes_received, NO_COUNT, fits),
            datagrams_sent: below(close.datagrams_sent, NO_COUNT, fits),
            retransmits: below(close.retransmits, NO_RETRANSMITS, fits),
            srtt_us: below(close.srtt_us, NO_SRTT, fits),
        };
        if let Some(known) = self.closes.get_mut(usize::from(place)) {
            *known = entry;
            return place;
        }
        let place = self.closes.len() as u16;
        grow(&mut self.closes);
        self.closes.push(entry);
        place
    }

    fn extra(&mut self, c: &Connection, row: &mut Row, dropped: Option<Extra>, fits: bool) {
        let extra = match (&c.path, dropped, fits) {
            (None, None, true) if row.extra == NONE => return,
            (None, None, true) => Extra::Nothing,
            (None, Some(dropped), true) => dropped,
            (Some(path), _, true) => Extra::Path(Arc::clone(path)),
            (_, _, false) => {
                row.flags |= WHOLE;
                self.has_whole = true;
                Extra::Whole(Box::new(c.clone()))
            }
        };
        self.extra_bytes += extra.bytes();
        if let Some(known) = self.extras.get_mut(usize::from(row.extra)) {
            self.extra_bytes = self.extra_bytes.saturating_sub(known.bytes());
            *known = extra;
        } else {
            row.extra = self.extras.len() as u16;
            grow(&mut self.extras);
            self.extras.push(extra);
        }
    }

    /// The record that did not fit its row.
    pub(super) fn whole(&self, row: &Row) -> Option<&Connection> {
        match self.extras.get(usize::from(row.extra)) {
            Some(Extra::Whole(c)) if row.is_whole() => Some(c),
            _ => None,
        }
    }

    /// What is known of where the remote is.
    pub(super) fn place(&self, row: &Row) -> Option<&Place> {
        self.places.get(row.place)
    }

    /// Where address translation sends it.
    pub(super) fn actual(&self, row: &Row) -> Option<Endpoint> {
        self.actuals.get(row.actual)
    }

    /// The path of a UNIX socket.
    pub(super) fn path(&self, row: &Row) -> Option<&str> {
        match self.extras.get(usize::from(row.extra)) {
            Some(Extra::Path(path)) => Some(path),
            _ => None,
        }
    }

    pub(super) fn remote_ip(&self, row: &Row) -> Option<IpAddr> {
        row.has_remote().then(|| self.ip(row.remote_ip, row.flags & REMOTE_V6 != 0))
    }

    fn ip(&self, place: u32, is_v6: bool) -> IpAddr {
        match is_v6 {
            false => IpAddr::V4(Ipv4Addr::from_bits(place)),
            true => {
                let octets = self.v6.get(place as usize).copied().unwrap_or_default();
                IpAddr::V6(Ipv6Addr::from(octets))
            }
        }
    }

    /// The record as it went in; `None` if the row is of another segment.
    pub(super) fn decode(&self, row: &Row) -> Option<Connection> {
        if row.is_whole() {
            return self.whole(row).cloned();
        }
        let text = |id: u16| self.strings.get(id).cloned();
        let process = match self.processes.get(row.process) {
            None => None,
            Some(info) => {
                let thread = if row.thread == SAME { info.comm.clone() } else { text(row.thread)? };
                Some(Process { tid: row.tid, thread, info: Arc::clone(info) })
            }
        };
        let local = (row.flags & LOCAL != 0).then(|| Endpoint {
            ip: self.ip(row.local_ip, row.flags & LOCAL_V6 != 0),
            port: row.local_port,
        });
        let remote = self.remote_ip(row).map(|ip| Remote {
            name: text(row.name),
            name_source: row.name_source(),
            name_time: self.moments.get(row.moment).map(wide),
            service: text(row.service).map(|text| text.to_string().into()),
            country: self.place(row).and_then(|place| place.country.clone()),
            asn: self.place(row).and_then(|place| place.asn),
            as_name: self.place(row).and_then(|place| place.as_name.clone()),
            ..Remote::new(ip, row.remote_port)
        });
        let path = match self.extras.get(usize::from(row.extra)) {
            Some(Extra::Path(path)) => Some(Arc::clone(path)),
            _ => None,
        };
        let drop = self.dropped(row);
        let drop = drop.map(|(reason, count)| Dropped { reason: reason.to_owned(), count });
        Some(Connection {
            id: row.id(),
            host: text(row.host)?,
            time: wide(row.time),
            direction: row.direction,
            protocol: row.protocol,
            socket_type: row.socket_type,
            family: row.family,
            local,
            remote,
            remote_actual: self.actual(row),
            path,
            process,
            state: row.state,
            outcome: row.outcome,
            errno: row.errno(),
            error: text(row.error).map(|text| text.to_string().into()),
            evidence: row.evidence,
            latency_us: row.latency_us().map(u64::from),
            syn_retransmits: (row.syn != NO_SYN).then(|| row.syn.into()),
            drop,
            traffic: None,
            close: self.close_of(row),
            preexisting: row.preexisting(),
        })
    }

    /// The record as history writes it.
    #[cfg(feature = "history")]
    pub(super) fn fields<'a>(&'a self, row: &'a Row) -> Option<Fields<'a>> {
        if let Some(whole) = self.whole(row) {
            return Some(Fields::of(whole, row.seq));
        }
        let text = |id: u16| self.strings.get(id).map(|text| &**text);
        let process = match self.processes.get(row.process) {
            None => None,
            Some(info) if row.thread == SAME => Some((row.tid, &*info.comm, info)),
            Some(info) => Some((row.tid, text(row.thread)?, info)),
        };
        let local = (row.flags & LOCAL != 0).then(|| Endpoint {
            ip: self.ip(row.local_ip, row.flags & LOCAL_V6 != 0),
            port: row.local_port,
        });
        let remote = self.remote_ip(row).map(|ip| RemoteFields {
            ip,
            port: row.remote_port,
            name: text(row.name),
            name_source: row.name_source(),
            name_time: self.moments.get(row.moment),
            service: text(row.service),
            country: self.place(row).and_then(|place| place.country.as_deref()),
            asn: self.place(row).and_then(|place| place.asn),
            as_name: self.place(row).and_then(|place| place.as_name.as_deref()),
        });
        let path = match self.extras.get(usize::from(row.extra)) {
            Some(Extra::Path(path)) => Some(&**path),
            _ => None,
        };
        Some(Fields {
            version: row.seq,
            patch: false,
            id: row.id(),
            time: row.time,
            host: text(row.host)?,
            direction: row.direction,
            protocol: row.protocol,
            socket_type: row.socket_type,
            family: row.family,
            state: row.state,
            outcome: row.outcome,
            evidence: row.evidence,
            preexisting: row.preexisting(),
            local,
            remote,
            remote_actual: self.actual(row),
            path,
            process,
            errno: row.errno(),
            error: text(row.error),
            latency_us: row.latency_us().map(u64::from),
            syn_retransmits: (row.syn != NO_SYN).then(|| row.syn.into()),
            drop: self.dropped(row),
            close: self.close_of(row),
            whole: None,
        })
    }

    pub(super) fn dropped(&self, row: &Row) -> Option<(&str, u64)> {
        match self.extras.get(usize::from(row.extra)) {
            Some(Extra::Dropped(reason, count)) => Some((self.strings.get(*reason)?, *count)),
            _ => None,
        }
    }

    pub(super) fn close_of(&self, row: &Row) -> Option<Close> {
        self.closed(row.close, row.close_reason?)
    }

    fn closed(&self, place: u16, reason: CloseReason) -> Option<Close> {
        let count = |n: u64| (n != NO_COUNT).then_some(n);
        self.closes.get(usize::from(place)).map(|close| Close {
            time: wide(close.time),
            duration_us: (close.duration_us != NO_DURATION).then_some(close.duration_us),
            bytes_sent: count(close.bytes_sent),
            bytes_received: count(close.bytes_received),
            datagrams_sent: count(close.datagrams_sent),
            retransmits: (close.retransmits != NO_RETRANSMITS).then_some(close.retransmits),
            srtt_us: (close.srtt_us != NO_SRTT).then_some(close.srtt_us),
            reason,
        })
    }
}

/// Doubling would waste up to half of the table in every segment that fills up.
fn grow<T>(table: &mut Vec<T>) {
    if table.len() == table.capacity() {
        table.reserve_exact((table.len() / 8).clamp(16, 512));
    }
}

/// The value, or `none` (which no value may be); what does not fit clears `fits`.
fn below<T: Copy + PartialEq + TryFrom<F>, F>(value: Option<F>, none: T, fits: &mut bool) -> T {
    let Some(value) = value else { return none };
    match T::try_from(value) {
        Ok(n) if n != none => n,
        _ => {
            *fits = false;
            none
        }
    }
}

fn narrow(time: Timestamp, fits: &mut bool) -> i64 {
    *fits &= !exceeds(time);
    nanos(time)
}

/// Whether a time lies beyond what [`nanos`] can say, which only a hostile file holds.
pub(super) fn exceeds(time: Timestamp) -> bool {
    i128::from(nanos(time)) != time.as_nanosecond()
}

/// Back from [`nanos`]. Every value is in range.
pub(super) fn wide(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanos.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}
