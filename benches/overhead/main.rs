//! What tracers cost the calls that they watch, and themselves.
//!
//! ```text
//! sudo mount -t tracefs tracefs /sys/kernel/tracing     # where it is not mounted
//! cargo bench --bench overhead --features bench-peers --no-run
//! sudo target/release/deps/overhead-… --bench [--rounds 5] [--count 50000] [--only udp,naive] [--json FILE]
//! ```
//!
//! **How.** Each round starts every tracer in turn, in a process of its own on CPU 0, and makes
//! the same calls on CPU 1: no tracer, `empty`, `naive`, `netspy`, `netspy+store`, and again in the next round.
//! A cell (a call at a rate) is the median of the means of batches of 100 calls, the first batch
//! left out; what a tracer adds is the difference to the same cell without a tracer *in the same
//! round*; the table shows the median of the rounds. Calls are timed one by one, so the base of a
//! cell contains one reading of the clock, and what is added does not; only getppid() at full
//! speed is timed by the batch. Paced calls start at fixed times, for which the load spins; it
//! never catches up in a burst. A paced cell lasts a second, a cell at full speed `--count` calls
//! (getppid ten times as many); no round begins that would not end within four minutes. Only
//! 127.0.0.1 is connected to.
//!
//! **Calls.** `udp`: connect() of *one* UDP socket, again and again, to one address: the bare
//! call. `udp-new` (only when asked for): a *new* UDP socket each time, which also binds a port.
//! `tcp-refused`: a *new* TCP socket each time, to a port that is bound but not listening;
//! connect() alone, and connect() with close(); socket() is not in the figure. `getppid`: a call
//! that has nothing to do with connections.
//!
//! **Tracers.** See `roles.rs` and `naive.bpf.c`. The naive reader only counts, so its own CPU
//! time is a lower bound for its kind.
//!
//! **Roles.** The same program is also the parts, to be used alone:
//!
//! ```text
//! overhead --role load --kind tcp-refused --count 200000 --rate max    # a bounded load; JSON
//! overhead --role naive                # ready, then JSON once standard input has ended
//! sleep 60 | overhead --role netspy    # what an idle minute costs
//! overhead --role million [--kind udp] [--rate 20000] [--only naive]   # a tracer's own cost
//! ```

mod load;
mod report;
mod roles;
mod rounds;
mod usage;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use strum::IntoEnumIterator;

use crate::load::{Kind, Plan, Rate};
use crate::report::Report;
use crate::roles::Tracer;
use crate::rounds::{Cell, LOAD_CPU, Running, TRACER_CPU, measure, pin};

#[derive(Debug, Parser)]
#[command(about = "Measures what tracers cost the calls that they watch, and themselves")]
struct Args {
    /// Alternating rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Calls in a cell or a load [default: 50000; of the role million, 1000000]
    #[arg(long)]
    count: Option<u64>,
    /// Leave out what is not named: tracers (empty, naive, netspy, netspy+store), calls (udp, udp-new,
    /// tcp-refused, getppid), rates (max, 5000, ...); a group of which none is named stays whole
    #[arg(long, value_delimiter = ',')]
    only: Vec<Choice>,
    /// Write the figures there; otherwise they follow the table as a line of JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Be one of the parts instead
    #[arg(long)]
    role: Option<Role>,
    /// What a load calls
    #[arg(long, default_value = "tcp-refused")]
    kind: Kind,
    /// Calls per second of a load, or max [default: max; of the role million, 20000]
    #[arg(long)]
    rate: Option<Rate>,
    /// Given by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Load,
    Million,
    Tracer(Tracer),
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "load" => Ok(Role::Load),
            "million" => Ok(Role::Million),
            _ => word.parse().map(Role::Tracer).map_err(|_| {
                let tracers: Vec<_> = Tracer::iter().map(|t| t.to_string()).collect();
                format!("neither load nor million nor one of {}", tracers.join(", "))
            }),
        }
    }
}

/// A word of `--only`.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Tracer(Tracer),
    Kind(Kind),
    Rate(Rate),
}

