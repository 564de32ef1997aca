//! The real `ebpf-server`, which answers from a recording.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use netspy::Connection;
use netspy::accounting::{Accounting, Counters};
use netspy::record::{Header, Writer};
use rustix::process::Signal;

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
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("NETSPY_")) {
            command.env_remove(name);
        }
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub struct Daemon {
    pub child: Child,
    log: Receiver<String>,
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
        let mut daemon = Daemon { child, log, port: String::new() };
        let ready = daemon.says("ready: listening on ");
        let (_, rest) = ready.split_once("://127.0.0.1:").expect("an address");
        daemon.port = rest.chars().take_while(char::is_ascii_digit).collect();
        daemon
    }

    /// Waits for a line with these words.
    pub fn says(&self, words: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no '{words}'"));
            if line.contains(words) {
                return line;
            }
        }
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
        let mut stream = TcpStream::connect(format!("127.0.0.1:{}", self.port)).unwrap();
        write!(stream, "GET {target} HTTP/1.0\r\n{header}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
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
