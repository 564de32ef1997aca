//! The original's flags, commands and sentences.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)]

mod cli_support;

use cli_support::*;
use serde_json::json;

fn server() -> Server {
    let mut old = unix_connection(2, "snapd");
    old["time"] = json!("2026-01-30T21:03:38Z");
    let mut ipv6 = connection(3, "curl", "refused");
    ipv6["remote"] =
        json!({"ip": "::1", "port": 80, "name": null, "name_source": null, "service": null});
    Server::tcp(&[
        (CONNECTIONS, json_answer(&list(&[connection(1, "curl", "established"), old, ipv6], 15))),
        (SUMMARY, json_answer(&summary(5, json!({"established": 3, "refused": 2})))),
    ])
}

const SENTENCE: &str =
    "Process 'curl' made 5 outbound connection attempts over the last 60 seconds";

#[test]
fn the_summary_comes_in_the_originals_words_with_the_outcomes_after_them() {
    let server = server();
    let first = |args: &[&str]| {
        let ran = run(&[args, &["--server", &server.url]].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        ran.out.lines().next().unwrap().to_owned()
    };
    let tool = "--tool=get_network_summary";
    assert_eq!(first(&[tool, "--process", "curl"]), SENTENCE);
    assert_eq!(
        first(&[tool, "--pid=1234", "--process=curl", "--duration", "120"]),
        "PID 1234 made 5 outbound connection attempts over the last 120 seconds"
    );
    assert_eq!(
        first(&[tool]),
        "All processes made 5 outbound connection attempts over the last 60 seconds"
    );
    let query = server.asked().pop().unwrap();
    assert!(query.contains("direction=outbound") && !query.contains("protocol"), "{query}");
    assert!(query.contains("preexisting=false"), "{query}");
    let ran = run(&["-tool", "get_network_summary", "-process=curl", "-server", &server.url]);
    assert_eq!(ran.out, format!("{SENTENCE}\n  Outcomes: established 3, refused 2\n"));
}

#[test]
fn a_time_that_lies_ahead_is_refused() {
    let server = server();
    let says = |text: &str| text.contains("--duration") && text.contains("accepted: seconds");
    for args in [&["--duration", "-5"][..], &["-duration=-5"]] {
        let tool = ["--tool", "get_network_summary", "--server", &server.url];
        let ran = run(&[&tool, args].concat());
        assert!(ran.code == 2 && ran.out.is_empty() && says(&ran.err), "{}{}", ran.out, ran.err);
    }
    let ran = run_with_input(&["--server", &server.url], "summary --duration -5\n");
    assert!(ran.out.is_empty() && says(&ran.err), "{}{}", ran.out, ran.err);
    assert!(server.asked().is_empty());
}

/// `process=a\,b`, as every way to ask sends it.
const ONE_NAME: &str = "process=a%5C%2Cb";

#[test]
fn a_comma_within_a_name_is_written_with_a_backslash_everywhere() {
    let server = server();
    for args in [
        &["--tool", "get_network_summary", "--process", "a\\,b"][..],
        &["--tool", "list_connections", "--process", "a\\,b"],
        &["list", "--all", "--process", "a\\,b"],
        &["summary", "--all", "--process=a\\,b"],
    ] {
        run(&[args, &["--server", &server.url]].concat());
        let asked = server.asked().pop().unwrap();
        assert!(asked.contains(ONE_NAME), "{args:?}: {asked}");
    }
    for line in [
        "summary --process 'a\\,b'",
        "list --process a\\\\,b",
        "connections --all --process 'a\\,b'",
    ] {
        run_with_input(&["--server", &server.url], line);
        let asked = server.asked().pop().unwrap();
        assert!(asked.contains(ONE_NAME), "{line}: {asked}");
    }
    let two = run(&["--tool=get_network_summary", "--process", "a,b", "--server", &server.url]);
    assert!(two.out.starts_with("Process 'a, b' made 5"), "{}{}", two.out, two.err);
    assert!(server.asked().pop().unwrap().contains("process=a%2Cb"));
}

#[test]
fn numbers_below_one_stand_for_the_default() {
    let server = server();
    let summary = "All processes made 5 outbound connection attempts over the last 60 seconds";
    for value in ["0", "-5", "-9223372036854775808"] {
        let flags =
            if value == "0" { &["--duration", "-pid", "--pid"][..] } else { &["-pid", "--pid"] };
        for flag in flags {
            for args in [&[flag, value][..], &[&format!("{flag}={value}")]] {
                let tool = ["--tool", "get_network_summary", "--server", &server.url];
                let ran = run(&[&tool, args].concat());
                assert!(ran.out.starts_with(summary), "{args:?}: {}{}", ran.out, ran.err);
                assert!(!server.asked().pop().unwrap().contains("pid="));
            }
        }
        let list = ["--tool", "list_connections", "--server", &server.url, "--max-events", value];
        assert_eq!(run(&list).code, 0);
        assert!(server.asked().pop().unwrap().contains("limit=10"), "{value}");
    }
    let ran = run_with_input(&["--server", &server.url], "summary --duration 0 -pid -1\n");
    assert!(ran.out.starts_with(summary), "{}{}", ran.out, ran.err);
    for value in ["x", "4294967296", "1.5"] {
        let ran = run(&["--tool", "get_network_summary", "--pid", value]);
        assert_eq!(ran.code, 2, "{value}");
        assert!(ran.err.contains("--pid"), "{}", ran.err);
    }
}

#[test]
fn nothing_found_has_the_originals_sentences() {
    let server = Server::tcp(&[
        (CONNECTIONS, json_answer(&list(&[], 0))),
        (SUMMARY, json_answer(&summary(0, json!({})))),
    ]);
    let out = |args: &[&str]| {
        let ran = run(&[args, &["--server", &server.url]].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    assert_eq!(
        out(&["--tool", "get_network_summary", "--process", "curl"]),
        "No network connections found for process 'curl' in the last 60 seconds\n"
    );
    assert_eq!(
        out(&["--tool", "get_network_summary", "--pid", "7"]),
        "No network connections found for PID 7 in the last 60 seconds\n"
    );
    assert_eq!(out(&["--tool", "list_connections"]), "No connection events found\n");
}

#[test]
fn the_list_has_the_originals_lines_with_the_outcome_after_them() {
    let server = server();
    let ran = run(&["--tool", "list_connections", "--max-events", "3", "--server", &server.url]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        ran.out,
        "Recent connection events (15 total):\n  \
         01/31 09:30:00 | 93.184.215.14:443 | TCP | curl | established | example.com\n  \
         01/30 21:03:38 | (local socket) | UNIX | snapd | established | /run/snapd.socket\n  \
         01/31 09:30:00 | [::1]:80 | TCP | curl | refused ECONNREFUSED\n  \
         ... and 12 more events\n"
    );
    assert!(server.asked().pop().unwrap().contains("limit=3"));
}

#[test]
fn an_event_of_today_has_no_date() {
    let mut record = connection(1, "curl", "established");
    record["time"] = json!(jiff::Timestamp::now());
    let server = Server::tcp(&[(CONNECTIONS, json_answer(&list(&[record], 1)))]);
    let ran = run(&["--tool", "list_connections", "--server", &server.url]);
    let line = ran.out.lines().nth(1).unwrap();
    assert!(!line.split('|').next().unwrap().contains('/'), "{line}");
}

#[test]
fn an_unknown_tool_is_refused_with_those_that_there_are() {
    let ran = run(&["--tool", "nonsense"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("unknown tool: nonsense"), "{}", ran.err);
    for tool in ["get_network_summary", "list_connections", "analyze_patterns", "list_packet_drops"]
    {
        assert!(ran.err.contains(tool), "{tool}: {}", ran.err);
    }
}

#[test]
fn the_shell_reads_a_pipe_without_prompt_or_greeting() {
    let server = server();
    let input =
        "summary --process curl\n\n# a comment\nsummary --pid 1234 --duration 120\nquit\nlist\n";
    let ran = run_with_input(&["--server", &server.url], input);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let outcomes = "  Outcomes: established 3, refused 2";
    assert_eq!(
        ran.out,
        format!(
            "{SENTENCE}\n{outcomes}\nPID 1234 made 5 outbound connection attempts over the last \
             120 seconds\n{outcomes}\n"
        )
    );
}

#[test]
fn the_shells_list_shows_ten_events_unless_asked() {
    let server = server();
    let ran = run_with_input(&["--server", &server.url], "list\nlist --max-events 5\n");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let asked = server.asked();
    assert!(asked[0].contains("limit=10") && asked[1].contains("limit=5"), "{asked:?}");
}

#[test]
fn the_shell_understands_quotes_and_narrower_questions() {
    let server = server();
    let input = "summary --process 'Web Content' --outcome unsuccessful -duration 30\n";
    let ran = run_with_input(&["--server", &server.url], input);
    assert!(ran.out.starts_with("Process 'Web Content' made 5"), "{}{}", ran.out, ran.err);
    let asked = server.asked().pop().unwrap();
    assert!(asked.contains("process=Web+Content&") && asked.contains("outcome=refused"), "{asked}");
}

#[test]
fn the_shell_goes_on_after_an_error_and_its_exit_code_remembers_the_first() {
    let server = server();
    let input = "frobnicate\nanalyze --sort newest\nlist \"unclosed\nlist --nonsense\nsummary\n";
    let ran = run_with_input(&["--server", &server.url], input);
    assert_eq!(ran.code, 2);
    let errors: Vec<&str> = ran.err.lines().collect();
    assert_eq!(errors.len(), 4, "{}", ran.err);
    for (line, part) in errors.iter().zip([
        "unknown command: frobnicate (type 'help' for available commands)",
        "--sort",
        "a quote is not closed",
        "--nonsense",
    ]) {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(ran.out.starts_with("All processes made 5"), "{}", ran.out);
}

#[test]
fn help_and_tools_need_no_server() {
    let ran = run_with_input(&["--server", "unix:/nonexistent"], "help\ntools\nlist --help\n");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("get_network_summary") && ran.out.contains("--max-events"));
}

#[test]
fn a_script_for_the_shell_is_not_stopped_by_a_watch_without_end() {
    let server = Server::tcp(&[
        (STREAM, events(event(1, &connection(1, "curl", "refused")))),
        (SUMMARY, json_answer(&summary(5, json!({"refused": 5})))),
    ]);
    let ran = run_with_input(&["--server", &server.url], "watch --port 443\nsummary\n");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("or use 'netspy watch'"), "{}", ran.err);
    assert!(ran.out.starts_with("All processes made 5"), "{}", ran.out);

    let ran = run_with_input(&["--server", &server.url], "watch --limit 1\nsummary\n");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("curl[1001]") && ran.out.contains("All processes made 5"));
}

#[test]
fn the_shell_without_its_server_is_exit_code_3() {
    let ran = run_with_input(&["--server", "unix:/nonexistent"], "summary\n");
    assert_eq!(ran.code, 3, "{}", ran.err);
}
