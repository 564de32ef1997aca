//! `netspy analyze`, `analyze` in the shell and `--tool analyze_patterns`: the original's words, and
//! what is new after them, asked of a real server.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli_support;
mod common;

use std::net::Ipv4Addr;

use cli_support::ask_at;
use common::records::*;
use common::{Server, server};
use jiff::{SignedDuration, Timestamp};
use netspy::Connection;
use netspy::event::{Direction, Dropped, Outcome};
use serde_json::Value;

const NAME: &str = "a-host-with-quite-a-long-name.eu-central-1.example.com";

/// curl: two successes and a failure at one address, a datagram socket at another, three UNIX
/// sockets; backupd: six failures, some of whose packets were dropped. And what is none of theirs: a
/// connection from outside, one from before.
fn records() -> Vec<Connection> {
    let (curl, backupd) = (info(7, "curl"), info(8, "backupd"));
    let to = |last: u8, port: u16, mut c: Connection| {
        let remote = c.remote.as_mut().unwrap();
        (remote.ip, remote.port) = (Ipv4Addr::new(192, 0, 2, last).into(), port);
        c
    };
    let mut named = to(1, 443, closed(1_000_000, &curl));
    named.remote.as_mut().unwrap().name = Some(NAME.into());
    let mut all = vec![
        named.clone(),
        Connection { id: closed(2_000_000, &curl).id, time: micros(2_000_000), ..named.clone() },
        Connection {
            outcome: Outcome::Refused,
            ..Connection { id: refused(3_000_000, &curl).id, time: micros(3_000_000), ..named }
        },
        to(53, 53, udp(4_000_000, &curl)),
        Connection { direction: Direction::Inbound, ..to(9, 9, closed(5_000_000, &curl)) },
        Connection { preexisting: true, ..to(9, 9, established(6_000_000, &curl)) },
    ];
    all.extend((0..3).map(|n| unix(7_000_000 + n, &curl, "/run/x.sock")));
    for n in 0..6 {
        let mut failed = to(7, 9_999, refused(60_000_000 + n, &backupd));
        failed.drop = (n < 2).then(|| Dropped { reason: "NETFILTER_DROP".to_owned(), count: 3 });
        all.push(failed);
    }
    all
}

/// The time of all of them.
const BOTH: [&str; 4] = ["--since", "2023-11-14T22:13:20Z", "--until", "2023-11-14T22:15:20Z"];

async fn found(server: &Server, args: &[&str]) -> String {
    let ran = ask_at(server.address, &[&["analyze"], args, &BOTH[..]].concat()).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
    ran.out
}

