//! An analysis in every form of [`Output`]. Its text begins with the words of the original, where
//! scripts read them; what is new follows after ` | `, or on lines of its own.

use std::io;
use std::ops::RangeInclusive;

use anstyle::Style;
use jiff::Timestamp;
use serde::Serialize;

use super::answers::{Printer, beside, incomplete};
use super::csv;
use super::findings::subject;
use super::groups::{key, outcomes};
use super::screen::{BAD, ODD, PLAIN, Screen, TITLE};
use super::text::{clean, truncate_middle, width};
use super::{Output, units, write_json};
use crate::analysis::Finding;
use crate::cli::analyze::Analysis;
use crate::event::Protocol;
use crate::query::findings::Findings;
use crate::query::series::{Point, Series};
use crate::query::top::{Group, Top};
use crate::query::{Summary, Window};

/// What stands beside the graph of a line: its name, and its largest figure with its time.
const BESIDE_GRAPH: usize = 50;
/// Columns of a graph: fewer show nothing, more nobody reads.
const GRAPH: RangeInclusive<usize> = 16..=120;
/// Columns where a line may be as long as it is.
const USUAL: usize = 80;
/// Columns from which a part of a name is worth showing.
const NAME: usize = 12;

const CSV_TITLES: &str = "section,key,label,count,unsuccessful,first,last,detail";

/// Steps of time that the graph on this screen has room for.
pub fn steps(screen: &Screen) -> u64 {
    // A window that begins within a step reaches into one more at both ends.
    graph_width(screen).saturating_sub(2) as u64
}

fn graph_width(screen: &Screen) -> usize {
    let room = screen.width.unwrap_or(USUAL).saturating_sub(BESIDE_GRAPH);
    room.clamp(*GRAPH.start(), *GRAPH.end())
}

/// One line of the JSON lines: which part of the analysis it belongs to, and what it says.
#[derive(Serialize)]
struct Line<'a, T> {
    section: &'static str,
    #[serde(flatten)]
    item: &'a T,
}

