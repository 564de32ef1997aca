//! A server with fixed answers, and the real `netspy` binary to ask it.
#![allow(dead_code)] // Each test file uses its part.

pub mod pty;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// An answer of the server.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
    /// Leaves the connection open after the body, as an event stream is.
    pub open: bool,
    /// Hangs up before the end that the header promises.
    pub cut: bool,
}

pub fn json_answer(body: &Value) -> Answer {
    Answer {
        status: 200,
        content_type: "application/json",
        body: body.to_string(),
        open: false,
        cut: false,
    }
}

pub fn problem(status: u16, body: &Value) -> Answer {
    let content_type = "application/problem+json";
    Answer { status, content_type, body: body.to_string(), open: false, cut: false }
}

pub fn events(body: impl Into<String>) -> Answer {
    Answer {
        status: 200,
        content_type: "text/event-stream",
        body: body.into(),
        open: true,
        cut: false,
    }
}

/// Serves fixed answers by path until the test ends; remembers what was asked.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
    _dir: Option<TempDir>,
}

impl Server {
    pub fn tcp(routes: &[(&str, Answer)]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::default();
        serve(move || listener.accept().map(|(s, _)| s), routes, &asked);
        Server { url, asked, _dir: None }
    }

    pub fn unix(routes: &[(&str, Answer)]) -> Server {
        let dir = TempDir::new();
        let path = dir.0.join("api.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let asked = Arc::default();
        serve(move || listener.accept().map(|(s, _)| s), routes, &asked);
        Server { url: format!("unix:{}", path.display()), asked, _dir: Some(dir) }
    }

    /// Paths with their queries, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve<S: Read + Write + Send + 'static>(
    accept: impl Fn() -> std::io::Result<S> + Send + 'static,
    routes: &[(&str, Answer)],
    asked: &Arc<Mutex<Vec<String>>>,
) {
    let routes: Arc<Vec<(String, Answer)>> =
        Arc::new(routes.iter().map(|(p, a)| ((*p).to_owned(), a.clone())).collect());
    let asked = Arc::clone(asked);
    std::thread::spawn(move || {
        while let Ok(stream) = accept() {
            let (routes, asked) = (Arc::clone(&routes), Arc::clone(&asked));
            std::thread::spawn(move || answer(stream, &routes, &asked));
        }
    });
}

fn answer(stream: impl Read + Write, routes: &[(String, Answer)], asked: &Mutex<Vec<String>>) {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    if stream.read_line(&mut request).unwrap_or(0) == 0 {
        return;
    }
    let mut header = String::new();
    while stream.read_line(&mut header).unwrap_or(0) > 2 {
        header.clear();
    }
    let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().unwrap().push(target.clone());
    let path = target.split('?').next().unwrap_or_default();
    let found = routes.iter().find(|(route, _)| route == path).map(|(_, answer)| answer.clone());
    let Answer { status, content_type, body, open, cut } = found.unwrap_or(Answer {
        status: 404,
        content_type: "text/plain",
        body: "no such page".to_owned(),
        open: false,
        cut: false,
    });
    let length = if open {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len() + usize::from(cut))
    };
    let out = stream.get_mut();
    let _ =
        write!(out, "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\n{length}\r\n{body}");
    let _ = out.flush();
    if open {
        // Until the client hangs up.
        let _ = stream.read(&mut [0]);
    }
}

/// A directory that goes with the test.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("netspy-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        TempDir(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The binary, without anything that the environment of the tests would tell it.
pub fn netspy(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netspy"));
    command.args(args).stdin(Stdio::null());
    for name in [
        "NETSPY_SERVER",
        "NETSPY_MODEL",
        "OPENAI_API_KEY",
        "OPENAI_API_BASE",
        "NO_COLOR",
        "CLICOLOR_FORCE",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
    command.env("TZ", "UTC");
    command
}

/// What a command printed, and how it ended.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub fn run(args: &[&str]) -> Ran {
    finish(netspy(args).output().unwrap())
}

