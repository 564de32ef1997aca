//! Dropped packets in every form of [`Output`].

use std::io;

use super::Output;
use super::answers::{Printer, more};
use super::csv::{self, known as show};
use super::listed::{self, Listed};
use super::record::address;
use super::screen::{BAD, DIM};
use super::table::{Cell, Cut, Steps};
use super::text::clean;
use super::units::{self, Clock};
use crate::event::{DropRecord, Endpoint};
use crate::query::drops::DropList;

const TITLES: [&str; 7] = ["TIME", "REASON", "PROTO", "SOURCE", "DESTINATION", "COUNT", "PROCESS"];

/// What gives way on a narrow terminal.
const STEPS: Steps = &[
    (3, 21),
    (4, 21),
    (6, 16),
    (1, 20),
    (6, 10),
    (2, 4),
    (3, 15),
    (4, 15),
    (1, 14),
    (0, 8),
    (3, 0),
    (6, 6),
    (2, 0),
    (1, 9),
    (6, 0),
];

const CSV_TITLES: &str = "id,time,last,host,reason,reason_code,protocol,ip_protocol,family,\
source_ip,source_port,destination_ip,destination_port,count,bytes,netns,no_room,connection,pid,\
tid,comm,thread,exe,unit,uid,user";

impl Printer<'_> {
    /// A list of drops.
    pub fn drops(&mut self, list: &DropList, output: Output) -> io::Result<()> {
        let records = &list.drops[..];
        let more = more(records.len(), list.total, list.next_cursor.as_deref());
        let listed = Listed {
            records,
            nothing: "No drops match.",
            newest_outside_window: list.newest_outside_window,
            more,
            incomplete: incomplete(list, &self.clock),
            titles: &TITLES,
            steps: STEPS,
            cells,
            csv_titles: CSV_TITLES,
            csv,
        };
        self.listed(list, listed, output)
    }
}

fn cells(d: &DropRecord, clock: &Clock, fine: bool) -> Vec<Cell> {
    let time = if fine { clock.fine(d.time) } else { clock.short(d.time) };
    let mut process = Cell::plain("-");
    if let Some(p) = &d.process {
        let pid = format!("[{}]", p.pid);
        process = Cell::plain(format!("{}{pid}", clean(&p.comm))).cut(Cut::Before(pid.len()));
    }
    vec![
        Cell::new(time, DIM),
        Cell::new(clean(&d.reason), BAD),
        Cell::plain(d.protocol.map_or("-", |p| p.as_str())),
        Cell::plain(end(d.source)),
        Cell::plain(end(d.destination)),
        Cell::plain(units::count(d.count)),
        process,
    ]
}

fn end(end: Option<Endpoint>) -> String {
    end.map_or_else(|| "-".to_owned(), |end| address(end.ip, end.port))
}

/// `10.0.0.1:80 -> 10.0.0.2:443`.
pub fn route(d: &DropRecord) -> String {
    format!("{} -> {}", end(d.source), end(d.destination))
}

fn csv(d: &DropRecord) -> String {
    let process = d.process.as_ref();
    csv::line([
        d.id.to_string(),
        csv::time(d.time),
        csv::time(d.last),
        d.host.to_string(),
        d.reason.to_string(),
        d.reason_code.to_string(),
        show(d.protocol),
        show(d.ip_protocol),
        show(d.family),
        show(d.source.map(|end| end.ip)),
        show(d.source.map(|end| end.port)),
        show(d.destination.map(|end| end.ip)),
        show(d.destination.map(|end| end.port)),
        d.count.to_string(),
        d.bytes.to_string(),
        show(d.netns),
        d.no_room.to_string(),
        show(d.connection),
        show(process.map(|p| p.pid)),
        show(process.map(|p| p.tid)),
        show(process.map(|p| &p.comm)),
        show(process.map(|p| &p.thread)),
        show(process.and_then(|p| p.exe.as_ref())),
        show(process.and_then(|p| p.unit.as_ref())),
        show(process.map(|p| p.uid)),
        show(process.and_then(|p| p.user.as_ref())),
    ])
}

/// The sentence for a list from which something may be missing, with every cause.
pub fn incomplete(list: &DropList, clock: &Clock) -> Option<String> {
    if let Some(why) = &list.not_seen {
        return Some(format!("Drops are not seen: {}.", clean(why)));
    }
    let a = &list.accounting;
    if a.complete {
        return None;
    }
    let counts = [
        (a.no_room, "packets are counted by reason alone, since there were too many flows"),
        (a.missed, "drops skipped by the kernel"),
        (a.lost, "packets lost on their way to the store"),
        (a.evicted, "older packets have aged out"),
    ];
    Some(listed::incomplete(&counts, &a.gaps, clock))
}
