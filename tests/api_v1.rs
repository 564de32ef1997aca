//! `/api/v1`: shapes, filters, pages, errors, limits.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::records::*;
use common::{Answer, server, server_over};
use netspy::Connection;
use netspy::event::{Direction, Outcome, Traffic};
use netspy::query::{List, Status, Summary};
use netspy::server::Terms;
use netspy::store::{HistoryOptions, Store};

fn list(answer: &Answer) -> List {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn a_list_has_its_window_its_books_and_the_newest_record_first() {
    let (curl, wget) = (info(7, "curl"), info(8, "wget"));
    let server = server(vec![refused(1, &curl), udp(2, &wget), closed(3, &curl)]).await;
    let answer = server.get("/api/v1/connections").await;
    let json = answer.json();
    for member in ["connections", "total", "next_cursor", "window", "accounting"] {
        assert!(json.get(member).is_some(), "{member}");
    }
    let list = list(&answer);
    assert_eq!((list.total, list.next_cursor, list.connections.len()), (3, None, 3));
    assert!(list.connections.is_sorted_by(|a, b| a.time > b.time));
    assert!(list.accounting.balances() && list.accounting.complete);
    assert_eq!(list.accounting.attempts, 3);
    assert_eq!(list.window.since, epoch());
    let first = &json["connections"][0];
    assert_eq!(first["close"]["reason"], "fin");
    assert_eq!(first["process"]["comm"], "curl");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    server.stop().await;
}

#[tokio::test]
async fn filters_and_pages_select_and_an_empty_answer_names_the_newest_match_outside() {
    let (curl, wget) = (info(7, "curl"), info(8, "wget"));
    let mut records: Vec<_> = (0..50).map(|n| refused(n, &curl)).collect();
    records.extend((50..60).map(|n| udp(n, &wget)));
    let server = server(records).await;
    for (query, total) in [
        ("process=wget", 10),
        ("process=curl,wget", 60),
        ("pid=7&protocol=udp", 0),
        ("outcome=unsuccessful", 50),
        ("outcome=associated&state=open", 10),
        ("cidr=192.0.2.0/28&process=curl", 16),
        ("port=443&direction=outbound&uid=1000", 60),
        ("since=2023-11-14T22:13:20.00004Z&until=2023-11-14T22:13:20.00005Z", 10),
    ] {
        let answer = list(&server.get(&format!("/api/v1/connections?{query}")).await);
        assert_eq!(answer.total, total, "{query}");
    }
    let mut seen = Vec::new();
    let mut target = "/api/v1/connections?limit=7&process=curl".to_owned();
    loop {
        let page = list(&server.get(&target).await);
        assert_eq!(page.total, 50);
        seen.extend(page.connections.into_iter().map(|c| c.id));
        // What arrives meanwhile moves nothing.
        server.store.apply(vec![udp(1_000 + seen.len() as u64, &wget)]);
        let Some(cursor) = page.next_cursor else { break };
        target = format!("/api/v1/connections?limit=7&process=curl&cursor={cursor}");
    }
    assert_eq!(seen.len(), 50);
    assert!(seen.is_sorted_by(|a, b| a.start_ns > b.start_ns));
    let outside = server.get("/api/v1/connections?process=curl&since=2023-11-15T00:00:00Z").await;
    assert_eq!(list(&outside).newest_outside_window, Some(micros(49)));
    server.stop().await;
}

#[tokio::test]
async fn one_record_is_found_by_its_id() {
    let curl = info(7, "curl");
    let server = server(vec![in_progress(1, &curl)]).await;
    let id = refused(1, &curl).id;
    let target = format!("/api/v1/connections/{id}");
    let record: Connection = serde_json::from_slice(&server.get(&target).await.body).unwrap();
    assert_eq!(record.outcome, Outcome::InProgress);
    server.store.apply(vec![refused(1, &curl)]);
    let record: Connection = serde_json::from_slice(&server.get(&target).await.body).unwrap();
    assert_eq!(record.outcome, Outcome::Refused);
    assert_eq!(server.get("/api/v1/connections/1-2-3").await.status, 404);
    for garbage in ["garbage", "%00", "%ff", "1-2-3-4", "é"] {
        let answer = server.get(&format!("/api/v1/connections/{garbage}")).await;
        assert_eq!((answer.status, answer.json()["status"].as_u64()), (400, Some(400)));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_summary_has_totals_rates_and_percentiles() {
    let (curl, wget) = (info(7, "curl"), info(8, "wget"));
    let mut records: Vec<_> = (0..10).map(|n| closed(n, &curl)).collect();
    records.push(udp(10, &wget));
    records.push(Connection { direction: Direction::Inbound, ..refused(11, &wget) });
    let server = server(records).await;
    let answer = server.get("/api/v1/summary").await;
    let summary: Summary = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((summary.total, summary.processes, summary.remotes), (12, 2, 12));
    assert_eq!(answer.json()["by_outcome"]["established"], 10);
    assert_eq!(answer.json()["by_protocol"]["udp"], 1);
    assert_eq!(answer.json()["by_direction"]["inbound"], 1);
    assert_eq!(summary.handshake.unwrap().count, 10);
    let curl_only = server.get("/api/v1/summary?process=curl").await.json();
    assert_eq!(curl_only["total"], 10);
    server.stop().await;
}

#[tokio::test]
async fn what_listens_and_what_existed_before_can_be_asked_for_and_is_no_attempt() {
    let curl = info(7, "curl");
    let before = |record| Connection { preexisting: true, ..record };
    let server = server(vec![
        refused(1, &curl),
        before(established(2, &curl)),
        listening(3, &curl),
        before(listening(4, &curl)),
    ])
    .await;
    for (query, total) in [
        ("", 4),
        ("?preexisting=true", 2),
        ("?preexisting=false", 2),
        ("?state=listening", 2),
        ("?outcome=listening&preexisting=true", 1),
        ("?port=443&direction=inbound", 2),
        ("?outcome=unsuccessful", 1),
    ] {
        let answer = list(&server.get(&format!("/api/v1/connections{query}")).await);
        assert_eq!(answer.total, total, "{query}");
        let summary = server.get(&format!("/api/v1/summary{query}")).await;
        let summary: Summary = serde_json::from_slice(&summary.body).unwrap();
        assert_eq!(summary.total, total, "{query}");
        let seconds = summary.window.until.duration_since(summary.window.since).as_secs_f64();
        assert!(summary.watched_seconds <= seconds + 0.001, "{query}");
        let attempts = summary.by_outcome.get(&Outcome::Refused).copied().unwrap_or(0) as f64;
        assert!(
            (summary.rate_per_second * summary.watched_seconds - attempts).abs() < 0.01,
            "{query}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_open_tells_what_it_has_carried_and_what_has_closed_does_not() {
    let curl = info(7, "curl");
    let (open, ended, unknown) = (established(1, &curl), closed(2, &curl), established(3, &curl));
    let traffic = Traffic {
        bytes_sent: Some(100),
        bytes_received: Some(70_000),
        datagrams_sent: None,
        retransmits: Some(1),
        srtt_us: None,
    };
    let server = server(vec![open.clone(), ended.clone(), unknown.clone()]).await;
    *server.capture.traffic.lock().unwrap() =
        [(open.id, traffic), (ended.id, traffic)].into_iter().collect();
    let answer = list(&server.get("/api/v1/connections").await);
    let of = |id| answer.connections.iter().find(|c| c.id == id).unwrap().traffic;
    assert_eq!((of(open.id), of(ended.id), of(unknown.id)), (Some(traffic), None, None));
    let one = server.get(&format!("/api/v1/connections/{}", open.id)).await.json();
    let expected = serde_json::json!(
        {"bytes_sent": 100, "bytes_received": 70_000, "retransmits": 1, "srtt_us": null}
    );
    assert_eq!(one["traffic"], expected);
    let one = server.get(&format!("/api/v1/connections/{}", ended.id)).await.json();
    assert!(one.get("traffic").is_none(), "{one}");
    server.stop().await;
}

#[tokio::test]
async fn status_tells_version_hooks_store_and_books() {
    let curl = info(7, "curl");
    let server = server(vec![refused(1, &curl)]).await;
    let answer = server.get("/api/v1/status").await;
    let status: Status = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (status.version.as_str(), status.health.as_str()),
        (env!("CARGO_PKG_VERSION"), "healthy")
    );
    assert_eq!((status.backend.as_str(), status.store.records), ("tracepoint", 1));
    assert!(status.features["connect"].ok && status.accounting.balances());
    *server.capture.stopped.lock().unwrap() = Some("detached by somebody".to_owned());
    let status: Status = serde_json::from_slice(&server.get("/api/v1/status").await.body).unwrap();
    assert_eq!((status.health.as_str(), status.accounting.complete), ("degraded", false));
    assert_eq!(status.accounting.gaps[0].why, "detached by somebody");
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_parameter_is_said_and_what_is_accepted() {
    let server = server(Vec::new()).await;
    for (target, parameter) in [
        ("/api/v1/connections?pid=x", "pid"),
        ("/api/v1/connections?pid=1&pid=2", "pid"),
        ("/api/v1/connections?colour=red", "colour"),
        ("/api/v1/connections?since=never", "since"),
        ("/api/v1/connections?preexisting=maybe", "preexisting"),
        ("/api/v1/connections?limit=0", "limit"),
        ("/api/v1/connections?cursor=abc", "cursor"),
        ("/api/v1/connections?=x", ""),
        ("/api/v1/connections?process=", "process"),
        ("/api/v1/connections?process=%ff&pid=%00", "pid"),
        ("/api/v1/summary?limit=1", "limit"),
        ("/api/v1/status?pid=1", "pid"),
        ("/api/v1/connections/1-2-3?pid=1", "pid"),
        ("/api/v1/stream?after=x", "after"),
        ("/api/v1/stream?cursor=x", "cursor"),
        ("/api/v1/stream?after=1&after=2", "after"),
    ] {
        let answer = server.get(target).await;
        assert_eq!(answer.status, 400, "{target}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let json = answer.json();
        for member in ["type", "title", "status", "detail", "parameter", "accepted"] {
            assert!(json.get(member).is_some(), "{target}: {member}");
        }
        assert_eq!(json["parameter"], parameter, "{target}");
    }
    server.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too_and_head_works() {
    let server = server(Vec::new()).await;
    for path in [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/connections/",
        "/api/v1/drops/1",
        "/%00",
        "/../etc/passwd",
    ] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.json()["status"].as_u64()), (404, Some(404)), "{path}");
    }
    for (method, path, allow) in [
        ("DELETE", "/api/v1/connections", "GET,HEAD"),
        ("POST", "/api/v1/status", "GET,HEAD"),
        ("PUT", "/api/connection-summary", "GET,HEAD,POST"),
        ("POST", "/health", "GET,HEAD"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        let answer = server.ask(&head, b"").await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    for path in ["/health", "/api/v1/connections", "/api/v1/status", "/api/events", "/nothing"] {
        let get = server.get(path).await;
        let head = server.ask(&format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n"), b"").await;
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn command_lines_are_shown_over_the_unix_socket_alone() {
    let curl = info(7, "curl");
    let server = server(vec![refused(1, &curl), refused(2, &curl)]).await;
    let id = refused(1, &curl).id;
    for target in ["/api/v1/connections".to_owned(), format!("/api/v1/connections/{id}")] {
        let secret = |answer: &Answer| String::from_utf8_lossy(&answer.body).contains("--secret");
        let tcp = server.get(&target).await;
        assert!(tcp.status == 200 && !secret(&tcp));
        assert!(secret(&server.get_unix(&target).await));
    }
    let mut events = server.events("/api/v1/stream?after=0", "").await;
    assert_eq!(events.next().await.unwrap().data["process"]["cmdline"], serde_json::Value::Null);
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_was_pointed_here_is_refused() {
    let server = server(Vec::new()).await;
    for (host, status) in [("127.0.0.1:1", 200), ("[::1]", 200), ("evil.example", 403)] {
        let answer = server.ask(&format!("GET /health HTTP/1.1\r\nHost: {host}\r\n"), b"").await;
        assert_eq!(answer.status, status, "{host}");
    }
    let absolute = "GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n";
    assert_eq!(server.ask(absolute, b"").await.status, 403);
    assert_eq!(server.ask("GET /health HTTP/1.0\r\n", b"").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn hostile_requests_get_an_answer_below_500() {
    let server = server(vec![refused(1, &info(7, "curl"))]).await;
    let mut random = Random(3);
    let pieces = [
        "process",
        "=",
        "&",
        "%",
        "%00",
        "%f0%28",
        "since",
        "1h",
        ",",
        "\\",
        "pid",
        "9",
        "-1",
        "cursor",
        "1n",
        "+",
        "limit",
        "cidr",
        "::/0",
        "?",
        "/",
        "type",
        "duration_seconds",
    ];
    let paths = [
        "/api/v1/connections",
        "/api/v1/summary",
        "/api/v1/connections/",
        "/api/events",
        "/api/list-connections",
        "/api/connection-summary",
    ];
    for _ in 0..300 {
        let query: String = (0..random.next(12)).map(|_| random.one(&pieces)).collect();
        let target = format!("{}?{query}", random.one(&paths));
        let answer = server.get(&target).await;
        assert!(answer.status < 500, "{target}: {}", answer.status);
        answer.json();
    }
    let long = server.get(&format!("/api/v1/connections?process={}", "x".repeat(60_000))).await;
    assert_eq!(long.status, 400);
    let huge = format!("GET / HTTP/1.1\r\nX: {}\r\n", "x".repeat(200_000));
    assert_eq!(server.ask(&huge, b"").await.status, 431);
    server.stop().await;
}

#[tokio::test]
async fn a_window_that_was_not_watched_is_a_gap_and_ends_now_at_the_latest() {
    let server = server(vec![refused(1, &info(7, "curl"))]).await;
    let early = "/api/v1/connections?since=2020-01-01T00:00:00Z&until=2999-01-01T00:00:00Z";
    let early = list(&server.get(early).await);
    assert!(!early.accounting.complete && early.accounting.balances());
    let gap = &early.accounting.gaps[0];
    assert_eq!((gap.since, gap.until), ("2020-01-01T00:00:00Z".parse().unwrap(), epoch()));
    assert_eq!(gap.why, "before capture began");
    assert!(early.window.until <= jiff::Timestamp::now());
    let watched = list(&server.get("/api/v1/connections?since=1h").await);
    assert!(watched.accounting.complete && watched.accounting.gaps.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn history_from_before_the_start_is_in_the_window_and_its_books_are_not() {
    let directory = std::env::temp_dir().join(format!("netspy-v1-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let open = |name: &str| {
        let directory = directory.join(name);
        let options = HistoryOptions { directory, limit_bytes: 1 << 30, max_age: None };
        Store::open(16 << 20, &options).unwrap()
    };
    let curl = info(7, "curl");
    let new = server_over(open("new"), vec![refused(1, &curl)], Terms::default()).await;
    let first = list(&new.get("/api/v1/connections").await);
    assert_eq!((first.window.since, first.accounting.complete), (epoch(), true));
    new.stop().await;
    let before = micros(-60_000_000);
    open("old").apply(vec![Connection { time: before, ..refused(2, &curl) }]);
    let server = server_over(open("old"), vec![refused(3, &curl)], Terms::default()).await;
    let all = list(&server.get("/api/v1/connections").await);
    assert_eq!((all.total, all.window.since), (2, before));
    let gap = &all.accounting.gaps[0];
    assert_eq!((gap.since, gap.until, all.accounting.complete), (before, epoch(), false));
    let since = list(&server.get("/api/v1/connections?since=2023-11-14T22:13:20Z").await);
    assert_eq!((since.total, since.accounting.complete), (1, true));
    let drops = server.get("/api/v1/drops").await.json();
    assert_eq!(drops["window"]["since"], "2023-11-14T22:13:20.000000000Z");
    server.stop().await;
    let _ = std::fs::remove_dir_all(directory);
}

#[tokio::test]
async fn what_is_refused_is_not_listed_as_accepted() {
    let server = server(vec![refused(1, &info(7, "curl"))]).await;
    for target in ["summary?limit=1", "summary?colour=red", "stream?sort=oldest", "stream?x=1"] {
        let answer = server.get(&format!("/api/v1/{target}")).await;
        assert_eq!(answer.status, 400, "{target}");
        let accepted = answer.json()["accepted"].as_str().unwrap().to_owned();
        let accepted: Vec<_> = accepted.split(", ").collect();
        assert!(accepted.contains(&"process"), "{target}");
        assert!(!["limit", "cursor", "sort"].iter().any(|name| accepted.contains(name)));
        assert_eq!(accepted.contains(&"after"), target.starts_with("stream"), "{target}");
    }
    let answer = server.get("/api/v1/connections/%ff").await;
    let json = answer.json();
    assert_eq!((answer.status, json["parameter"].as_str()), (400, Some("id")));
    assert!(json["accepted"].is_string() && json["detail"].as_str().unwrap().starts_with("id: "));
    server.stop().await;
}

#[tokio::test]
async fn a_cursor_leads_on_in_its_own_list_alone() {
    let server = server((0..10).map(|n| refused(n, &info(7, "curl"))).collect()).await;
    let first = list(&server.get("/api/v1/connections?limit=2&pid=7&since=9999d").await);
    let cursor = first.next_cursor.unwrap();
    let next = format!("/api/v1/connections?limit=2&pid=7&since=9998d&cursor={cursor}");
    assert_eq!(list(&server.get(&next).await).connections.len(), 2);
    for other in ["pid=8", "pid=7&port=443", "limit=2", "pid=7&sort=oldest"] {
        let answer = server.get(&format!("/api/v1/connections?{other}&cursor={cursor}")).await;
        assert_eq!((answer.status, answer.json()["parameter"].as_str()), (400, Some("cursor")));
    }
    server.stop().await;
}
