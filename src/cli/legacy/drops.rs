//! The original's questions about dropped packets.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::super::args::Question;
use super::super::failure::Failure;
use super::super::filters::last;
use super::super::render::answers::Printer;
use super::super::render::drops::{incomplete, route};
use super::super::render::text::clean;
use super::super::render::units::{self, Clock};
use super::{LIST_DURATION, Whom, print};
use crate::event::DropRecord;
use crate::query::drops::{DropFilter, DropList};
use crate::query::{Page, Source};

fn filter(
    question: &Question,
    seconds: u32,
    until: Option<Timestamp>,
) -> Result<DropFilter, Failure> {
    Ok(DropFilter {
        process: question.names()?,
        pid: question.pid.filter(|pid| *pid > 0).into_iter().collect(),
        since: if until.is_some() { None } else { last(seconds) },
        until,
        ..DropFilter::default()
    })
}

/// Answers `get_packet_drop_summary`.
pub async fn summary(
    question: &Question,
    until: Option<Timestamp>,
    source: &dyn Source,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let filter = filter(question, question.seconds(), until)?;
    let page = Page { limit: Some(1), ..Page::default() };
    let list = source.drops(&filter, &page).await?;
    let text = summary_text(&question.whom()?, question.seconds(), &list, &printer.clock);
    print(printer, &text)
}

/// Answers `list_packet_drops`.
pub async fn list(
    question: &Question,
    until: Option<Timestamp>,
    source: &dyn Source,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let filter = filter(question, LIST_DURATION, until)?;
    let list = source.drops(&filter, &question.page()).await?;
    let text = list_text(&question.whom()?, &list, &printer.clock);
    print(printer, &text)
}

fn summary_text(whom: &Whom, seconds: u32, list: &DropList, clock: &Clock) -> String {
    let whom = match whom {
        Whom::Pid(pid) => format!("PID {pid}"),
        Whom::Process(name) => format!("process '{}'", clean(name)),
        Whom::All => "all processes".to_owned(),
    };
    let mut text = String::new();
    let n = list.packets;
    if n == 0 {
        let _ = writeln!(text, "No packet drops found for {whom} in the last {seconds} seconds");
    } else {
        let _ = writeln!(text, "{whom} had {n} packet drops over the last {seconds} seconds");
        let mut reasons: Vec<_> = list.by_reason.iter().collect();
        reasons.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let reasons: Vec<_> =
            reasons.iter().map(|(reason, n)| format!("{} {n}", clean(reason))).collect();
        let _ = writeln!(text, "  Reasons: {}", reasons.join(", "));
    }
    end(&mut text, list, clock);
    text
}

fn list_text(whom: &Whom, list: &DropList, clock: &Clock) -> String {
    let mut text = String::new();
    if list.drops.is_empty() {
        text.push_str("No packet drop events found");
        match whom {
            Whom::Pid(pid) => drop(write!(text, " for PID {pid}")),
            Whom::Process(name) => drop(write!(text, " for process '{}'", clean(name))),
            Whom::All => {}
        }
        text.push('\n');
    } else {
        let _ = writeln!(text, "Recent packet drop events ({} total):", list.total);
        for (number, drop) in list.drops.iter().enumerate() {
            let _ = writeln!(text, "{}. {}", number + 1, event_line(drop, clock));
        }
        let shown = u64::try_from(list.drops.len()).unwrap_or(u64::MAX);
        let more = list.total.saturating_sub(shown);
        if more > 0 {
            let _ = writeln!(text, "... and {more} more events");
        }
    }
    end(&mut text, list, clock);
    text
}

fn event_line(d: &DropRecord, clock: &Clock) -> String {
    let pid = d.process.as_ref().map_or(0, |p| p.pid);
    let command = d.process.as_ref().map_or("-".into(), |p| clean(&p.comm));
    let reason = clean(&d.reason);
    let mut line = format!("PID {pid} ({command}): packet dropped - {reason}");
    let _ = write!(line, " | {} | ×{}", clock.short(d.time), units::count(d.count));
    if let Some(protocol) = d.protocol {
        let _ = write!(line, " | {} | {}", protocol.as_str().to_uppercase(), route(d));
    }
    line
}

fn end(text: &mut String, list: &DropList, clock: &Clock) {
    if let Some(warning) = incomplete(list, clock) {
        let _ = writeln!(text, "  {warning}");
    }
}
