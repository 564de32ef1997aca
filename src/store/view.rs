//! One record as figures are computed from it, wherever it lies: no copy, and no more of it read
//! than was asked for.
//!
//! What counts records together is written once, over [`Store::for_each`].

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::Store;
use super::matcher::{Matcher, Selection};
use super::row::{Row, Tables, wide};
use super::segment::Segment;
use crate::event::{
    Close, Connection, ConnectionId, Direction, Evidence, Outcome, ProcessInfo, Protocol, State,
};
use crate::query::top::TopBy;

/// Which members of a [`View`] will be asked for. The others may be read as if there were none:
/// history lies in columns, and what is not needed is not read. Time, direction, protocol, state,
/// outcome, `preexisting` and the id can always be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Columns(u16);

impl Columns {
    /// Nothing but what can always be asked for.
    pub const NONE: Columns = Columns(0);
    /// [`View::remote_ip`].
    pub const REMOTE_IP: Columns = Columns(1);
    /// [`View::port`], [`View::remote_port`] and [`View::local_port`].
    pub const PORTS: Columns = Columns(2);
    /// [`View::remote_name`].
    pub const REMOTE_NAME: Columns = Columns(4);
    /// [`View::latency_us`].
    pub const LATENCY: Columns = Columns(8);
    /// [`Who::pid`] and [`Who::start_time`].
    pub const PID: Columns = Columns(16);
    /// [`Who::name`].
    pub const PROCESS_NAME: Columns = Columns(32);
    /// [`Who::exe`].
    pub const EXE: Columns = Columns(64);
    /// [`Who::uid`] and [`Who::user`].
    pub const USER: Columns = Columns(128);
    /// [`Who::unit`].
    pub const UNIT: Columns = Columns(256);
    /// [`Who::container_id`] and [`Who::container_name`].
    pub const CONTAINER: Columns = Columns(512);
    /// [`View::host`].
    pub const HOST: Columns = Columns(1024);
    /// [`View::errno`] and [`View::error`].
    pub const ERROR: Columns = Columns(2048);
    /// [`View::dropped`].
    pub const DROP: Columns = Columns(4096);
    /// [`View::close`].
    pub const CLOSE: Columns = Columns(8192);
    /// [`Who::pod`], [`Who::pod_namespace`] and [`Who::container_image`].
    pub const POD: Columns = Columns(16384);

    /// [`View::country`], [`View::asn`] and [`View::as_name`].
    pub const PLACE: Columns = Columns(16384);

    /// All that there are.
    pub const ALL: Columns = Columns(u16::MAX);

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Columns) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Columns {
    type Output = Columns;

    fn bitor(self, other: Columns) -> Columns {
        Columns(self.0 | other.0)
    }
}

/// One record, where it lies.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(Place<'a>);

#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Row(&'a Row, &'a Tables),
    /// A record that does not fit a row, with the time that it is found under.
    Whole(&'a Row, &'a Connection),
    #[cfg_attr(not(feature = "history"), allow(dead_code))]
    Column(&'a dyn Columnar, usize),
}

/// Records in columns: what each says by its number. None where it says nothing, or where the
/// column cannot be read.
pub(super) trait Columnar: std::fmt::Debug {
    fn id(&self, row: usize) -> Option<ConnectionId>;
    fn time(&self, row: usize) -> Option<i64>;
    fn direction(&self, row: usize) -> Option<Direction>;
    fn protocol(&self, row: usize) -> Option<Protocol>;
    fn state(&self, row: usize) -> Option<State>;
    fn outcome(&self, row: usize) -> Option<Outcome>;
    fn preexisting(&self, row: usize) -> Option<bool>;
    fn remote_ip(&self, row: usize) -> Option<IpAddr>;
    fn remote_port(&self, row: usize) -> Option<u16>;
    fn local_port(&self, row: usize) -> Option<u16>;
    fn remote_name(&self, row: usize) -> Option<&str>;
    fn country(&self, row: usize) -> Option<&str>;
    fn asn(&self, row: usize) -> Option<u32>;
    fn as_name(&self, row: usize) -> Option<&str>;
    fn latency_us(&self, row: usize) -> Option<u64>;
    fn host(&self, row: usize) -> Option<&str>;
    fn errno(&self, row: usize) -> Option<i32>;
    fn error(&self, row: usize) -> Option<&str>;
    fn evidence(&self, row: usize) -> Option<Evidence>;
    fn dropped(&self, row: usize) -> Option<(&str, u64)>;
    fn close(&self, row: usize) -> Option<Close>;
    fn has_process(&self, row: usize) -> bool;
    fn pid(&self, row: usize) -> Option<u32>;
    fn start_time(&self, row: usize) -> Option<i64>;
    fn process_name(&self, row: usize) -> Option<&str>;
    fn exe(&self, row: usize) -> Option<&str>;
    fn uid(&self, row: usize) -> Option<u32>;
    fn user(&self, row: usize) -> Option<&str>;
    fn unit(&self, row: usize) -> Option<&str>;
    fn container_id(&self, row: usize) -> Option<&str>;
    fn container_name(&self, row: usize) -> Option<&str>;
    fn container_image(&self, row: usize) -> Option<&str>;
    fn pod(&self, row: usize) -> Option<&str>;
    fn pod_namespace(&self, row: usize) -> Option<&str>;
    /// A number that rows of these columns have in common that belong to the same group, or none.
    fn code(&self, by: TopBy, row: usize) -> Option<usize>;
}

