//! The OpenAPI document, its page, and what is said about caching and compression.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;

use common::records::*;
use common::{Answer, Server, server};
use netspy::event::{DnsOutcome, DnsRecord, DropRecord};
use netspy::query::{diff, dns, drops, filter, findings, series, top};
use serde_json::Value;

async fn with(server: &Server, target: &str, header: &str) -> Answer {
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{header}");
    server.ask(&head, b"").await
}

fn names(operation: &Value) -> BTreeSet<String> {
    let parameters = operation["parameters"].as_array().unwrap().iter();
    let query = parameters.filter(|parameter| parameter["in"] == "query");
    query.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_document_has_every_path_and_what_it_has_is_there() {
    let server = server(vec![closed(1, &info(7, "curl"))]).await;
    let document = server.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    let expected = [
        "/api/connection-summary",
        "/api/events",
        "/api/list-connections",
        "/api/list-packet-drops",
        "/api/packet-drop-summary",
        "/api/programs",
        "/api/v1/connections",
        "/api/v1/connections/{id}",
        "/api/v1/diff",
        "/api/v1/dns",
        "/api/v1/drops",
        "/api/v1/findings",
        "/api/v1/series",
        "/api/v1/status",
        "/api/v1/stream",
        "/api/v1/summary",
        "/api/v1/top",
        "/docs",
        "/health",
        "/metrics",
        "/openapi.json",
    ];
    for path in expected {
        assert!(paths.contains_key(path), "{path}");
    }
    let id = closed(1, &info(7, "curl")).id.to_string();
    for (path, methods) in paths {
        let target = path.replace("{id}", &id);
        let target = if path == "/api/v1/top" { format!("{target}?by=process") } else { target };
        for (method, operation) in methods.as_object().unwrap() {
            let kinds = operation["responses"]["200"]["content"].as_object().unwrap();
            if kinds.contains_key("text/event-stream") {
                drop(server.events(&target, "").await);
                continue;
            }
            let answer = match method.as_str() {
                "get" => server.get(&target).await,
                "post" => server.post(&target, "application/json", b"{}").await,
                other => panic!("{path}: {other}"),
            };
            assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
            let told = answer.header("content-type").unwrap();
            assert!(kinds.keys().any(|kind| told.starts_with(kind.as_str())), "{path}: {told}");
        }
        // What the document does not have is refused, and says what there is.
        let head = format!("DELETE {target} HTTP/1.1\r\nHost: localhost\r\n");
        let refused = server.ask(&head, b"").await;
        assert_eq!(refused.status, 405, "{path}");
        let allowed = refused.header("allow").unwrap().to_lowercase();
        assert!(methods.as_object().unwrap().keys().all(|m| allowed.contains(m)), "{allowed}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_document_has_the_parameters_that_the_server_reads() {
    let server = server(Vec::new()).await;
    let document = server.get("/openapi.json").await.json();
    let set = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let filters = filter::FILTER_NAMES;
    let expected = [
        ("connections", [&filters[..], &filter::PAGE_NAMES].concat()),
        ("summary", filters.to_vec()),
        ("stream", [&filters[..], &["after"]].concat()),
        ("top", top::names()),
        ("series", series::names()),
        ("diff", diff::names()),
        ("findings", findings::names()),
        ("dns", [&dns::DNS_FILTER_NAMES[..], &dns::DNS_PAGE_NAMES].concat()),
        ("drops", [&drops::DROP_FILTER_NAMES[..], &drops::DROP_PAGE_NAMES].concat()),
        ("status", Vec::new()),
    ];
    for (path, parameters) in expected {
        let path = format!("/api/v1/{path}");
        let described = names(&document["paths"][&path]["get"]);
        assert_eq!(described, set(parameters), "{path}");
        // None of them is unknown to the server, and others are.
        for name in &described {
            let answer = server.get(&format!("{path}?{name}=%00&{name}=%00")).await.json();
            assert_ne!(answer["detail"], format!("{name}: there is no such parameter"));
        }
        let answer = server.get(&format!("{path}?colour=red")).await;
        assert_eq!((answer.status, answer.json()["parameter"].as_str()), (400, Some("colour")));
    }
    server.stop().await;
}

/// Years have four digits there, and no sign.
fn is_rfc_3339(text: &str) -> bool {
    let is_year = |year: &str| year.bytes().all(|b| b.is_ascii_digit());
    let year = text.split_once('-').is_some_and(|(year, _)| year.len() == 4 && is_year(year));
    year && text.parse::<jiff::Timestamp>().is_ok()
}

/// Why the value has not the form that the schema says (types, members, words), if it has not.
fn misfit(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap();
        return misfit(document, target, value);
    }
    if let Some(parts) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let why: Option<Vec<_>> = parts.iter().map(|part| misfit(document, part, value)).collect();
        return why.map(|why| why.join(", and "));
    }
    if schema.get("const").is_some_and(|word| word != value) {
        return Some(format!("{value} is not {}", schema["const"]));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let told = &schema["type"];
    let listed = told.as_array().is_some_and(|kinds| kinds.iter().any(|k| k == kind));
    if !(told.is_null() || told == kind || listed || (kind == "integer" && told == "number")) {
        return Some(format!("{value} is no {told}"));
    }
    if schema["format"] == "date-time"
        && let Some(text) = value.as_str()
        && !is_rfc_3339(text)
    {
        return Some(format!("{text} is no time of RFC 3339"));
    }
    match value {
        Value::Object(members) => {
            let known = schema["properties"].as_object();
            let required = schema["required"].as_array().into_iter().flatten();
            let mut missing = required.filter(|name| !members.contains_key(name.as_str().unwrap()));
            missing.next().map(|name| format!("{name} is missing")).or_else(|| {
                members.iter().find_map(|(name, value)| match known.map(|known| known.get(name)) {
                    Some(None) => Some(format!("{name} is not told of")),
                    Some(Some(member)) => misfit(document, member, value),
                    None => misfit(document, &schema["additionalProperties"], value),
                })
            })
        }
        Value::Array(items) => {
            items.iter().find_map(|item| misfit(document, &schema["items"], item))
        }
        _ => None,
    }
}

#[tokio::test]
async fn answers_have_the_form_that_the_document_says() {
    let mut random = Random(3);
    let wild = (0..100).map(|_| random.connection()).collect();
    let server = server(wild).await;
    let hostile = DropRecord { time: jiff::Timestamp::MIN, ..dropped(9) };
    server.store.apply_drops((0..5).map(dropped).chain([hostile]).collect());
    let silent =
        DnsRecord { outcome: DnsOutcome::TimedOut, rcode: None, process: None, ..asked(9) };
    let hostile = DnsRecord { time: jiff::Timestamp::MIN, answered: None, ..asked(10) };
    server.store.apply_dns((0..5).map(asked).chain([silent, hostile]).collect());
    let document = server.get("/openapi.json").await.json();
    for target in [
        "/api/v1/connections?limit=100",
        "/api/v1/summary",
        "/api/v1/top?by=process",
        "/api/v1/top?by=port",
        "/api/v1/series?since=2023-11-14T22:13:00Z&until=2023-11-14T22:14:00Z",
        "/api/v1/diff?since=2023-11-14T22:13:20Z&until=2023-11-14T22:14:00Z",
        // What it is compared with, and the first step, would begin before the year 0.
        "/api/v1/diff?since=0001-01-01T00:00:00Z",
        "/api/v1/series?since=0000-01-01T00:00:00Z",
        "/api/v1/dns",
        "/api/v1/drops",
        "/api/v1/findings",
        "/api/v1/status",
        "/api/events",
        "/api/events?type=packet_drop",
        "/api/list-connections?duration_seconds=999999999",
        "/api/list-packet-drops?duration_seconds=999999999",
        "/api/connection-summary",
        "/api/programs",
        "/health",
    ] {
        let answer = server.get(target).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let path = target.split('?').next().unwrap();
        let response = &document["paths"][path]["get"]["responses"]["200"];
        let schema = &response["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path}");
        assert_eq!(misfit(&document, schema, &answer.json()), None, "{target}");
    }
    let problem = server.get("/api/v1/summary?pid=x").await.json();
    let schema = &document["components"]["schemas"]["Problem"];
    assert_eq!(misfit(&document, schema, &problem), None);
    assert!(misfit(&document, schema, &serde_json::json!({"title": 7})).is_some());
    assert!(!is_rfc_3339("-000024-06-24T00:00:00Z") && is_rfc_3339("0000-06-24T00:00:00Z"));
    server.stop().await;
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let server = server(Vec::new()).await;
    for target in ["/docs", "/docs/docs.js", "/docs/docs.css"] {
        let answer = server.get(target).await;
        assert_eq!(answer.status, 200, "{target}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        let text = String::from_utf8(answer.body).unwrap();
        for elsewhere in ["http://", "https://", "//cdn", "innerHTML", "eval("] {
            assert!(!text.contains(elsewhere), "{target}: {elsewhere}");
        }
    }
    // Inline scripts and styles would not run under that policy.
    let page = String::from_utf8(server.get("/docs").await.body).unwrap();
    assert!(page.contains("<script src=\"/docs/docs.js\" defer></script>"));
    assert!(!page.contains("style=") && !page.contains("onclick"));
    server.stop().await;
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let curl = info(7, "curl");
    let server = server(vec![established(1, &curl)]).await;
    let record = format!("/api/v1/connections/{}", closed(1, &curl).id);
    for target in ["/openapi.json", "/docs", &record] {
        let first = server.get(target).await;
        let tag = first.header("etag").unwrap();
        assert_eq!(first.header("cache-control"), Some("no-cache"), "{target}");
        let again = with(&server, target, &format!("If-None-Match: \"x\", {tag}\r\n")).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{target}");
        let other = with(&server, target, "If-None-Match: \"other\"\r\n").await;
        assert_eq!((other.status, other.body), (200, first.body.clone()), "{target}");
    }
    let before = server.get(&record).await;
    server.store.apply(vec![closed(1, &curl)]);
    let tag = before.header("etag").unwrap();
    let after = with(&server, &record, &format!("If-None-Match: {tag}\r\n")).await;
    assert_eq!((after.status, &after.json()["state"]), (200, &"closed".into()));
    server.stop().await;
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_take_it_and_streams_are_not() {
    let curl = info(7, "curl");
    let server = server((0..200).map(|n| refused(n, &curl)).collect()).await;
    let plain = server.get("/api/v1/connections").await;
    assert_eq!(plain.header("content-encoding"), None);
    let gzip = "Accept-Encoding: gzip\r\n";
    let small = with(&server, "/api/v1/connections", gzip).await;
    assert_eq!(small.header("content-encoding"), Some("gzip"));
    assert!(small.body.len() * 4 < plain.body.len(), "{}", small.body.len());
    let mut events = server.events("/api/v1/stream", gzip).await;
    // An event comes as soon as it happened: nothing holds it back until there is more.
    server.store.apply(vec![refused(1_000, &curl)]);
    let event = events.next().await.unwrap();
    assert_eq!(event.data["id"], refused(1_000, &curl).id.to_string());
    server.stop().await;
}

#[tokio::test]
async fn who_takes_an_answer_in_no_form_is_told_so_and_shown_nothing() {
    let server = server(vec![refused(1, &info(7, "curl"))]).await;
    for none in ["identity;q=0", "gzip;q=0, *;q=0"] {
        let header = format!("Accept-Encoding: {none}\r\n");
        let answer = with(&server, "/api/v1/connections", &header).await;
        assert_eq!(answer.status, 406, "{none}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["parameter"], "Accept-Encoding");
        let wrong = with(&server, "/api/v1/connections?limit=0", &header).await;
        assert_eq!((wrong.status, &wrong.json()["parameter"]), (400, &"limit".into()));
    }
    server.stop().await;
}
