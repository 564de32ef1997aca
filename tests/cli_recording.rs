//! `record` and `replay`.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)]

mod cli_support;

use std::io::{BufRead, BufReader};

use cli_support::*;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn server(stream: String) -> Server {
    Server::tcp(&[
        (STREAM, events(stream)),
        (CONNECTIONS, json_answer(&list(&[connection(7, "old", "refused")], 1))),
        (SUMMARY, json_answer(&summary(2, json!({})))),
    ])
}

/// Records what the server streams, until the file has this many lines, then Ctrl-C.
fn record(server: &Server, file: &str, lines: usize) -> Ran {
    let mut child = start(&["record", file, "--server", &server.url]);
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    err.read_line(&mut said).unwrap();
    assert!(said.contains("recording into"), "{said}");
    while std::fs::read_to_string(file).unwrap().lines().count() < lines {
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut ran = finish(child.wait_with_output().unwrap());
    std::io::Read::read_to_string(&mut err, &mut ran.err).unwrap();
    ran
}

#[test]
fn what_is_recorded_can_be_listed_filtered_and_watched() {
    let dir = TempDir::new();
    let file = dir.path().join("r.jsonl");
    let file = file.to_str().unwrap();
    let waiting = connection(1, "nc", "in_progress");
    let ended = connection(1, "nc", "timed_out");
    let other = connection(2, "curl", "established");
    let server = server(event(1, &waiting) + &event(2, &other) + &event(3, &ended));
    let ran = record(&server, file, 4);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("3 records in"), "{}", ran.err);

    let lines: Vec<Value> = std::fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["host"], "web-1", "the records' host, not this one");
    assert_eq!(lines[1..4], [waiting, other.clone(), ended.clone()]);
    assert_eq!(lines[4]["netspy_accounting"]["complete"], true);

    let ran = run(&["replay", file, "--output", "jsonl", "--sort", "oldest"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let listed: Vec<Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(listed, [ended, other], "one record per connection, in its last version");

    let ran = run(&["replay", file, "--watch"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let outcomes: Vec<&str> =
        ran.out.lines().skip(1).map(|l| l.split_whitespace().nth(6).unwrap()).collect();
    assert_eq!(outcomes, ["in_progress", "established", "timed_out"]);

    assert_eq!(run(&["replay", file, "--process", "nobody"]).code, 1);
}

#[test]
fn a_recording_that_exists_is_never_overwritten() {
    let dir = TempDir::new();
    let file = dir.path().join("r.jsonl");
    std::fs::write(&file, "precious").unwrap();
    let server = server(String::new());
    let ran = run(&["record", file.to_str().unwrap(), "--server", &server.url]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("cannot record into"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn skipped_changes_make_the_recording_incomplete() {
    let dir = TempDir::new();
    let file = dir.path().join("r.jsonl");
    let file = file.to_str().unwrap();
    let skipped = "id: 1\nevent: skipped\ndata: {\"changes\": 5}\n\n".to_owned();
    let server = server(skipped + &event(6, &connection(1, "curl", "refused")));
    let ran = record(&server, file, 2);
    assert!(ran.err.contains("5 later changes lost"), "{}", ran.err);
    let ran = run(&["replay", file]);
    assert!(ran.out.contains("5 later changes lost"), "{}", ran.out);
}

#[test]
fn a_server_that_goes_away_leaves_a_recording_that_says_so() {
    let dir = TempDir::new();
    let file = dir.path().join("r.jsonl");
    let file = file.to_str().unwrap();
    for (cut, why) in [(false, "ended the stream; "), (true, "went away: ")] {
        let _ = std::fs::remove_file(file);
        let mut answer = events(event(1, &connection(1, "curl", "refused")));
        (answer.open, answer.cut) = (false, cut);
        let server = Server::tcp(&[(STREAM, answer)]);
        let ran = run(&["record", file, "--server", &server.url]);
        assert_eq!(ran.code, 3, "{}", ran.err);
        assert!(ran.err.contains(why) && ran.err.contains("has the 1 records"), "{}", ran.err);
        let ran = run(&["replay", file]);
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("curl[1001]"), "{}", ran.out);
        assert!(ran.err.contains("was not finished"), "{}", ran.err);
    }
}

#[test]
fn replay_asks_no_server() {
    for args in
        [["replay", "r.jsonl", "--server", "unix:/x"], ["--server", "unix:/x", "replay", "r.jsonl"]]
    {
        let ran = run(&args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}");
        assert!(ran.err.contains("leave out --server"), "{}", ran.err);
    }
    let named = netspy(&["replay", "/nonexistent"]).env("NETSPY_SERVER", "unix:/x").output();
    let ran = finish(named.unwrap());
    assert!(ran.err.contains("cannot open /nonexistent"), "{}", ran.err);
}

#[test]
fn a_file_that_is_no_recording_is_exit_code_2() {
    let dir = TempDir::new();
    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "hello\n").unwrap();
    let empty = dir.path().join("empty.jsonl");
    std::fs::write(&empty, "").unwrap();
    for path in [
        file.to_str().unwrap(),
        empty.to_str().unwrap(),
        "/nonexistent/r.jsonl",
        dir.path().to_str().unwrap(),
    ] {
        for watch in [&[][..], &["--watch"]] {
            let ran = run(&[&["replay", path], watch].concat());
            assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{path}");
            assert_eq!(ran.err.matches(path).count(), 1, "the file is named: {}", ran.err);
        }
    }
}