impl Printer<'_> {
    /// Where attempts went, how they ended, and what stands out.
    pub fn analysis(&mut self, analysis: &Analysis, output: Output) -> io::Result<()> {
        match output {
            Output::Table => self.analysis_text(analysis),
            Output::Json => write_json(self.out, analysis, true),
            Output::Jsonl => self.analysis_lines(analysis),
            Output::Csv => self.analysis_csv(analysis),
        }
    }

    fn analysis_text(&mut self, a: &Analysis) -> io::Result<()> {
        if a.summary.total == 0 {
            writeln!(self.out, "No connection events found for analysis")?;
            if let Some(time) = a.summary.newest_outside_window {
                let time = self.clock.full(time);
                writeln!(self.out, "  The newest match outside the time asked for began {time}.")?;
            }
        } else {
            writeln!(self.out, "{}", self.screen.paint("Connection Analysis:", TITLE))?;
            self.destinations(a)?;
            let mut protocols: Vec<_> = a.summary.by_protocol.iter().collect();
            protocols.retain(|(_, n)| **n > 0);
            protocols.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
            let protocols: Vec<_> = protocols
                .iter()
                .map(|(name, n)| format!("{} ({n})", name.as_str().to_uppercase()))
                .collect();
            // One line, however long: scripts read it.
            writeln!(self.out, "  Protocols: {}", protocols.join(", "))?;
            self.items("Outcomes", &outcomes(&a.summary.by_outcome))?;
            if let Some(h) = a.summary.handshake {
                let (p50, p99) = (units::duration(h.p50_us), units::duration(h.p99_us));
                writeln!(self.out, "  Handshake: median {p50}, 99th percentile {p99}")?;
            }
            self.items("Top ports", &counted(&a.ports))?;
            self.items("Drop reasons", &attempts(&a.drop_reasons))?;
            self.over_time(&a.series, &a.summary)?;
            self.standing_out(&a.findings)?;
        }
        match incomplete(&a.summary.accounting, &self.clock) {
            Some(warning) => writeln!(self.out, "  {}", self.screen.paint(&warning, ODD)),
            None => Ok(()),
        }
    }

    fn destinations(&mut self, a: &Analysis) -> io::Result<()> {
        writeln!(self.out, "  Top destinations:")?;
        let mut lines: Vec<_> = a.destinations.groups.iter().map(destination).collect();
        let without = a.destinations.without;
        if without > 0 {
            // The original's words for what has no address.
            let unix = a.summary.by_protocol.get(&Protocol::Unix).copied().unwrap_or(0);
            let what = if unix == without { "UNIX sockets" } else { "without an address" };
            let at = lines.partition_point(|(_, count, _)| *count >= without);
            lines.insert(at, (":0".to_owned(), without, vec![what.to_owned()]));
        }
        lines.truncate(a.limit);
        for (address, count, more) in &lines {
            let mut line = format!("    {} ({count} connections)", clean(address));
            self.append(&mut line, more);
            writeln!(self.out, "{line}")?;
        }
        let Some(all) = a.destinations.distinct else {
            return writeln!(self.out, "    ... and more destinations than can be told apart");
        };
        let hidden = (all + u64::from(without > 0)).saturating_sub(lines.len() as u64);
        if hidden == 0 {
            return Ok(());
        }
        let more = units::counted(hidden, "more destination", "more destinations");
        writeln!(self.out, "    ... and {more}")
    }

    /// Appends what there is room for on the screen.
    fn append(&self, line: &mut String, parts: &[String]) {
        for part in parts {
            let room = self.screen.width.map(|all| all.saturating_sub(width(line) + 3));
            match room {
                Some(room) if width(part) > room && room < NAME => return,
                Some(room) => line.push_str(&format!(" | {}", truncate_middle(part, room, 0))),
                None => line.push_str(&format!(" | {part}")),
            }
        }
    }

    /// `  Label: item, item`, wrapped between items; nothing where there is none.
    fn items(&mut self, label: &str, items: &str) -> io::Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        let mut line = format!("  {label}:");
        for item in items.split_inclusive(", ").map(str::trim_end) {
            let room = self.screen.width.unwrap_or(usize::MAX);
            if width(&line) + 1 + width(item) > room {
                writeln!(self.out, "{line}")?;
                line = "   ".to_owned();
            }
            line.push(' ');
            line.push_str(item);
        }
        writeln!(self.out, "{line}")
    }

    fn over_time(&mut self, series: &Series, summary: &Summary) -> io::Result<()> {
        let (since, until) = (series.window.since, series.window.until);
        let (since, until) = (self.clock.short(since), self.clock.short(until));
        let room = graph_width(&self.screen);
        // A window of years has more steps than the longest usual step makes few of.
        let merged = series.points.len().div_ceil(room).max(1);
        let step_us = series.step_ms.saturating_mul(1_000).saturating_mul(merged as u64);
        let step = units::duration(step_us);
        let rate =
            per_time(summary.rate_per_second) + &watched(&summary.window, summary.watched_seconds);
        self.items("Over time", &format!("{since} to {until}, {rate}, steps of {step}"))?;
        let sums = |figure: fn(&Point) -> u64| -> Vec<(Timestamp, u64)> {
            let chunks = series.points.chunks(merged);
            let sum = |chunk: &[Point]| {
                let first = chunk.first()?;
                Some((first.time, chunk.iter().map(figure).fold(0, u64::saturating_add)))
            };
            chunks.filter_map(sum).collect()
        };
        let (all, failed) = (sums(|point| point.count), sums(|point| point.unsuccessful));
        let most = all.iter().map(|(_, n)| *n).max().unwrap_or(0);
        self.graph("attempts", &all, most, PLAIN)?;
        if failed.iter().any(|(_, n)| *n > 0) {
            self.graph("unsuccessful", &failed, most, BAD)?;
        }
        Ok(())
    }

    fn graph(
        &mut self,
        name: &str,
        points: &[(Timestamp, u64)],
        most: u64,
        style: Style,
    ) -> io::Result<()> {
        let graph: String = points.iter().map(|(_, n)| height(*n, most)).collect();
        let graph = self.screen.paint(&graph, style);
        // Of equally large ones the first.
        let largest = points.iter().rev().max_by_key(|(_, n)| *n);
        let largest = largest.map_or_else(String::new, |(time, n)| {
            format!("most {}, {}", units::count(*n), self.clock.short(*time))
        });
        writeln!(self.out, "    {name:<12} |{graph}| {largest}")
    }

    fn standing_out(&mut self, findings: &Findings) -> io::Result<()> {
        let shown = findings.findings.len() as u64;
        match findings.total {
            0 => writeln!(self.out, "  Findings: none")?,
            total if total > shown => writeln!(
                self.out,
                "  Findings: {}, of which {shown} are shown ('netspy findings' has all)",
                units::count(total)
            )?,
            total => writeln!(self.out, "  Findings: {}", units::count(total))?,
        }
        findings.findings.iter().try_for_each(|finding| self.finding(finding, 4))?;
        self.inexact(findings, 4)
    }

    fn analysis_lines(&mut self, a: &Analysis) -> io::Result<()> {
        self.line("summary", &a.summary)?;
        let groups = [
            ("destination", &a.destinations),
            ("port", &a.ports),
            ("drop_reason", &a.drop_reasons),
        ];
        for (section, top) in groups {
            top.groups.iter().try_for_each(|group| self.line(section, group))?;
        }
        a.series.points.iter().try_for_each(|point| self.line("step", point))?;
        a.findings.findings.iter().try_for_each(|finding| self.line("finding", finding))
    }

    fn line(&mut self, section: &'static str, item: &impl Serialize) -> io::Result<()> {
        write_json(self.out, &Line { section, item }, false)
    }

    fn analysis_csv(&mut self, a: &Analysis) -> io::Result<()> {
        writeln!(self.out, "{CSV_TITLES}")?;
        for (protocol, n) in a.summary.by_protocol.iter().filter(|(_, n)| **n > 0) {
            self.row(["protocol", protocol.as_str(), "", &n.to_string(), "", "", "", ""])?;
        }
        for (outcome, n) in a.summary.by_outcome.iter().filter(|(_, n)| **n > 0) {
            self.row(["outcome", outcome.as_str(), "", &n.to_string(), "", "", "", ""])?;
        }
        let groups = [
            ("destination", &a.destinations),
            ("port", &a.ports),
            ("drop_reason", &a.drop_reasons),
        ];
        for (section, top) in groups {
            for g in &top.groups {
                let label = g.label.as_deref().unwrap_or_default();
                let (count, failed) = (g.count.to_string(), g.unsuccessful.to_string());
                let (first, last) = (csv::time(g.first), csv::time(g.last));
                let outcomes = outcomes(&g.by_outcome);
                let key = key(&g.key);
                self.row([section, &key, label, &count, &failed, &first, &last, &outcomes])?;
            }
        }
        for p in &a.series.points {
            let (count, failed) = (p.count.to_string(), p.unsuccessful.to_string());
            let (time, outcomes) = (csv::time(p.time), outcomes(&p.by_outcome));
            self.row(["step", &time, "", &count, &failed, &time, "", &outcomes])?;
        }
        a.findings.findings.iter().try_for_each(|finding| self.finding_row(finding))?;
        beside(self.out, incomplete(&a.summary.accounting, &self.clock))
    }

    fn finding_row(&mut self, f: &Finding) -> io::Result<()> {
        let (kind, subject) = (f.kind.to_string(), subject(&f.subject));
        let (first, last) = (csv::time(f.evidence.first), csv::time(f.evidence.last));
        let records: Vec<_> = f.evidence.records.iter().map(ToString::to_string).collect();
        let detail = format!("{}: {}; records {}", f.severity, f.why, records.join(" "));
        self.row(["finding", &kind, &subject, "", "", &first, &last, &detail])
    }

    fn row(&mut self, fields: [&str; 8]) -> io::Result<()> {
        writeln!(self.out, "{}", csv::line(fields.map(str::to_owned)))
    }
}

