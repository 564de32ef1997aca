//! `ebpf-server` as a process: what it says and how it exits. Nothing here captures.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use common::records::*;
use netspy::accounting::{Accounting, Counters};
use netspy::record::{Header, Writer};

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebpf-server"));
    let variables = std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("NETSPY_")));
    for (name, _) in variables {
        command.env_remove(name);
    }
    command.arg("--no-unix").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn fails(arguments: &[&str], code: i32, says: &[&str]) -> Output {
    let output = command().args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    for word in says {
        assert!(text.contains(word), "{arguments:?}: '{word}' is not in: {text}");
    }
    output
}

struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netspy-bin-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Files(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn recording(&self, records: u64) -> String {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &Header::new("web-1", epoch())).unwrap();
        let curl = info(7, "curl");
        writer.write(&(0..records).map(|n| refused(n, &curl)).collect::<Vec<_>>()).unwrap();
        let counters = Counters { attempts: records, delivered: records, ..Counters::default() };
        let zero = Counters::default();
        writer.finish(&Accounting::between(&zero, &counters, epoch(), epoch())).unwrap();
        self.file("recording.jsonl", &bytes)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits for the line that says that the server is ready; its address.
fn ready(child: &mut Child) -> (String, impl BufRead + use<>) {
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        if let Some((_, address)) = line.split_once("ready: listening on http://") {
            let address = address.split([' ', ',']).next().unwrap().to_owned();
            return (address, lines);
        }
        line.clear();
    }
    panic!("the server ended before it was ready");
}

fn terminate(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

#[test]
fn wrong_options_are_usage_errors() {
    fails(&["--unknown"], 2, &["--unknown"]);
    fails(&["--listen", "0.0.0.0:8080"], 2, &["only loopback"]);
    fails(&["--ring-size", "100k"], 2, &["power of two"]);
    fails(&["--port", "99999"], 2, &["--port"]);
    fails(&["--replay", "a", "--record", "b"], 2, &["cannot be used with"]);
}

#[test]
fn a_port_in_use_is_named_before_anything_is_loaded() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails(&["--listen", &address], 1, &[&address, "is in use", "--port"]);
}

#[test]
fn what_cannot_be_replayed_is_told_apart() {
    let files = Files::new("bad");
    let replay = |name: &str, bytes: &[u8], says: &str| {
        fails(&["--port", "0", "--replay", &files.file(name, bytes)], 1, &[says]);
    };
    replay("empty", b"", "empty");
    replay("other", b"hello\n", "no netspy recording");
    replay("later", b"{\"netspy_recording\":9}\n", "format 9");
    fails(&["--port", "0", "--replay", "/nonexistent"], 1, &["/nonexistent", "No such file"]);
    fails(&["--port", "0", "--replay", "/tmp"], 1, &["/tmp", "directory"]);
}

#[test]
fn a_recording_is_served_and_sigterm_ends_streams_and_exits_with_0() {
    let files = Files::new("good");
    let recording = files.recording(5_000);
    let mut child = command().args(["--port", "0", "--replay", &recording]).spawn().unwrap();
    let (address, log) = ready(&mut child);
    let mut stream = TcpStream::connect(&address).unwrap();
    let request = "GET /api/v1/stream?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "HTTP/1.1 200 OK");
    assert!(lines.any(|line| line.contains("\"refused\"")));
    terminate(&child);
    // The stream ends, rather than break off: its last chunk is empty.
    assert_eq!(lines.filter(|line| !line.is_empty()).last().unwrap(), "0");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let log: Vec<_> = log.lines().map(Result::unwrap).collect();
    assert!(log.last().unwrap().contains("stopped; 5000 records"), "{log:?}");
}

#[test]
fn the_books_of_a_replay_balance_over_http() {
    let files = Files::new("books");
    let recording = files.recording(100);
    let mut child = command()
        .args(["--http", "--port", "0", "--replay", &recording, "--log-format", "json"])
        .spawn()
        .unwrap();
    let (address, _log) = ready(&mut child);
    let mut stream = TcpStream::connect(address.trim_end_matches('"')).unwrap();
    let request = "GET /api/v1/status HTTP/1.0\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    let status: netspy::query::Status =
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((status.backend.as_str(), status.accounting.attempts), ("replay", 100));
    assert!(status.accounting.balances() && status.accounting.complete);
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn check_reports_on_a_recording_and_exits() {
    let files = Files::new("check");
    let output = command().args(["--check", "--replay", &files.recording(3)]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("backend: replay"), "{text}");
}

#[test]
fn without_the_privileges_the_exit_code_is_4_and_the_way_out_is_said() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: this user may capture");
        return;
    }
    fails(&["--port", "0"], 4, &["root"]);
}
