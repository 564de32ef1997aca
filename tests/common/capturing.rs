//! `ebpf-server` as a process that captures.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    pub child: Child,
    pub address: String,
    pub log: Vec<String>,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        Server::start_by(Command::new(env!("CARGO_BIN_EXE_ebpf-server")), arguments)
    }

    /// The same by a command that becomes the server.
    pub fn start_by(mut command: Command, arguments: &[&str]) -> Self {
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("NETSPY_")) {
                command.env_remove(name);
            }
        }
        let arguments = [&["--no-unix", "--port", "0"], arguments].concat();
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut log = Vec::new();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("no server: {log:?}"));
            if let Some((_, rest)) = line.split_once("ready: listening on http://") {
                break rest.split([' ', ',']).next().unwrap().to_owned();
            }
            log.push(line);
        };
        // Nobody reads on, and it must not wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, address, log }
    }

    pub fn get(&self, target: &str) -> Value {
        let answer = self.answer(target).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {head}\n{body}"))
    }

    /// Head and body.
    fn answer(&self, target: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {target} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
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
            let answer = self.get(target);
            if is(&answer) {
                return answer;
            }
            assert!(Instant::now() < until, "{target}: {answer:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