impl<'a> View<'a> {
    pub(super) fn of_row(row: &'a Row, tables: &'a Tables) -> Self {
        match tables.whole(row) {
            None => View(Place::Row(row, tables)),
            Some(whole) => View(Place::Whole(row, whole)),
        }
    }

    /// The `row`-th record of these columns.
    #[cfg_attr(not(feature = "history"), allow(dead_code))]
    pub(super) fn of_column(columns: &'a dyn Columnar, row: usize) -> Self {
        View(Place::Column(columns, row))
    }

    /// A number that is shared with what lies in the same part and belongs to the same group, or none.
    pub(super) fn code(self, by: TopBy) -> Option<usize> {
        match self.0 {
            Place::Row(..) | Place::Whole(..) => None,
            Place::Column(columns, row) => columns.code(by, row),
        }
    }

    /// The id.
    pub fn id(self) -> ConnectionId {
        const NONE: ConnectionId = ConnectionId { start_ns: 0, tid: 0, boot: 0 };
        match self.0 {
            Place::Row(row, _) | Place::Whole(row, _) => row.id(),
            Place::Column(columns, row) => columns.id(row).unwrap_or(NONE),
        }
    }

    /// Start of the attempt, in nanoseconds since 1970 (the nearest that there are).
    pub fn time_ns(self) -> i64 {
        match self.0 {
            Place::Row(row, _) | Place::Whole(row, _) => row.time,
            Place::Column(columns, row) => columns.time(row).unwrap_or(0),
        }
    }

    /// Start of the attempt.
    pub fn time(self) -> Timestamp {
        wide(self.time_ns())
    }

    /// Who opened it.
    pub fn direction(self) -> Direction {
        match self.0 {
            Place::Row(row, _) | Place::Whole(row, _) => row.direction,
            Place::Column(columns, row) => columns.direction(row).unwrap_or(Direction::Outbound),
        }
    }

    /// Protocol of the socket.
    pub fn protocol(self) -> Protocol {
        match self.0 {
            Place::Row(row, _) | Place::Whole(row, _) => row.protocol,
            Place::Column(columns, row) => columns.protocol(row).unwrap_or(Protocol::Raw),
        }
    }

    /// What it is doing.
    pub fn state(self) -> State {
        match self.0 {
            Place::Row(row, _) | Place::Whole(row, _) => row.state,
            Place::Column(columns, row) => columns.state(row).unwrap_or(State::Closed),
        }
    }

    /// How the attempt ended.
    pub fn outcome(self) -> Outcome {
        match self.0 {
            Place::Row(row, _) | Place::Whole(row, _) => row.outcome,
            Place::Column(columns, row) => columns.outcome(row).unwrap_or(Outcome::Failed),
        }
    }

    /// Whether it existed before capture began.
    pub fn preexisting(self) -> bool {
        match self.0 {
            Place::Row(row, _) | Place::Whole(row, _) => row.preexisting(),
            Place::Column(columns, row) => columns.preexisting(row).unwrap_or(false),
        }
    }

    /// Whether the books count it: not what listens, nor what existed before.
    pub fn is_attempt(self) -> bool {
        !self.preexisting() && self.outcome() != Outcome::Listening
    }

    /// The other side's address.
    pub fn remote_ip(self) -> Option<IpAddr> {
        match self.0 {
            Place::Row(row, tables) => tables.remote_ip(row),
            Place::Whole(_, c) => c.remote.as_ref().map(|remote| remote.ip),
            Place::Column(columns, row) => columns.remote_ip(row),
        }
    }

    /// The other side's port.
    pub fn remote_port(self) -> Option<u16> {
        match self.0 {
            Place::Row(row, _) | Place::Whole(row, _) => {
                row.has_remote().then_some(row.remote_port)
            }
            Place::Column(columns, row) => columns.remote_port(row),
        }
    }

