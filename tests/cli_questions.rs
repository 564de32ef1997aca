//! `count`, `top`, `series`, `diff` and `findings` as a person and a script see them, asked of a real
//! server.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli_support;
mod common;

use cli_support::{ask_at, csv_rows, run_with_input};
use common::records::*;
use common::{Server, server};
use netspy::Connection;
use serde_json::Value;

/// In the first minute curl succeeds twice; in the second it fails six times, wget succeeds once,
/// and so does a process with a hostile name.
fn records() -> Vec<Connection> {
    let at = |second: u64,
              c: fn(u64, &std::sync::Arc<netspy::event::ProcessInfo>) -> Connection,
              pid,
              comm: &str| {
        let mut c = c(second * 1_000_000, &info(pid, comm));
        c.remote.as_mut().unwrap().ip = std::net::Ipv4Addr::new(192, 0, 2, 1).into();
        c
    };
    let mut all = vec![at(1, closed, 7, "curl"), at(2, closed, 7, "curl")];
    all.extend((60..66).map(|second| at(second, refused, 7, "curl")));
    all.push(at(70, closed, 8, "wget"));
    all.push(at(71, closed, 9, "\u{1b}[31mevil\u{202e}"));
    all
}

/// The two minutes.
const BOTH: [&str; 4] = ["--since", "2023-11-14T22:13:20Z", "--until", "2023-11-14T22:15:20Z"];
/// The second.
const SECOND: [&str; 4] = ["--since", "2023-11-14T22:14:20Z", "--until", "2023-11-14T22:15:20Z"];

async fn found(server: &Server, args: &[&str]) -> String {
    let ran = ask_at(server.address, args).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
    let bad = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!ran.out.contains(bad), "{:?}", ran.out);
    ran.out
}