impl Choice {
    fn tracer(self) -> Option<Tracer> {
        if let Choice::Tracer(tracer) = self { Some(tracer) } else { None }
    }

    fn kind(self) -> Option<Kind> {
        if let Choice::Kind(kind) = self { Some(kind) } else { None }
    }

    fn rate(self) -> Option<Rate> {
        if let Choice::Rate(rate) = self { Some(rate) } else { None }
    }
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let tracer = word.parse().map(Choice::Tracer);
        let kind = || word.parse().map(Choice::Kind);
        let rate = || word.parse().map(Choice::Rate);
        tracer
            .or_else(|_| kind())
            .or_else(|_| rate())
            .map_err(|_| "neither a tracer nor a call nor a rate that is known".into())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.role.is_none() && !args.bench {
        // `cargo test --all-targets` runs benches too, without an argument, and not as root.
        println!("skipped: measures only when run with --bench, as cargo bench does, or a --role");
        return ExitCode::SUCCESS;
    }
    let done = match args.role {
        None => overhead(&args),
        Some(Role::Load) => load(&args),
        Some(Role::Million) => million(&args),
        Some(Role::Tracer(which)) => tracer(which),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("overhead: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The whole measurement.
fn overhead(args: &Args) -> Result<(), Box<dyn Error>> {
    let tracers = selected(args, Choice::tracer).unwrap_or_else(|| Tracer::iter().collect());
    let kinds = selected(args, Choice::kind)
        .unwrap_or_else(|| vec![Kind::Udp, Kind::TcpRefused, Kind::Getppid]);
    let rates = selected(args, Choice::rate)
        .unwrap_or_else(|| vec![Rate::Max, Rate::PerSecond(20_000), Rate::PerSecond(5_000)]);
    let cells: Vec<_> =
        kinds.iter().flat_map(|&kind| rates.iter().map(move |&rate| Cell { kind, rate })).collect();
    let measured = measure(&tracers, &cells, args.rounds, args.count.unwrap_or(50_000))?;
    let report = Report::new(&tracers, &cells, &measured);
    println!("{}", report.markdown()?);
    match &args.json {
        Some(path) => std::fs::write(path, serde_json::to_vec_pretty(&report)?)?,
        None => println!("{}", serde_json::to_string(&report)?),
    }
    Ok(())
}

/// What `--only` names of one group; `None` if it names none of it.
fn selected<T>(args: &Args, of: impl Fn(Choice) -> Option<T>) -> Option<Vec<T>> {
    let named: Vec<T> = args.only.iter().copied().filter_map(of).collect();
    (!named.is_empty()).then_some(named)
}

/// The load alone.
fn load(args: &Args) -> Result<(), Box<dyn Error>> {
    pin(LOAD_CPU)?;
    let rate = args.rate.unwrap_or(Rate::Max);
    let plan = Plan { kind: args.kind, rate, count: args.count.unwrap_or(50_000) };
    println!("{}", serde_json::to_string(&load::run(&plan)?)?);
    Ok(())
}

/// One tracer, in this process.
fn tracer(which: Tracer) -> Result<(), Box<dyn Error>> {
    pin(TRACER_CPU)?;
    roles::run(which).inspect_err(|why| {
        // The parent reads this line where it expected `ready` or the figures.
        println!("failed: {why}");
    })
}

/// A million calls under each tracer once, for the tracer's own CPU time and memory.
fn million(args: &Args) -> Result<(), Box<dyn Error>> {
    pin(LOAD_CPU)?;
    let rate = args.rate.unwrap_or(Rate::PerSecond(20_000));
    let plan = Plan { kind: args.kind, rate, count: args.count.unwrap_or(1_000_000) };
    let tracers = selected(args, Choice::tracer).unwrap_or_else(|| vec![Tracer::Netspy]);
    for tracer in tracers {
        let running = Running::start(tracer)?;
        let load = load::run(&plan)?;
        let cost = running.stop()?;
        let answer = serde_json::json!({ "tracer": tracer, "load": load, "cost": cost });
        println!("{answer}");
    }
    Ok(())
}
