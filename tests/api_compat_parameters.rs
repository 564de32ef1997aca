//! Every parameter of the original server's endpoints, in every way in which it can be given: what
//! it means, and the form of what comes back.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::records::*;
use common::{Answer, Server, server};
use jiff::{SignedDuration, Timestamp};
use netspy::Connection;
use netspy::event::*;
use serde_json::{Map, Value, json};

const JSON: &str = "application/json";

fn ago(seconds: i64) -> Timestamp {
    Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).unwrap()
}

/// Two attempts of curl within a minute and one before, one of a thread of wget that is called curl,
/// one of wget; what is no attempt; and packets of curl's, of its thread's, and of nobody's.
async fn some() -> Server {
    let (curl, wget) = (info(7, "curl"), info(8, "wget"));
    let mut thread = udp(4, &wget);
    thread.process.as_mut().unwrap().thread = "curl".into();
    let at = |seconds, record| Connection { time: ago(seconds), ..record };
    let server = server(vec![
        at(10, refused(1, &curl)),
        at(20, unix(2, &curl, "/run/x.sock")),
        at(100, closed(3, &curl)),
        at(30, thread),
        at(40, udp(5, &wget)),
        at(5, listening(6, &curl)),
        at(5, Connection { preexisting: true, ..established(7, &curl) }),
    ])
    .await;
    let process = Some(Process { tid: 9, thread: "worker".into(), info: Arc::clone(&curl) });
    let at = |seconds, count, process, drop| {
        let time = ago(seconds);
        DropRecord { time, last: time, count, process, ..drop }
    };
    server.store.apply_drops(vec![
        at(10, 3, process.clone(), dropped(1)),
        at(100, 5, process, dropped(2)),
        at(20, 100, None, dropped(3)),
    ]);
    server
}