fn fields(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_is_one_figure_with_its_time() {
    let server = server(records()).await;
    let out = found(&server, &[&["count", "--process", "curl"], &BOTH[..]].concat()).await;
    assert_eq!(out, "8 connections, 11/14 22:13:20 to 11/14 22:15:20\n");
    let ran =
        ask_at(server.address, &[&["count", "--process", "nobody"], &BOTH[..]].concat()).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, "No connections match.\n"));
    let ran = ask_at(server.address, &["count", "--process", "wget", "--since", "1m"]).await;
    assert!(
        ran.out.contains("The newest match outside the time asked for began 2023-11-14 22:14:30")
    );
    assert_eq!(ran.code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_answer_counts_what_it_leaves_out_and_says_how_to_see_it() {
    let unixer = info(40, "unixer");
    let records = (0..7).map(|n| ago(60, unix(n, &unixer, "/run/no-such.sock"))).collect();
    let server = server(records).await;
    let left_out = "Left out: 7 UNIX sockets (--all shows them).\n";
    for command in ["list", "count", "summary", "top", "series", "findings"] {
        let ran = ask_at(server.address, &[command, "--process", "unixer", "--since", "5m"]).await;
        assert!(ran.out.ends_with(left_out), "{command}: {}", ran.out);
    }
    // JSON stays JSON.
    let ran = ask_at(server.address, &["list", "--process", "unixer", "--output", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["total"], 0);
    assert!(ran.err.contains(left_out.trim_end()), "{}", ran.err);
    let ran = ask_at(server.address, &["list", "--process", "unixer", "--since", "5s"]).await;
    assert!(ran.out.contains("Left out outside the time asked for: 7 UNIX"), "{}", ran.out);
    let ran = ask_at(server.address, &["list", "--process", "unixer", "--all"]).await;
    assert_eq!(ran.code, 0, "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_top_shows_each_group_with_its_outcomes_and_what_is_left_out() {
    let server = server(records()).await;
    let out = found(&server, &[&["top", "--limit", "2"], &BOTH[..]].concat()).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(fields(lines[0]), ["PROCESS", "COUNT", "UNSUCCESSFUL", "OUTCOMES", "LATEST"]);
    assert_eq!(fields(lines[1])[..7], ["curl", "8", "6", "refused", "6,", "established", "2"]);
    assert_eq!(lines[3], "10 connections, 3 groups, 1 in groups that are not shown");
    let csv =
        found(&server, &[&["top", "--by", "pid", "--output", "csv"], &BOTH[..]].concat()).await;
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().starts_with("key,label,count,unsuccessful,first,last,"));
    assert!(lines.next().unwrap().starts_with("7,curl,8,6,2023-11-14T22:13:21"));
    let json = found(&server, &[&["top", "--output", "json"], &BOTH[..]].concat()).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["by"], &json["total"]), (&"process".into(), &10.into()));
    let jsonl = found(&server, &[&["top", "--output", "jsonl"], &BOTH[..]].concat()).await;
    assert_eq!(jsonl.lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_has_every_step_of_the_time() {
    let server = server(records()).await;
    let ask = |more: &'static [&'static str]| {
        let args = [&["series", "--step", "20s", "--process", "curl"], more, &BOTH[..]].concat();
        let server = &server;
        async move { found(server, &args).await }
    };
    let out = ask(&[]).await;
    let counts: Vec<&str> = out.lines().skip(1).take(6).map(|line| fields(line)[2]).collect();
    assert_eq!(counts, ["2", "0", "0", "6", "0", "0"], "{out}");
    assert!(out.ends_with("8 attempts in steps of 20 s\n"), "{out}");
    // Pipes get no bars.
    assert!(!out.contains('█'));
    let csv = ask(&["--output", "csv"]).await;
    assert_eq!(csv.lines().count(), 7);
    assert!(
        csv.lines().nth(4).unwrap().starts_with("2023-11-14T22:14:20.000000000Z,6,6,"),
        "{csv}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_names_what_is_new_gone_and_changed() {
    let server = server(records()).await;
    let out = found(&server, &[&["diff"], &SECOND[..]].concat()).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "Before  11/14 22:13:20 to 11/14 22:14:20: 2 attempts");
    assert_eq!(lines[1], "Now     11/14 22:14:20 to 11/14 22:15:20: 8 attempts");
    assert_eq!(lines[3], "processes: 2 new, 0 gone, 1 changed, 0 as before");
    let row = |name: &str| lines.iter().find(|line| line.contains(name)).copied().unwrap();
    assert_eq!(fields(row(" wget ")), ["new", "wget", "0", "1", "established", "1"]);
    assert_eq!(fields(row("changed  curl  "))[2..6], ["2", "6", "(6", "bad)"]);
    assert!(out.contains("curl -> 192.0.2.1:443"), "{out}");
    let csv = found(&server, &[&["diff", "--output", "csv"], &SECOND[..]].concat()).await;
    assert!(csv.contains("\nflows,changed,curl,192.0.2.1,443,2,0,6,6\n"), "{csv}");
    // Where the two times overlap, what is new now is not taken for old.
    let over = ["--compare-since", "2023-11-14T22:13:20Z", "--compare-until", SECOND[3]];
    let over = found(&server, &[&["diff"], &over[..], &SECOND[..]].concat()).await;
    let lines: Vec<&str> = over.lines().collect();
    assert_eq!(lines[0], "Before  11/14 22:13:20 to 11/14 22:14:20: 2 attempts");
    assert!(lines[2].contains("overlap") && over.contains("processes: 2 new"), "{over}");
    // What begins later is meant only where both its edges are named.
    let same = ["--compare-since", SECOND[1]];
    let ran = ask_at(server.address, &[&["diff"], &same[..], &SECOND[..]].concat()).await;
    assert!(ran.code == 2 && ran.err.contains("--compare-since"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_say_what_why_and_what_to_do() {
    let server = server(records()).await;
    let out = found(&server, &[&["findings"], &BOTH[..]].concat()).await;
    let first = out.lines().next().unwrap();
    assert_eq!(first, "WARNING repeated failures: curl -> 192.0.2.1:443", "{out}");
    assert!(out.contains("\n  Next: ") && out.contains("\n  netspy show shows them: "), "{out}");
    let jsonl = found(&server, &[&["findings", "--output", "jsonl"], &BOTH[..]].concat()).await;
    let first: Value = serde_json::from_str(jsonl.lines().next().unwrap()).unwrap();
    assert_eq!(first["kind"], "repeated_failures");
    let csv = found(&server, &[&["findings", "--output", "csv"], &BOTH[..]].concat()).await;
    assert!(
        csv.lines().nth(1).unwrap().starts_with("repeated_failures,warning,curl,192.0.2.1,443,")
    );
    let ran =
        ask_at(server.address, &[&["findings", "--process", "wget"], &BOTH[..]].concat()).await;
    assert_eq!(ran.code, 1);
    assert!(ran.out.starts_with("Nothing stands out, 11/14 22:13:20 to "), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_values_are_refused_before_anybody_is_asked() {
    for (args, parameter) in [
        (&["top", "--by", "colour"][..], "by"),
        (&["top", "--limit", "0"], "limit"),
        (&["series", "--step", "5"], "step"),
        (&["diff", "--compare-since", "yesterday"], "compare_since"),
        (
            &["diff", "--since", "1h", "--compare-until", "2h", "--compare-since", "1m"],
            "compare_since",
        ),
        (&["findings", "--limit", "many"], "limit"),
        (&["count", "--port", "x"], "port"),
    ] {
        let ran = cli_support::run(&[args, &["--server", "http://127.0.0.1:1"]].concat());
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
        let flag = format!("--{}:", parameter.replace('_', "-"));
        assert!(ran.err.contains(&flag) && ran.err.contains("accepted"), "{}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_has_these_questions_too() {
    let server = server(records()).await;
    let url = format!("http://{}", server.address);
    let when = BOTH.join(" ");
    let lines = format!("count {when}\ntop --by port {when}\nseries {when}\nfindings {when}\n");
    let ran = tokio::task::spawn_blocking(move || run_with_input(&["--server", &url], &lines));
    let ran = ran.await.unwrap();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    for part in ["10 connections, ", "PORT", "attempts in steps of", "WARNING repeated failures"] {
        assert!(ran.out.contains(part), "{part} in {}", ran.out);
    }
}

/// Every command that answers with records, groups, steps or figures, over the two minutes.
const LISTS: [&[&str]; 10] = [
    &["list", "--all"],
    &["count"],
    &["summary"],
    &["top", "--by", "process"],
    &["top", "--by", "remote"],
    &["series", "--step", "20s"],
    &["diff"],
    &["findings"],
    &["drops"],
    &["analyze"],
];

/// Names that a spreadsheet, a terminal or a reader of lines could take for something else, and the
/// longest name that DNS has.
fn hostile_records() -> (Vec<Connection>, String) {
    let long = format!("{}.example", "\\027".repeat(250));
    let names = ["=1+1", "@SUM(A1)", "-12", "+1;=2", "a,\"b\"", "x\r\n=1", "名前名前名", "\t=1"];
    let records = names.iter().zip(60..).map(|(comm, second)| {
        let mut c = refused(second * 1_000_000, &info(second as u32, comm));
        let remote = c.remote.as_mut().unwrap();
        (remote.name, remote.service) = (Some(long.as_str().into()), None);
        c
    });
    (records.collect(), long)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_has_every_form_whatever_the_names() {
    let (records, long) = hostile_records();
    let server = server(records).await;
    for list in LISTS {
        for form in ["table", "json", "jsonl", "csv"] {
            let ran =
                ask_at(server.address, &[list, &["--output", form], &SECOND[..]].concat()).await;
            // Nothing may stand out, and nothing was dropped.
            assert!(ran.code <= 1 && !ran.out.is_empty() || form == "jsonl", "{list:?} {form}");
            for text in [&ran.out, &ran.err] {
                let bad = |c: char| c.is_control() && c != '\n';
                assert!(!text.contains(bad), "{list:?} {form}: {text:?}");
            }
            match form {
                "json" => drop(serde_json::from_str::<Value>(&ran.out).unwrap()),
                "jsonl" => ran.out.lines().for_each(|line| {
                    assert!(serde_json::from_str::<Value>(line).unwrap().is_object(), "{line}");
                }),
                "csv" => is_a_sheet(list, &ran.out),
                _ => {}
            }
        }
    }
    let csv =
        ask_at(server.address, &[&["list", "--output", "csv"], &SECOND[..]].concat()).await.out;
    let rows = csv_rows(&csv);
    let column = |title: &str| {
        let at = rows[0].iter().position(|t| t == title).unwrap();
        rows[1..].iter().map(|row| row[at].clone()).collect::<Vec<_>>()
    };
    let mut names = column("comm");
    names.sort();
    let shown = [
        "'+1;=2",
        "'=1+1",
        "'@SUM(A1)",
        "-12",
        "a,\"b\"",
        "x\u{fffd}\u{fffd}=1",
        "名前名前名",
        "\u{fffd}=1",
    ];
    let mut shown = shown.map(str::to_owned);
    shown.sort();
    assert_eq!(names, shown);
    assert!(column("remote_name").iter().all(|name| *name == long), "nothing is cut");
    assert!(column("remote_service").iter().all(String::is_empty), "nothing is known");
    assert!(column("ancestry").iter().all(|name| name == "systemd"), "{csv}");
}

/// Each row has a field for each title, and none is a formula.
fn is_a_sheet(list: &[&str], csv: &str) {
    let rows = csv_rows(csv);
    for row in &rows {
        assert_eq!(row.len(), rows[0].len(), "{list:?}: {row:?}");
        let is_formula =
            |f: &&String| f.starts_with(['=', '+', '@']) || f.starts_with('-') && *f != "-12";
        assert_eq!(row.iter().find(is_formula), None, "{list:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_records_is_titles_alone_or_no_line() {
    let server = server(Vec::new()).await;
    for list in [&["list"][..], &["top", "--by", "process"], &["diff"], &["findings"], &["drops"]] {
        let said = async |form| {
            ask_at(server.address, &[list, &["--output", form], &BOTH[..]].concat()).await
        };
        let csv = said("csv").await;
        assert!(csv.code <= 1, "{list:?}: {}", csv.err);
        assert_eq!(csv.out.lines().count(), 1, "{list:?}: {}", csv.out);
        assert!(csv.out.contains(','), "{list:?}: {}", csv.out);
        assert_eq!(said("jsonl").await.out, "", "{list:?}");
        serde_json::from_str::<Value>(&said("json").await.out).unwrap();
        assert!(!said("table").await.out.is_empty(), "{list:?}");
    }
}

#[cfg(feature = "ai")]
#[tokio::test(flavor = "multi_thread")]
async fn rules_answer_what_a_question_asks_for() {
    let server = server(records()).await;
    for (question, parts) in [
        (
            "is anything beaconing or scanning?",
            &["No beaconing among the 1 findings", "No port scan among"][..],
        ),
        ("what is open or listening?", &["Sockets that listen: 0.", "Open connections"]),
        (
            "can this answer be trusted?",
            &["no record of this time is missing", "Health of capture"],
        ),
        ("what fails?", &["Findings: 1.\n- warning, repeated_failures: curl"]),
    ] {
        let out = found(&server, &[&["ask", question], &BOTH[..]].concat()).await;
        assert!(parts.iter().all(|part| out.contains(part)), "{question}: {out}");
    }
    let until = ["--until", SECOND[3]];
    let question = "what changed in the last 1 minute?";
    let out = found(&server, &[&["ask", question], &until[..]].concat()).await;
    assert!(out.contains("About the last minute."), "{out}");
    assert!(out.contains("2023-11-14T22:13:20Z to 2023-11-14T22:14:20Z: 8 attempts, 2 before"));
}
