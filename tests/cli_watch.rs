//! The live view.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)]

mod cli_support;

use std::io::{BufRead, BufReader};

use cli_support::*;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn with_close(mut record: Value) -> Value {
    record["state"] = json!("closed");
    record["close"] = json!({"time": "2026-01-31T09:31:00.000000000Z", "duration_us": 1, "bytes_sent": 1,
        "bytes_received": 1, "retransmits": 0, "srtt_us": null, "reason": "fin"});
    record
}

#[test]
fn each_outcome_is_one_line_and_a_close_is_none() {
    let established = connection(1, "curl", "established");
    let long_ago = with_close(connection(9, "old", "established"));
    let stream = [
        ": keep-alive\n\n".to_owned(),
        event(1, &connection(2, "nc", "in_progress")),
        event(2, &established),
        event(3, &with_close(established)),
        event(4, &long_ago),
        event(5, &connection(2, "nc", "timed_out")),
    ];
    let server = Server::tcp(&[(STREAM, events(stream.concat()))]);
    let ran = run(&["watch", "--server", &server.url, "--limit", "3"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let seen: Vec<Vec<&str>> = ran
        .out
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().filter(|w| !w.contains(['.', '/'])).collect())
        .collect();
    assert_eq!(seen[0][..2], ["nc[1002]", "tcp"]);
    assert!(seen[0].contains(&"in_progress"));
    assert!(seen[1].contains(&"established"));
    assert!(seen[2].contains(&"timed_out") && seen[2].contains(&"ETIMEDOUT"));
    assert_eq!(seen.len(), 3, "{}", ran.out);
    assert!(ran.err.contains("3 lines in"), "{}", ran.err);
}

#[test]
fn json_lines_carry_every_change() {
    let established = connection(1, "curl", "established");
    let closed = with_close(established.clone());
    let stream = event(1, &established) + &event(2, &closed);
    let server = Server::unix(&[(STREAM, events(stream.replace('\n', "\r\n")))]);
    let ran = run(&["watch", "--json", "--server", &server.url, "--limit", "2"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<Value> = ran.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines, [established, closed]);
}

#[test]
fn equal_lines_are_grouped_under_load() {
    let mut same = connection(1, "ab", "refused");
    let stream: String = (0..1000)
        .map(|n| {
            same["id"] = json!(format!("0000beef-{n:x}-1"));
            event(n, &same)
        })
        .collect();
    let mut answer = events(stream);
    answer.open = false;
    let server = Server::tcp(&[(STREAM, answer)]);
    let ran = run(&["watch", "--server", &server.url]);
    let lines: Vec<&str> = ran.out.lines().skip(1).collect();
    assert!(lines.len() < 200, "{} lines", lines.len());
    let count = |line: &&str| match line.split_once('×') {
        Some((_, rest)) => rest.split(' ').next().unwrap().replace(',', "").parse().unwrap(),
        None => 1,
    };
    assert_eq!(lines.iter().map(count).sum::<u64>(), 1000);
    assert!(ran.err.contains("1,000 lines"), "{}", ran.err);
}

#[test]
fn ctrl_c_ends_it_with_a_total() {
    for signal in [Signal::INT, Signal::TERM] {
        let server = Server::tcp(&[(STREAM, events(event(1, &connection(1, "curl", "refused"))))]);
        let mut child = start(&["watch", "--server", &server.url]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().starts_with("TIME"));
        assert!(lines.next().unwrap().unwrap().contains("refused"));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ran = finish(child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.err.contains("1 line in") && ran.err.contains("1 refused"), "{}", ran.err);
    }
}

#[test]
fn a_server_that_ends_the_stream_is_exit_code_3() {
    let mut answer = events(event(1, &connection(1, "curl", "refused")));
    answer.open = false;
    let server = Server::tcp(&[(STREAM, answer)]);
    let ran = run(&["watch", "--server", &server.url]);
    assert_eq!(ran.code, 3);
    assert!(ran.out.contains("refused"), "what came is shown: {}", ran.out);
    assert!(ran.err.contains("ended the stream"), "{}", ran.err);
}

#[test]
fn a_server_that_is_killed_is_exit_code_3_after_the_totals() {
    let mut answer = events(event(1, &connection(1, "curl", "refused")));
    (answer.open, answer.cut) = (false, true);
    let server = Server::tcp(&[(STREAM, answer)]);
    let ran = run(&["watch", "--server", &server.url]);
    assert_eq!(ran.code, 3);
    assert!(ran.out.contains("curl[1001]"), "{}", ran.out);
    let said: Vec<&str> = ran.err.lines().collect();
    assert!(said[0].contains("1 line in"), "{}", ran.err);
    let sentence = format!("netspy: server {} went away: the connection broke off", server.url);
    assert_eq!(said[1..], [sentence]);
}

#[test]
fn changes_that_were_skipped_are_told() {
    let stream = "id: 9\nevent: skipped\ndata: {\"changes\":1200}\n\n".to_owned()
        + &event(10, &connection(1, "curl", "refused"));
    let server = Server::tcp(&[(STREAM, events(stream))]);
    let ran = run(&["watch", "--server", &server.url, "--limit", "1"]);
    assert!(ran.err.contains("1,200 changes came faster"), "{}", ran.err);
}

#[test]
fn a_reader_that_leaves_ends_a_silent_watch() {
    let server = Server::tcp(&[(STREAM, events(""))]);
    let mut child = start(&["watch", "--server", &server.url]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("TIME"));
    drop(lines);
    let ran = finish(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn watch_hides_unix_sockets_unless_asked_for() {
    let server = Server::tcp(&[(STREAM, events(event(1, &unix_connection(1, "snapd"))))]);
    for (flag, hidden) in [(&[][..], true), (&["--all"], false), (&["--protocol=unix"], false)] {
        let args = [&["watch", "--server", &server.url, "--limit", "1"], flag].concat();
        assert_eq!(run(&args).code, 0);
        let asked = server.asked().pop().unwrap();
        assert_eq!(asked.contains("protocol=tcp"), hidden, "{asked}");
    }
}
