//! How long somebody waits who starts netspy: `netspy list` with a server running, and an assistant's
//! program until `netspy mcp` has answered `initialize`. From before the program is started to the last
//! byte that is waited for.
//!
//! `cargo bench --bench start`; `NETSPY_BENCH_ROUNDS=101` is how often each is done, in turn, and
//! `NETSPY_BENCH_RECORDS=100000` how many records the server holds.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::records::{ago, established, info};

/// What each of them is to stay under (docs/performance.md).
const LIMIT: Duration = Duration::from_millis(50);

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"0"}}}"#;

fn variable(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

fn netspy(args: &[&str], server: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netspy"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NETSPY_") {
            command.env_remove(name);
        }
    }
    command.args(args).env("NETSPY_SERVER", server).stdin(Stdio::null());
    command
}

/// Until it has ended.
fn whole(args: &[&str], server: &str) -> Duration {
    let begin = Instant::now();
    let output = netspy(args, server).output().unwrap();
    let took = begin.elapsed();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    took
}

/// Until the answer to `initialize` is there.
fn greeted(server: &str) -> Duration {
    let begin = Instant::now();
    let mut command = netspy(&["mcp"], server);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{INITIALIZE}").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let took = begin.elapsed();
    assert!(line.contains("\"serverInfo\""), "{line}");
    drop(input);
    child.wait().unwrap();
    took
}

fn main() {
    let rounds = variable("NETSPY_BENCH_ROUNDS", 101).max(1);
    let count = variable("NETSPY_BENCH_RECORDS", 100_000);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let records = (0..count).map(|n| {
        let process = info(u32::try_from(n % 500).unwrap() + 2, "curl");
        ago(i64::try_from(n % 3_600).unwrap(), established(n * 250, &process))
    });
    let store = netspy::store::Store::new(256 << 20);
    let terms = netspy::server::Terms::default();
    let server = runtime.block_on(common::server_over(store, records.collect(), terms));
    let (tcp, unix) =
        (format!("http://{}", server.address), format!("unix:{}", server.unix.display()));
    let measured: [(&str, &dyn Fn() -> Duration); 5] = [
        ("`netspy --version`, the baseline", &|| whole(&["--version"], &tcp)),
        ("`netspy list`, over TCP", &|| whole(&["list"], &tcp)),
        ("`netspy list`, over the UNIX socket", &|| whole(&["list"], &unix)),
        ("`netspy summary`, over the UNIX socket", &|| whole(&["summary"], &unix)),
        ("`netspy mcp`, until `initialize` is answered", &|| greeted(&unix)),
    ];
    // Once for what is read from disk, and for what is only made once.
    let mut times = measured.map(|(_, measure)| (measure(), Vec::new()).1);
    for _ in 0..rounds {
        for ((_, measure), times) in measured.iter().zip(&mut times) {
            times.push(measure());
        }
    }
    println!("\n{count} records, {rounds} rounds\n");
    println!("| | median | 95 % | most |\n|---|---|---|---|");
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let mut late = Vec::new();
    for ((name, _), times) in measured.iter().zip(&mut times) {
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 100];
        println!("| {name} | {} | {} | {} |", ms(at(50)), ms(at(95)), ms(at(100)));
        if at(50) > LIMIT {
            late.push(*name);
        }
    }
    match late.as_slice() {
        [] => println!("\nEvery median is under {}.", ms(LIMIT)),
        late => println!("\nNot under {}: {}", ms(LIMIT), late.join("; ")),
    }
}
