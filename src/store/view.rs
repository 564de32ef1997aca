//! One record as figures are computed from it, wherever it lies: no copy, and no more of it read
//! than was asked for.
//!
//! What counts records together is written once, over [`Store::for_each`].

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::Store;
use super::matcher::{Matcher, Selection};
use super::row::{Row, Tables, wide};
use crate::event::{
    Close, Connection, ConnectionId, Container, Direction, Evidence, Outcome, Process, Protocol,
    State,
};

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
}

impl<'a> View<'a> {
    pub(super) fn of_row(row: &'a Row, tables: &'a Tables) -> Self {
        match tables.whole(row) {
            None => View(Place::Row(row, tables)),
            Some(whole) => View(Place::Whole(row, whole)),
        }
    }

    fn row(self) -> &'a Row {
        match self.0 {
            Place::Row(row, _) | Place::Whole(row, _) => row,
        }
    }

    /// The id.
    pub fn id(self) -> ConnectionId {
        self.row().id()
    }

    /// Start of the attempt, in nanoseconds since 1970 (the nearest that there are).
    pub fn time_ns(self) -> i64 {
        self.row().time
    }

    /// Start of the attempt.
    pub fn time(self) -> Timestamp {
        wide(self.time_ns())
    }

    /// Who opened it.
    pub fn direction(self) -> Direction {
        self.row().direction
    }

    /// Protocol of the socket.
    pub fn protocol(self) -> Protocol {
        self.row().protocol
    }

    /// What it is doing.
    pub fn state(self) -> State {
        self.row().state
    }

    /// How the attempt ended.
    pub fn outcome(self) -> Outcome {
        self.row().outcome
    }

    /// Whether it existed before capture began.
    pub fn preexisting(self) -> bool {
        self.row().preexisting()
    }

    /// Whether the books count it: not what listens, nor what existed before.
    pub fn is_attempt(self) -> bool {
        self.row().is_attempt()
    }

    /// The other side's address.
    pub fn remote_ip(self) -> Option<IpAddr> {
        match self.0 {
            Place::Row(row, tables) => tables.remote_ip(row),
            Place::Whole(_, c) => c.remote.as_ref().map(|remote| remote.ip),
        }
    }

    /// The other side's port.
    pub fn remote_port(self) -> Option<u16> {
        let row = self.row();
        row.has_remote().then_some(row.remote_port)
    }

    /// This side's port.
    pub fn local_port(self) -> Option<u16> {
        let row = self.row();
        row.has_local().then_some(row.local_port)
    }

    /// The local port for connections that came in, else the remote port.
    pub fn port(self) -> Option<u16> {
        self.row().port()
    }

    /// The other side's host name.
    pub fn remote_name(self) -> Option<&'a str> {
        match self.0 {
            Place::Row(row, tables) => tables.strings.get(row.name).map(|name| &**name),
            Place::Whole(_, c) => c.remote.as_ref()?.name.as_deref(),
        }
    }

    /// From the attempt to its outcome, in microseconds.
    pub fn latency_us(self) -> Option<u64> {
        match self.0 {
            Place::Row(row, _) => row.latency_us().map(u64::from),
            Place::Whole(_, c) => c.latency_us,
        }
    }

    /// The host that it was seen on.
    pub fn host(self) -> &'a str {
        match self.0 {
            Place::Row(row, tables) => tables.strings.get(row.host).map_or("", |host| host),
            Place::Whole(_, c) => &c.host,
        }
    }

    /// Error number of the outcome.
    pub fn errno(self) -> Option<i32> {
        match self.0 {
            Place::Row(row, _) => row.errno(),
            Place::Whole(_, c) => c.errno,
        }
    }

    /// The symbol of the error number.
    pub fn error(self) -> Option<&'a str> {
        match self.0 {
            Place::Row(row, tables) => tables.strings.get(row.error).map(|error| &**error),
            Place::Whole(_, c) => c.error.as_deref(),
        }
    }

    /// Reason and number of its packets that the kernel dropped.
    pub fn dropped(self) -> Option<(&'a str, u64)> {
        match self.0 {
            Place::Row(row, tables) => tables.dropped(row),
            Place::Whole(_, c) => c.drop.as_ref().map(|drop| (drop.reason.as_str(), drop.count)),
        }
    }

    /// What told the outcome.
    pub fn evidence(self) -> Option<Evidence> {
        match self.0 {
            Place::Row(row, _) => row.evidence(),
            Place::Whole(_, c) => c.evidence,
        }
    }

    /// Its end, with what it carried.
    pub fn close(self) -> Option<Close> {
        match self.0 {
            Place::Row(row, tables) => tables.close_of(row),
            Place::Whole(_, c) => c.close,
        }
    }

    /// The process that made the attempt.
    pub fn process(self) -> Option<Who<'a>> {
        match self.0 {
            Place::Row(row, tables) => tables.processes.get(row.process).map(|info| Who(info)),
            Place::Whole(_, c) => c.process.as_ref().map(|process: &Process| Who(&process.info)),
        }
    }
}

/// The process of a [`View`].
#[derive(Debug, Clone, Copy)]
pub struct Who<'a>(&'a crate::event::ProcessInfo);

impl<'a> Who<'a> {
    /// Process id.
    pub fn pid(self) -> u32 {
        self.0.pid
    }

    /// When it started: with the pid, what tells processes apart.
    pub fn start_time(self) -> Option<Timestamp> {
        self.0.start_time
    }

    /// Its name.
    pub fn name(self) -> &'a str {
        &self.0.comm
    }

    /// Path of the executable.
    pub fn exe(self) -> Option<&'a str> {
        self.0.exe.as_deref()
    }

    /// User id.
    pub fn uid(self) -> u32 {
        self.0.uid
    }

    /// User name.
    pub fn user(self) -> Option<&'a str> {
        self.0.user.as_deref()
    }

    /// systemd unit.
    pub fn unit(self) -> Option<&'a str> {
        self.0.unit.as_deref()
    }

    fn container(self) -> Option<&'a Container> {
        self.0.container.as_ref().map(Arc::as_ref)
    }

    /// Id of the container that it runs in.
    pub fn container_id(self) -> Option<&'a str> {
        self.container().map(|container| container.id.as_str())
    }

    /// Name of the container, if the runtime told.
    pub fn container_name(self) -> Option<&'a str> {
        self.container().and_then(|container| container.name.as_deref())
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
        // Memory has all columns at hand.
        let _ = columns;
        for segment in self.segments() {
            let body = segment.read();
            let Some(matcher) = Matcher::new(selection, &body) else { continue };
            for row in body.rows.iter().filter(|row| matcher.matches(row)) {
                visit(View::of_row(row, &body.tables));
            }
        }
    }
}
