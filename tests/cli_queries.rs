//! `list`, `show`, `summary` and `status` as a person and a script see them.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)]

mod cli_support;

use cli_support::*;
use serde_json::{Value, json};

const HOSTILE: &str = "\u{1b}[31mevil\u{202e}\u{200b}\n\u{9b}1m";

fn list_server(connections: &[Value]) -> Server {
    let answer = json_answer(&list(connections, connections.len() as u64));
    Server::tcp(&[(CONNECTIONS, answer)])
}

#[test]
fn a_list_shows_who_connected_where_and_how_it_ended() {
    for server in [
        list_server(&[connection(1, "curl", "refused")]),
        Server::unix(&[(CONNECTIONS, json_answer(&list(&[connection(1, "curl", "refused")], 1)))]),
    ] {
        let ran = run(&["list", "--server", &server.url]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        let lines: Vec<&str> = ran.out.lines().collect();
        let titles: Vec<&str> = lines[0].split_whitespace().collect();
        assert_eq!(
            titles,
            ["TIME", "PROCESS", "PROTO", "REMOTE", "OUTCOME", "ERROR", "LATENCY", "ID"]
        );
        for part in [
            "09:30:00.123",
            "curl[1001]",
            "tcp",
            "93.184.215.14:443 (example.com)",
            "refused",
            "ECONNREFUSED",
            "412 µs",
            "0000beef-1-3e9",
        ] {
            assert!(lines[1].contains(part), "{part} in {}", lines[1]);
        }
        assert_eq!(lines.len(), 2);
    }
}

#[test]
fn the_server_may_be_named_by_the_environment() {
    let server = list_server(&[connection(1, "curl", "established")]);
    let ran = finish(netspy(&["list"]).env("NETSPY_SERVER", &server.url).output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.err);
}

#[test]
fn filters_reach_the_server_with_unix_sockets_left_out_unless_asked_for() {
    let server = list_server(&[connection(1, "curl", "established")]);
    let asked = |args: &[&str]| {
        let args = [&["list", "--server", &server.url], args].concat();
        assert_eq!(run(&args).code, 0);
        server.asked().pop().unwrap()
    };
    let query = asked(&["--process", "curl", "--pid=1,2", "--port", "443", "--limit", "5"]);
    for part in ["process=curl", "pid=1%2C2", "port=443", "limit=5", "protocol=tcp%2Cudp"] {
        assert!(query.contains(part), "{part} in {query}");
    }
    assert!(!query.contains("unix"), "{query}");
    assert!(!asked(&["--all"]).contains("protocol"));
    assert!(asked(&["--protocol", "unix"]).contains("protocol=unix"));
    let query = asked(&["--outcome", "unsuccessful", "--since", "2026-01-31T09:00:00Z"]);
    assert!(query.contains("outcome=refused%2Ctimed_out"), "{query}");
    assert!(query.contains("since=2026-01-31T09%3A00%3A00Z"), "{query}");
}

#[test]
fn datagram_sockets_that_sent_nothing_are_left_out_where_it_is_known() {
    let asked = |is_known: bool, args: &[&str]| {
        let mut status = status();
        status["features"]["datagram_sent"]["ok"] = is_known.into();
        let list = list(&[connection(1, "curl", "established")], 1);
        let server =
            Server::tcp(&[(CONNECTIONS, json_answer(&list)), (STATUS, json_answer(&status))]);
        assert_eq!(run(&[&["list", "--server", &server.url], args].concat()).code, 0);
        server.asked().pop().unwrap()
    };
    let query = asked(true, &[]);
    assert!(query.contains("sent") && !query.contains("associated"), "{query}");
    assert!(!asked(true, &["--all"]).contains("outcome"));
    assert!(asked(true, &["--outcome", "associated"]).contains("outcome=associated"));
    assert!(!asked(false, &[]).contains("outcome"));
}

#[test]
fn what_existed_before_is_left_out_unless_asked_for() {
    let mut listener = connection(1, "nginx", "listening");
    listener["state"] = json!("listening");
    listener["direction"] = json!("inbound");
    listener["local"] = json!({"ip": "0.0.0.0", "port": 80});
    for member in ["remote", "latency_us", "syn_retransmits", "evidence"] {
        listener[member] = Value::Null;
    }
    listener["preexisting"] = json!(true);
    let server = list_server(&[listener]);
    let ran = run(&["list", "--state", "listening", "--server", &server.url]);
    let line = ran.out.lines().nth(1).unwrap();
    for part in ["earlier ", "nginx[1001]", " at 0.0.0.0:80 ", " listening "] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!server.asked().pop().unwrap().contains("preexisting"));
    for (args, hides) in [(&["list"][..], true), (&["list", "--all"], false)] {
        assert_eq!(run(&[args, &["--server", &server.url]].concat()).code, 0);
        assert_eq!(server.asked().pop().unwrap().contains("preexisting=false"), hides);
    }
}

