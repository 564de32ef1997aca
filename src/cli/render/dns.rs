//! Questions for names in every form of [`Output`].

use std::io;

use super::Output;
use super::answers::{Printer, more};
use super::csv::{self, known as show};
use super::listed::{self, Listed};
use super::record::address;
use super::screen::{BAD, DIM, GOOD, ODD};
use super::table::{Cell, Cut, Steps};
use super::text::clean;
use super::units::{self, Clock};
use crate::event::{DnsOutcome, DnsRecord};
use crate::query::dns::DnsList;

const TITLES: [&str; 7] = ["TIME", "PROCESS", "NAME", "TYPE", "OUTCOME", "TOOK", "ANSWER"];

/// What gives way on a narrow terminal.
const STEPS: Steps = &[
    (6, 30),
    (2, 40),
    (1, 16),
    (6, 18),
    (2, 28),
    (1, 10),
    (5, 0),
    (6, 10),
    (2, 20),
    (0, 8),
    (3, 0),
    (6, 0),
    (2, 12),
    (1, 6),
];

const CSV_TITLES: &str = "id,time,host,name,type,protocol,server_ip,server_port,local_ip,local_port,\
outcome,rcode,addresses,ttl_s,answered,latency_us,sent,connection,connections,pid,tid,comm,thread,\
exe,unit,uid,user";

impl Printer<'_> {
    /// A list of questions for names.
    pub fn dns(&mut self, list: &DnsList, output: Output) -> io::Result<()> {
        let records = &list.questions[..];
        let more = more(records.len(), list.total, list.next_cursor.as_deref());
        let listed = Listed {
            records,
            nothing: "No questions for names match.",
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

fn cells(q: &DnsRecord, clock: &Clock, fine: bool) -> Vec<Cell> {
    let time = if fine { clock.fine(q.time) } else { clock.short(q.time) };
    let mut process = Cell::plain("-");
    if let Some(p) = &q.process {
        let pid = format!("[{}]", p.pid);
        process = Cell::plain(format!("{}{pid}", clean(&p.comm))).cut(Cut::Before(pid.len()));
    }
    let colour = match q.outcome {
        DnsOutcome::Answered => GOOD,
        outcome if outcome.is_failure() => BAD,
        _ => ODD,
    };
    vec![
        Cell::new(time, DIM),
        process,
        Cell::plain(clean(&q.name)),
        Cell::plain(clean(&q.record_type)),
        Cell::new(q.outcome.as_str(), colour),
        Cell::plain(q.latency_us.map_or_else(|| "-".to_owned(), units::duration)),
        Cell::plain(answer(q)),
    ]
}

/// The addresses; without one, who was asked.
fn answer(q: &DnsRecord) -> String {
    match &q.addresses[..] {
        [] => format!("(by {})", address(q.server.ip, q.server.port)),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    }
}

fn csv(q: &DnsRecord) -> String {
    let process = q.process.as_ref();
    let joined = |items: Vec<String>| items.join(" ");
    csv::line([
        q.id.to_string(),
        csv::time(q.time),
        q.host.to_string(),
        q.name.to_string(),
        q.record_type.to_string(),
        q.protocol.to_string(),
        q.server.ip.to_string(),
        q.server.port.to_string(),
        q.local.ip.to_string(),
        q.local.port.to_string(),
        q.outcome.to_string(),
        show(q.rcode),
        joined(q.addresses.iter().map(ToString::to_string).collect()),
        show(q.ttl_s),
        q.answered.map(csv::time).unwrap_or_default(),
        show(q.latency_us),
        q.sent.to_string(),
        show(q.connection),
        joined(q.connections.iter().map(ToString::to_string).collect()),
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
fn incomplete(list: &DnsList, clock: &Clock) -> Option<String> {
    if let Some(why) = &list.not_seen {
        return Some(format!("Questions for names are not seen: {}.", clean(why)));
    }
    let a = &list.accounting;
    if a.complete {
        return None;
    }
    let counts = [
        (a.no_room, "questions found no room while they waited for an answer"),
        (a.messages_lost, "messages were lost or not understood"),
        (a.lost, "records lost on their way to the store"),
        (a.evicted, "older records have aged out"),
    ];
    Some(listed::incomplete(&counts, &a.gaps, clock))
}
