//! Dropped packets: the same answers from the store and from the server, and in the original's form.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::records::*;
use common::{Server, server};
use jiff::{SignedDuration, Timestamp};
use netspy::accounting::DropCounters;
use netspy::client::HttpSource;
use netspy::event::*;
use netspy::query::drops::{DropFilter, DropList, parse};
use netspy::query::{Page, QueryError, Source};
use netspy::store::LocalSource;
use serde_json::{Value, json};

/// Of curl's attempts to 192.0.2.1 and .2, of nobody's datagrams, and of what had no room.
fn some() -> Vec<DropRecord> {
    let curl = info(7, "curl");
    let process = Some(Process { tid: 8, thread: "worker".into(), info: Arc::clone(&curl) });
    let of_curl = |n| DropRecord {
        connection: Some(refused(n, &curl).id),
        process: process.clone(),
        ..dropped(n)
    };
    let datagrams = DropRecord {
        reason: "SOCKET_RCVBUFF".into(),
        reason_code: 6,
        protocol: Some(Protocol::Udp),
        ip_protocol: Some(17),
        count: 10,
        bytes: 1280,
        ..dropped(3)
    };
    let rest = DropRecord {
        protocol: None,
        ip_protocol: None,
        family: None,
        source: None,
        destination: None,
        netns: None,
        no_room: true,
        count: 100,
        bytes: 6000,
        ..dropped(4)
    };
    vec![of_curl(1), of_curl(2), datagrams, rest]
}

async fn serving(drops: Vec<DropRecord>) -> Server {
    let server = server(vec![]).await;
    let packets = drops.iter().map(|d| d.count).sum();
    let no_room = drops.iter().filter(|d| d.no_room).map(|d| d.count).sum();
    let listed = packets - no_room;
    server.capture.counters.lock().unwrap().drops =
        DropCounters { packets, listed, no_room, ..DropCounters::default() };
    server.store.apply_drops(drops);
    server
}

fn sources(server: &Server) -> [Box<dyn Source>; 2] {
    let local = LocalSource::new(server.store.clone(), server.capture.clone());
    // The socket: over TCP the server withholds command lines.
    let unix = format!("unix:{}", server.unix.display());
    [Box::new(local), Box::new(HttpSource::new(unix.parse().unwrap()))]
}

async fn ask(source: &dyn Source, pairs: &[(&str, &str)]) -> Result<DropList, QueryError> {
    let (filter, page) = parse(pairs.iter().copied())?;
    source.drops(&filter, &page).await
}

