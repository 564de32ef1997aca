//! What tracers cost the calls that they watch, and themselves.
//!
//! ```text
//! sudo mount -t tracefs tracefs /sys/kernel/tracing     # where it is not mounted
//! cargo bench --bench overhead --features bench-peers --no-run
//! sudo target/release/deps/overhead-… --bench [--rounds 5] [--only udp,naive] [--json FILE]
//! ```
//!
//! **How.** Each round starts every tracer in turn, in a process of its own on CPU 0, and makes
//! the same calls on CPU 1: first without a tracer, then under each, and again in the next round.
//! A cell (a call at a rate) is the median of the means of batches of 100 calls (`--batch`), the first batch
//! left out; what a tracer adds is the difference to the same cell without a tracer *in the same
//! round*; the tables show the median of the rounds. Calls are timed one by one, so the base of a
//! cell contains one reading of the clock, and what is added does not; only getppid() at full
//! speed is timed by the batch. Paced calls start at fixed times, for which the load spins; it
//! never catches up in a burst. Only 127.0.0.1 is connected to.
//!
//! After that, under each tracer, the same calls once more while the kernel counts the runs of
//! each BPF program and their time: what a machine's noise does not reach, but without what the
//! hook, the reader and waking it cost.
//!
//! **Calls.** `udp`: connect() of *one* UDP socket, again and again, to one address: the bare
//! call. `udp-new` (only when asked for): a *new* UDP socket each time, which also binds a port.
//! `udp-send`: sendto() of one unconnected UDP socket. `tcp-refused`: a *new* TCP socket each
//! time, to a port that is bound but not listening. `tcp-established`: the same to a port that
//! listens; the connection is accepted, and closed with a reset, so that no TIME_WAIT piles up.
//! Of both, connect() alone, and connect() with close(); socket() and accept() are not in the
//! figures. `getppid`: a call that has nothing to do with connections.
//!
//! **Tracers.** See `tracers.rs`, `probes.bpf.c`, `connect.bt`. `empty-HOOK` is a program on the
//! return from connect() that does nothing, `record-HOOK` one that puts a record of netspy's size
//! into a ring which a timer empties, `naive` the common design: a record with a wake-up per
//! call. Their readers only count. The tools of others print into memory. A tracer that does not
//! start here is skipped, with its own words.
//!
//! **Roles.** The same program is also the parts, to be used alone:
//!
//! ```text
//! overhead --role load --kind tcp-refused --count 200000 --rate max    # a bounded load; JSON
//! overhead --role naive                # ready, then JSON once standard input has ended
//! sleep 60 | overhead --role netspy    # what an idle minute costs
//! overhead --role million [--kind udp] [--rate 20000] [--only naive]   # a tracer's own cost
//! ```

mod bpf_stats;
mod load;
mod report;
mod roles;
mod rounds;
mod running;
mod tables;
mod tracers;
mod usage;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::load::{Kind, Plan, Rate};
use crate::report::Report;
use crate::rounds::{Cell, Effort, LOAD_CPU, TRACER_CPU, measure, pin};
use crate::running::Running;
use crate::tables::Unit;
use crate::tracers::{TRACERS, Tracer};

