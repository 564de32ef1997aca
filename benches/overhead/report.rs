//! What the rounds say: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use serde::Serialize;

use crate::load::{Kind, Outcome, Rate, median};
use crate::roles::{Cost, Tracer};
use crate::rounds::{Cell, Measured};

#[derive(Debug, Serialize)]
pub struct Report {
    environment: Environment,
    rounds: usize,
    /// Tracers in the order of the columns.
    tracers: Vec<Tracer>,
    rows: Vec<Row>,
    costs: BTreeMap<Tracer, Totals>,
    skipped: BTreeMap<Tracer, String>,
}

#[derive(Debug, Serialize)]
struct Environment {
    kernel: String,
    cpu: String,
    cpus: usize,
    /// Load average at the end: the load itself is 1, and what is above it disturbed the figures.
    load_average: String,
}

/// One kind of call at one rate. All times are nanoseconds per call.
#[derive(Debug, Serialize)]
struct Row {
    call: &'static str,
    rate: String,
    /// Without a tracer: the median of the rounds.
    base: f64,
    added: BTreeMap<Tracer, Added>,
}

/// What a tracer adds to the base of the same round.
#[derive(Debug, Serialize)]
struct Added {
    median: f64,
    min: f64,
    max: f64,
}

/// A tracer's own cost, over all rounds.
#[derive(Debug, Serialize)]
struct Totals {
    /// connect() calls that the load made meanwhile.
    connects: u64,
    events: u64,
    cpu_s: f64,
    cpu_s_per_million_connects: f64,
    start_cpu_s: f64,
    peak_rss_kib: u64,
    peak_rss_without_ring_kib: u64,
    /// The last round's, with the books of tracers that keep some.
    last: Cost,
}

impl Report {
    pub fn new(tracers: &[Tracer], cells: &[Cell], measured: &Measured) -> Self {
        let tracers: Vec<_> =
            tracers.iter().copied().filter(|t| !measured.skipped.contains_key(t)).collect();
        let mut rows = Vec::new();
        for (index, cell) in cells.iter().enumerate() {
            let call = |outcome: &Outcome| Some(outcome.call_ns);
            rows.extend(row(measured, &tracers, index, (name(cell.kind), cell.rate), call));
            if let Some(name) = name_with_close(cell.kind) {
                let both = |outcome: &Outcome| outcome.with_close_ns;
                rows.extend(row(measured, &tracers, index, (name, cell.rate), both));
            }
        }
        let costs = tracers.iter().filter_map(|t| Some((*t, totals(measured, cells, *t)?)));
        Report {
            environment: Environment::now(),
            rounds: measured.rounds.len(),
            rows,
            costs: costs.collect(),
            tracers,
            skipped: measured.skipped.clone(),
        }
    }

    pub fn markdown(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        let Environment { kernel, cpu, cpus, load_average } = &self.environment;
        writeln!(out, "Linux {kernel}, {cpus} x {cpu}, load average {load_average}.")?;
        writeln!(
            out,
            "Nanoseconds per call, and what each tracer adds: median of {} alternating rounds \
             (smallest .. largest).\n",
            self.rounds
        )?;
        write!(out, "| call | calls per second | no tracer |")?;
        self.tracers.iter().try_for_each(|t| write!(out, " {t} |"))?;
        writeln!(out, "\n|---|---:|---:|{}", "---:|".repeat(self.tracers.len()))?;
        for Row { call, rate, base, added } in &self.rows {
            write!(out, "| {call} | {rate} | {base:.0} |")?;
            for Added { median, min, max } in self.tracers.iter().filter_map(|t| added.get(t)) {
                write!(out, " {median:+.0} ({min:+.0} .. {max:+.0}) |")?;
            }
            writeln!(out)?;
        }
        writeln!(
            out,
            "\n| tracer | connects | records read | CPU s per million connects | CPU s to start \
             | peak RSS MiB | without ring |\n|---|---:|---:|---:|---:|---:|---:|"
        )?;
        for (tracer, t) in &self.costs {
            writeln!(
                out,
                "| {tracer} | {} | {} | {:.2} | {:.2} | {:.1} | {:.1} |",
                t.connects,
                t.events,
                t.cpu_s_per_million_connects,
                t.start_cpu_s,
                t.peak_rss_kib as f64 / 1024.0,
                t.peak_rss_without_ring_kib as f64 / 1024.0
            )?;
        }
        for (tracer, why) in &self.skipped {
            writeln!(out, "\n{tracer} was skipped: {why}")?;
        }
        Ok(out)
    }
}