#[tokio::test]
async fn store_and_server_give_the_same_answers() {
    let server = serving(some()).await;
    for source in sources(&server) {
        let all = ask(&*source, &[]).await.unwrap();
        let mut expected = some();
        expected.reverse();
        assert_eq!(all.drops, expected, "newest first");
        assert_eq!((all.total, all.packets, all.next_cursor), (4, 116, None));
        let by_reason = [("NO_SOCKET".to_owned(), 106), ("SOCKET_RCVBUFF".to_owned(), 10)];
        assert_eq!(all.by_reason, by_reason.into());
        assert_eq!((all.not_seen, all.newest_outside_window), (None, None));
        let books = &all.accounting;
        assert!(books.balances() && !books.complete, "{books:?}");
        assert_eq!((books.packets, books.listed, books.no_room), (116, 16, 100));
        assert_eq!(all.window.since, epoch());

        for (pairs, total) in [
            (&[("process", "curl")][..], 2),
            (&[("process", "worker"), ("remote", "192.0.2.2")], 1),
            (&[("pid", "7,8")], 2),
            (&[("pid", "8")], 0),
            (&[("remote", "127.0.0.1")], 3),
            (&[("port", "443"), ("protocol", "udp")], 1),
            (&[("reason", "no_socket,XDP")], 3),
            (
                &[
                    ("since", "2023-11-14T22:13:20.000002Z"),
                    ("until", "2023-11-14T22:13:20.000004Z"),
                ],
                2,
            ),
        ] {
            assert_eq!(ask(&*source, pairs).await.unwrap().total, total, "{pairs:?}");
        }
        let outside =
            ask(&*source, &[("reason", "SOCKET_RCVBUFF"), ("since", "2024-01-01T00:00:00Z")]);
        assert_eq!(outside.await.unwrap().newest_outside_window, Some(micros(3)));

        let mut seen = Vec::new();
        let mut page = Page { limit: Some(3), ..Page::default() };
        loop {
            let part = source.drops(&DropFilter::default(), &page).await.unwrap();
            seen.extend(part.drops);
            page.cursor = part.next_cursor;
            if page.cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected);
        let wrong = ask(&*source, &[("cursor", "2n0")]).await.unwrap_err().to_string();
        assert!(wrong.contains("cursor"), "{wrong}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_said() {
    let server = serving(some()).await;
    for (query, parameter) in [
        ("state=open", "state"),
        ("sort=oldest", "sort"),
        ("port=x", "port"),
        ("reason=", "reason"),
        ("limit=0", "limit"),
        ("cursor=d12", "cursor"),
        ("pid=1&pid=2", "pid"),
    ] {
        let answer = server.get(&format!("/api/v1/drops?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.json()["parameter"], parameter);
        assert!(!answer.json()["accepted"].as_str().unwrap().is_empty());
    }
    assert_eq!(server.post("/api/v1/drops", "application/json", b"{}").await.status, 405);
    server.stop().await;
}

#[tokio::test]
async fn command_lines_are_withheld_over_loopback() {
    let server = serving(some()).await;
    let over_tcp = server.get("/api/v1/drops?process=curl").await.json();
    assert_eq!(over_tcp["drops"][0]["process"]["cmdline"], Value::Null);
    let over_unix = server.get_unix("/api/v1/drops?process=curl").await.json();
    assert_eq!(over_unix["drops"][0]["process"]["cmdline"], "curl --secret");
    server.stop().await;
}

#[tokio::test]
async fn what_aged_out_or_is_not_watched_makes_the_books_incomplete() {
    let server = serving((0..60_000).map(dropped).collect()).await;
    for source in sources(&server) {
        let all = ask(&*source, &[("limit", "1")]).await.unwrap();
        assert!(!all.accounting.complete && all.accounting.evicted > 0);
        assert_eq!(all.accounting.evicted + all.packets, 180_000);
        let late = ask(&*source, &[("since", "2023-11-14T22:13:20.059990Z")]).await.unwrap();
        assert_eq!((late.total, late.accounting.evicted), (10, 0));
        let before = [("since", "2023-01-01T00:00:00Z"), ("until", "2023-02-01T00:00:00Z")];
        let before = ask(&*source, &before).await.unwrap();
        assert!(!before.accounting.complete && before.accounting.gaps.len() == 1);
    }
    server.stop().await;
}

/// Drops of so many seconds ago.
fn seconds_ago(seconds: i64, drop: DropRecord) -> DropRecord {
    let time = Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).unwrap();
    DropRecord { time, last: time, ..drop }
}

async fn recent() -> Server {
    let ages = [10, 100, 20, 30];
    serving(ages.into_iter().zip(some()).map(|(age, drop)| seconds_ago(age, drop)).collect()).await
}

#[tokio::test]
async fn the_originals_summary_counts_packets() {
    let server = recent().await;
    for (query, count) in [
        ("", 113),
        ("?command=curl", 3),
        ("?process_name=worker&duration_seconds=3600", 6),
        ("?pid=7&duration_seconds=200", 6),
        ("?pid=99", 0),
    ] {
        let answer = server.get(&format!("/api/packet-drop-summary{query}")).await;
        assert_eq!(answer.json()["count"], count, "{query}");
    }
    // As its client asks.
    let body = br#"{"command":"curl","process_name":"curl","duration_seconds":300}"#;
    let answer = server.post("/api/packet-drop-summary", "application/json", body).await.json();
    assert_eq!((&answer["count"], &answer["duration_seconds"]), (&json!(6), &json!(300)));
    assert!(answer["query_time"].is_string());
    let wrong = server.get("/api/packet-drop-summary?pid=x").await;
    assert_eq!((wrong.status, wrong.json()["error"].is_string()), (400, true));
    server.stop().await;
}

#[tokio::test]
async fn the_originals_lists_have_every_member_of_its_events() {
    let server = recent().await;
    let answer = server.get("/api/list-packet-drops").await.json();
    assert_eq!((&answer["total_pids"], &answer["total_events"]), (&json!(2), &json!(4)));
    assert_eq!(answer["events_by_pid"]["7"].as_array().unwrap().len(), 2);
    assert_eq!(answer["events_by_pid"]["0"].as_array().unwrap().len(), 2, "of nobody known");
    let limited = server.get("/api/list-packet-drops?limit=1").await.json();
    assert_eq!((&limited["total_events"], &limited["total_count"]), (&json!(1), &json!(4)));

    let answer = server.get("/api/events?type=packet_drop&command=curl&limit=5").await.json();
    assert_eq!((&answer["count"], &answer["total_count"]), (&json!(2), &json!(2)));
    assert_eq!(answer["filters"]["type"], "packet_drop");
    let event = &answer["events"][0];
    let expected = json!({
        "id": some()[0].id.to_string(),
        "type": "packet_drop",
        "pid": 7,
        "command": "curl",
        "time": event["time"],
        "timestamp": 1_001_000,
        "drop_reason": "NO_SOCKET",
        "drop_reason_code": 3,
        "reason": "NO_SOCKET",
        "packet_size_bytes": 60,
        "skb_length": 60,
        "protocol": "TCP",
        "raw_protocol": 6,
        "address_family": 2,
        "source": "127.0.0.1:40000",
        "destination": "192.0.2.1:443",
        "destination_ip": "192.0.2.1",
        "destination_port": 443,
        "count": 3,
    });
    assert_eq!(event, &expected);
    event["time"].as_str().unwrap().parse::<Timestamp>().unwrap();
    server.stop().await;
}
