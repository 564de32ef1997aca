//! The server as tools of others find it, from `/openapi.json` alone.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/python.rs"]
mod python;

use std::path::PathBuf;
use std::process::Command;

use common::daemon::{Daemon, command, recording};
use common::records::*;
use jiff::{SignedDuration, Timestamp};
use netspy::Connection;
use serde_json::Value;

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("netspy-outside-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Place(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Records of every kind from the last minutes, which usual questions are about, and wild ones.
fn records() -> Vec<Connection> {
    let (curl, nginx) = (info(7, "curl"), info(8, "nginx"));
    let mut records = Vec::new();
    for n in 0..40 {
        let n = n * 8;
        records.extend([
            refused(n, &curl),
            closed(n + 1, &nginx),
            udp(n + 2, &curl),
            listening(n + 3, &nginx),
            unix(n + 4, &curl, "/run/x.sock"),
            established(n + 5, &curl),
            in_progress(n + 6, &nginx),
            Connection { process: None, ..refused(n + 7, &curl) },
        ]);
    }
    let start = Timestamp::now().checked_sub(SignedDuration::from_mins(5)).unwrap();
    for (n, record) in records.iter_mut().enumerate() {
        record.time = start.checked_add(SignedDuration::from_millis(800 * n as i64)).unwrap();
    }
    let mut wild = Random(15);
    records.extend((0..100).map(|_| wild.connection()));
    records
}

/// How many the document has, but for the document itself, which the fuzzer has read already.
fn operations(server: &Daemon) -> usize {
    let (_, answer) = server.get("/openapi.json", "");
    let document: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let others = paths.filter(|(path, _)| *path != "/openapi.json");
    others.map(|(_, methods)| methods.as_object().unwrap().len()).sum()
}

/// Thousands of questions, right and wrong ones, made from the document by a fuzzer: no answer is
/// other than the document says, what it allows is accepted and what it does not allow is refused.
#[test]
fn schemathesis_finds_nothing() {
    let Some(tools) = python::environment("api-tools") else { return };
    let place = Place::new("schemathesis");
    let file = place.0.join("recording.jsonl");
    std::fs::write(&file, recording(&records())).unwrap();
    let mut server = command(env!("CARGO_BIN_EXE_ebpf-server"));
    server.args(["--no-unix", "--port", "0", "--replay"]).arg(&file);
    let server = Daemon::start(server);
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let output = Command::new(tools.join("schemathesis"))
        .args(["--config-file", &format!("{fixtures}/schemathesis.toml"), "run"])
        .arg(format!("http://127.0.0.1:{}/openapi.json", server.port))
        .args(["--checks", "all", "--no-color"])
        .env("PYTHONPATH", fixtures)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(&place.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    // That it asked about everything.
    let operations = operations(&server);
    let selected = format!("{operations} selected / {operations} total");
    assert!(operations > 20 && said.contains(&selected), "{selected}: {said}");
    server.stop();
}
