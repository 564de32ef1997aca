//! `netspy drops`, and the original's questions about dropped packets.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)]

mod cli_support;

use cli_support::*;
use serde_json::{Value, json};

fn server(list: &Value) -> Server {
    Server::tcp(&[(DROPS, json_answer(list))])
}

/// One of curl, and one whose addresses found no room.
fn some() -> Value {
    let mut rest = dropped(2, "", "NO_SOCKET");
    for member in ["protocol", "ip_protocol", "family", "source", "destination", "netns"] {
        rest[member] = Value::Null;
    }
    rest["no_room"] = json!(true);
    rest["count"] = json!(91_808);
    let mut list = drop_list(&[dropped(1, "curl", "NETFILTER_DROP"), rest], 7, 4);
    list["accounting"]["no_room"] = json!(91_808);
    list["accounting"]["complete"] = json!(false);
    list
}

#[test]
fn drops_are_shown_with_reason_addresses_count_and_process() {
    let server = server(&some());
    let ran = run(&["drops", "--server", &server.url]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let lines: Vec<&str> = ran.out.lines().collect();
    let titles: Vec<&str> = lines[0].split_whitespace().collect();
    let all = ["TIME", "REASON", "PROTO", "SOURCE", "DESTINATION", "COUNT", "PROCESS"];
    assert_eq!(titles, all);
    let fields: Vec<&str> = lines[1].split_whitespace().skip(1).collect();
    let route = ["10.0.0.5:41234", "93.184.215.14:443"];
    assert_eq!(fields[..2], ["09:30:00.123", "NETFILTER_DROP"]);
    assert_eq!(fields[2..], ["tcp", route[0], route[1], "3", "curl[1001]"]);
    assert!(lines[2].contains("NO_SOCKET") && lines[2].contains("91,808"), "{}", lines[2]);
    assert!(lines[3].starts_with("Incomplete: 91,808 packets are counted by reason alone"));
}

#[test]
fn every_form_has_every_record() {
    let server = server(&some());
    let out = |form: &str| run(&["drops", "--output", form, "--server", &server.url]).out;
    let whole: Value = serde_json::from_str(&out("json")).unwrap();
    assert_eq!(whole, some());
    let lines: Vec<Value> =
        out("jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json!(lines), some()["drops"]);
    let csv = out("csv");
    let mut csv = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let (titles, first) = (csv.next().unwrap(), csv.next().unwrap());
    assert_eq!(titles.len(), first.len());
    let field = |name: &str| first[titles.iter().position(|title| *title == name).unwrap()];
    assert_eq!((field("reason"), field("count"), field("bytes")), ("NETFILTER_DROP", "3", "180"));
    assert_eq!((field("destination_port"), field("comm")), ("443", "curl"));
    assert_eq!(field("connection"), "0000beef-1-3e9");
}

#[test]
fn filters_reach_the_server_and_wrong_ones_do_not() {
    let server = server(&some());
    let flags = ["--reason", "no_socket,XDP", "--port=443", "--remote", "10.0.0.5", "--pid", "7"];
    let more = ["--process", "curl", "--protocol", "tcp", "--since", "15m", "--limit", "5"];
    let ran = run(&[&["drops", "--server", &server.url], &flags[..], &more[..]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let asked = server.asked().pop().unwrap();
    for part in ["reason=no_socket%2CXDP", "port=443", "remote=10.0.0.5", "pid=7", "process=curl"] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
    assert!(asked.contains("since=20") && asked.contains("limit=5"), "{asked}");
    for wrong in [["--port", "x"], ["--sort", "oldest"], ["--reason", ""], ["--limit", "0"]] {
        let ran = run(&[&["drops", "--server", &server.url], &wrong[..]].concat());
        assert_eq!(ran.code, 2, "{wrong:?}");
        assert!(ran.err.contains(&wrong[0][2..]), "{}", ran.err);
    }
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn nothing_found_is_exit_code_1_and_why_nothing_can_be_seen_is_said() {
    let mut list = drop_list(&[], 0, 0);
    let ran = run(&["drops", "--server", &server(&list).url]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "No drops match.\n"));
    list["not_seen"] = json!("Linux 5.17 tells why packets are dropped, this kernel does not");
    list["accounting"]["complete"] = json!(false);
    let ran = run(&["drops", "--server", &server(&list).url]);
    let why = "Drops are not seen: Linux 5.17 tells why packets are dropped, this kernel does not.";
    assert_eq!((ran.code, ran.out), (1, format!("No drops match.\n{why}\n")));
}

#[test]
fn hostile_names_do_not_reach_the_terminal() {
    let mut record = dropped(1, "\u{1b}[31mevil\n", "NO_SOCKET");
    record["reason"] = json!("X\u{202e}\u{9b}1m");
    let server = server(&drop_list(&[record], 1, 3));
    for args in [&["drops"][..], &["--tool", "list_packet_drops"]] {
        let ran = run(&[args, &["--server", &server.url]].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let bad = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!ran.out.contains(bad), "{:?}", ran.out);
    }
}

#[test]
fn the_originals_questions_come_in_its_words() {
    let server = server(&drop_list(&[dropped(1, "curl", "NETFILTER_DROP")], 15, 4));
    let out = |args: &[&str]| {
        let ran = run(&[args, &["--server", &server.url]].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        ran.out
    };
    let summary = "--tool=get_packet_drop_summary";
    let reasons = "  Reasons: NETFILTER_DROP 3, NO_SOCKET 1\n";
    for (args, whom, seconds) in [
        (&[summary, "--process", "curl"][..], "process 'curl'", 60),
        (&[summary, "--pid=1234", "--process=curl", "--duration", "120"], "PID 1234", 120),
        (&[summary], "all processes", 60),
    ] {
        let sentence = format!("{whom} had 4 packet drops over the last {seconds} seconds\n");
        assert_eq!(out(args), sentence + reasons);
    }
    assert_eq!(
        out(&["--tool", "list_packet_drops", "--max-events", "1"]),
        "Recent packet drop events (15 total):\n\
         1. PID 1001 (curl): packet dropped - NETFILTER_DROP | 01/31 09:30:00 | ×3 | TCP | \
         10.0.0.5:41234 -> 93.184.215.14:443\n\
         ... and 14 more events\n"
    );
    assert!(server.asked().pop().unwrap().contains("limit=1"));
}

#[test]
fn nothing_found_has_the_originals_sentences() {
    let server = server(&drop_list(&[], 0, 0));
    let input = "dropsummary --process curl\ndroplist\ndroplist --pid 7\ndroplist --process curl\n";
    let ran = run_with_input(&["--server", &server.url], input);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(
        ran.out,
        "No packet drops found for process 'curl' in the last 60 seconds\n\
         No packet drop events found\n\
         No packet drop events found for PID 7\n\
         No packet drop events found for process 'curl'\n"
    );
    assert!(server.asked()[1].contains("limit=10"), "the shell shows ten");
}

#[test]
fn the_shell_has_the_table_too() {
    let server = server(&some());
    let ran = run_with_input(&["--server", &server.url], "drops --reason NO_SOCKET\n");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("NETFILTER_DROP") && ran.out.contains("DESTINATION"), "{}", ran.out);
}

#[test]
fn a_list_tells_what_was_dropped_where_the_error_does_not_explain_it() {
    let drop = json!({"reason": "NETFILTER_DROP", "count": 3});
    let hit = |outcome: &str| {
        let mut record = connection(1, "curl", outcome);
        record["drop"] = drop.clone();
        let list = json_answer(&list(&[record], 1));
        run(&["list", "--server", &Server::tcp(&[(CONNECTIONS, list)]).url]).out
    };
    assert!(hit("timed_out").contains("ETIMEDOUT, NETFILTER_DROP ×3"));
    assert!(hit("in_progress").contains("NETFILTER_DROP ×3"));
    for told in ["refused", "established"] {
        assert!(!hit(told).contains("NETFILTER_DROP"), "{told}");
    }
}
