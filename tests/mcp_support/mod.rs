//! Clients that speak MCP by hand, so that a test sees every word.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The two eras of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// A handshake first.
    Handshake,
    /// Every request stands for itself.
    Stateless,
}

pub const ERAS: [Era; 2] = [Era::Handshake, Era::Stateless];

/// The parameters of a request, with what the era adds.
pub fn params(era: Era, mut params: Value) -> Value {
    if era == Era::Stateless {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        params["_meta"]["io.modelcontextprotocol/clientInfo"] =
            json!({"name": "test", "version": "0"});
    }
    params
}

pub fn hello() -> Value {
    json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"},
    })
}

/// `netspy mcp`, started as an assistant's program starts it.
pub struct Assistant {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// Notifications that came while something else was waited for.
    pub heard: Vec<Value>,
    era: Era,
    next: u64,
}

pub fn netspy(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netspy"));
    command.args(args);
    for name in ["NETSPY_SERVER", "NETSPY_TOKEN_FILE", "NETSPY_CA_CERT", "NETSPY_MODEL"] {
        command.env_remove(name);
    }
    command
}

impl Assistant {
    /// Starts it, and shakes hands where the era has that.
    pub fn start(server: &str, era: Era) -> Self {
        let mut peer = Self::bare(server, era);
        peer.greet();
        peer
    }

    /// Shakes hands where the era has that.
    pub fn greet(&mut self) {
        if self.era == Era::Handshake {
            self.ask("initialize", hello()).unwrap();
            self.tell("notifications/initialized", json!({}));
        }
    }

    /// Starts it and says nothing.
    pub fn bare(server: &str, era: Era) -> Self {
        Self::with_env(server, era, &[])
    }

    /// The same in such an environment.
    pub fn with_env(server: &str, era: Era, env: &[(&str, &str)]) -> Self {
        let mut child = netspy(&["mcp", "--server", server])
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // As of a client that does not read what it says.
        drop(child.stderr.take());
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let message = serde_json::from_str(&line)
                    .unwrap_or_else(|e| panic!("standard output holds no MCP ({e}): {line}"));
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Assistant { child, input, lines, heard: Vec::new(), era, next: 1 }
    }

    /// Says this line, whatever it is.
    pub fn line(&mut self, line: &[u8]) {
        let input = self.input.as_mut().unwrap();
        input.write_all(line).unwrap();
        input.write_all(b"\n").unwrap();
    }

    fn say(&mut self, message: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{message}").unwrap();
    }

    pub fn tell(&mut self, method: &str, params: Value) {
        self.say(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Sends a request; its id.
    pub fn send(&mut self, method: &str, given: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        let params = params(self.era, given);
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// The next message.
    pub fn hear(&mut self) -> Value {
        self.lines.recv_timeout(PATIENCE).expect("a message")
    }

    /// The answer to this request: its result, or its error.
    pub fn answer(&mut self, id: u64) -> Result<Value, Value> {
        loop {
            let message = self.hear();
            if message["id"].as_u64() != Some(id) || message.get("method").is_some() {
                self.heard.push(message);
                continue;
            }
            return match message.get("error") {
                Some(error) => Err(error.clone()),
                None => Ok(message["result"].clone()),
            };
        }
    }

    pub fn ask(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.send(method, params);
        self.answer(id)
    }

    /// Calls a tool; what it answered.
    pub fn call(&mut self, name: &str, arguments: Value) -> Value {
        let result = self.ask("tools/call", json!({"name": name, "arguments": arguments})).unwrap();
        assert_ne!(result["isError"], true, "{name}: {result}");
        let content = result["structuredContent"].clone();
        let text: Value =
            serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, content, "{name}");
        content
    }

    /// Calls a tool that fails; its words.
    pub fn fail(&mut self, name: &str, arguments: Value) -> String {
        let result = self.ask("tools/call", json!({"name": name, "arguments": arguments})).unwrap();
        assert_eq!(result["isError"], true, "{name}: {result}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// Closes standard input.
    pub fn close(&mut self) {
        self.input = None;
    }

    /// Closes standard input; its exit code.
    pub fn end(mut self) -> Option<i32> {
        self.close();
        self.child.wait().unwrap().code()
    }

    /// Sends SIGTERM; its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Assistant {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `netspy mcp --http`, and where it listens.
pub struct Serving(Child, pub SocketAddr);

impl Serving {
    /// Before the server at this address.
    pub fn start(server: SocketAddr, more: &[&str]) -> Serving {
        let server = format!("http://{server}");
        let mut command = netspy(&["mcp", "--http", "127.0.0.1:0", "--server", &server]);
        let mut child = command.args(more).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("http://").unwrap().1.strip_suffix("/mcp").unwrap();
        Serving(child, address.parse().unwrap())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A column of a columnar answer.
pub fn column(content: &Value, name: &str) -> Vec<Value> {
    let columns = content["columns"].as_array().unwrap();
    let at = columns.iter().position(|column| column == name);
    let at = at.unwrap_or_else(|| panic!("no column {name}: {content}"));
    content["rows"].as_array().unwrap().iter().map(|row| row[at].clone()).collect()
}