/// What one value of a parameter means: members of the answer, by JSON pointer.
struct Row {
    path: &'static str,
    parameter: &'static str,
    value: Value,
    means: Vec<(&'static str, Value)>,
}

fn row(
    path: &'static str,
    parameter: &'static str,
    value: impl Into<Value>,
    means: &[(&'static str, Value)],
) -> Row {
    Row { path, parameter, value: value.into(), means: means.to_vec() }
}

fn table() -> Vec<Row> {
    let count = |n: u64| ("/count", json!(n));
    let shown = |n: u64| ("/total_events", json!(n));
    let pids = |n: u64| ("/total_pids", json!(n));
    let matching = |n: u64| ("/total_count", json!(n));
    let command = |name: &str| ("/command", json!(name));
    let minute = ago(60).to_string();
    const SUMMARY: &str = "/api/connection-summary";
    const LIST: &str = "/api/list-connections";
    const EVENTS: &str = "/api/events";
    const DROPS: &str = "/api/packet-drop-summary";
    const DROP_LIST: &str = "/api/list-packet-drops";
    vec![
        row(SUMMARY, "pid", 7, &[count(2), ("/pid", json!(7)), command("")]),
        row(SUMMARY, "pid", 0, &[count(4), ("/pid", json!(0))]),
        row(SUMMARY, "command", "curl", &[count(3), command("curl"), ("/pid", json!(0))]),
        row(SUMMARY, "command", "", &[count(4), command("")]),
        row(SUMMARY, "process_name", "wget", &[count(2), command("wget")]),
        row(SUMMARY, "duration_seconds", 300, &[count(5), ("/duration_seconds", json!(300))]),
        row(SUMMARY, "duration_seconds", 0, &[count(4), ("/duration_seconds", json!(60))]),
        row(LIST, "pid", 8, &[shown(2), pids(1), ("/events_by_pid/8/0/command", json!("wget"))]),
        row(LIST, "pid", 4242, &[shown(0), pids(0), ("/events_by_pid", json!({}))]),
        row(LIST, "command", "curl", &[shown(4), pids(2), matching(4)]),
        row(LIST, "process_name", "wget", &[shown(2), pids(1)]),
        row(LIST, "limit", 1, &[shown(1), matching(5), ("/limit", json!(1))]),
        row(LIST, "limit", 0, &[shown(5), ("/limit", json!(100))]),
        row(LIST, "duration_seconds", 60, &[shown(4), matching(4)]),
        row(
            EVENTS,
            "type",
            "connection",
            &[
                matching(5),
                ("/filters/type", json!("connection")),
                ("/events/0/type", json!("connection")),
            ],
        ),
        row(
            EVENTS,
            "type",
            "packet_drop",
            &[
                matching(3),
                ("/filters/type", json!("packet_drop")),
                ("/events/0/type", json!("packet_drop")),
            ],
        ),
        row(EVENTS, "pid", 7, &[matching(3), ("/filters/pid", json!(7))]),
        row(EVENTS, "command", "curl", &[matching(4), ("/filters/command", json!("curl"))]),
        row(EVENTS, "process_name", "wget", &[matching(2), ("/filters/command", json!("wget"))]),
        row(EVENTS, "since", minute.clone(), &[matching(4), ("/filters/since", json!(minute))]),
        row(EVENTS, "since", "25s", &[matching(2)]),
        row(
            EVENTS,
            "until",
            minute.clone(),
            &[
                matching(1),
                ("/filters/until", json!(minute)),
                ("/events/0/destination", json!("192.0.2.3:443")),
            ],
        ),
        row(EVENTS, "limit", 1, &[count(1), matching(5), ("/filters/limit", json!(1))]),
        row(DROPS, "pid", 7, &[count(3), ("/pid", json!(7))]),
        row(DROPS, "command", "curl", &[count(3), command("curl")]),
        row(DROPS, "process_name", "worker", &[count(3), command("worker")]),
        row(DROPS, "duration_seconds", 300, &[count(108), ("/duration_seconds", json!(300))]),
        row(DROP_LIST, "pid", 7, &[shown(2), pids(1), ("/events_by_pid/7/0/count", json!(3))]),
        row(DROP_LIST, "command", "curl", &[shown(2), pids(1)]),
        row(DROP_LIST, "process_name", "worker", &[shown(2), pids(1)]),
        row(DROP_LIST, "limit", 1, &[shown(1), matching(3), ("/limit", json!(1))]),
        row(DROP_LIST, "duration_seconds", 60, &[shown(2), pids(2)]),
    ]
}

/// The members that clients of the original read, and their types.
const SHAPES: [(&str, &[(&str, &str)]); 7] = [
    (
        "/health",
        &[
            ("status", "string"),
            ("component", "string"),
            ("uptime", "string"),
            ("version", "string"),
        ],
    ),
    (
        "/api/programs",
        &[("programs", "array"), ("total_count", "number"), ("query_time", "string")],
    ),
    (
        "/api/events",
        &[
            ("events", "array"),
            ("count", "number"),
            ("total_count", "number"),
            ("query_time", "string"),
            ("filters", "object"),
        ],
    ),
    ("/api/connection-summary", &SUMMARY),
    ("/api/packet-drop-summary", &SUMMARY),
    ("/api/list-connections", &LIST),
    ("/api/list-packet-drops", &LIST),
];
const SUMMARY: [(&str, &str); 5] = [
    ("count", "number"),
    ("pid", "number"),
    ("command", "string"),
    ("duration_seconds", "number"),
    ("query_time", "string"),
];
const LIST: [(&str, &str); 4] = [
    ("total_pids", "number"),
    ("total_events", "number"),
    ("events_by_pid", "object"),
    ("query_time", "string"),
];

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The answer without its own time; it has the form of the original's.
fn taken(path: &str, answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some(JSON));
    let mut answer = answer.json();
    let (_, members) = SHAPES.iter().find(|(of, _)| *of == path).unwrap();
    for (member, expected) in *members {
        assert_eq!(kind(&answer[member]), *expected, "{path}: {member}");
    }
    if let Some(time) = answer.as_object_mut().unwrap().remove("query_time") {
        time.as_str().unwrap().parse::<Timestamp>().unwrap();
    }
    answer
}

/// A query string.
fn query(parameter: &str, value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    form_urlencoded::Serializer::new(String::new()).append_pair(parameter, &text).finish()
}

/// A place in which a parameter can be given: path, method, query or body, name.
type Place = (String, &'static str, &'static str, String);

/// The places that the document has.
fn described(document: &Value) -> BTreeSet<Place> {
    let mut places = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["tags"][0] != "compatible" {
                continue;
            }
            let method = if method == "get" { "get" } else { "post" };
            for parameter in operation["parameters"].as_array().unwrap() {
                let name = parameter["name"].as_str().unwrap().to_owned();
                assert_eq!(parameter["in"], "query", "{path}: {name}");
                places.insert((path.clone(), method, "query", name));
            }
            let body = &operation["requestBody"]["content"][JSON]["schema"]["properties"];
            for name in body.as_object().unwrap_or(&Map::new()).keys() {
                places.insert((path.clone(), method, "body", name.clone()));
            }
        }
    }
    places
}

