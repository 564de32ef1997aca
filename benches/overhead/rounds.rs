//! The measurement: starts each tracer in turn and makes the same calls under all of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::bpf_stats::{self, Runs, Stats};
use crate::load::{self, Kind, Outcome, Plan, Rate};
use crate::roles::Cost;
use crate::running::Running;
use crate::tracers::Tracer;

/// The load and the tracer each have a CPU of their own, as the reader of a busy host would.
pub const TRACER_CPU: usize = 0;
pub const LOAD_CPU: usize = 1;

/// getppid() is so short that it takes more calls to measure.
const GETPPID_FACTOR: u64 = 10;

/// Where there is but one CPU, it is everybody's.
pub fn pin(cpu: usize) -> Result<(), String> {
    let there = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(cpu.min(there - 1));
    sched_setaffinity(None, &set).map_err(|e| format!("cannot run on CPU {cpu}: {e}"))
}

/// One figure to measure: what is called, how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub kind: Kind,
    pub rate: Rate,
}

/// What to measure, and how long.
#[derive(Debug)]
pub struct Effort {
    pub tracers: Vec<&'static Tracer>,
    pub cells: Vec<Cell>,
    pub rounds: u32,
    /// Calls of a cell at full speed.
    pub count: u64,
    /// Calls of which the mean is one sample.
    pub batch: u64,
    /// Length of a cell that has a rate.
    pub paced: Duration,
    /// Calls of each kind that are counted by the kernel.
    pub counted: u64,
    /// No round begins that would end after this.
    pub budget: Duration,
}

impl Effort {
    fn plan(&self, Cell { kind, rate }: Cell) -> Plan {
        let count = match rate {
            Rate::PerSecond(n) => (f64::from(n) * self.paced.as_secs_f64()).ceil() as u64,
            Rate::Max if kind == Kind::Getppid => self.count.saturating_mul(GETPPID_FACTOR),
            Rate::Max => self.count,
        };
        Plan { kind, rate, count }
    }

    /// Calls that are made while the kernel counts, getppid() left out.
    pub fn counted_calls(&self) -> u64 {
        let kinds = self.kinds().into_iter().filter(|kind| *kind != Kind::Getppid);
        kinds.count() as u64 * self.part() * PARTS
    }

    fn part(&self) -> u64 {
        (self.counted / PARTS).max(1)
    }

    /// The kinds of call, each once.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for cell in &self.cells {
            if !kinds.contains(&cell.kind) {
                kinds.push(cell.kind);
            }
        }
        kinds
    }
}

/// Calls that were made, and the runs of each of the tracer's programs meanwhile.
pub type Counted = (u64, BTreeMap<String, Runs>);

/// Everything that one tracer, or none, was seen to do in one round.
#[derive(Debug)]
pub struct Pass {
    /// In the order of the cells.
    pub outcomes: Vec<Outcome>,
    /// In the order of the kinds.
    pub counted: Vec<Counted>,
    /// None without a tracer.
    pub cost: Option<Cost>,
}

/// The passes of every round, by the tracer's name; `None` is the condition without a tracer.
#[derive(Debug, Default)]
pub struct Measured {
    pub rounds: Vec<BTreeMap<Option<&'static str>, Pass>>,
    /// Tracers that could not be measured, and why.
    pub skipped: BTreeMap<&'static str, String>,
    /// The most BPF programs of others that were loaded meanwhile.
    pub others: usize,
}

pub fn measure(effort: &Effort) -> Result<Measured, Box<dyn Error>> {
    pin(LOAD_CPU)?;
    let mut measured = Measured::default();
    let start = Instant::now();
    let mut longest = Duration::ZERO;
    for round in 1..=effort.rounds {
        if start.elapsed() + longest > effort.budget {
            eprintln!("time is up after {} of {} rounds", round - 1, effort.rounds);
            break;
        }
        let began = Instant::now();
        let mut passes = BTreeMap::new();
        let conditions = std::iter::once(None).chain(effort.tracers.iter().copied().map(Some));
        for condition in conditions {
            let name = condition.map(|tracer| tracer.name);
            if name.is_some_and(|name| measured.skipped.contains_key(name)) {
                continue;
            }
            measured.others = measured.others.max(bpf_stats::programs_loaded());
            let passed = pass(condition, effort);
            let time = start.elapsed().as_secs();
            match (passed, name) {
                (Ok(pass), _) => {
                    eprintln!("{time:4} s, round {round}: {}", name.unwrap_or("no tracer"));
                    passes.insert(name, pass);
                }
                (Err(why), Some(name)) => {
                    eprintln!("{time:4} s, skipped: {name}: {why}");
                    measured.skipped.insert(name, why.to_string());
                }
                (Err(why), None) => return Err(why),
            }
        }
        measured.rounds.push(passes);
        longest = longest.max(began.elapsed());
    }
    Ok(measured)
}

/// All cells under one condition.
fn pass(condition: Option<&Tracer>, effort: &Effort) -> Result<Pass, Box<dyn Error>> {
    let running = condition.map(Running::start).transpose()?;
    let mut outcomes = Vec::new();
    for cell in &effort.cells {
        outcomes.push(load::run_in_batches(&effort.plan(*cell), effort.batch)?);
    }
    let counted = running.as_ref().map(|running| count(running, effort)).transpose()?;
    let cost = running.map(Running::stop).transpose()?;
    Ok(Pass { outcomes, counted: counted.unwrap_or_default(), cost })
}

/// The kernel counts time as it passes, also what an interrupt takes of it; so it is asked in parts,
/// of which the one in the middle stands for all.
const PARTS: u64 = 11;

/// The same kinds of call once more, with the kernel counting.
fn count(running: &Running, effort: &Effort) -> Result<Vec<Counted>, Box<dyn Error>> {
    let _stats = Stats::enable()?;
    let part = |kind| -> Result<Counted, Box<dyn Error>> {
        let before = bpf_stats::programs_of(running.pid())?;
        let load = load::run(&Plan { kind, rate: Rate::Max, count: effort.part() })?;
        let runs = bpf_stats::since(&before, bpf_stats::programs_of(running.pid())?);
        Ok((load.attempted, runs))
    };
    let in_the_middle = |kind| -> Result<Counted, Box<dyn Error>> {
        let mut parts = (0..PARTS).map(|_| part(kind)).collect::<Result<Vec<_>, _>>()?;
        parts.sort_by_key(|(_, runs)| runs.values().map(|runs| runs.time_ns).sum::<u64>());
        Ok(parts.swap_remove(parts.len() / 2))
    };
    effort.kinds().into_iter().map(in_the_middle).collect()
}
