//! The real `ebpf-server` as a process: one that answers from a recording, or captures.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use netspy::Connection;
use netspy::accounting::{Accounting, Counters};
use netspy::record::{Header, Writer};
use rustix::process::Signal;
use serde_json::Value;

use super::records::epoch;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// A recording of these records.
pub fn recording(records: &[Connection]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &Header::new("web-1", epoch())).unwrap();
    writer.write(records).unwrap();
    let attempts = records.len() as u64;
    let counters = Counters { attempts, delivered: attempts, ..Counters::default() };
    let books = Accounting::between(&Counters::default(), &counters, epoch(), epoch());
    writer.finish(&books).unwrap();
    bytes
}

/// A program of this package, which sees none of the variables that would configure it.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    unconfigured(&mut command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Takes the variables away that would configure a program of this package.
fn unconfigured(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let configures = |name: &str| name.starts_with("NETSPY_") || name.starts_with("OPENAI_");
        if name.to_str().is_some_and(configures) {
            command.env_remove(name);
        }
    }
}

pub struct Daemon {
    pub child: Child,
    log: Receiver<String>,
    /// What it said before it was ready.
    pub beginning: Vec<String>,
    /// The port.
    pub port: String,
}

impl Daemon {
    /// Starts it; returns when it is ready.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let (sender, log) = channel();
        std::thread::spawn(move || lines.for_each(|line| drop(sender.send(line))));
        let (beginning, port) = (Vec::new(), String::new());
        let mut daemon = Daemon { child, log, beginning, port };
        let mut before = Vec::new();
        let ready = daemon.look_for("ready: listening on ", &mut before);
        daemon.beginning = before;
        let (_, rest) = ready.split_once("://127.0.0.1:").expect("an address");
        daemon.port = rest.chars().take_while(char::is_ascii_digit).collect();
        daemon
    }

    /// One that captures.
    pub fn capture(arguments: &[&str]) -> Self {
        Daemon::capture_by(Command::new(env!("CARGO_BIN_EXE_ebpf-server")), arguments)
    }

    /// The same by a command that becomes the server.
    pub fn capture_by(mut command: Command, arguments: &[&str]) -> Self {
        unconfigured(&mut command);
        command.args(["--no-unix", "--port", "0"]).args(arguments).stderr(Stdio::piped());
        Daemon::start(command)
    }

    /// Waits for a line with these words.
    pub fn says(&self, words: &str) -> String {
        self.look_for(words, &mut Vec::new())
    }

    /// What it has said since it was ready, and was not looked for.
    pub fn said(&self) -> Vec<String> {
        self.log.try_iter().collect()
    }

    fn look_for(&self, words: &str, before: &mut Vec<String>) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no '{words}' in {before:?}"));
            if line.contains(words) {
                return line;
            }
            before.push(line);
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Has it read everything again; returns when it says so in these words.
    pub fn reload(&self, says: &str) -> String {
        self.signal(Signal::HUP);
        self.says(says)
    }

    /// The status of its answer, and all of it.
    pub fn get(&self, target: &str, header: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {target} HTTP/1.0\r\n{header}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    /// What it answers, in JSON.
    pub fn json(&self, target: &str) -> Value {
        let (_, answer) = self.get(target, "");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {head}\n{body}"))
    }

    /// The first record that is as wanted, once there is one.
    pub fn wait_for(&self, target: &str, list: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = |answer: &Value| {
            let records = answer[list].as_array().unwrap();
            records.iter().find(|record| is(record)).cloned()
        };
        found(&self.wait_until(target, |answer| found(answer).is_some())).unwrap()
    }

    /// The first answer that is as wanted.
    pub fn wait_until(&self, target: &str, is: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.json(target);
            if is(&answer) {
                return answer;
            }
            assert!(Instant::now() < until, "{target}: {answer:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
