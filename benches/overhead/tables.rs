//! The report as markdown tables, in the form in which docs/performance.md has them.

use std::fmt::{Error, Write};

use crate::report::{Counted, Environment, Report, Row, Spread};
use crate::tracers::Tracer;

/// What the figures are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds of this machine.
    Nanoseconds,
    /// The clock counts an emulator's instructions: only how they relate to one another means much.
    Instructions,
}

/// The unit in which [`Unit::Instructions`] gives what the kernel counted.
const REFERENCE: (&str, &str) = ("record-tracepoint", "UDP connect");

pub fn markdown(report: &Report, unit: Unit) -> Result<String, Error> {
    let mut out = String::new();
    let Environment { kernel, cpu, cpus, load_average, programs_of_others } = &report.environment;
    writeln!(
        out,
        "Linux {kernel}, {cpus} x {cpu}, load average {load_average}, {programs_of_others} BPF \
         programs of others, {} alternating rounds.\n",
        report.rounds
    )?;
    let mut rates: Vec<&str> = Vec::new();
    for row in &report.rows {
        if !rates.contains(&row.rate.as_str()) {
            rates.push(&row.rate);
        }
    }
    for rate in &rates {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.rate == *rate).collect();
        latency(&mut out, report, rate, &rows, unit)?;
    }
    floor(&mut out, report)?;
    inside(&mut out, report, unit)?;
    programs(&mut out, report, unit)?;
    costs(&mut out, report)?;
    for (tracer, why) in &report.skipped {
        writeln!(out, "- skipped: {tracer}: {why}")?;
    }
    Ok(out)
}

fn heading<'a>(
    out: &mut String,
    first: &str,
    columns: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), Error> {
    write!(out, "| {first} |")?;
    for column in columns.clone() {
        write!(out, " {column} |")?;
    }
    write!(out, "\n|---|")?;
    columns.for_each(|_| out.push_str("---:|"));
    writeln!(out)
}

fn speed(rate: &str) -> String {
    if rate == "max" { "full speed".into() } else { format!("{rate} calls per second") }
}

fn latency(
    out: &mut String,
    report: &Report,
    rate: &str,
    rows: &[&Row],
    unit: Unit,
) -> Result<(), Error> {
    let what = match unit {
        Unit::Nanoseconds => {
            "nanoseconds per call without a tracer, and what each adds: median (smallest .. largest)"
        }
        Unit::Instructions => "times the call without a tracer: median (smallest .. largest)",
    };
    writeln!(out, "At {}: {what}.\n", speed(rate))?;
    heading(out, "tracer", rows.iter().map(|row| row.call))?;
    if unit == Unit::Nanoseconds {
        write!(out, "| no tracer |")?;
        for Row { base: Spread { median, min, max }, .. } in rows {
            write!(out, " {median:.0} ({min:.0} .. {max:.0}) |")?;
        }
        writeln!(out)?;
    }
    for (tracer, _) in &report.tracers {
        write!(out, "| {tracer} |")?;
        for row in rows {
            match (unit, row.added.get(tracer), row.times.get(tracer)) {
                (Unit::Nanoseconds, Some(Spread { median, min, max }), _) => {
                    write!(out, " {median:+.0} ({min:+.0} .. {max:+.0}) |")?;
                }
                (Unit::Instructions, _, Some(Spread { median, min, max })) => {
                    write!(out, " {median:.2} ({min:.2} .. {max:.2}) |")?;
                }
                _ => write!(out, " |")?,
            }
        }
        writeln!(out)?;
    }
    writeln!(out)
}

/// What netspy adds, in terms of what one record on the same hook adds.
fn floor(out: &mut String, report: &Report) -> Result<(), Error> {
    let pairs = report.tracers.iter().filter_map(|(name, _)| {
        let floor = Tracer::named(name)?.floor()?;
        report.tracers.iter().any(|(other, _)| *other == floor).then_some((*name, floor))
    });
    let pairs: Vec<_> = pairs.collect();
    if pairs.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "What netspy adds, as a multiple of what an empty program with one record adds.\n"
    )?;
    let columns = pairs.iter().map(|(name, _)| *name);
    heading(out, "call, calls per second", columns)?;
    for row in &report.rows {
        let times = |(name, floor): &(&str, &str)| {
            // Not of calls that pass the hook by.
            let kind = row.call.trim_end_matches(" + close");
            let least = report.counted.iter().find(|c| c.tracer == *floor && c.call == kind)?;
            let seen = least.runs > 0.5;
            seen.then_some(row.added.get(name)?.median / row.added.get(floor)?.median)
        };
        let times: Vec<Option<f64>> = pairs.iter().map(times).collect();
        if times.iter().all(Option::is_none) {
            continue;
        }
        write!(out, "| {}, {} |", row.call, row.rate)?;
        for each in times {
            match each {
                Some(times) => write!(out, " {times:.2} |")?,
                None => write!(out, " |")?,
            }
        }
        writeln!(out)?;
    }
    writeln!(out)
}