    /// This side's port.
    pub fn local_port(self) -> Option<u16> {
        match self.0 {
            Place::Row(row, _) | Place::Whole(row, _) => row.has_local().then_some(row.local_port),
            Place::Column(columns, row) => columns.local_port(row),
        }
    }

    /// The local port for connections that came in, else the remote port.
    pub fn port(self) -> Option<u16> {
        match self.direction() {
            Direction::Inbound => self.local_port(),
            Direction::Outbound => self.remote_port(),
        }
    }

    /// The other side's host name.
    pub fn remote_name(self) -> Option<&'a str> {
        match self.0 {
            Place::Row(row, tables) => tables.strings.get(row.name).map(|name| &**name),
            Place::Whole(_, c) => c.remote.as_ref()?.name.as_deref(),
            Place::Column(columns, row) => columns.remote_name(row),
        }
    }

    /// Country of the other side.
    pub fn country(self) -> Option<&'a str> {
        match self.0 {
            Place::Row(row, tables) => tables.place(row)?.country.as_deref(),
            Place::Whole(_, c) => c.remote.as_ref()?.country.as_deref(),
            Place::Column(columns, row) => columns.country(row),
        }
    }

    /// Number of the network of the other side.
    pub fn asn(self) -> Option<u32> {
        match self.0 {
            Place::Row(row, tables) => tables.place(row)?.asn,
            Place::Whole(_, c) => c.remote.as_ref()?.asn,
            Place::Column(columns, row) => columns.asn(row),
        }
    }

    /// Who runs that network.
    pub fn as_name(self) -> Option<&'a str> {
        match self.0 {
            Place::Row(row, tables) => tables.place(row)?.as_name.as_deref(),
            Place::Whole(_, c) => c.remote.as_ref()?.as_name.as_deref(),
            Place::Column(columns, row) => columns.as_name(row),
        }
    }

    /// From the attempt to its outcome, in microseconds.
    pub fn latency_us(self) -> Option<u64> {
        match self.0 {
            Place::Row(row, _) => row.latency_us().map(u64::from),
            Place::Whole(_, c) => c.latency_us,
            Place::Column(columns, row) => columns.latency_us(row),
        }
    }

    /// The host that it was seen on.
    pub fn host(self) -> &'a str {
        match self.0 {
            Place::Row(row, tables) => tables.strings.get(row.host).map_or("", |host| host),
            Place::Whole(_, c) => &c.host,
            Place::Column(columns, row) => columns.host(row).unwrap_or_default(),
        }
    }

    /// Error number of the outcome.
    pub fn errno(self) -> Option<i32> {
        match self.0 {
            Place::Row(row, _) => row.errno(),
            Place::Whole(_, c) => c.errno,
            Place::Column(columns, row) => columns.errno(row),
        }
    }

    /// The symbol of the error number.
    pub fn error(self) -> Option<&'a str> {
        match self.0 {
            Place::Row(row, tables) => tables.strings.get(row.error).map(|error| &**error),
            Place::Whole(_, c) => c.error.as_deref(),
            Place::Column(columns, row) => columns.error(row),
        }
    }

    /// Reason and number of its packets that the kernel dropped.
    pub fn dropped(self) -> Option<(&'a str, u64)> {
        match self.0 {
            Place::Row(row, tables) => tables.dropped(row),
            Place::Whole(_, c) => c.drop.as_ref().map(|drop| (drop.reason.as_str(), drop.count)),
            Place::Column(columns, row) => columns.dropped(row),
        }
    }

    /// What told the outcome.
    pub fn evidence(self) -> Option<Evidence> {
        match self.0 {
            Place::Row(row, _) => row.evidence(),
            Place::Whole(_, c) => c.evidence,
            Place::Column(columns, row) => columns.evidence(row),
        }
    }

    /// Its end, with what it carried.
    pub fn close(self) -> Option<Close> {
        match self.0 {
            Place::Row(row, tables) => tables.close_of(row),
            Place::Whole(_, c) => c.close,
            Place::Column(columns, row) => columns.close(row),
        }
    }

    /// The process that made the attempt.
    pub fn process(self) -> Option<Who<'a>> {
        match self.0 {
            Place::Row(row, tables) => {
                tables.processes.get(row.process).map(|info| Who(Told::Info(info)))
            }
            Place::Whole(_, c) => c.process.as_ref().map(|p| Who(Told::Info(&p.info))),
            Place::Column(columns, row) => {
                columns.has_process(row).then_some(Who(Told::Column(columns, row)))
            }
        }
    }
}

/// The process of a [`View`].
#[derive(Debug, Clone, Copy)]
pub struct Who<'a>(Told<'a>);