#[test]
fn nothing_found_is_exit_code_1_and_names_the_newest_match_elsewhere() {
    let mut empty = list(&[], 0);
    empty["newest_outside_window"] = json!("2026-01-30T08:00:00Z");
    let server = Server::tcp(&[(CONNECTIONS, json_answer(&empty))]);
    let ran = run(&["list", "--server", &server.url]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.starts_with("No connections match.\n"), "{}", ran.out);
    assert!(ran.out.contains("2026-01-30 08:00:00"), "{}", ran.out);
}

#[test]
fn names_from_telemetry_never_reach_the_terminal_raw() {
    let mut record = connection(1, HOSTILE, "failed");
    record["error"] = json!(HOSTILE);
    record["remote"]["name"] = json!(HOSTILE);
    record["process"]["cmdline"] = json!(HOSTILE);
    record["host"] = json!(HOSTILE);
    let path = format!("{CONNECTIONS}/0000beef-1-3e9");
    let server = Server::tcp(&[
        (CONNECTIONS, json_answer(&list(&[record.clone()], 1))),
        (&path, json_answer(&record)),
        (STREAM, events(event(1, &record))),
    ]);
    let url = &server.url;
    for form in ["table", "json", "jsonl", "csv"] {
        for command in [&["list"][..], &["show", "0000beef-1-3e9"]] {
            let ran = run(&[command, &["--server", url, "--output", form]].concat());
            assert_eq!(ran.code, 0, "{}", ran.err);
            assert_clean(&ran.out);
        }
    }
    for command in [
        &["watch", "--limit", "1"][..],
        &["watch", "--limit=1", "--json"],
        &["--tool", "list_connections"],
    ] {
        let ran = run(&[&["--server", url], command].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert_clean(&ran.out);
    }
    let ran = run(&["list", "--server", url, "--output", "jsonl"]);
    let read: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(read, record, "escapes keep the value");
}

fn assert_clean(text: &str) {
    let bad = |c: &char| (c.is_control() && *c != '\n') || "\u{202e}\u{200b}".contains(*c);
    assert_eq!(text.chars().find(bad), None, "{text:?}");
    assert!(text.contains("evil"), "{text:?}");
}

#[test]
fn no_colour_goes_into_a_pipe() {
    let server = list_server(&[connection(1, "curl", "refused")]);
    for (name, value) in [("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")] {
        let output = netspy(&["list", "--server", &server.url]).env(name, value).output().unwrap();
        assert!(!finish(output).out.contains('\u{1b}'));
    }
}

#[test]
fn json_is_the_answer_jsonl_its_records_and_csv_its_table() {
    let records = [connection(1, "curl", "refused"), unix_connection(2, "snapd")];
    let answer = list(&records, 7);
    let server = Server::tcp(&[(CONNECTIONS, json_answer(&answer))]);
    let out = |form| run(&["list", "--server", &server.url, "--output", form]).out;
    assert_eq!(serde_json::from_str::<Value>(&out("json")).unwrap(), answer);
    let lines: Vec<Value> =
        out("jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, records);
    let csv = out("csv");
    let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(columns, [68, 68, 68]);
    assert!(csv.contains(",/run/snapd.socket,"), "{csv}");
}

#[test]
fn one_connection_is_shown_in_full_or_not_found() {
    let path = format!("{CONNECTIONS}/0000beef-1-3e9");
    let gone = json!({"title": "Not Found", "status": 404, "detail": "no such connection"});
    let server = Server::tcp(&[
        (&path, json_answer(&connection(1, "curl", "refused"))),
        (&format!("{CONNECTIONS}/1-2-3"), problem(404, &gone)),
        (&format!("{CONNECTIONS}/00000001-2-3"), problem(404, &gone)),
    ]);
    let ran = run(&["show", "0000beef-1-3e9", "--server", &server.url]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for part in ["refused, ECONNREFUSED, after 412 µs", "curl https://example.com", "1000 ann"] {
        assert!(ran.out.contains(part), "{part} in {}", ran.out);
    }
    let ran = run(&["show", "1-2-3", "--server", &server.url]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("no connection"), "{}", ran.err);
    assert_eq!(run(&["show", "nonsense", "--server", &server.url]).code, 2);
}

#[test]
fn a_latency_that_was_not_measured_is_empty() {
    let mut record = unix_connection(2, "snapd");
    record["latency_us"] = Value::Null;
    let one = format!("{CONNECTIONS}/0000beef-2-3ea");
    let server = Server::tcp(&[
        (CONNECTIONS, json_answer(&list(&[record.clone()], 1))),
        (&one, json_answer(&record)),
        (STREAM, events(event(1, &record))),
    ]);
    for args in [
        &["list", "--all"][..],
        &["watch", "--all", "--limit", "1"],
        &["show", "0000beef-2-3ea"],
        &["list", "--all", "--output", "csv"],
        &["--tool", "list_connections"],
    ] {
        let ran = run(&[args, &["--server", &server.url]].concat());
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
        for part in ["µs", "null", "after"] {
            assert!(!ran.out.contains(part), "{args:?}: {}", ran.out);
        }
        assert!(ran.out.contains("/run/snapd.socket"), "{}", ran.out);
    }
}

#[test]
fn a_summary_gives_totals_and_says_when_it_is_incomplete() {
    let mut totals = summary(1234, json!({"established": 1200, "refused": 34}));
    totals["handshake"] = json!({"p50_us": 412, "p95_us": 1200, "p99_us": 9000, "count": 1200});
    let server = Server::tcp(&[(SUMMARY, json_answer(&totals))]);
    let ran = run(&["summary", "--server", &server.url]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for part in ["1,234 connections", "established 1,200, refused 34", "p50 412 µs"] {
        assert!(ran.out.contains(part), "{part} in {}", ran.out);
    }
    assert!(!ran.out.contains("Incomplete"), "{}", ran.out);

    totals["accounting"] = accounting(false);
    let server = Server::tcp(&[(SUMMARY, json_answer(&totals))]);
    let ran = run(&["summary", "--server", &server.url]);
    assert!(
        ran.out.contains(
            "Incomplete: 10 of 13 attempts were delivered (3 lost in a full ring buffer)"
        ),
        "{}",
        ran.out
    );
}

#[test]
fn every_cause_of_an_incomplete_answer_is_named() {
    let gap = |n: u8| {
        json!({"since": format!("2026-01-31T09:0{n}:00Z"),
            "until": format!("2026-01-31T09:0{n}:30Z"), "why": format!("restart {n}")})
    };
    let long_ago = "2026-01-01T00:00:00Z";
    for (members, expected) in [
        (json!({"evicted": 1200}), "Incomplete: 1,200 older records have aged out."),
        (
            json!({"updates_lost": 5, "missed": 6}),
            "Incomplete: 5 later changes lost; 6 events skipped by the kernel.",
        ),
        (
            json!({"gaps": [gap(1)]}),
            "Incomplete: no capture from 01/31 09:01:00 to 01/31 09:01:30 (restart 1).",
        ),
        (
            json!({"gaps": [gap(1), gap(2), gap(3), gap(4)]}),
            "to 01/31 09:04:30 (restart 4); 1 earlier gaps.",
        ),
        (
            json!({"since": long_ago, "until": long_ago}),
            "Incomplete: capture began at 01/01 00:00:00, after the time asked for.",
        ),
    ] {
        let mut books = accounting(true);
        books["complete"] = json!(false);
        books.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let mut answers = [
            list(&[connection(1, "curl", "refused")], 1),
            summary(1, json!({"refused": 1})),
            status(),
        ];
        for answer in &mut answers {
            answer["accounting"] = books.clone();
        }
        let [connections, totals, health] = answers.each_ref().map(json_answer);
        let server =
            Server::tcp(&[(CONNECTIONS, connections), (SUMMARY, totals), (STATUS, health)]);
        for args in [
            &["list"][..],
            &["summary"],
            &["status"],
            &["--tool", "get_network_summary"],
            &["--tool", "list_connections"],
        ] {
            let ran = run(&[args, &["--server", &server.url]].concat());
            assert!(ran.out.contains(expected), "{args:?}: {expected} in {}", ran.out);
            assert!(!ran.out.contains("attempts were delivered"), "{}", ran.out);
            assert_eq!(ran.out.matches("aged out").count(), expected.matches("aged out").count());
        }
    }
}

#[test]
fn status_names_what_is_missing_and_why() {
    let server = Server::tcp(&[(STATUS, json_answer(&status()))]);
    let ran = run(&["status", "--server", &server.url]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for part in
        ["healthy", "up 1h01m", "sys_exit_connect", "no hook in this version", "4 KiB of 64 MiB"]
    {
        assert!(ran.out.contains(part), "{part} in {}", ran.out);
    }
    let csv = run(&["status", "--server", &server.url, "--output", "csv"]).out;
    assert!(csv.contains("features.connect.ok,true\n"), "{csv}");
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_is_accepted() {
    for (args, part) in [
        (&["list", "--colour"][..], "--colour"),
        (&["list", "--port", "x"], "--port: 'x' is not understood"),
        (&["list", "--since", "yesterday"], "--since: 'yesterday' is not a time"),
        (&["list", "--limit", "0"], "--limit"),
        (&["list", "--output", "xml"], "xml"),
        (&["watch", "--since", "5m"], "--since"),
        (&["frobnicate"], "frobnicate"),
        (&["list", "--server", "ftp://x"], "unknown scheme 'ftp'"),
        (&["--process", "curl"], "--tool"),
        (&["show"], "<ID>"),
    ] {
        let ran = run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(part) && ran.out.is_empty(), "{args:?}: {}", ran.err);
    }
}

#[test]
fn what_the_server_refuses_is_shown_as_wrong_usage() {
    let body = json!({"type": "about:blank", "title": "Bad Request", "status": 400,
        "detail": "'x' is no cursor of this server", "parameter": "cursor",
        "accepted": "the next_cursor of an earlier answer"});
    let server = Server::tcp(&[(CONNECTIONS, problem(400, &body))]);
    let ran = run(&["list", "--cursor", "x", "--server", &server.url]);
    assert_eq!(ran.code, 2);
    assert_eq!(
        ran.err,
        "netspy: --cursor: 'x' is no cursor of this server (accepted: the next_cursor of an \
         earlier answer)\n"
    );
}

#[test]
fn what_is_for_a_server_that_is_named_is_refused_where_none_is() {
    for flag in ["--token-file", "--ca-cert"] {
        for args in [["list", flag, "/nonexistent"], [flag, "/nonexistent", "list"]] {
            let ran = run(&args);
            assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}");
            assert!(ran.err.contains(&format!("{flag} is for the server")), "{}", ran.err);
        }
    }
}

#[test]
fn no_server_is_exit_code_3_and_says_what_to_do() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    for args in
        [&["list"][..], &["summary"], &["status"], &["watch"], &["--tool", "list_connections"]]
    {
        let ran = run(&[&["--server", &url], args].concat());
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{args:?}");
        assert!(ran.err.contains(&url) && ran.err.contains("sudo ebpf-server"), "{}", ran.err);
    }
    let ran = run(&["list", "--server", "unix:/nonexistent/api.sock"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("no such socket"), "{}", ran.err);
}

#[test]
fn a_server_that_is_not_ours_is_exit_code_3() {
    let server = Server::tcp(&[(SUMMARY, json_answer(&json!({"hello": "world"})))]);
    for args in [["list", "--server", &server.url], ["summary", "--server", &server.url]] {
        assert_eq!(run(&args).code, 3);
    }
}

#[test]
fn a_reader_that_leaves_ends_the_list_quietly() {
    let records: Vec<Value> = (0..3000).map(|n| connection(n, "curl", "refused")).collect();
    let server = list_server(&records);
    let mut child = start(&["list", "--output", "jsonl", "--server", &server.url]);
    let mut first = [0; 1];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    drop(child.stdout.take());
    let ran = finish(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn every_command_shows_how_it_is_used() {
    let help = run(&["--help"]).out;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    // What is further in goes on with the line before.
    let commands = commands.filter(|line| !line.starts_with("   "));
    let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 15, "{help}");
    for name in names.into_iter().filter(|name| *name != "help") {
        let help = run(&[name, "--help"]).out;
        let examples = help.split("Example").nth(1).unwrap_or_default();
        assert!(examples.contains(&format!("netspy {name}")), "{name}: {help}");
    }
}
