//! `mcp doctor`: goes the way that an assistant's question goes, step by step.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::capture::support;
use crate::cli::failure::Failure;
use crate::cli::locate::{Capture, Named, locate};
use crate::cli::render::answers::Printer;
use crate::cli::render::text::clean;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Checks, and prints a line for each step.
pub async fn run(named: Named<'_>, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    let found = format!("{} {}", program.display(), crate::VERSION_AND_COMMIT);
    printer.verdict(&name("binary"), true, &clean(&found))?;
    let source = match locate(named, Capture::Never).await {
        Ok(origin) => match origin.source.status().await {
            Ok(status) => Ok(format!("{}, {}", origin.source.describe(), status.health)),
            Err(error) => Err(Failure::from(error)),
        },
        Err(_) if named.server.is_none() && support::is_privileged() => Ok(
            "no server runs here: netspy mcp captures by itself while it runs, and knows nothing \
                from before; 'sudo ebpf-server' would"
                .to_owned(),
        ),
        Err(failure) => Err(failure),
    };
    let reached = source.is_ok();
    let text = source.unwrap_or_else(|failure| failure.to_string());
    printer.verdict(&name("source"), reached, &clean(&text))?;
    printer.out.flush()?;
    let mut command = Command::new(program);
    command.arg("mcp");
    if let Some(server) = named.server {
        command.args(["--server", server]);
    }
    for (flag, file) in [("--token-file", named.token_file), ("--ca-cert", named.ca_cert)] {
        if let Some(file) = file {
            command.arg(flag).arg(file);
        }
    }
    let (sender, mut steps) = tokio::sync::mpsc::unbounded_channel();
    let talking = tokio::task::spawn_blocking(move || talk(command, reached, &sender));
    let mut all = true;
    while let Some(step) = steps.recv().await {
        all &= step.ok;
        printer.verdict(&name(&step.name), step.ok, &clean(&step.found))?;
        // Somebody may wait at the other end of a pipe.
        printer.out.flush()?;
    }
    talking.await.map_err(io::Error::other)?;
    writeln!(printer.out)?;
    if reached && all {
        writeln!(printer.out, "All of it works. 'netspy mcp config' says how to add it.")?;
        return Ok(());
    }
    writeln!(printer.out, "Something is wrong: see the lines above, first to last.")?;
    Err(Failure::Said(3))
}

fn name(name: &str) -> String {
    format!("{:<24}", clean(name))
}

struct Step {
    name: String,
    ok: bool,
    found: String,
}

fn step(name: &str, result: Result<String, String>) -> Step {
    let ok = result.is_ok();
    let found = result.unwrap_or_else(|problem| problem);
    Step { name: name.to_owned(), ok, found }
}

/// What one tool may take before the others are taken to be as slow.
const SLOW: Duration = Duration::from_secs(5);

/// Starts netspy as a client would, and asks it everything once. Tools that would each wait for the
/// same server, which does not answer, are not asked.
fn talk(mut command: Command, reached: bool, steps: &UnboundedSender<Step>) {
    let say = |step| {
        // Nobody hears it where the doctor itself has ended.
        let _ = steps.send(step);
    };
    let begun = Instant::now();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut peer = match command.spawn().and_then(Peer::new) {
        Ok(peer) => peer,
        Err(error) => return say(step("start", Err(format!("cannot start it: {error}")))),
    };
    let hello = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "netspy mcp doctor", "version": crate::VERSION},
    });
    let greeted = peer.ask("initialize", hello).map(|result| {
        let took = begun.elapsed().as_millis();
        format!("protocol {} after {took} ms", result["protocolVersion"].as_str().unwrap_or("?"))
    });
    let went = greeted.is_ok();
    say(step("initialize", greeted));
    if !went || peer.tell("notifications/initialized").is_err() {
        return;
    }
    let tools = match peer.ask("tools/list", json!({})) {
        Ok(list) => list["tools"].as_array().cloned().unwrap_or_default(),
        Err(problem) => {
            return say(step("tools/list", Err(problem)));
        }
    };
    say(step("tools/list", Ok(format!("{} tools", tools.len()))));
    if !reached {
        let why = "not asked, since the source does not answer".to_owned();
        return say(step("tools/call", Err(why)));
    }
    for tool in &tools {
        let name = tool["name"].as_str().unwrap_or_default();
        let arguments = match name {
            "watch_connections" => json!({"duration": 1}),
            "contextual_analysis" => json!({"query": "what stands out?"}),
            _ => json!({}),
        };
        let asked = Instant::now();
        let result = peer.ask("tools/call", json!({"name": name, "arguments": arguments}));
        let result = result.and_then(|result| match result["isError"].as_bool() {
            Some(true) => Err(result["content"][0]["text"].as_str().unwrap_or("?").to_owned()),
            _ => Ok(format!(
                "{} bytes after {} ms",
                result["structuredContent"].to_string().len(),
                asked.elapsed().as_millis()
            )),
        });
        let is_hopeless = result.is_err() && asked.elapsed() >= SLOW;
        say(step(name, result));
        if is_hopeless {
            let why = "not asked, since this one did not answer in time".to_owned();
            return say(step("other tools", Err(why)));
        }
    }
}

/// The other end of a conversation over standard input and output.
struct Peer {
    child: Child,
    input: ChildStdin,
    lines: std::sync::mpsc::Receiver<String>,
    next: u64,
    until: Instant,
}

impl Peer {
    fn new(mut child: Child) -> io::Result<Peer> {
        let gone = || io::Error::other("it has no standard input and output");
        let input = child.stdin.take().ok_or_else(gone)?;
        let output: ChildStdout = child.stdout.take().ok_or_else(gone)?;
        // Read on a thread of its own, so that what never answers is given up.
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("netspy-doctor".to_owned()).spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Peer { child, input, lines, next: 1, until: Instant::now() + PATIENCE })
    }

    fn say(&mut self, message: &Value) -> io::Result<()> {
        writeln!(self.input, "{message}")?;
        self.input.flush()
    }

    fn tell(&mut self, method: &str) -> io::Result<()> {
        self.say(&json!({"jsonrpc": "2.0", "method": method}))
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, String> {
        let id = self.next;
        self.next += 1;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.say(&request).map_err(|error| format!("it takes no request: {error}"))?;
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).map_err(|error| match error {
                std::sync::mpsc::RecvTimeoutError::Timeout => "it does not answer".to_owned(),
                std::sync::mpsc::RecvTimeoutError::Disconnected => "it ended".to_owned(),
            })?;
            let answer: Value = serde_json::from_str(&line)
                .map_err(|_| "standard output holds something that is no MCP".to_owned())?;
            if answer["id"].as_u64() != Some(id) {
                continue;
            }
            return match answer.get("error") {
                Some(error) => Err(error["message"].as_str().unwrap_or("an error").to_owned()),
                None => Ok(answer["result"].clone()),
            };
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
