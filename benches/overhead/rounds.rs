//! The measurement: starts each tracer in turn and makes the same calls under all of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::load::{self, Kind, Outcome, Plan, Rate};
use crate::roles::{Cost, Tracer};

/// The load and the tracer each have a CPU of their own, as the reader of a busy host would.
pub const TRACER_CPU: usize = 0;
pub const LOAD_CPU: usize = 1;

/// A tracer that takes longer than this to start or to end is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// No round begins that would end after this.
const BUDGET: Duration = Duration::from_secs(230);
/// getppid() is so short that it takes more calls to measure.
const GETPPID_FACTOR: u64 = 10;

pub fn pin(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|e| format!("cannot run on CPU {cpu}: {e}"))
}

/// One figure to measure: what is called, how fast.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub kind: Kind,
    pub rate: Rate,
}

impl Cell {
    /// At most `count` calls, and one second of them where there is a rate.
    fn plan(self, count: u64) -> Plan {
        let Cell { kind, rate } = self;
        let count = match rate {
            Rate::PerSecond(n) => count.min(n.into()),
            Rate::Max if kind == Kind::Getppid => count.saturating_mul(GETPPID_FACTOR),
            Rate::Max => count,
        };
        Plan { kind, rate, count }
    }
}

/// Everything that one tracer, or none, was seen to do in one round.
#[derive(Debug)]
pub struct Pass {
    /// In the order of the cells.
    pub outcomes: Vec<Outcome>,
    /// None without a tracer.
    pub cost: Option<Cost>,
}

/// The passes of every round, by condition; `None` is the condition without a tracer.
#[derive(Debug, Default)]
pub struct Measured {
    pub rounds: Vec<BTreeMap<Option<Tracer>, Pass>>,
    /// Tracers that could not be measured, and why.
    pub skipped: BTreeMap<Tracer, String>,
}

pub fn measure(
    tracers: &[Tracer],
    cells: &[Cell],
    rounds: u32,
    count: u64,
) -> Result<Measured, Box<dyn Error>> {
    pin(LOAD_CPU)?;
    let mut measured = Measured::default();
    let start = Instant::now();
    let mut longest = Duration::ZERO;
    for round in 1..=rounds {
        if start.elapsed() + longest > BUDGET {
            eprintln!("time is up after {} of {rounds} rounds", round - 1);
            break;
        }
        let began = Instant::now();
        let mut passes = BTreeMap::new();
        let conditions = std::iter::once(None).chain(tracers.iter().copied().map(Some));
        for condition in conditions {
            if condition.is_some_and(|tracer| measured.skipped.contains_key(&tracer)) {
                continue;
            }
            let name = condition.map_or("none".into(), |tracer| tracer.to_string());
            eprintln!("round {round} of {rounds}: {name}");
            match (pass(condition, cells, count), condition) {
                (Ok(pass), _) => drop(passes.insert(condition, pass)),
                (Err(why), Some(tracer)) => {
                    eprintln!("{tracer} is left out: {why}");
                    measured.skipped.insert(tracer, why.to_string());
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
fn pass(condition: Option<Tracer>, cells: &[Cell], count: u64) -> Result<Pass, Box<dyn Error>> {
    let running = condition.map(Running::start).transpose()?;
    let outcomes =
        cells.iter().map(|cell| load::run(&cell.plan(count))).collect::<Result<_, _>>()?;
    let cost = running.map(Running::stop).transpose()?;
    Ok(Pass { outcomes, cost })
}

/// A tracer's process.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts this program in the tracer's role and waits until it is attached.
    pub fn start(tracer: Tracer) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--role", &tracer.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (send, lines) = mpsc::channel();
        let out = child.stdout.take().ok_or("no standard output")?;
        let mut running = Running { child, lines };
        // Ends with the child's output, which ends with the child.
        thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        match running.line()?.as_str() {
            "ready" => Ok(running),
            other => Err(other.trim_start_matches("failed: ").into()),
        }
    }

    /// Lets it end and returns what it says about itself.
    pub fn stop(mut self) -> Result<Cost, Box<dyn Error>> {
        drop(self.child.stdin.take());
        let line = self.line()?;
        let cost = serde_json::from_str(&line).map_err(|_| line)?;
        self.child.wait()?;
        Ok(cost)
    }

    fn line(&mut self) -> Result<String, String> {
        self.lines.recv_timeout(PATIENCE).map_err(|e| format!("no answer from the tracer: {e}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Of a child that has ended there is nothing to kill; both fail then, and that is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
