//! `/api/v1/stream`: live records, resuming, what is told when records are gone, stopping.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::records::*;
use common::server;

#[tokio::test]
async fn new_and_changed_records_come_as_events_and_a_filter_selects() {
    let (curl, wget) = (info(7, "curl"), info(8, "wget"));
    let server = server(vec![refused(1, &curl)]).await;
    let mut all = server.events("/api/v1/stream", "").await;
    let mut some = server.events("/api/v1/stream?process=wget", "").await;
    server.store.apply(vec![in_progress(2, &curl)]);
    server.store.apply(vec![udp(3, &wget), refused(2, &curl)]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = all.next().await.unwrap();
        assert_eq!(event.name, "connection");
        seen.push((event.id.unwrap(), event.data["outcome"].as_str().unwrap().to_owned()));
    }
    let outcomes: Vec<_> = seen.iter().map(|(_, outcome)| outcome.as_str()).collect();
    assert_eq!(outcomes, ["in_progress", "associated", "refused"]);
    assert!(seen.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1));
    let only = some.next().await.unwrap();
    assert_eq!((only.id, only.data["process"]["comm"].as_str()), (Some(seen[1].0), Some("wget")));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_comes_back_misses_nothing_and_sees_nothing_twice() {
    let curl = info(7, "curl");
    let server = server(Vec::new()).await;
    server.store.apply((0..100).map(|n| refused(n, &curl)).collect());
    let mut first = server.events("/api/v1/stream?after=0", "").await;
    let mut seen = Vec::new();
    for _ in 0..40 {
        seen.push(first.next().await.unwrap());
    }
    drop(first);
    let last = seen[39].id.unwrap();
    // As a browser does: with the URL that it first had.
    let header = format!("Last-Event-ID: {last}\r\n");
    let mut second = server.events("/api/v1/stream?after=0", &header).await;
    for _ in 40..100 {
        seen.push(second.next().await.unwrap());
    }
    let starts: Vec<_> = seen.iter().map(|event| event.data["id"].clone()).collect();
    let expected: Vec<_> = (0..100).map(|n| refused(n, &curl).id.to_string()).collect();
    assert_eq!(starts, expected);
    server.stop().await;
}

#[tokio::test]
async fn a_client_is_told_when_changes_are_gone() {
    let server = server(vec![refused(1, &info(7, "curl"))]).await;
    // An id from an earlier life of the server.
    let mut events = server.events("/api/v1/stream", "Last-Event-ID: 5\r\n").await;
    let skipped = events.next().await.unwrap();
    assert_eq!(skipped.name, "skipped");
    // Of how many, this life of the server cannot know.
    assert!(skipped.data["changes"].is_null() && skipped.id.is_none());
    assert!(skipped.data["why"].as_str().unwrap().contains("restarted"));
    assert_eq!(events.next().await.unwrap().name, "connection");
    server.stop().await;
}

#[tokio::test]
async fn streams_are_bounded_and_end_when_the_server_stops() {
    let server = server(Vec::new()).await;
    let mut open = Vec::new();
    for _ in 0..netspy::api::MAX_STREAMS {
        open.push(server.events("/api/v1/stream", "").await);
    }
    let refused = server.get("/api/v1/stream").await;
    assert_eq!((refused.status, refused.json()["status"].as_u64()), (429, Some(429)));
    assert!(refused.header("retry-after").is_some());
    // Questions are answered all the same.
    assert_eq!(server.get("/api/v1/connections").await.status, 200);
    server.stop().await;
    for mut events in open {
        assert!(events.next().await.is_none());
    }
}