pub fn finish(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Asks a server that the test itself runs, which goes on meanwhile.
pub async fn ask_at(server: SocketAddr, args: &[&str]) -> Ran {
    let mut command = netspy(args);
    command.arg("--server").arg(format!("http://{server}"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    finish(output)
}

/// Runs with lines on standard input.
pub fn run_with_input(args: &[&str], input: &str) -> Ran {
    let mut command = netspy(args);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    finish(child.wait_with_output().unwrap())
}

/// A command that goes on until the test ends it.
pub fn start(args: &[&str]) -> Child {
    netspy(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Fields of each line, as RFC 4180 has them.
pub fn csv_rows(csv: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field, mut quoted) = (vec![], vec![], String::new(), false);
    let mut chars = csv.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            c => field.push(c),
        }
    }
    rows
}

/// A record as the server gives it.
pub fn connection(n: u32, comm: &str, outcome: &str) -> Value {
    let (errno, error) = match outcome {
        "refused" => (json!(111), json!("ECONNREFUSED")),
        "timed_out" => (json!(110), json!("ETIMEDOUT")),
        _ => (Value::Null, Value::Null),
    };
    let state = match outcome {
        "established" | "associated" => "open",
        "in_progress" => "connecting",
        _ => "closed",
    };
    json!({
        "id": format!("0000beef-{n:x}-{:x}", 1000 + n), "host": "web-1",
        "time": "2026-01-31T09:30:00.123456789Z", "direction": "outbound", "protocol": "tcp",
        "socket_type": "stream", "family": "ipv4",
        "local": {"ip": "10.0.0.5", "port": 41234},
        "remote": {"ip": "93.184.215.14", "port": 443, "name": "example.com",
                   "name_source": "dns", "name_time": null, "service": "https", "scope": "global",
                   "country": null, "asn": null, "as_name": null},
        "remote_actual": null,
        "path": null,
        "process": {"pid": 1000 + n, "tid": 1000 + n, "comm": comm, "thread": comm,
            "exe": "/usr/bin/curl", "exe_deleted": false, "exe_dev": null, "exe_inode": null,
            "exe_sha256": null, "cwd": null, "cmdline": "curl https://example.com",
            "unit": null, "uid": 1000, "user": "ann", "ppid": 1, "parent": "bash",
            "ancestry": ["bash", "systemd"], "start_time": null, "cgroup": "/", "netns": 1,
            "container": null},
        "state": state, "outcome": outcome, "errno": errno, "error": error,
        "evidence": "tcp_state", "latency_us": 412, "syn_retransmits": 0, "drop": null,
        "close": null, "preexisting": false,
    })
}

pub fn unix_connection(n: u32, comm: &str) -> Value {
    let mut record = connection(n, comm, "established");
    record["protocol"] = json!("unix");
    record["family"] = json!("unix");
    record["local"] = Value::Null;
    record["remote"] = Value::Null;
    record["path"] = json!("/run/snapd.socket");
    record
}

pub fn accounting(complete: bool) -> Value {
    let lost = if complete { 0 } else { 3 };
    json!({"attempts": 10 + lost, "delivered": 10, "filtered": 0,
        "lost": {"ring_full": lost, "map_full": 0, "slow_consumer": 0, "undecodable": 0,
                  "capture_ended": 0},
        "pending": 0, "updates_lost": 0, "missed": 0, "evicted": 0, "gaps": [],
        "since": "2026-01-31T09:00:00.000000000Z", "until": "2026-01-31T10:00:00.000000000Z", "complete": complete})
}

pub fn list(connections: &[Value], total: u64) -> Value {
    json!({"connections": connections, "total": total, "next_cursor": null,
        "window": {"since": "2026-01-31T09:00:00.000000000Z", "until": "2026-01-31T10:00:00.000000000Z"},
        "accounting": accounting(true), "newest_outside_window": null})
}

pub fn summary(total: u64, by_outcome: Value) -> Value {
    json!({"total": total, "by_outcome": by_outcome, "by_protocol": {"tcp": total},
        "by_direction": {"outbound": total}, "processes": 2, "remotes": 3,
        "watched_seconds": 0.0, "rate_per_second": 0.5, "handshake": null,
        "window": {"since": "2026-01-31T09:00:00.000000000Z", "until": "2026-01-31T10:00:00.000000000Z"},
        "accounting": accounting(true), "newest_outside_window": null})
}

/// Drops as the server gives them; of the attempt of such a process, if it has a name.
pub fn dropped(n: u32, comm: &str, reason: &str) -> Value {
    let attempt = connection(n, comm, "timed_out");
    let (id, process) = match comm {
        "" => (Value::Null, Value::Null),
        _ => (attempt["id"].clone(), attempt["process"].clone()),
    };
    json!({
        "id": format!("d0000beef-{n:x}-1"), "host": "web-1",
        "time": "2026-01-31T09:30:00.123456789Z", "last": "2026-01-31T09:30:00.200000000Z",
        "reason": reason, "reason_code": 12, "protocol": "tcp", "ip_protocol": 6,
        "family": "ipv4", "source": {"ip": "10.0.0.5", "port": 41234},
        "destination": {"ip": "93.184.215.14", "port": 443}, "count": 3, "bytes": 180, "netns": 1,
        "no_room": false, "connection": id, "process": process,
    })
}

pub fn drop_list(drops: &[Value], total: u64, packets: u64) -> Value {
    json!({"drops": drops, "total": total, "packets": packets,
        "by_reason": {"NO_SOCKET": 1, "NETFILTER_DROP": packets.saturating_sub(1)},
        "next_cursor": null, "not_seen": null, "newest_outside_window": null,
        "window": {"since": "2026-01-31T09:00:00.000000000Z", "until": "2026-01-31T10:00:00.000000000Z"},
        "accounting": {"packets": packets, "listed": packets, "no_room": 0, "no_address": 0,
            "pending": 0, "missed": 0, "lost": 0, "evicted": 0, "gaps": [],
            "since": "2026-01-31T09:00:00.000000000Z", "until": "2026-01-31T10:00:00.000000000Z",
            "complete": true}})
}

pub fn status() -> Value {
    json!({"version": "0.1.0", "uptime_s": 3700, "health": "healthy", "backend": "tracepoint",
        "features": {
            "connect": {"hook": "syscalls/sys_exit_connect", "ok": true, "note": null},
            "datagram_sent": {"hook": null, "ok": false, "note": "no hook in this version"}},
        "store": {"kind": "memory", "records": 12, "bytes": 4096, "limit_bytes": 67108864,
            "evicted": 0, "oldest": null},
        "accounting": accounting(true)})
}

/// One event of the stream.
pub fn event(seq: u64, connection: &Value) -> String {
    format!("id: {seq}\nevent: connection\ndata: {connection}\n\n")
}

pub const CONNECTIONS: &str = "/api/v1/connections";
pub const DROPS: &str = "/api/v1/drops";
pub const DNS: &str = "/api/v1/dns";
pub const SUMMARY: &str = "/api/v1/summary";
pub const STATUS: &str = "/api/v1/status";
pub const STREAM: &str = "/api/v1/stream";