#[tokio::test(flavor = "multi_thread")]
async fn the_originals_words_come_first_and_what_is_new_after_them() {
    let server = server(records()).await;
    let out = found(&server, &["--process", "curl"]).await;
    let lines: Vec<&str> = out.lines().collect();
    let expected = [
        "Connection Analysis:",
        "  Top destinations:",
        &format!("    192.0.2.1:443 (3 connections) | established 2, refused 1 | {NAME}"),
        "    :0 (3 connections) | UNIX sockets",
        "    192.0.2.53:53 (1 connections) | associated 1",
        "  Protocols: TCP (3), UNIX (3), UDP (1)",
        "  Outcomes: established 5, refused 1, associated 1",
    ];
    assert_eq!(lines[..7], expected, "{out}");
    assert!(lines[7].starts_with("  Handshake: median 100 µs"), "{out}");
    assert_eq!(lines[8], "  Top ports: 443 (3), 53 (1)", "{out}");
    let time =
        "  Over time: 11/14 22:13:20 to 11/14 22:15:20, 3.50 attempts per minute, steps of 5.0 s";
    assert_eq!(lines[9], time, "{out}");
    assert!(lines[10].starts_with("    attempts     |█"), "{out}");
    assert!(lines[10].ends_with("| most 4, 11/14 22:13:20"), "{out}");
    assert!(lines[11].starts_with("    unsuccessful |▂"), "{out}");
    assert_eq!(lines[12..], ["  Findings: none"], "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_say_what_why_by_which_records_and_what_to_do() {
    let server = server(records()).await;
    let out = found(&server, &[]).await;
    let id = refused(60_000_000, &info(8, "backupd")).id.to_string();
    for part in [
        "\n    192.0.2.7:9999 (6 connections) | refused 6\n",
        "\n  Drop reasons: NETFILTER_DROP (2 attempts)\n",
        "\n  Findings: 2\n    CRITICAL repeated failures: backupd -> 192.0.2.7:9999\n",
        "\n    CRITICAL drop reason: backupd -> 192.0.2.7:9999\n",
        "\n      6 of 6 attempts at this remote and port failed\n",
        "\n      attempts 6, refused 6, unsuccessful 6; 11/14 22:14:20 to ",
        "\n      Next: Look at the outcome: refused means that nothing listens there",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let shown = out.lines().find(|line| line.contains("netspy show shows them: ")).unwrap();
    let ids: Vec<&str> = shown.split(": ").nth(1).unwrap().split(", ").collect();
    let ran = ask_at(server.address, &["show", ids[0]]).await;
    assert!(ran.code == 0 && ran.out.contains("backupd"), "{shown}: {}{}", ran.out, ran.err);
    assert!(out.contains(&id), "{id}: {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_the_answers_of_the_api_or_one_line_for_each_item() {
    let server = server(records()).await;
    let json: Value = serde_json::from_str(&found(&server, &["--output", "json"]).await).unwrap();
    assert_eq!(json["summary"]["total"], 13);
    assert_eq!(json["destinations"]["groups"][0]["key"], "192.0.2.7:9999");
    assert_eq!(json["destinations"]["without"], 3);
    assert_eq!(json["ports"]["groups"][0]["key"], 9999);
    assert_eq!(json["drop_reasons"]["groups"][0]["count"], 2);
    assert_eq!(json["findings"]["findings"][0]["kind"], "repeated_failures");
    assert_eq!(json["series"]["total"], 13);
    for member in ["destinations", "ports", "drop_reasons", "series", "findings"] {
        assert_eq!(json[member]["window"], json["summary"]["window"], "{member}");
    }

    let jsonl = found(&server, &["--output", "jsonl"]).await;
    let lines: Vec<Value> = jsonl.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |section: &str| lines.iter().filter(|l| l["section"] == section).collect::<Vec<_>>();
    assert_eq!((of("summary").len(), of("summary")[0]["total"].as_u64()), (1, Some(13)));
    assert_eq!((of("destination").len(), of("port").len(), of("finding").len()), (3, 3, 2));
    let counted: u64 = of("step").iter().map(|step| step["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, 13);

    let csv = found(&server, &["--output", "csv"]).await;
    let fields = csv.lines().next().unwrap().split(',').count();
    assert_eq!(fields, 8);
    for start in [
        "protocol,tcp,,9,",
        "outcome,refused,,7,",
        "destination,192.0.2.7:9999,,6,6,2023-11-14T22:14:20",
        "drop_reason,NETFILTER_DROP,,2,2,",
        "finding,drop_reason,backupd -> 192.0.2.7:9999,,,2023-11-14T22:14:20",
    ] {
        assert!(csv.lines().any(|line| line.starts_with(start)), "{start}: {csv}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_narrow_it_and_nothing_found_is_exit_code_1() {
    let server = server(records()).await;
    let out = found(&server, &["--port", "443", "--outcome", "established"]).await;
    assert!(out.contains("192.0.2.1:443 (2 connections)") && !out.contains(":0 ("), "{out}");
    let out = found(&server, &["--limit", "1"]).await;
    assert!(out.contains("    192.0.2.7:9999 (6 connections) | refused 6\n    ... and 3 more "));
    assert!(
        out.contains("  Findings: 2, of which 1 are shown ('netspy findings' has all)"),
        "{out}"
    );

    let ran =
        ask_at(server.address, &[&["analyze", "--process", "wget"], &BOTH[..]].concat()).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, "No connection events found for analysis\n"));
    // The last hour, unless another time is asked for.
    let ran = ask_at(server.address, &["analyze", "--process", "curl"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("The newest match outside the time asked for began 2023-11-14"));
    for (args, parameter) in [
        (["analyze", "--limit", "0"], "--limit"),
        (["analyze", "--since", "yesterday"], "--since"),
        (["analyze", "--outcome", "lost"], "--outcome"),
    ] {
        let ran = ask_at(server.address, &args).await;
        assert!(ran.code == 2 && ran.err.contains(parameter), "{args:?}: {}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_and_the_shell_of_the_original_ask_the_same() {
    let mut records = records();
    for c in &mut records {
        c.time = Timestamp::now().checked_sub(SignedDuration::from_secs(300)).unwrap();
    }
    let server = server(records).await;
    let first = "Connection Analysis:\n  Top destinations:\n    192.0.2.1:443 (3 connections)";
    for args in [
        &["--tool", "analyze_patterns", "--process", "curl"][..],
        &["-tool=analyze_patterns", "-pid", "7", "-duration", "0", "-max-events", "1000000"],
        &["--tool", "analyze_patterns", "--process", "curl", "--duration", "600"],
    ] {
        let ran = ask_at(server.address, args).await;
        assert!(ran.code == 0 && ran.out.starts_with(first), "{args:?}: {}{}", ran.out, ran.err);
    }
    // As the original had it, that there is nothing is an answer like others.
    let nothing = "No connection events found for analysis\n";
    for more in [&["--process", "nobody"][..], &["--duration", "60"]] {
        let ran = ask_at(server.address, &[&["--tool", "analyze_patterns"], more].concat()).await;
        assert!(ran.code == 0 && ran.out.starts_with(nothing), "{more:?}: {}{}", ran.out, ran.err);
    }
    let url = format!("http://{}", server.address);
    let input = "analyze --process curl\nanalyze --process nobody\nanalyze --output json --pid 8\n";
    let run = move || cli_support::run_with_input(&["--server", &url], input);
    let ran = tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.starts_with(first) && ran.out.contains(nothing), "{}", ran.out);
    assert!(ran.out.contains("\"destinations\": {"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_complete_says_so() {
    let server = server(records()).await;
    {
        let mut counters = server.capture.counters.lock().unwrap();
        counters.attempts += 3;
        counters.lost.ring_full += 3;
    }
    let ran = ask_at(server.address, &["analyze", "--since", "2023-11-14T22:13:20Z"]).await;
    let last = ran.out.lines().last().unwrap();
    assert!(last.starts_with("  Incomplete: ") && last.contains("full ring buffer"), "{}", ran.out);
}

/// `script` (util-linux) provides the terminal.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_fits_its_width_and_uses_it() {
    let server = server(records()).await;
    for (columns, name, steps) in [(80, "a-host-w…mple.com", 30), (200, NAME, 120)] {
        let args = BOTH.join(" ");
        let url = format!("http://{}", server.address);
        let line = format!(
            "stty cols {columns} rows 24; {} analyze {args} --server {url}",
            env!("CARGO_BIN_EXE_netspy")
        );
        let run = move || {
            let mut command = std::process::Command::new("script");
            command.args(["-qec", &line, "/dev/null"]).env("TZ", "UTC").env("NO_COLOR", "1");
            command.stdin(std::process::Stdio::null()).output()
        };
        let Ok(output) = tokio::task::spawn_blocking(run).await.unwrap() else {
            eprintln!("skipped: no 'script' command to make a terminal");
            return;
        };
        let text = String::from_utf8(output.stdout).unwrap().replace('\r', "");
        let width = |line: &str| line.chars().count();
        let widest = text.lines().map(width).max().unwrap();
        assert!(widest <= columns && text.contains("Findings: 2"), "{widest}: {text}");
        assert!(text.contains(name), "{name}: {text}");
        let graph = text.lines().find(|line| line.contains("attempts     |")).unwrap();
        let graph = graph.split('|').nth(1).unwrap();
        assert!((steps / 2..=steps).contains(&width(graph)), "{graph}");
    }
}
