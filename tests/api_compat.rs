//! The original server's endpoints: what its clients send, and what they read.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::records::*;
use common::{Answer, Server, server};
use jiff::{SignedDuration, Timestamp};
use netspy::Connection;
use netspy::event::*;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const JSON: &str = "application/json";

/// A record that began so many seconds ago.
fn seconds_ago(seconds: i64, record: Connection) -> Connection {
    let time = Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).unwrap();
    Connection { time, ..record }
}

/// Two of curl within a minute, one before; one each of a thread called curl, of a program whose
/// file is called curl, and of wget; and what is no attempt of this host.
async fn some() -> Server {
    let (curl, wget) = (info(7, "curl"), info(8, "wget"));
    let mut thread = udp(4, &wget);
    thread.process.as_mut().unwrap().thread = "curl".into();
    let mut renamed = (*info(9, "worker")).clone();
    renamed.exe = Some("/usr/bin/curl".into());
    server(vec![
        seconds_ago(10, refused(1, &curl)),
        seconds_ago(20, unix(2, &curl, "/run/x.sock")),
        seconds_ago(100, closed(3, &curl)),
        seconds_ago(30, thread),
        seconds_ago(30, refused(5, &renamed.into())),
        seconds_ago(30, udp(6, &wget)),
        seconds_ago(5, Connection { direction: Direction::Inbound, ..closed(7, &curl) }),
        seconds_ago(5, Connection { preexisting: true, ..established(8, &curl) }),
        seconds_ago(5, listening(9, &curl)),
    ])
    .await
}

fn ok(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some(JSON));
    answer.json()
}