#[derive(Debug, Clone, Copy)]
enum Told<'a> {
    Info(&'a ProcessInfo),
    Column(&'a dyn Columnar, usize),
}

impl<'a> Who<'a> {
    /// Process id.
    pub fn pid(self) -> u32 {
        match self.0 {
            Told::Info(info) => info.pid,
            Told::Column(columns, row) => columns.pid(row).unwrap_or(0),
        }
    }

    /// When it started: with the pid, what tells processes apart.
    pub fn start_time(self) -> Option<Timestamp> {
        match self.0 {
            Told::Info(info) => info.start_time,
            Told::Column(columns, row) => columns.start_time(row).map(wide),
        }
    }

    /// Its name.
    pub fn name(self) -> &'a str {
        match self.0 {
            Told::Info(info) => &info.comm,
            Told::Column(columns, row) => columns.process_name(row).unwrap_or_default(),
        }
    }

    /// Path of the executable.
    pub fn exe(self) -> Option<&'a str> {
        match self.0 {
            Told::Info(info) => info.exe.as_deref(),
            Told::Column(columns, row) => columns.exe(row),
        }
    }

    /// User id.
    pub fn uid(self) -> u32 {
        match self.0 {
            Told::Info(info) => info.uid,
            Told::Column(columns, row) => columns.uid(row).unwrap_or(0),
        }
    }

    /// User name.
    pub fn user(self) -> Option<&'a str> {
        match self.0 {
            Told::Info(info) => info.user.as_deref(),
            Told::Column(columns, row) => columns.user(row),
        }
    }

    /// systemd unit.
    pub fn unit(self) -> Option<&'a str> {
        match self.0 {
            Told::Info(info) => info.unit.as_deref(),
            Told::Column(columns, row) => columns.unit(row),
        }
    }

    /// Id of the container that it runs in.
    pub fn container_id(self) -> Option<&'a str> {
        match self.0 {
            Told::Info(info) => info.container.as_deref().map(|container| container.id.as_str()),
            Told::Column(columns, row) => columns.container_id(row),
        }
    }

    /// Name of the container, if the runtime told.
    pub fn container_name(self) -> Option<&'a str> {
        match self.0 {
            Told::Info(info) => info.container.as_deref()?.name.as_deref(),
            Told::Column(columns, row) => columns.container_name(row),
        }
    }

    /// Image of the container, if the runtime told.
    pub fn container_image(self) -> Option<&'a str> {
        match self.0 {
            Told::Info(info) => info.container.as_deref()?.image.as_deref(),
            Told::Column(columns, row) => columns.container_image(row),
        }
    }

    /// Kubernetes pod.
    pub fn pod(self) -> Option<&'a str> {
        match self.0 {
            Told::Info(info) => info.container.as_deref()?.pod.as_deref(),
            Told::Column(columns, row) => columns.pod(row),
        }
    }

    /// Kubernetes namespace.
    pub fn pod_namespace(self) -> Option<&'a str> {
        match self.0 {
            Told::Info(info) => info.container.as_deref()?.namespace.as_deref(),
            Told::Column(columns, row) => columns.pod_namespace(row),
        }
    }
}

impl Store {
    /// Shows each record that matches, in no order, once, in its newest version. Of history only
    /// the `columns` named are read.
    ///
    /// While a record is shown, no other can come in beside it: `visit` must be quick.
    pub fn for_each(
        &self,
        selection: &Selection,
        columns: Columns,
        visit: &mut dyn FnMut(View<'_>),
    ) {
        self.for_each_by_part(selection, columns, &Cell::new(0), visit);
    }

    /// The same, which says the number of the part of history that is being shown, or 0.
    pub(super) fn for_each_by_part(
        &self,
        selection: &Selection,
        columns: Columns,
        number: &Cell<usize>,
        visit: &mut dyn FnMut(View<'_>),
    ) {
        let memory = self.memory();
        for_each_in_memory(&memory, selection, visit);
        for (part, place) in self.parts(&memory).iter().zip(1..) {
            number.set(place);
            part.visit(&part.matching(selection), columns, visit);
        }
    }
}

/// Shows each record of memory that matches.
pub(super) fn for_each_in_memory(
    memory: &[Arc<Segment>],
    selection: &Selection,
    visit: &mut dyn FnMut(View<'_>),
) {
    // The newest first: a record may be carried on meanwhile.
    for segment in memory.iter().rev() {
        let body = segment.read();
        let Some(matcher) = Matcher::new(selection, &body) else { continue };
        for row in body.rows.iter().filter(|row| matcher.matches(row)) {
            visit(View::of_row(row, &body.tables));
        }
    }
}
