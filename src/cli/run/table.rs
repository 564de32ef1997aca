//! The report for people: what could not be reached comes first.

use std::io;

use super::ports;
use super::report::{Group, Latency, Report, is_reached};
use super::unresolved::Unresolved;
use crate::cli::render::answers::{Printer, incomplete};
use crate::cli::render::record::style;
use crate::cli::render::screen::{BAD, GOOD, ODD, PLAIN, TITLE};
use crate::cli::render::table::{self, Cell, Steps};
use crate::cli::render::text::clean;
use crate::cli::render::units::{self, Clock};
use crate::event::{Direction, Outcome};

/// What gives way on a narrow terminal.
const STEPS: Steps =
    &[(2, 40), (6, 10), (0, 15), (2, 21), (4, 12), (6, 0), (0, 8), (1, 0), (2, 15), (4, 0)];
const TITLES: [&str; 7] = ["PROCESS", "PROTO", "PLACE", "OUTCOME", "ERROR", "COUNT", "LATENCY"];

const NAME_TITLES: [&str; 5] = ["PROCESS", "NAME", "OUTCOME", "SERVER", "QUESTIONS"];
const NAME_STEPS: Steps = &[(1, 40), (0, 15), (3, 15), (1, 20), (0, 8), (3, 0)];
/// Lines of names; a scan of names is one thing, not a page.
const NAMES: usize = 20;

