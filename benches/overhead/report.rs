//! What the rounds say, as figures; `tables.rs` shows them to people.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::load::{Kind, Outcome, Rate, median};
use crate::roles::Cost;
use crate::rounds::{Effort, Measured, Pass};
use crate::tracers::Tracer;

#[derive(Debug, Serialize)]
pub struct Report {
    pub environment: Environment,
    pub rounds: usize,
    /// Tracers in the order of the tables, and what they tell.
    pub tracers: Vec<(&'static str, &'static str)>,
    pub rows: Vec<Row>,
    pub counted: Vec<Counted>,
    pub costs: BTreeMap<&'static str, Totals>,
    pub skipped: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
pub struct Environment {
    pub kernel: String,
    pub cpu: String,
    pub cpus: usize,
    /// Load average at the end: the load itself is 1, and what is above it disturbed the figures.
    pub load_average: String,
    /// BPF programs of others that were loaded meanwhile; they cost too.
    pub programs_of_others: usize,
}

/// One kind of call at one rate. All times are nanoseconds per call.
#[derive(Debug, Serialize)]
pub struct Row {
    pub call: &'static str,
    pub rate: String,
    /// Without a tracer.
    pub base: Spread,
    /// What a tracer adds to the base of the same round.
    pub added: BTreeMap<&'static str, Spread>,
    /// How many times the base of the same round the call takes.
    pub times: BTreeMap<&'static str, Spread>,
}

/// The rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// What the kernel counted of a tracer's programs in one kind of call, per call.
#[derive(Debug, Serialize)]
pub struct Counted {
    pub tracer: &'static str,
    pub call: &'static str,
    /// All programs together.
    pub ns: f64,
    pub runs: f64,
    pub programs: BTreeMap<String, Program>,
}

#[derive(Debug, Serialize)]
pub struct Program {
    pub runs_per_call: f64,
    pub ns_per_run: f64,
}

/// A tracer's own cost, over all rounds.
#[derive(Debug, Serialize)]
pub struct Totals {
    /// Calls of the load meanwhile, getppid() left out.
    pub calls: u64,
    pub events: u64,
    pub cpu_s: f64,
    pub cpu_s_per_million_calls: f64,
    pub start_cpu_s: f64,
    pub peak_rss_kib: u64,
    pub peak_rss_without_ring_kib: u64,
    /// The last round's, with the books of tracers that keep some.
    pub last: Cost,
}

impl Report {
    pub fn new(effort: &Effort, measured: &Measured) -> Self {
        let mut rows = Vec::new();
        for (index, cell) in effort.cells.iter().enumerate() {
            let of = |pass: &Pass| Some(pass.outcomes.get(index)?.call_ns);
            rows.extend(row(measured, (name(cell.kind), cell.rate), of));
            if let Some(name) = name_with_close(cell.kind) {
                let both = |pass: &Pass| pass.outcomes.get(index)?.with_close_ns;
                rows.extend(row(measured, (name, cell.rate), both));
            }
        }
        let here = |tracer: &&&Tracer| !measured.skipped.contains_key(tracer.name);
        let tracers: Vec<_> =
            effort.tracers.iter().filter(here).map(|t| (t.name, t.tells)).collect();
        let costs = tracers.iter().filter_map(|(t, _)| Some((*t, totals(measured, effort, t)?)));
        let counted = tracers.iter().flat_map(|(tracer, _)| {
            let kinds = effort.kinds().into_iter().enumerate();
            kinds.filter_map(move |(index, kind)| counted(measured, tracer, index, kind))
        });
        Report {
            environment: Environment::now(measured.others),
            rounds: measured.rounds.len(),
            rows,
            costs: costs.collect(),
            counted: counted.collect(),
            tracers,
            skipped: measured.skipped.clone(),
        }
    }
}

impl Environment {
    fn now(programs_of_others: usize) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
        Environment {
            kernel: read("/proc/sys/kernel/osrelease").trim().into(),
            cpu: model.map_or("unknown CPU", |(_, model)| model).into(),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            load_average: read("/proc/loadavg").split(' ').next().unwrap_or("unknown").into(),
            programs_of_others,
        }
    }
}

pub fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::TcpRefused => "TCP refused",
        Kind::TcpEstablished => "TCP established",
        Kind::Udp => "UDP connect",
        Kind::UdpNew => "UDP connect, new socket",
        Kind::UdpSend => "UDP sendto",
        Kind::Getppid => "getppid",
    }
}

