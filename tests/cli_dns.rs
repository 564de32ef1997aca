//! `netspy dns`.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)]

mod cli_support;

use cli_support::*;
use serde_json::{Value, json};

fn question(comm: &str, name: &str, outcome: &str) -> Value {
    let answered = outcome == "answered";
    let addresses = if answered { json!(["198.51.100.1", "198.51.100.2"]) } else { json!([]) };
    json!({
        "id": "q0000beef-1-1", "host": "web-1", "time": "2026-01-31T09:30:00.123456789Z",
        "name": name, "type": "A", "protocol": "udp",
        "server": {"ip": "192.0.2.53", "port": 53},
        "local": {"ip": "10.0.0.5", "port": 41234},
        "outcome": outcome, "rcode": if answered { json!(0) } else { Value::Null },
        "addresses": addresses, "ttl_s": if answered { json!(60) } else { Value::Null },
        "answered": if answered { json!("2026-01-31T09:30:00.123868789Z") } else { Value::Null },
        "latency_us": if answered { json!(412) } else { Value::Null },
        "sent": 1, "connection": "0000beef-1-3e9",
        "process": connection(1, comm, "established")["process"],
        "connections": ["0000beef-2-3e9"],
    })
}

fn list(questions: &[Value]) -> Value {
    let time = json!("2026-01-31T09:00:00.000000000Z");
    let times = json!({"count": 1, "p50_us": 412, "p95_us": 412, "p99_us": 412});
    json!({
        "questions": questions, "total": questions.len(), "by_outcome": {},
        "answer_times": times, "next_cursor": null,
        "window": {"since": time, "until": time},
        "accounting": {
            "questions": 2, "listed": 2, "no_room": 0, "pending": 0, "messages_lost": 0, "lost": 0,
            "evicted": 0, "gaps": [], "since": time, "until": time, "complete": true
        },
        "not_seen": null, "newest_outside_window": null,
    })
}

fn some() -> Value {
    list(&[
        question("curl", "www.example.com", "answered"),
        question("wget", "silent.example.com", "timed_out"),
    ])
}

fn server(list: &Value) -> Server {
    Server::tcp(&[(DNS, json_answer(list))])
}

#[test]
fn questions_are_shown_with_who_asked_and_what_came_of_it() {
    let server = server(&some());
    let ran = run(&["dns", "--server", &server.url]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let lines: Vec<&str> = ran.out.lines().collect();
    let titles: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(titles, ["TIME", "PROCESS", "NAME", "TYPE", "OUTCOME", "TOOK", "ANSWER"]);
    for part in ["curl[1001]", "www.example.com", " A ", "answered", "198.51.100.1 +1"] {
        assert!(lines[1].contains(part), "{part} in {}", lines[1]);
    }
    for part in ["wget[1001]", "timed_out", "(by 192.0.2.53:53)"] {
        assert!(lines[2].contains(part), "{part} in {}", lines[2]);
    }
    assert_eq!(lines.len(), 3);
}

#[test]
fn every_form_has_every_record() {
    let server = server(&some());
    let out = |form: &str| run(&["dns", "--output", form, "--server", &server.url]).out;
    let whole: Value = serde_json::from_str(&out("json")).unwrap();
    assert_eq!(whole, some());
    let lines: Vec<Value> =
        out("jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json!(lines), some()["questions"]);
    let csv = out("csv");
    let mut csv = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let (titles, first) = (csv.next().unwrap(), csv.next().unwrap());
    assert_eq!(titles.len(), first.len());
    let field = |name: &str| first[titles.iter().position(|title| *title == name).unwrap()];
    assert_eq!((field("name"), field("type"), field("comm")), ("www.example.com", "A", "curl"));
    assert_eq!(field("addresses"), "198.51.100.1 198.51.100.2");
    assert_eq!(field("connections"), "0000beef-2-3e9");
}

#[test]
fn filters_reach_the_server_and_wrong_ones_do_not() {
    let server = server(&some());
    let flags =
        ["--outcome", "unsuccessful,answered", "--type=aaaa", "--host-name", ".example.com"];
    let whose = ["--container=web,0123456789ab", "--pod", "shop-1", "--namespace=prod"];
    let more = ["--process", "curl", "--protocol", "tcp", "--since", "15m", "--limit", "5"];
    let ran = run(&[&["dns", "--server", &server.url], &flags[..], &whose[..], &more[..]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let asked = server.asked().pop().unwrap();
    for part in ["outcome=answered%2Cnxdomain", "type=aaaa", "host_name=.example.com"] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
    for part in ["container=web%2C0123456789ab", "pod=shop-1", "namespace=prod"] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
    assert!(asked.contains("since=20") && asked.contains("limit=5"), "{asked}");
    for wrong in [["--outcome", "refused!"], ["--type", ""], ["--limit", "0"]] {
        let ran = run(&[&["dns", "--server", &server.url], &wrong[..]].concat());
        assert_eq!(ran.code, 2, "{wrong:?}");
        assert!(ran.err.contains(&wrong[0][2..]), "{}", ran.err);
    }
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn nothing_found_is_exit_code_1_and_why_nothing_can_be_seen_is_said() {
    let mut list = list(&[]);
    let ran = run(&["dns", "--server", &server(&list).url]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "No questions for names match.\n"));
    list["not_seen"] = json!("no cgroup v2 hierarchy is mounted");
    list["accounting"]["complete"] = json!(false);
    let ran = run(&["dns", "--server", &server(&list).url]);
    let why = "Questions for names are not seen: no cgroup v2 hierarchy is mounted.";
    assert_eq!((ran.code, ran.out), (1, format!("No questions for names match.\n{why}\n")));
}

#[test]
fn hostile_names_do_not_reach_the_terminal() {
    // A server that answers for one may be anybody's.
    let mut record = question("\u{1b}[31mevil\n", "x\u{202e}\u{9b}1m.example", "answered");
    record["type"] = json!("A\u{7}\r");
    let server = server(&list(&[record]));
    for form in ["table", "json", "jsonl", "csv"] {
        let ran = run(&["dns", "--output", form, "--server", &server.url]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let bad = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!ran.out.contains(bad), "{form}: {:?}", ran.out);
    }
}

#[test]
fn the_shell_has_the_table_too() {
    let server = server(&some());
    let ran = run_with_input(&["--server", &server.url], "dns --outcome answered\n");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("www.example.com") && ran.out.contains("ANSWER"), "{}", ran.out);
}