#[tokio::test]
async fn each_parameter_means_the_same_wherever_it_is_given() {
    let server = some().await;
    let places = described(&server.get("/openapi.json").await.json());
    let mut driven = BTreeSet::new();
    for Row { path, parameter, value, means } in table() {
        let query = query(parameter, &value);
        let body = json!({ parameter: value }).to_string();
        let by_query = taken(path, &server.get(&format!("{path}?{query}")).await);
        for (pointer, expected) in means {
            assert_eq!(by_query.pointer(pointer), Some(&expected), "{path}?{query}: {pointer}");
        }
        let place = |method, part| (path.to_owned(), method, part, parameter.to_owned());
        driven.insert(place("get", "query"));
        if !places.contains(&place("post", "body")) {
            let refused = server.post(path, JSON, body.as_bytes()).await;
            assert_eq!(
                (refused.status, refused.header("allow")),
                (405, Some("GET,HEAD")),
                "{path}"
            );
            continue;
        }
        let posted = taken(path, &server.post(&format!("{path}?{query}"), JSON, b"").await);
        assert_eq!(posted, by_query, "{path}?{query}");
        driven.insert(place("post", "query"));
        let by_body = taken(path, &server.post(path, JSON, body.as_bytes()).await);
        assert_eq!(by_body, by_query, "{path}: {body}");
        // What the body says wins.
        let other =
            self::query(parameter, &if value.is_string() { json!("other") } else { json!(3) });
        let both = server.post(&format!("{path}?{other}"), JSON, body.as_bytes()).await;
        if value != json!(0) && value != json!("") {
            assert_eq!(taken(path, &both), by_query, "{path}?{other}: {body}");
        }
        driven.insert(place("post", "body"));
    }
    assert_eq!(driven, places, "what is driven, and what the document has");
    server.stop().await;
}

#[tokio::test]
async fn parameters_given_together_all_count() {
    let server = some().await;
    let since = ago(60);
    for (target, pointer, expected) in [
        ("/api/connection-summary?pid=8&command=curl&duration_seconds=300".to_owned(), "/count", 1),
        (
            "/api/list-connections?pid=7&command=curl&duration_seconds=300&limit=2".into(),
            "/total_count",
            3,
        ),
        (
            format!("/api/events?type=connection&pid=7&command=curl&since={since}&limit=1"),
            "/total_count",
            2,
        ),
        (
            format!("/api/events?type=packet_drop&pid=7&command=worker&until={since}&limit=9"),
            "/count",
            1,
        ),
        (
            "/api/packet-drop-summary?pid=7&process_name=curl&duration_seconds=300".into(),
            "/count",
            8,
        ),
        (
            "/api/list-packet-drops?pid=7&command=worker&duration_seconds=60&limit=5".into(),
            "/total_events",
            1,
        ),
        // The name comes before its alias.
        ("/api/connection-summary?process_name=wget&command=curl".into(), "/count", 3),
    ] {
        let path = target.split('?').next().unwrap();
        let answer = taken(path, &server.get(&target).await);
        assert_eq!(answer.pointer(pointer), Some(&json!(expected)), "{target}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_value_is_named_wherever_it_is_given() {
    let server = some().await;
    let document = server.get("/openapi.json").await.json();
    for (path, method, part, name) in described(&document) {
        // A name may be any text.
        let wrong = match (name.as_str(), part) {
            ("command" | "process_name", "query") => continue,
            ("command" | "process_name", _) => json!(7),
            ("type" | "since" | "until", _) => json!("no such"),
            (_, "query") => json!("-1"),
            _ => json!("7"),
        };
        let answer = match (method, part) {
            ("get", _) => server.get(&format!("{path}?{}", query(&name, &wrong))).await,
            (_, "query") => {
                server.post(&format!("{path}?{}", query(&name, &wrong)), JSON, b"{}").await
            }
            _ => server.post(&path, JSON, json!({ &name: wrong }).to_string().as_bytes()).await,
        };
        let status = if part == "body" { 422 } else { 400 };
        let problem = answer.json();
        assert_eq!((answer.status, &problem["parameter"]), (status, &json!(name)), "{problem}");
        for member in ["error", "message", "detail", "accepted"] {
            assert!(!problem[member].as_str().unwrap().is_empty(), "{member}: {problem}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_takes_no_parameters_lets_them_pass() {
    let server = some().await;
    let described = described(&server.get("/openapi.json").await.json());
    for path in ["/health", "/api/programs"] {
        assert!(described.iter().all(|(of, ..)| of != path));
        taken(path, &server.get(&format!("{path}?pid=7&unknown=1")).await);
        assert_eq!(server.post(path, JSON, b"{}").await.status, 405);
    }
    // Each path of the original is one of these.
    let paths: BTreeSet<_> = described.iter().map(|(path, ..)| path.as_str()).collect();
    let shapes: BTreeSet<_> = SHAPES.iter().map(|(path, _)| *path).collect();
    assert!(paths.is_subset(&shapes), "{paths:?}");
    server.stop().await;
}