#[tokio::test]
async fn a_summary_counts_outbound_attempts_by_name_of_process_or_thread() {
    let server = some().await;
    for (query, count, pid, command, seconds) in [
        ("", 5, 0, "", 60),
        ("?duration_seconds=3600", 6, 0, "", 3600),
        ("?command=curl", 3, 0, "curl", 60),
        ("?process_name=curl&duration_seconds=0", 3, 0, "curl", 60),
        ("?command=curl&pid=7&duration_seconds=200", 3, 7, "curl", 200),
        ("?pid=0&command=&unknown=1", 5, 0, "", 60),
        ("?pid=99", 0, 99, "", 60),
        ("?duration_seconds=18446744073709551615", 6, 0, "", u64::MAX),
    ] {
        let answer = ok(&server.get(&format!("/api/connection-summary{query}")).await);
        assert_eq!(answer["count"], count, "{query}");
        assert_eq!((&answer["pid"], &answer["command"]), (&json!(pid), &json!(command)));
        assert_eq!(answer["duration_seconds"], json!(seconds));
        answer["query_time"].as_str().unwrap().parse::<Timestamp>().unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn what_the_original_client_posts_is_understood() {
    let server = some().await;
    for (body, count) in [
        (json!({"command": "curl", "process_name": "curl", "duration_seconds": 60}), 3),
        (json!({"pid": 7, "duration_seconds": 300}), 3),
        (json!({"duration_seconds": 0}), 5),
        (json!({"pid": null, "process_name": "wget", "more": [1]}), 2),
        // To JSON these are whole numbers.
        (json!({"pid": 7.0, "duration_seconds": 3e2}), 3),
        (json!({}), 5),
    ] {
        let body = serde_json::to_vec(&body).unwrap();
        let answer = server.post("/api/connection-summary", JSON, &body).await;
        assert_eq!(ok(&answer)["count"], count);
    }
    let empty = server.post("/api/connection-summary?pid=7", JSON, b"").await;
    assert_eq!(ok(&empty)["count"], 2);
    let charset = server.post(
        "/api/list-connections",
        "application/json; charset=utf-8",
        b"{\"pid\":7,\"limit\":1}",
    );
    let answer = ok(&charset.await);
    assert_eq!((&answer["total_events"], &answer["total_pids"]), (&json!(1), &json!(1)));
    server.stop().await;
}

#[tokio::test]
async fn a_list_groups_the_newest_attempts_by_pid() {
    let server = some().await;
    let answer = ok(&server.get("/api/list-connections").await);
    assert_eq!((&answer["total_pids"], &answer["total_events"]), (&json!(3), &json!(6)));
    let groups = answer["events_by_pid"].as_object().unwrap();
    let sizes: Vec<_> = groups
        .iter()
        .map(|(pid, events)| (pid.as_str(), events.as_array().unwrap().len()))
        .collect();
    assert_eq!(sizes, [("7", 3), ("8", 2), ("9", 1)]);
    for (query, events) in [("limit=2", 2), ("command=curl", 4), ("pid=8", 2), ("limit=0", 6)] {
        let answer = ok(&server.get(&format!("/api/list-connections?{query}")).await);
        assert_eq!(answer["total_events"], events, "{query}");
    }
    let none = ok(&server.get("/api/list-connections?pid=12345").await);
    assert_eq!(none["events_by_pid"], json!({}));
    server.stop().await;
}

#[tokio::test]
async fn an_event_has_every_member_of_the_originals() {
    let curl = info(7, "curl");
    let v6 = Connection {
        family: Family::Ipv6,
        remote: Some(Remote::new("2001:db8::1".parse().unwrap(), 53)),
        ..udp(3, &curl)
    };
    let server = server(vec![
        refused(1, &curl),
        unix(2, &curl, "/run/x.sock"),
        v6,
        in_progress(4, &curl),
        closed(5, &curl),
        Connection {
            process: None,
            remote: None,
            errno: None,
            outcome: Outcome::Aborted,
            ..refused(6, &curl)
        },
    ])
    .await;
    let answer = ok(&server.get("/api/events?type=connection").await);
    let events = answer["events"].as_array().unwrap();
    let expected = json!({
        "id": refused(1, &curl).id.to_string(),
        "type": "connection",
        "pid": 7,
        "command": "curl",
        "time": "2023-11-14T22:13:20.000001000Z",
        "timestamp": 1_001_000,
        "return_code": -111,
        "destination": "192.0.2.1:443",
        "destination_ip": "192.0.2.1",
        "destination_port": 443,
        "address_family": 2,
        "protocol": "TCP",
        "socket_type": "STREAM",
        "raw_ipv4": u32::from_le_bytes([192, 0, 2, 1]),
        "raw_ipv6": vec![0; 16],
        "raw_protocol": 6,
        "raw_socktype": 1,
        "outcome": "refused",
        "latency_us": 101,
    });
    assert_eq!(events[5], expected);
    let members = |event: &Value, names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| event[name].clone()).collect()
    };
    let local = ["destination", "destination_port", "protocol", "address_family", "return_code"];
    assert_eq!(
        members(&events[4], &local),
        [json!(""), json!(0), json!("UNIX"), json!(1), json!(0)]
    );
    let names = ["destination", "destination_ip", "address_family", "raw_protocol", "socket_type"];
    assert_eq!(
        members(&events[3], &names),
        [json!("[2001:db8::1]:53"), json!("2001:db8::1"), json!(10), json!(17), json!("DGRAM")]
    );
    let octets = json!([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!((&events[3]["raw_ipv6"], &events[3]["raw_ipv4"]), (&octets, &json!(0)));
    let codes: Vec<_> = events.iter().map(|event| event["return_code"].as_i64().unwrap()).collect();
    assert_eq!(codes, [-115, 0, -115, 0, 0, -111]);
    assert_eq!((&events[0]["pid"], &events[0]["command"]), (&json!(0), &json!("")));
    server.stop().await;
}

#[tokio::test]
async fn events_are_filtered_counted_and_echo_their_filters() {
    let server = some().await;
    let all = ok(&server.get("/api/events?limit=2").await);
    assert_eq!((&all["count"], &all["total_count"]), (&json!(2), &json!(6)));
    assert_eq!(all["filters"], json!({"limit": 2}));
    let since = Timestamp::now().checked_sub(SignedDuration::from_secs(60)).unwrap();
    let target = format!("/api/events?type=connection&command=curl&pid=7&since={since}");
    let some = ok(&server.get(&target).await);
    assert_eq!(some["total_count"], 2);
    let filters = json!({"type": "connection", "pid": 7, "command": "curl",
        "since": since.to_string(), "limit": 100});
    assert_eq!(some["filters"], filters);
    for target in ["/api/events?type=packet_drop", "/api/events?pid=4242"] {
        let none = ok(&server.get(target).await);
        assert_eq!(
            (&none["events"], &none["count"], &none["total_count"]),
            (&json!([]), &json!(0), &json!(0))
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn health_and_programs_tell_the_state_of_capture() {
    let server = some().await;
    let health = ok(&server.get("/health").await);
    assert_eq!(health["status"], "healthy");
    for member in ["component", "uptime", "version"] {
        assert!(health[member].is_string(), "{member}");
    }
    let programs = ok(&server.get("/api/programs").await);
    assert_eq!(programs["total_count"], 1);
    let program = &programs["programs"][0];
    assert_eq!((&program["name"], &program["id"]), (&json!("sys_exit_connect"), &json!(17)));
    assert_eq!((&program["type"], &program["status"]), (&json!("tracepoint"), &json!("active")));
    *server.capture.stopped.lock().unwrap() = Some("detached by somebody".to_owned());
    let down = server.get("/health").await;
    assert_eq!((down.status, down.json()["reason"].as_str()), (503, Some("detached by somebody")));
    assert_eq!(down.json()["status"], "degraded");
    server.stop().await;
}

#[tokio::test]
async fn bad_input_is_an_error_in_the_words_that_the_original_client_shows() {
    let server = some().await;
    let long = format!("{{\"command\":\"{}\"}}", "x".repeat(70_000));
    let mut answers = Vec::new();
    for target in ["pid=x", "pid=-1", "pid=4294967296", "duration_seconds=-5", "limit=1.5"] {
        answers.push((400, server.get(&format!("/api/list-connections?{target}")).await));
    }
    for target in ["type=dns", "since=yesterday", "until=x", "pid=%ff"] {
        answers.push((400, server.get(&format!("/api/events?{target}")).await));
    }
    for path in ["/api/connection-summary", "/api/list-connections"] {
        for (status, kind, body) in [
            (400, JSON, "{"),
            (400, JSON, "pid=7"),
            (400, JSON, "{\"pid\":\"\u{0}\"}"),
            (422, JSON, "[]"),
            (422, JSON, "null"),
            (422, JSON, "{\"pid\":\"7\"}"),
            (422, JSON, "{\"pid\":-1}"),
            (422, JSON, "{\"pid\":1e99}"),
            (422, JSON, "{\"pid\":4294967296.0}"),
            (422, JSON, "{\"limit\":18446744073709551616.0}"),
            (422, JSON, "{\"limit\":-0.5}"),
            (422, JSON, "{\"command\":7}"),
            (422, JSON, "{\"duration_seconds\":1.5}"),
            (415, "text/plain", "{}"),
            (400, "application/x-www-form-urlencoded", "pid=7"),
            (413, JSON, &long),
        ] {
            answers.push((status, server.post(path, kind, body.as_bytes()).await));
        }
        let deep = "[".repeat(50_000);
        answers.push((400, server.post(path, JSON, deep.as_bytes()).await));
        answers.push((400, server.post(path, JSON, b"\xff\xfe").await));
    }
    answers.push((404, server.get("/api/nothing").await));
    for (status, answer) in answers {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let json = answer.json();
        for member in ["error", "message", "title", "detail"] {
            assert!(!json[member].as_str().unwrap().is_empty(), "{member}: {json}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_json_body_with_the_type_that_curl_gives_it_is_taken() {
    let server = some().await;
    for path in ["/api/connection-summary", "/api/list-connections"] {
        let answer = server.post(path, "application/x-www-form-urlencoded", b"{\"pid\":0}").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn members_of_a_body_are_known_in_any_letter_case() {
    let server = some().await;
    for body in ["{\"PID\":7}", "{\"Pid\":7}", "{\"pid\":7}"] {
        let answer = server.post("/api/connection-summary", JSON, body.as_bytes()).await;
        assert_eq!(ok(&answer)["count"], 2, "{body}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_list_says_how_many_match_and_how_many_it_shows_at_most() {
    let server = some().await;
    for (query, shown, limit) in [("", 6, 100), ("?limit=2", 2, 2), ("?limit=20000", 6, 10_000)] {
        let answer = ok(&server.get(&format!("/api/list-connections{query}")).await);
        let told = (&answer["total_events"], &answer["total_count"], &answer["limit"]);
        assert_eq!(told, (&json!(shown), &json!(6), &json!(limit)), "{query}");
    }
    server.stop().await;
}

#[tokio::test]
async fn bodies_that_come_slowly_hold_up_nobody_else() {
    let server = some().await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = "POST /api/connection-summary HTTP/1.1\r\nHost: localhost\r\n\
                    Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    for target in ["/health", "/api/v1/status", "/api/connection-summary"] {
        let answer = tokio::time::timeout(Duration::from_secs(5), server.get(target)).await;
        assert_eq!(answer.expect(target).status, 200);
    }
    drop(slow);
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_announces_itself_as_too_large_is_refused_before_it_comes() {
    let server = some().await;
    let head = "POST /api/list-connections HTTP/1.1\r\nHost: localhost\r\n\
                Content-Type: application/json\r\nContent-Length: 70000\r\n";
    let answer = tokio::time::timeout(Duration::from_secs(5), server.ask(head, b"")).await;
    let answer = answer.expect("an answer at once");
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    server.stop().await;
}