/// What the kernel counted inside the programs.
fn inside(out: &mut String, report: &Report, unit: Unit) -> Result<(), Error> {
    let calls = calls_counted(report);
    if calls.is_empty() {
        return Ok(());
    }
    let find = |tracer: &str, call: &str| {
        report.counted.iter().find(|c| c.tracer == tracer && c.call == call)
    };
    let one = match unit {
        Unit::Nanoseconds => 1.0,
        Unit::Instructions => find(REFERENCE.0, REFERENCE.1).map_or(f64::NAN, |c| c.ns),
    };
    match unit {
        Unit::Nanoseconds => writeln!(
            out,
            "Inside the BPF programs, by the kernel's own count: nanoseconds per call (runs per \
             call).\n"
        )?,
        Unit::Instructions => writeln!(
            out,
            "Inside the BPF programs, by the kernel's own count: times what {} takes for one {} \
             (runs per call).\n",
            REFERENCE.0, REFERENCE.1
        )?,
    }
    heading(out, "tracer", calls.iter().copied())?;
    for (tracer, _) in &report.tracers {
        write!(out, "| {tracer} |")?;
        for call in &calls {
            match (find(tracer, call), unit) {
                (Some(Counted { ns, runs, .. }), Unit::Nanoseconds) => {
                    write!(out, " {ns:.0} ({runs:.1}) |")?;
                }
                (Some(Counted { ns, runs, .. }), Unit::Instructions) => {
                    write!(out, " {:.2} ({runs:.1}) |", ns / one)?;
                }
                (None, _) => write!(out, " |")?,
            }
        }
        writeln!(out)?;
    }
    writeln!(out)
}

fn calls_counted(report: &Report) -> Vec<&'static str> {
    let mut calls = Vec::new();
    for Counted { call, .. } in &report.counted {
        if !calls.contains(call) {
            calls.push(call);
        }
    }
    calls
}

/// Each of netspy's programs.
fn programs(out: &mut String, report: &Report, unit: Unit) -> Result<(), Error> {
    let calls = calls_counted(report);
    let of_netspy: Vec<&Counted> =
        report.counted.iter().filter(|c| c.tracer.starts_with("netspy")).collect();
    if of_netspy.is_empty() {
        return Ok(());
    }
    let what = match unit {
        Unit::Nanoseconds => "nanoseconds per run",
        Unit::Instructions => "instructions per run",
    };
    writeln!(out, "netspy's programs: {what} x runs per call.\n")?;
    heading(out, "tracer: program", calls.iter().copied())?;
    for (tracer, _) in report.tracers.iter().filter(|(name, _)| name.starts_with("netspy")) {
        let counted = || of_netspy.iter().filter(|c| c.tracer == *tracer);
        // Programs that no call ever ran say nothing.
        let mut names: Vec<&String> = counted()
            .flat_map(|c| c.programs.iter().filter(|(_, p)| p.runs_per_call >= 0.01))
            .map(|(name, _)| name)
            .collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            write!(out, "| {tracer}: {name} |")?;
            for call in &calls {
                let program =
                    counted().find(|c| c.call == *call).and_then(|c| c.programs.get(name));
                match program {
                    Some(p) if p.runs_per_call >= 0.01 => {
                        write!(out, " {:.0} x {:.1} |", p.ns_per_run, p.runs_per_call)?;
                    }
                    _ => write!(out, " |")?,
                }
            }
            writeln!(out)?;
        }
    }
    writeln!(out)
}

fn costs(out: &mut String, report: &Report) -> Result<(), Error> {
    writeln!(out, "What the tracers themselves use, and tell.\n")?;
    writeln!(
        out,
        "| tracer | calls | records or lines | CPU s per million calls | CPU s to start \
         | peak RSS MiB | without ring | tells |\n|---|---:|---:|---:|---:|---:|---:|---|"
    )?;
    for (tracer, tells) in &report.tracers {
        let Some(t) = report.costs.get(tracer) else { continue };
        writeln!(
            out,
            "| {tracer} | {} | {} | {:.2} | {:.2} | {:.1} | {:.1} | {tells} |",
            t.calls,
            t.events,
            t.cpu_s_per_million_calls,
            t.start_cpu_s,
            t.peak_rss_kib as f64 / 1024.0,
            t.peak_rss_without_ring_kib as f64 / 1024.0
        )?;
    }
    writeln!(out)
}