impl Environment {
    fn now() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
        Environment {
            kernel: read("/proc/sys/kernel/osrelease").trim().into(),
            cpu: model.map_or("unknown CPU", |(_, model)| model).into(),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            load_average: read("/proc/loadavg").split(' ').next().unwrap_or("unknown").into(),
        }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::TcpRefused => "refused TCP connect()",
        Kind::Udp => "UDP connect(), one socket",
        Kind::UdpNew => "UDP connect(), new socket",
        Kind::Getppid => "getppid()",
    }
}

/// Where each call has a socket of its own, which is closed.
fn name_with_close(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::TcpRefused => Some("refused TCP connect() + close()"),
        Kind::UdpNew => Some("UDP connect(), new socket, + close()"),
        Kind::Udp | Kind::Getppid => None,
    }
}

/// One row of the table, unless there was no round.
fn row(
    measured: &Measured,
    tracers: &[Tracer],
    index: usize,
    (call, rate): (&'static str, Rate),
    figure: impl Fn(&Outcome) -> Option<f64>,
) -> Option<Row> {
    let of = |round: usize, condition: Option<Tracer>| {
        figure(measured.rounds.get(round)?.get(&condition)?.outcomes.get(index)?)
    };
    let rounds = 0..measured.rounds.len();
    let mut base: Vec<f64> = rounds.clone().filter_map(|r| of(r, None)).collect();
    let added = tracers.iter().filter_map(|tracer| {
        let mut added: Vec<f64> =
            rounds.clone().filter_map(|r| Some(of(r, Some(*tracer))? - of(r, None)?)).collect();
        let median = median(&mut added)?;
        // median() sorted them.
        Some((
            *tracer,
            Added {
                median: tenths(median),
                min: tenths(*added.first()?),
                max: tenths(*added.last()?),
            },
        ))
    });
    let added = added.collect();
    Some(Row { call, rate: rate.to_string(), base: tenths(median(&mut base)?), added })
}

/// The clock is not finer than that.
fn tenths(ns: f64) -> f64 {
    (ns * 10.0).round() / 10.0
}

fn totals(measured: &Measured, cells: &[Cell], tracer: Tracer) -> Option<Totals> {
    let passes: Vec<_> = measured.rounds.iter().filter_map(|r| r.get(&Some(tracer))).collect();
    let costs: Vec<&Cost> = passes.iter().filter_map(|pass| pass.cost.as_ref()).collect();
    let connects = passes
        .iter()
        .flat_map(|pass| cells.iter().zip(&pass.outcomes))
        .filter(|(cell, _)| cell.kind != Kind::Getppid)
        .map(|(_, outcome)| outcome.attempted)
        .sum();
    let cpu_s = costs.iter().map(|c| c.cpu.total()).sum::<f64>();
    let mut start: Vec<f64> = costs.iter().map(|c| c.start_cpu.total()).collect();
    Some(Totals {
        connects,
        events: costs.iter().map(|c| c.events).sum(),
        cpu_s,
        cpu_s_per_million_connects: cpu_s * 1e6 / (connects.max(1) as f64),
        start_cpu_s: median(&mut start)?,
        peak_rss_kib: costs.iter().map(|c| c.memory.peak_rss_kib).max()?,
        peak_rss_without_ring_kib: costs.iter().map(|c| c.memory.peak_without_ring_kib()).max()?,
        last: (*costs.last()?).clone(),
    })
}
