//! Answers of the tools that must not deny, or hide, what the records hold.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::records::{ago, dropped, info, refused, unix};
use common::{Server, server, server_over};
use jiff::{SignedDuration, Timestamp};
use netspy::Connection;
use netspy::client::HttpSource;
use netspy::event::{DropId, DropRecord, Endpoint, Outcome};
use netspy::query::Source;
use netspy::server::Terms;
use netspy::store::{LocalSource, Store};
use netspy::tools::{AllTools, RuleBased, Toolset};
use serde_json::{Value, json};

/// The tools over the store, and over the server.
fn tools(server: &Server) -> [AllTools; 2] {
    let local: Arc<dyn Source> =
        Arc::new(LocalSource::new(server.store.clone(), server.capture.clone()));
    let url = format!("http://{}", server.address);
    let http: Arc<dyn Source> = Arc::new(HttpSource::new(url.parse().unwrap()));
    [local, http].map(|source| AllTools::new(source, Arc::new(RuleBased)))
}

async fn call(tools: &AllTools, name: &str, args: Value) -> Value {
    tools.call(name, args).await.unwrap().content
}

/// 18 packets of curl that a firewall dropped, then 600 of noisy: 12 at each of 50 ports.
fn storm() -> Vec<DropRecord> {
    let begun = Timestamp::now() - SignedDuration::from_secs(180);
    let drop = |n: u64, comm: &str, reason: &str, port| DropRecord {
        id: DropId { number: n as u32, ..dropped(0).id },
        time: begun + SignedDuration::from_millis(n as i64),
        last: begun + SignedDuration::from_millis(n as i64),
        reason: reason.into(),
        destination: Some(Endpoint { ip: "127.0.0.1".parse().unwrap(), port }),
        count: 1,
        process: refused(n, &info(7, comm)).process,
        ..dropped(n)
    };
    let mut all: Vec<_> = (0..18).map(|n| drop(n, "curl", "NETFILTER_DROP", 443)).collect();
    all.extend((0..600).map(|n| drop(18 + n, "noisy", "NO_SOCKET", 2_000 + (n % 50) as u16)));
    all.extend(
        (618..2_500).map(|n| DropRecord { process: None, ..drop(n, "nobody", "NO_SOCKET", 1) }),
    );
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_drops_hurt_is_told_of_every_record_of_the_window() {
    let server = server_over(Store::new(256 << 20), vec![], Terms::default()).await;
    server.store.apply_drops(storm());
    for tools in tools(&server) {
        let found = call(&tools, "get_packet_drop_summary", json!({"since": "4m"})).await;
        assert_eq!(found["records"], 2_500, "{found}");
        assert_eq!(found["by_reason"], json!({"NETFILTER_DROP": 18, "NO_SOCKET": 2_482}));
        let rows = found["rows"].as_array().unwrap();
        let firewall = json!(["curl", "127.0.0.1:443", "NETFILTER_DROP", 18]);
        assert!(rows.contains(&firewall), "{found}");
        let noisy: Vec<_> = rows.iter().filter(|row| row[0] == "noisy").collect();
        assert!(noisy.len() > 5 && noisy.iter().all(|row| row[3] == 12), "{found}");
        assert_eq!((&found["total"], &found["shown"]), (&json!(51), &json!(rows.len())));
        let hint = found["hint"].as_str().unwrap();
        assert!(hint.contains("1882 packets belong to no attempt"), "{hint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_an_answer_about_drops_may_be_incomplete_is_in_it() {
    // Capture began a minute ago; the question is about the last four.
    let server = server(vec![]).await;
    let capture = common::FakeCapture {
        since: Timestamp::now() - SignedDuration::from_secs(60),
        counters: Default::default(),
        stopped: Default::default(),
        traffic: Default::default(),
    };
    let source = LocalSource::new(server.store.clone(), Arc::new(capture));
    let tools = AllTools::new(Arc::new(source), Arc::new(RuleBased));
    for tool in ["get_packet_drop_summary", "list_packet_drops"] {
        let found = call(&tools, tool, json!({"since": "4m"})).await;
        assert_eq!((&found["complete"], &found["accounting"]["gaps"]), (&json!(false), &json!(1)));
        let gap = &found["accounting"]["last_gap"];
        assert_eq!(gap["why"], "before capture began", "{found}");
        assert!(gap["since"].is_string() && gap["until"].is_string(), "{found}");
    }
}

/// Seven UNIX connects that fail, and nothing else.
fn unixer() -> Vec<Connection> {
    let process = info(40, "unixer");
    let failed = |n| Connection {
        outcome: Outcome::Failed,
        errno: Some(2),
        error: Some("ENOENT".into()),
        ..unix(n, &process, "/run/no-such.sock")
    };
    (0..7).map(|n| ago(60, failed(n))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_answer_counts_what_it_leaves_out_and_says_how_to_see_it() {
    let server = server(unixer()).await;
    for tools in tools(&server) {
        for tool in ["list_connections", "get_network_summary", "analyze_patterns"] {
            let found = call(&tools, tool, json!({"process_name": "unixer"})).await;
            assert_eq!(found["total"], 0, "{found}");
            let hint = found["hint"].as_str().unwrap();
            assert!(hint.contains("7 UNIX sockets"), "{tool}: {hint}");
            assert!(hint.contains("protocol=unix"), "{tool}: {hint}");
        }
        let shown = json!({"process_name": "unixer", "protocol": "unix"});
        assert_eq!(call(&tools, "list_connections", shown).await["total"], 7);

        // Not inside the window, but before it.
        let soon = json!({"process_name": "unixer", "since": "5s"});
        let found = call(&tools, "list_connections", soon).await;
        let hint = found["hint"].as_str().unwrap();
        assert!(hint.starts_with("Nothing in this window; outside it"), "{hint}");
        assert!(hint.contains(": 7 UNIX sockets (list_connections with protocol=unix)"), "{hint}");

        // And who is nowhere is nowhere.
        let found = call(&tools, "list_connections", json!({"process_name": "nobody"})).await;
        let hint = found["hint"].as_str().unwrap();
        assert!(hint.starts_with("Nothing matches, in this window or outside it"), "{hint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_recognise_a_process_that_has_unix_sockets_alone() {
    let server = server(unixer()).await;
    for tools in tools(&server) {
        let asked = json!({"query": "what did unixer connect to"});
        let said = call(&tools, "contextual_analysis", asked).await;
        let text = said["text"].as_str().unwrap();
        assert!(text.starts_with("About process unixer."), "{text}");
        assert!(text.contains("7 UNIX sockets") && text.contains("failed 7"), "{text}");
    }
}
