//! Dropped packets in every form of [`Output`].

use std::io;

use super::answers::{Printer, beside, gaps};
use super::csv::{self, known as show};
use super::record::address;
use super::screen::{BAD, DIM, ODD};
use super::table::{self, Cell, Cut, Steps};
use super::text::clean;
use super::units::{self, Clock};
use super::{Output, write_json};
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
];

const CSV_TITLES: &str = "id,time,last,host,reason,reason_code,protocol,ip_protocol,family,\
source_ip,source_port,destination_ip,destination_port,count,bytes,netns,no_room,connection,pid,\
tid,comm,thread,exe,unit,uid,user";

impl Printer<'_> {
    /// A list of drops.
    pub fn drops(&mut self, list: &DropList, output: Output) -> io::Result<()> {
        match output {
            Output::Table => self.drops_table(list),
            Output::Json => write_json(self.out, list, true),
            Output::Jsonl => {
                list.drops.iter().try_for_each(|d| write_json(self.out, d, false))?;
                self.drops_beside(list)
            }
            Output::Csv => {
                writeln!(self.out, "{CSV_TITLES}")?;
                list.drops.iter().try_for_each(|d| writeln!(self.out, "{}", csv(d)))?;
                self.drops_beside(list)
            }
        }
    }

    /// What a reader of single records must know of the answer.
    fn drops_beside(&mut self, list: &DropList) -> io::Result<()> {
        beside(self.out, more(list).into_iter().chain(incomplete(list, &self.clock)))
    }

    fn drops_table(&mut self, list: &DropList) -> io::Result<()> {
        if list.drops.is_empty() {
            writeln!(self.out, "No drops match.")?;
            if let Some(time) = list.newest_outside_window {
                let time = self.clock.full(time);
                writeln!(self.out, "The newest match outside the time asked for was {time}.")?;
            }
        } else {
            let fine = self.screen.is_wide();
            let rows: Vec<_> = list.drops.iter().map(|d| cells(d, &self.clock, fine)).collect();
            table::write(self.out, &self.screen, &TITLES, &rows, STEPS)?;
            if let Some(more) = more(list) {
                writeln!(self.out, "{}", self.screen.paint(&more, DIM))?;
            }
        }
        match incomplete(list, &self.clock) {
            Some(warning) => writeln!(self.out, "{}", self.screen.paint(&warning, ODD)),
            None => Ok(()),
        }
    }
}

fn more(list: &DropList) -> Option<String> {
    super::answers::more(list.drops.len(), list.total, list.next_cursor.as_deref())
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
    let mut causes: Vec<String> = counts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{} {what}", units::count(*n)))
        .collect();
    causes.extend(gaps(&a.gaps, clock));
    if causes.is_empty() {
        causes.push("the server names no cause".to_owned());
    }
    Some(format!("Incomplete: {}.", causes.join("; ")))
}
