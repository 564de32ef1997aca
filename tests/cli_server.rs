//! `netspy` and `ebpf-server` together, over TCP and over the UNIX socket.
#![cfg(all(feature = "cli", feature = "server"))]
#![allow(clippy::unwrap_used)]

mod cli_support;
#[path = "common/records.rs"]
mod records;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cli_support::{TempDir, run, run_with_input};
use futures_util::StreamExt;
use netspy::accounting::{Accounting, Counters};
use netspy::client::HttpSource;
use netspy::event::{Connection, Outcome};
use netspy::query::{Filter, Follow, Page, Source};
use netspy::record::{Header, Writer};

/// An `ebpf-server` that answers from a recording. It ends with the test.
struct Server {
    child: Child,
    urls: [String; 2],
    _dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn of(connections: &[Connection]) -> Server {
        let dir = TempDir::new();
        let (file, socket) = (dir.path().join("r.jsonl"), dir.path().join("api.sock"));
        write(&file, connections);
        let mut child = Command::new(env!("CARGO_BIN_EXE_ebpf-server"))
            .args(["--port", "0", "--replay"])
            .arg(file)
            .arg("--unix")
            .arg(&socket)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut url = None;
        while url.is_none() {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the server ended");
            if line.contains("ready") {
                url = line.split_whitespace().find(|w| w.starts_with("http://")).map(Into::into);
            }
        }
        // The server does not stop for a log that nobody reads.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Server { child, urls: [url.unwrap(), format!("unix:{}", socket.display())], _dir: dir }
    }
}

fn write(file: &Path, connections: &[Connection]) {
    let mut writer = Writer::create(file, &Header::new("web-1", records::epoch())).unwrap();
    writer.write(connections).unwrap();
    let n = connections.len() as u64;
    let counters = Counters { attempts: n, delivered: n, ..Counters::default() };
    let (since, until) = (records::epoch(), records::micros(1_000_000));
    writer.finish(&Accounting::between(&Counters::default(), &counters, since, until)).unwrap();
}

fn some() -> Vec<Connection> {
    let (curl, nc) = (records::info(1234, "curl"), records::info(77, "nc"));
    (0..30).map(|n| records::refused(n, if n % 3 == 0 { &nc } else { &curl })).collect()
}

#[test]
fn every_question_has_its_answer_over_tcp_and_over_the_socket() {
    let server = Server::of(&some());
    for url in &server.urls {
        let ran = run(&["list", "--process", "curl", "--limit", "5", "--server", url]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert_eq!(ran.out.matches("curl[1234]").count(), 5, "{}", ran.out);
        assert!(ran.out.contains("5 of 20 shown; the next: --cursor "), "{}", ran.out);

        let cursor = ran.out.rsplit("--cursor ").next().unwrap().trim();
        let rest = run(&["list", "--process", "curl", "--cursor", cursor, "--server", url]);
        assert_eq!(rest.out.matches("curl[1234]").count(), 15, "{}{}", rest.out, rest.err);

        let id = some()[0].id.to_string();
        let ran = run(&["show", &id, "--server", url]);
        assert!(ran.out.contains("nc[77]"), "{}{}", ran.out, ran.err);
        assert_eq!(run(&["show", "1-2-3", "--server", url]).code, 1);

        let ran = run(&["summary", "--server", url]);
        assert!(ran.out.contains("30 connections of 2 processes"), "{}{}", ran.out, ran.err);
        assert!(ran.out.contains("refused 30"), "{}", ran.out);

        let ran = run(&["status", "--server", url]);
        assert!(ran.out.contains("Backend   replay"), "{}{}", ran.out, ran.err);

        let ran = run(&["list", "--outcome", "established", "--server", url]);
        assert_eq!(ran.code, 1, "{}", ran.err);
    }
}

#[test]
fn the_originals_questions_are_answered_by_the_server() {
    let server = Server::of(&some());
    let age = jiff::Timestamp::now().duration_since(records::epoch()).as_secs().max(0) + 3600;
    let duration = age.to_string();
    let ran = run_with_input(
        &["--server", &server.urls[1]],
        &format!("summary --process nc --duration {duration}\nsummary --pid 4242\n"),
    );
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    let end = format!("outbound connection attempts over the last {duration} seconds");
    assert_eq!(lines[0], format!("Process 'nc' made 10 {end}"));
    // The recording ended long before: that nothing is found there says little.
    let [none, why] = lines[lines.len() - 2..] else { panic!("{lines:#?}") };
    assert_eq!(none, "No network connections found for PID 4242 in the last 60 seconds");
    assert!(why.starts_with("  Incomplete: no capture from "), "{why}");
    assert!(why.ends_with("(after the recording ended)."), "{why}");
}

#[tokio::test]
async fn the_client_reads_back_every_record_and_every_change() {
    let expected = some();
    let server = Server::of(&expected);
    // The socket: over TCP the server withholds command lines.
    let source = HttpSource::new(server.urls[1].parse().unwrap());
    let all = Filter::default();
    let list = source.list(&all, &Page::default()).await.unwrap();
    let mut listed = list.connections;
    listed.reverse();
    assert_eq!(listed, expected);
    assert!(list.accounting.complete && list.accounting.attempts == 30);
    let summary = source.summary(&all).await.unwrap();
    assert_eq!(summary.by_outcome.get(&Outcome::Refused), Some(&30));

    let mut changes = source.follow(&all, Some(0)).await.unwrap();
    let mut followed = Vec::new();
    while followed.len() < expected.len() {
        match changes.next().await.unwrap().unwrap() {
            Follow::Change(change) => followed.push(change.connection),
            Follow::Skipped { .. } => {}
        }
    }
    assert_eq!(followed, expected);
}
