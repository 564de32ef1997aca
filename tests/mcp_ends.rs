//! How `netspy mcp` over standard input and output ends: with its client, whatever is under way.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod mcp_support;

use std::time::{Duration, Instant};

use common::records::{ago, info, refused};
use common::server;
use mcp_support::{Assistant, ERAS, Era};
use serde_json::json;

/// Less than what a call that is under way would take, by far.
const SOON: Duration = Duration::from_secs(4);

/// A conversation in which a call has begun that would take a minute.
async fn at_work(era: Era, end: fn(Assistant) -> Option<i32>) {
    let server = server(vec![ago(60, refused(0, &info(7, "curl")))]).await;
    let address = format!("http://{}", server.address);
    let ended = tokio::task::spawn_blocking(move || {
        let mut assistant = Assistant::start(&address, era);
        let params = json!({
            "name": "watch_connections", "arguments": {"duration": 60, "process_name": "nobody"},
            "_meta": {"progressToken": 1},
        });
        assistant.send("tools/call", params);
        assert_eq!(assistant.hear()["method"], "notifications/progress");
        let begin = Instant::now();
        (end(assistant), begin.elapsed())
    });
    let (code, took) = ended.await.unwrap();
    assert_eq!(code, Some(0));
    assert!(took < SOON, "{era:?}: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_waits_for_any_more_does_not_keep_it() {
    for era in ERAS {
        at_work(era, Assistant::end).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_where_it_is_told_to_end() {
    at_work(Era::Handshake, Assistant::terminate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_before_the_end_is_answered() {
    let server = server(vec![ago(60, refused(0, &info(7, "curl")))]).await;
    let address = format!("http://{}", server.address);
    let answered = tokio::task::spawn_blocking(move || {
        let mut assistant = Assistant::start(&address, Era::Stateless);
        let id = assistant.send("tools/call", json!({"name": "list_connections"}));
        assistant.close();
        assistant.answer(id)
    });
    let answer = answered.await.unwrap().unwrap();
    assert_eq!(answer["structuredContent"]["total"], 1, "{answer}");
}