/// Where each call has a socket of its own, which is closed.
fn name_with_close(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::TcpRefused => Some("TCP refused + close"),
        Kind::TcpEstablished => Some("TCP established + close"),
        Kind::UdpNew => Some("UDP connect, new socket, + close"),
        Kind::Udp | Kind::UdpSend | Kind::Getppid => None,
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        let median = median(&mut values)?;
        // median() sorted them.
        Some(Spread { median, min: *values.first()?, max: *values.last()? })
    }
}

/// One row, unless there was no round.
fn row(
    measured: &Measured,
    (call, rate): (&'static str, Rate),
    figure: impl Fn(&Pass) -> Option<f64>,
) -> Option<Row> {
    let (mut base, mut added, mut times) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for round in &measured.rounds {
        let none = figure(round.get(&None)?)?;
        base.push(none);
        for (tracer, pass) in round {
            let (Some(tracer), Some(with)) = (*tracer, figure(pass)) else { continue };
            added.entry(tracer).or_insert_with(Vec::new).push(with - none);
            times.entry(tracer).or_insert_with(Vec::new).push(with / none);
        }
    }
    let spread = |of: BTreeMap<_, Vec<f64>>| {
        of.into_iter().filter_map(|(tracer, values)| Some((tracer, Spread::of(values)?))).collect()
    };
    Some(Row {
        call,
        rate: rate.to_string(),
        base: Spread::of(base)?,
        added: spread(added),
        times: spread(times),
    })
}

fn passes<'a>(measured: &'a Measured, tracer: &'static str) -> Vec<&'a Pass> {
    measured.rounds.iter().filter_map(|round| round.get(&Some(tracer))).collect()
}

/// The medians of the rounds.
fn counted(measured: &Measured, tracer: &'static str, index: usize, kind: Kind) -> Option<Counted> {
    let mut sums: (Vec<f64>, Vec<f64>) = Default::default();
    let mut each: BTreeMap<String, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for (calls, programs) in passes(measured, tracer).iter().filter_map(|p| p.counted.get(index)) {
        let per_call = |n: u64| n as f64 / (*calls).max(1) as f64;
        sums.0.push(per_call(programs.values().map(|runs| runs.time_ns).sum()));
        sums.1.push(per_call(programs.values().map(|runs| runs.count).sum()));
        for (name, runs) in programs {
            let (counts, times) = each.entry(name.clone()).or_default();
            counts.push(per_call(runs.count));
            times.push(runs.time_ns as f64 / runs.count.max(1) as f64);
        }
    }
    let programs = each.into_iter().filter_map(|(name, (mut counts, mut times))| {
        let program =
            Program { runs_per_call: median(&mut counts)?, ns_per_run: median(&mut times)? };
        Some((name, program))
    });
    Some(Counted {
        tracer,
        call: name(kind),
        programs: programs.collect(),
        ns: median(&mut sums.0)?,
        runs: median(&mut sums.1)?,
    })
}

fn totals(measured: &Measured, effort: &Effort, tracer: &'static str) -> Option<Totals> {
    let passes = passes(measured, tracer);
    let costs: Vec<&Cost> = passes.iter().filter_map(|pass| pass.cost.as_ref()).collect();
    let timed = |pass: &Pass| -> u64 {
        let cells = effort.cells.iter().zip(&pass.outcomes);
        let made = |(_, outcome): (_, &Outcome)| outcome.attempted;
        cells.filter(|(cell, _)| cell.kind != Kind::Getppid).map(made).sum()
    };
    let calls: u64 = passes.iter().map(|pass| timed(pass) + effort.counted_calls()).sum();
    let cpu_s = costs.iter().map(|c| c.cpu.total()).sum::<f64>();
    let mut start: Vec<f64> = costs.iter().map(|c| c.start_cpu.total()).collect();
    Some(Totals {
        calls,
        events: costs.iter().map(|c| c.events).sum(),
        cpu_s,
        cpu_s_per_million_calls: cpu_s * 1e6 / (calls.max(1) as f64),
        start_cpu_s: median(&mut start)?,
        peak_rss_kib: costs.iter().map(|c| c.memory.peak_rss_kib).max()?,
        peak_rss_without_ring_kib: costs.iter().map(|c| c.memory.peak_without_ring_kib()).max()?,
        last: (*costs.last()?).clone(),
    })
}