/// Which groups belong under which title, in the order in which they are shown.
type Part = (&'static str, fn(&Group) -> bool);
const PARTS: [Part; 7] = [
    ("Could not reach", |g| is_outbound(g) && g.is_unreached()),
    ("Reached", |g| is_outbound(g) && is_reached(g.key.outcome)),
    ("Sent; no answer is known", |g| is_outbound(g) && g.key.outcome == Outcome::Sent),
    ("Datagram sockets that are not known to have sent anything", |g| {
        is_outbound(g) && g.key.outcome == Outcome::Associated
    }),
    ("Given up before an outcome, or without one yet", |g| {
        is_outbound(g) && is_unknown(g) && !g.is_unreached()
    }),
    ("Accepted connections", |g| !is_outbound(g) && g.key.outcome != Outcome::Listening),
    ("Listened", |g| !is_outbound(g) && g.key.outcome == Outcome::Listening),
];

fn is_unknown(group: &Group) -> bool {
    let outcome = group.key.outcome;
    let is_known = matches!(outcome, Outcome::Sent | Outcome::Associated)
        || outcome.is_unsuccessful()
        || is_reached(outcome);
    !is_known
}

fn is_outbound(group: &Group) -> bool {
    group.key.direction == Direction::Outbound
}

/// The whole report.
pub fn write(printer: &mut Printer<'_>, command: &str, report: &Report) -> io::Result<()> {
    let ended = ended(report);
    let style = if report.exit.code == 0 { GOOD } else { BAD };
    let ended = printer.screen.paint(&ended, style);
    let took = units::duration(report.duration_us);
    let user = report.user.as_deref().map(|user| format!(" as {}", clean(user)));
    let command = printer.screen.paint(&clean(command), TITLE);
    writeln!(
        printer.out,
        "netspy: {command}{} {ended} after {took}; {}",
        user.unwrap_or_default(),
        totals(report)
    )?;
    unresolved(printer, &report.unresolved)?;
    for (title, belongs) in PARTS {
        let groups: Vec<_> = report.findings.groups.iter().filter(|g| belongs(g)).collect();
        if groups.is_empty() {
            continue;
        }
        let rows: Vec<_> = ports::gathered(&groups).iter().map(|group| cells(group)).collect();
        writeln!(printer.out, "\n{}", printer.screen.paint(title, TITLE))?;
        table::write(printer.out, &printer.screen, &TITLES, &rows, STEPS)?;
    }
    let mut remarks = Vec::new();
    if report.asked_first > 0 {
        let attempts = units::counted(report.asked_first, "attempt", "attempts");
        remarks.push(format!(
            "Left out: {attempts} of the C library to ask a cache of users or names that does not run \
             here, such as nscd, which it does without (--all shows them)"
        ));
    }
    self::remarks(report, &printer.clock, |text| remarks.push(text.to_owned()));
    for text in remarks {
        writeln!(printer.out, "{}", printer.screen.paint(&text, ODD))?;
    }
    Ok(())
}

/// Names without an address: nothing could be tried there.
fn unresolved(printer: &mut Printer<'_>, names: &[Unresolved]) -> io::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut rows: Vec<_> = names.iter().take(NAMES).map(name_cells).collect();
    if let Some(more) = names.len().checked_sub(NAMES).filter(|more| *more > 0) {
        let more = format!("and {more} more (--output json has all)");
        rows.push(["", &more, "", "", ""].map(Cell::plain).into());
    }
    writeln!(printer.out, "\n{}", printer.screen.paint("Could not resolve", TITLE))?;
    table::write(printer.out, &printer.screen, &NAME_TITLES, &rows, NAME_STEPS)
}

fn name_cells(name: &Unresolved) -> Vec<Cell> {
    vec![
        Cell::plain(process(name.process.as_deref(), name.processes)),
        Cell::plain(clean(&name.name)),
        Cell::new(name.outcome.as_str(), BAD),
        Cell::plain(name.server.as_str()),
        Cell::plain(units::count(name.questions)),
    ]
}

/// `curl ×3`
fn process(name: Option<&str>, processes: u64) -> String {
    let name = clean(name.unwrap_or("-"));
    match processes {
        0 | 1 => name.into_owned(),
        n => format!("{name} ×{}", units::count(n)),
    }
}

/// What a reader must know of the report itself.
pub fn remarks(report: &Report, clock: &Clock, mut say: impl FnMut(&str)) {
    if report.living > 0 {
        let living = units::counted(report.living, "process", "processes");
        say(&format!(
            "{living} that the command left behind: what they do from here on is not in this report \
             (--wait-descendants waits for them)"
        ));
    }
    if let Some(warning) = incomplete(&report.accounting, clock) {
        say(&warning);
    }
}

fn ended(report: &Report) -> String {
    match report.exit.signal {
        Some(signal) => format!("was ended by signal {signal}"),
        None => format!("ended with exit code {}", report.exit.code),
    }
}

fn totals(report: &Report) -> String {
    let summary = &report.findings;
    let connections = units::counted(summary.connections, "connection", "connections");
    let mut totals = match (summary.connections, summary.unsuccessful) {
        (0, _) => "no connections".to_owned(),
        (_, 0) => connections,
        (_, failed) => format!("{connections}, {} unsuccessful", units::count(failed)),
    };
    if !report.unresolved.is_empty() {
        let names = u64::try_from(report.unresolved.len()).unwrap_or(u64::MAX);
        let names = units::counted(names, "name", "names");
        totals.push_str(&format!(", {names} without an address"));
    }
    totals
}

fn cells(group: &Group) -> Vec<Cell> {
    let key = &group.key;
    let place = match &group.name {
        Some(name) => format!("{} ({})", clean(&key.place), clean(name)),
        None => clean(&key.place).into_owned(),
    };
    vec![
        Cell::plain(process(key.process.as_deref(), group.processes)),
        Cell::plain(key.protocol.as_str()),
        Cell::plain(place),
        Cell::new(key.outcome.as_str(), style(key.outcome)),
        Cell::new(cause(group), PLAIN),
        Cell::plain(units::count(group.count)),
        Cell::plain(group.latency.map(latency).unwrap_or_default()),
    ]
}

/// The error, what this host dropped, and whether it was there at other times.
fn cause(group: &Group) -> String {
    let mut causes: Vec<String> = group.key.error.iter().map(|e| clean(e).into_owned()).collect();
    if !matches!(group.key.outcome, Outcome::Established | Outcome::Refused) {
        let drops = group.drops.iter();
        causes.extend(drops.map(|(why, n)| format!("{} ×{}", clean(why), units::count(*n))));
    }
    if group.reached && group.key.outcome.is_unsuccessful() {
        causes.push("also reached".to_owned());
    }
    causes.join(", ")
}

fn latency(latency: Latency) -> String {
    let (median, max) = (units::duration(latency.median_us), units::duration(latency.max_us));
    if median == max { median } else { format!("{median}, at most {max}") }
}
