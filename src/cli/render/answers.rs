//! Lists, summaries, single records and status in every form of [`Output`].

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};

use jiff::Timestamp;

use super::analysis::watched;
use super::screen::{BAD, DIM, GOOD, ODD, Screen, TITLE};
use super::table;
use super::text::{self, clean};
use super::units::{self, Clock};
use super::{Output, csv, record, write_json};
use crate::accounting::{Accounting, Gap};
use crate::capture::report::{Feature, ProgramReport};
use crate::cli::failure::note;
use crate::event::Connection;
use crate::query::{Count, Details, List, Status, Summary};

/// A place for answers, and how they look there.
pub struct Printer<'a> {
    /// Where answers go.
    pub out: &'a mut dyn Write,
    /// What that is.
    pub screen: Screen,
    /// The reader's time zone.
    pub clock: Clock,
}

impl std::fmt::Debug for Printer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer").field("screen", &self.screen).finish_non_exhaustive()
    }
}

impl Printer<'_> {
    /// A list of records.
    pub fn list(&mut self, list: &List, output: Output) -> io::Result<()> {
        match output {
            Output::Table => self.list_table(list),
            Output::Json => write_json(self.out, list, true),
            Output::Jsonl => {
                list.connections.iter().try_for_each(|c| write_json(self.out, c, false))?;
                self.list_beside(list)
            }
            Output::Csv => {
                writeln!(self.out, "{}", record::CSV_TITLES)?;
                let mut lines = list.connections.iter().map(record::csv);
                lines.try_for_each(|line| writeln!(self.out, "{line}"))?;
                self.list_beside(list)
            }
        }
    }

    /// What a reader of single records must know of the answer.
    fn list_beside(&mut self, list: &List) -> io::Result<()> {
        let more = more(list.connections.len(), list.total, list.next_cursor.as_deref());
        beside(self.out, more.into_iter().chain(incomplete(&list.accounting, &self.clock)))
    }

    fn list_table(&mut self, list: &List) -> io::Result<()> {
        if list.connections.is_empty() {
            self.nothing(list.newest_outside_window)?;
        } else {
            let (clock, screen) = (&self.clock, &self.screen);
            let rows: Vec<_> =
                list.connections.iter().map(|c| record::cells(c, clock, screen)).collect();
            table::write(self.out, screen, &record::TITLES, &rows, record::STEPS)?;
            let shown = list.connections.len();
            if let Some(more) = more(shown, list.total, list.next_cursor.as_deref()) {
                writeln!(self.out, "{}", self.screen.paint(&more, DIM))?;
            }
        }
        self.incomplete(&list.accounting)
    }

    /// That nothing matches, and where there is something that does.
    pub(super) fn nothing(&mut self, newest: Option<Timestamp>) -> io::Result<()> {
        writeln!(self.out, "No connections match.")?;
        match newest {
            Some(time) => {
                let time = self.clock.full(time);
                writeln!(self.out, "The newest match outside the time asked for began {time}.")
            }
            None => Ok(()),
        }
    }

    /// How many records match.
    pub fn count(&mut self, count: &Count, output: Output) -> io::Result<()> {
        match output {
            Output::Table if count.total == 0 => self.nothing(count.newest_outside_window)?,
            Output::Table => {
                let (since, until) = (count.window.since, count.window.until);
                let (since, until) = (self.clock.short(since), self.clock.short(until));
                let total = units::counted(count.total, "connection", "connections");
                writeln!(self.out, "{total}, {since} to {until}")?;
            }
            Output::Json => return write_json(self.out, count, true),
            Output::Jsonl => return write_json(self.out, count, false),
            Output::Csv => return self.flat(count),
        }
        self.incomplete(&count.accounting)
    }

    /// One record.
    pub fn show(&mut self, connection: &Connection, output: Output) -> io::Result<()> {
        match output {
            Output::Table => record::write_full(self.out, &self.screen, &self.clock, connection),
            Output::Json => write_json(self.out, connection, true),
            Output::Jsonl => write_json(self.out, connection, false),
            Output::Csv => {
                writeln!(self.out, "{}\n{}", record::CSV_TITLES, record::csv(connection))
            }
        }
    }

    /// Totals.
    pub fn summary(&mut self, summary: &Summary, output: Output) -> io::Result<()> {
        match output {
            Output::Table => self.summary_table(summary),
            Output::Json => write_json(self.out, summary, true),
            Output::Jsonl => write_json(self.out, summary, false),
            Output::Csv => self.flat(summary),
        }
    }

    fn summary_table(&mut self, s: &Summary) -> io::Result<()> {
        let total = self.screen.paint(&units::count(s.total), TITLE);
        writeln!(
            self.out,
            "{total} {} of {} to {}",
            if s.total == 1 { "connection" } else { "connections" },
            units::counted(s.processes, "process", "processes"),
            units::counted(s.remotes, "remote address", "remote addresses"),
        )?;
        let (since, until) = (self.clock.short(s.window.since), self.clock.short(s.window.until));
        let watched = watched(&s.window, s.watched_seconds);
        let rate = s.rate_per_second;
        writeln!(self.out, "{since} to {until}, {rate:.2} attempts per second{watched}")?;
        if let (0, Some(time)) = (s.total, s.newest_outside_window) {
            let time = self.clock.full(time);
            writeln!(self.out, "The newest match outside that time began {time}.")?;
        }
        if s.total > 0 {
            writeln!(self.out)?;
        }
        let outcomes = s.by_outcome.iter().map(|(o, n)| (o.as_str(), *n, record::style(*o)));
        self.totals("OUTCOME", outcomes.collect())?;
        let protocols = s.by_protocol.iter().map(|(p, n)| (p.as_str(), *n, Default::default()));
        self.totals("PROTOCOL", protocols.collect())?;
        let directions = s.by_direction.iter().map(|(d, n)| (d.as_str(), *n, Default::default()));
        self.totals("DIRECTION", directions.collect())?;
        if let Some(h) = s.handshake {
            writeln!(
                self.out,
                "{} p50 {}, p95 {}, p99 {} ({} measured)",
                self.screen.paint("HANDSHAKE", TITLE),
                units::duration(h.p50_us),
                units::duration(h.p95_us),
                units::duration(h.p99_us),
                units::count(h.count),
            )?;
        }
        self.incomplete(&s.accounting)
    }

    /// Health, capabilities and books.
    pub fn status(&mut self, status: &Status, origin: &str, output: Output) -> io::Result<()> {
        match output {
            Output::Table => self.status_table(status, origin),
            Output::Json => write_json(self.out, status, true),
            Output::Jsonl => write_json(self.out, status, false),
            Output::Csv => self.flat(status),
        }
    }

    fn status_table(&mut self, s: &Status, origin: &str) -> io::Result<()> {
        let health = if s.health == "healthy" { GOOD } else { ODD };
        writeln!(
            self.out,
            "{} {}, version {}, up {}",
            clean(origin),
            self.screen.paint(&clean(&s.health), health),
            clean(&s.version),
            units::seconds(s.uptime_s),
        )?;
        let (bytes, limit) = (units::bytes(s.store.bytes), units::bytes(s.store.limit_bytes));
        let records = units::count(s.store.records);
        let kind = clean(&s.store.kind);
        self.labelled("Store", &format!("{kind}: {records} records, {bytes} of {limit}"))?;
        if let Some(history) = &s.store.history {
            let (bytes, limit) = (units::bytes(history.bytes), units::bytes(history.limit_bytes));
            let directory = clean(&history.directory);
            self.labelled("History", &format!("{directory}: {bytes} of {limit}"))?;
            self.remark(history.stopped.as_deref().unwrap_or_default())?;
        }
        self.books(&s.accounting)?;
        self.details(&s.details)?;
        if let Some(c) = s.containers.as_ref().filter(|c| c.asked + c.skipped > 0) {
            let [asked, named] = [c.asked, c.named].map(units::count);
            let [unknown, failed, skipped] = [c.unknown, c.failed, c.skipped].map(units::count);
            let names = format!(
                "{named} of {asked} containers; {unknown} unknown, {failed} failed, {skipped} not \
                 asked for"
            );
            self.labelled("Names", &names)?;
        }
        writeln!(self.out, "Backend   {}\n", clean(&s.backend))?;
        self.features(&s.features)
    }

    /// What is observed, by which hooks.
    pub fn features(&mut self, features: &BTreeMap<String, Feature>) -> io::Result<()> {
        let widest = features.keys().map(|name| text::width(&clean(name))).max().unwrap_or(0);
        let title = format!("{:<widest$}  OK   HOOK", "FEATURE");
        writeln!(self.out, "{}", self.screen.paint(&title, TITLE))?;
        for (name, feature) in features {
            let hook = clean(feature.hook.as_deref().unwrap_or("-"));
            self.verdict(&format!("{:<widest$}", clean(name)), feature.ok, &hook)?;
            self.remark(feature.note.as_deref().unwrap_or_default())?;
            for not in &feature.not_used {
                self.remark(&format!("not by {}: {}", not.hook, not.why))?;
            }
        }
        Ok(())
    }

    /// The programs that are loaded.
    pub fn programs(&mut self, programs: &[ProgramReport]) -> io::Result<()> {
        let widest = programs.iter().map(|p| p.name.len()).max().unwrap_or(0);
        let title = format!("{:<widest$}  VERIFIED  SECTION", "PROGRAM");
        writeln!(self.out, "\n{}", self.screen.paint(&title, TITLE))?;
        for program in programs {
            let verified = program.verified_insns.map_or_else(|| "-".into(), |n| n.to_string());
            writeln!(self.out, "{:<widest$}  {verified:>8}  {}", program.name, program.hook)?;
        }
        Ok(())
    }

    /// A line that says yes or no.
    pub fn verdict(&mut self, name: &str, ok: bool, found: &str) -> io::Result<()> {
        let (word, style) = if ok { ("yes", GOOD) } else { ("no ", BAD) };
        writeln!(self.out, "{name}  {}  {found}", self.screen.paint(word, style))
    }

    /// Says what would bring a feature: wrapped, never cut.
    fn remark(&mut self, text: &str) -> io::Result<()> {
        let room = self.screen.width.unwrap_or(100).saturating_sub(4).max(20);
        for line in text::wrap(&clean(text), room) {
            writeln!(self.out, "    {}", self.screen.paint(&line, DIM))?;
        }
        Ok(())
    }

    /// Any answer as JSON.
    pub fn json(&mut self, answer: &impl serde::Serialize, pretty: bool) -> io::Result<()> {
        write_json(self.out, answer, pretty)
    }

    fn books(&mut self, a: &Accounting) -> io::Result<()> {
        let n = units::count;
        let books = format!(
            "{} attempts = {} delivered + {} filtered + {} lost + {} pending",
            n(a.attempts),
            n(a.delivered),
            n(a.filtered),
            n(a.lost.total()),
            n(a.pending),
        );
        self.labelled("Books", &books)?;
        // Among the causes, where the books are incomplete.
        if a.evicted > 0 && a.complete {
            writeln!(self.out, "          {} records have aged out", n(a.evicted))?;
        }
        self.incomplete(a)
    }

    /// What records lack, if any do.
    fn details(&mut self, details: &Details) -> io::Result<()> {
        let parts = [
            (details.exec_lost, "starts of processes and programs were lost"),
            (details.address_unread, "addresses could not be read"),
            (details.dns_lost, "DNS messages were lost"),
            (details.nat.skipped, "connections were not asked about for address translation"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<_> =
            parts.map(|(count, what)| format!("{} {what}", units::count(*count))).collect();
        if parts.is_empty() {
            return Ok(());
        }
        self.labelled("", &format!("records may lack members: {}", parts.join(", ")))
    }

    /// What may be missing, unless nothing can be.
    pub(super) fn incomplete(&mut self, accounting: &Accounting) -> io::Result<()> {
        match incomplete(accounting, &self.clock) {
            Some(warning) => writeln!(self.out, "{}", self.screen.paint(&warning, ODD)),
            None => Ok(()),
        }
    }

    /// A document as `member,value` lines, nested members joined by dots.
    pub fn flat(&mut self, document: &impl serde::Serialize) -> io::Result<()> {
        writeln!(self.out, "name,value")?;
        let mut lines = Vec::new();
        flatten("", &serde_json::to_value(document)?, &mut lines);
        lines.into_iter().try_for_each(|line| writeln!(self.out, "{}", csv::line(line)))
    }
}

/// How many of a list are here, and where the rest begins.
pub(super) fn more(shown: usize, total: u64, cursor: Option<&str>) -> Option<String> {
    let total = units::count(total);
    Some(format!("{shown} of {total} shown; the next: --cursor {}", clean(cursor?)))
}

/// Says on standard error what the form of an answer, which is records alone, has no place for.
pub(super) fn beside(
    out: &mut dyn Write,
    words: impl IntoIterator<Item = String>,
) -> io::Result<()> {
    // On a terminal it stands below what it is about.
    out.flush()?;
    words.into_iter().for_each(|text| note(&text));
    Ok(())
}

/// Gaps that are named one by one.
const GAPS: usize = 3;

/// The sentence for books that say that something may be missing, with every cause.
pub fn incomplete(a: &Accounting, clock: &Clock) -> Option<String> {
    if a.complete {
        return None;
    }
    let mut causes = Vec::new();
    if a.lost.total() > 0 {
        let lost = counted(&[
            (a.lost.ring_full, "lost in a full ring buffer"),
            (a.lost.map_full, "lost in a full socket table"),
            (a.lost.slow_consumer, "lost by a slow reader"),
            (a.lost.undecodable, "undecodable"),
            (a.lost.capture_ended, "not shown before an earlier capture ended"),
        ]);
        let (delivered, attempts) = (units::count(a.delivered), units::count(a.attempts));
        let lost = lost.join(", ");
        causes.push(format!("{delivered} of {attempts} attempts were delivered ({lost})"));
    }
    causes.extend(counted(&[
        (a.evicted, "older records have aged out"),
        (a.updates_lost, "later changes lost"),
        (a.missed, "events skipped by the kernel"),
    ]));
    causes.extend(gaps(&a.gaps, clock));
    if causes.is_empty() {
        causes.push(match a.since == a.until {
            // The books of a window that ends before capture began are those of its first moment.
            true => format!("capture began at {}, after the time asked for", clock.short(a.since)),
            false => "the server names no cause".to_owned(),
        });
    }
    Some(format!("Incomplete: {}.", causes.join("; ")))
}

/// When capture was down, as causes.
pub fn gaps(gaps: &[Gap], clock: &Clock) -> Vec<String> {
    // The latest are the ones that a reader asks about.
    let unnamed = gaps.len().saturating_sub(GAPS);
    let named = gaps.iter().skip(unnamed).map(|gap| {
        let (since, until) = (clock.short(gap.since), clock.short(gap.until));
        format!("no capture from {since} to {until} ({})", clean(&gap.why))
    });
    let earlier = counted(&[(u64::try_from(unnamed).unwrap_or(u64::MAX), "earlier gaps")]);
    named.chain(earlier).collect()
}

/// The causes that occurred, with how often.
pub(super) fn counted(causes: &[(u64, &str)]) -> Vec<String> {
    let occurred = causes.iter().filter(|(n, _)| *n > 0);
    occurred.map(|(n, what)| format!("{} {what}", units::count(*n))).collect()
}

/// One line for each value; a list or an object in which there is nothing is one that is empty.
fn flatten(prefix: &str, value: &serde_json::Value, lines: &mut Vec<[String; 2]>) {
    use serde_json::Value;
    let name = |member: &dyn Display| {
        if prefix.is_empty() { member.to_string() } else { format!("{prefix}.{member}") }
    };
    let mut put = |value: String| lines.push([prefix.to_owned(), value]);
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.iter().for_each(|(member, value)| flatten(&name(member), value, lines));
        }
        Value::Array(values) if !values.is_empty() => {
            values.iter().enumerate().for_each(|(i, value)| flatten(&name(&i), value, lines));
        }
        Value::Null | Value::Object(_) | Value::Array(_) => put(String::new()),
        Value::String(text) => put(text.clone()),
        other => put(other.to_string()),
    }
}