#[derive(Debug, Parser)]
#[command(about = "Measures what tracers cost the calls that they watch, and themselves")]
struct Args {
    /// Alternating rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Calls in a cell at full speed, or in a load [default: 30000; of the role million, 1000000]
    #[arg(long)]
    count: Option<u64>,
    /// Calls of which the mean is one sample
    #[arg(long, default_value_t = load::BATCH)]
    batch: u64,
    /// Milliseconds of a cell that has a rate
    #[arg(long, default_value_t = 500)]
    paced_ms: u64,
    /// Calls of each kind of which the kernel counts the BPF programs
    #[arg(long, default_value_t = 5000)]
    counted: u64,
    /// Seconds after which no further round may end
    #[arg(long, default_value_t = 460)]
    budget: u64,
    /// Leave out what is not named: tracers (empty-fentry, naive, netspy, ...), calls (udp, udp-new,
    /// udp-send, tcp-refused, tcp-established, getppid), rates (max, 5000, ...); a group of which
    /// none is named stays whole
    #[arg(long, value_delimiter = ',')]
    only: Vec<Choice>,
    /// The clock counts instructions, as an emulator's can: show ratios instead of nanoseconds
    #[arg(long)]
    instructions: bool,
    /// Write the figures there; otherwise they follow the tables as a line of JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Be one of the parts instead: load, million, or a tracer
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
    Tracer(&'static Tracer),
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "load" => Ok(Role::Load),
            "million" => Ok(Role::Million),
            _ => Tracer::named(word).map(Role::Tracer).ok_or_else(|| {
                let tracers: Vec<_> = TRACERS.iter().map(|t| t.name).collect();
                format!("neither load nor million nor one of {}", tracers.join(", "))
            }),
        }
    }
}

/// A word of `--only`.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Tracer(&'static Tracer),
    Kind(Kind),
    Rate(Rate),
}

impl Choice {
    fn tracer(self) -> Option<&'static Tracer> {
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
        let tracer = Tracer::named(word).map(Choice::Tracer);
        let kind = || word.parse().ok().map(Choice::Kind);
        let rate = || word.parse().ok().map(Choice::Rate);
        let unknown = || "neither a tracer nor a call nor a rate that is known".to_owned();
        tracer.or_else(kind).or_else(rate).ok_or_else(unknown)
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
        Some(Role::Tracer(which)) => {
            pin(TRACER_CPU).map_err(Into::into).and_then(|()| roles::run(which))
        }
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
    let kinds = [Kind::Udp, Kind::UdpSend, Kind::TcpRefused, Kind::TcpEstablished, Kind::Getppid];
    let kinds = selected(args, Choice::kind).unwrap_or(kinds.to_vec());
    let rates = selected(args, Choice::rate);
    let usual_rates = rates.is_none();
    let rates =
        rates.unwrap_or_else(|| vec![Rate::Max, Rate::PerSecond(20_000), Rate::PerSecond(5_000)]);
    let cells = rates.iter().flat_map(|&rate| kinds.iter().map(move |&kind| Cell { kind, rate }));
    // What nobody watches costs the same at any rate.
    let dull = Cell { kind: Kind::Getppid, rate: Rate::PerSecond(5_000) };
    let effort = Effort {
        tracers: selected(args, Choice::tracer).unwrap_or_else(Tracer::usual),
        cells: cells.filter(|cell| !usual_rates || *cell != dull).collect(),
        rounds: args.rounds,
        count: args.count.unwrap_or(30_000),
        batch: args.batch,
        paced: Duration::from_millis(args.paced_ms),
        counted: args.counted,
        budget: Duration::from_secs(args.budget),
    };
    let measured = measure(&effort)?;
    let report = Report::new(&effort, &measured);
    let unit = if args.instructions { Unit::Instructions } else { Unit::Nanoseconds };
    println!("{}", tables::markdown(&report, unit)?);
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

/// A million calls under each tracer once, for the tracer's own CPU time and memory.
fn million(args: &Args) -> Result<(), Box<dyn Error>> {
    pin(LOAD_CPU)?;
    let rate = args.rate.unwrap_or(Rate::PerSecond(20_000));
    let plan = Plan { kind: args.kind, rate, count: args.count.unwrap_or(1_000_000) };
    let netspy = || Tracer::named("netspy").into_iter().collect();
    for tracer in selected(args, Choice::tracer).unwrap_or_else(netspy) {
        let running = Running::start(tracer)?;
        let load = load::run(&plan)?;
        let cost = running.stop()?;
        let answer = serde_json::json!({ "tracer": tracer.name, "load": load, "cost": cost });
        println!("{answer}");
    }
    Ok(())
}