/// Address, number, and what is new about a destination.
fn destination(group: &Group) -> (String, u64, Vec<String>) {
    let mut more = vec![outcomes(&group.by_outcome)];
    more.extend(group.label.as_deref().map(|name| clean(name).into_owned()));
    (key(&group.key), group.count, more)
}

/// `443 (12), 53 (3)`.
fn counted(top: &Top) -> String {
    let one =
        |group: &Group| format!("{} ({})", clean(&key(&group.key)), units::count(group.count));
    top.groups.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The same with what is counted, where one might think of something else: packets.
fn attempts(top: &Top) -> String {
    let one = |group: &Group| {
        let count = units::counted(group.count, "attempt", "attempts");
        format!("{} ({count})", clean(&key(&group.key)))
    };
    top.groups.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Of which part of the window a rate is, where that is not all of it.
pub(super) fn watched(window: &Window, watched: f64) -> String {
    let window = window.until.duration_since(window.since).as_secs_f64();
    if watched <= 0.0 || window - watched < 1.0 {
        return String::new();
    }
    format!(" in the {} that were watched", units::seconds(watched.round() as u64))
}

/// Attempts per second, or per as long a time as makes a figure that says something.
fn per_time(per_second: f64) -> String {
    let units = [(1.0, "second"), (60.0, "minute"), (3_600.0, "hour"), (86_400.0, "day")];
    let found = units.iter().find(|(seconds, _)| per_second * seconds >= 0.1);
    let (seconds, unit) = found.unwrap_or(&units[3]);
    format!("{:.2} attempts per {unit}", per_second * seconds)
}

/// As high as `n` is of `most`; what is not nothing is seen.
fn height(n: u64, most: u64) -> char {
    const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let eighths = (u128::from(n) * 8).div_ceil(u128::from(most.max(1)));
    HEIGHTS[usize::try_from(eighths).unwrap_or(8).min(8)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_says_of_which_time_it_is_where_that_is_not_the_window() {
        let since: Timestamp = "2026-01-31T09:00:00Z".parse().unwrap();
        let until: Timestamp = "2026-01-31T10:00:00Z".parse().unwrap();
        let of = |seconds| watched(&Window { since, until }, seconds);
        assert_eq!(of(77.4), " in the 1m17s that were watched");
        assert_eq!(of(3_600.0), "");
        assert_eq!(of(0.0), "", "a server that does not tell");
    }

    #[test]
    fn rates_are_per_a_time_in_which_something_happens() {
        assert_eq!(per_time(1_234.5), "1234.50 attempts per second");
        assert_eq!(per_time(0.06), "3.60 attempts per minute");
        assert_eq!(per_time(1.0 / 86_400.0), "1.00 attempts per day");
        assert_eq!(per_time(0.0), "0.00 attempts per day");
    }

    #[test]
    fn a_graph_is_as_high_as_its_figures_and_nothing_vanishes() {
        let graph: String = [0, 1, 500, 1_000, u64::MAX].map(|n| height(n, 1_000)).iter().collect();
        assert_eq!(graph, " ▁▄██");
        assert_eq!((height(0, 0), height(u64::MAX, u64::MAX)), (' ', '█'));
    }
}
