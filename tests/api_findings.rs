//! `/api/v1/findings`: the same findings from the store and over HTTP, and its parameters.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::Ipv4Addr;

use common::records::*;
use common::server;
use netspy::Connection;
use netspy::analysis::{Kind, Severity};
use netspy::client::HttpSource;
use netspy::event::{Direction, Dropped, Outcome};
use netspy::query::{Filter, Source};
use netspy::store::LocalSource;

/// The n-th attempt at 192.0.2.1:443.
fn failed(n: u64, comm: &str) -> Connection {
    let mut c = refused(n, &info(7, comm));
    c.remote.as_mut().unwrap().ip = Ipv4Addr::new(192, 0, 2, 1).into();
    c
}

fn records() -> Vec<Connection> {
    let mut all: Vec<_> = (0..6).map(|n| failed(n, "curl")).collect();
    let mut dropped = failed(10, "wget");
    dropped.drop = Some(Dropped { reason: "NETFILTER_DROP".to_owned(), count: 2 });
    all.push(dropped);
    // Long past, and still without outcome.
    all.push(in_progress(20, &info(9, "ssh")));
    // Neither of these is an attempt that was made here.
    let inbound = |n| Connection { direction: Direction::Inbound, ..failed(n, "nginx") };
    all.extend((30..50).map(inbound));
    all.extend((50..70).map(|n| Connection { preexisting: true, ..failed(n, "old") }));
    all
}

#[tokio::test]
async fn both_sources_find_the_same_in_what_the_store_holds() {
    let server = server(records()).await;
    let local = LocalSource::new(server.store.clone(), server.capture.clone());
    let http = HttpSource::new(format!("http://{}", server.address).parse().unwrap());
    let sources: [&dyn Source; 2] = [&local, &http];
    let mut answers = Vec::new();
    for source in sources {
        let answer = source.findings(&Filter::default(), None).await.unwrap();
        let found: Vec<_> = answer
            .findings
            .iter()
            .map(|f| (f.kind, f.severity, f.subject.process.as_deref().unwrap()))
            .collect();
        assert_eq!(
            found,
            [
                (Kind::RepeatedFailures, Severity::Critical, "curl"),
                (Kind::DropReason, Severity::Critical, "wget"),
                (Kind::StuckAttempts, Severity::Warning, "ssh"),
            ],
            "{}",
            source.describe()
        );
        assert!(answer.exact && answer.total == 3 && answer.accounting.balances());
        // Each record that is named exists, and is what the finding says.
        let first = &answer.findings[0];
        assert_eq!(first.evidence.records.len(), 5);
        for id in &first.evidence.records {
            let record = source.get(*id).await.unwrap().unwrap();
            assert_eq!(record.outcome, Outcome::Refused);
        }
        answers.push(answer.findings);
    }
    assert_eq!(answers[0], answers[1]);
    server.stop().await;
}

#[tokio::test]
async fn a_filter_narrows_a_limit_cuts_and_an_empty_answer_names_the_newest_match_outside() {
    let server = server(records()).await;
    let http = HttpSource::new(format!("http://{}", server.address).parse().unwrap());
    let wget = Filter { process: vec!["wget".to_owned()], ..Filter::default() };
    let answer = http.findings(&wget, None).await.unwrap();
    assert_eq!(answer.findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::DropReason]);
    let answer = http.findings(&Filter::default(), Some(1)).await.unwrap();
    assert_eq!((answer.findings.len(), answer.total), (1, 3));
    let later = Filter { since: Some(micros(1_000_000)), ..wget };
    let answer = http.findings(&later, None).await.unwrap();
    assert_eq!((answer.total, answer.newest_outside_window), (0, Some(micros(10))));
    server.stop().await;
}

#[tokio::test]
async fn wrong_parameters_are_refused_by_name() {
    let server = server(vec![]).await;
    for (query, parameter) in [
        ("cursor=x", "cursor"),
        ("sort=oldest", "sort"),
        ("kind=port_scan", "kind"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("pid=x", "pid"),
    ] {
        let answer = server.get(&format!("/api/v1/findings?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.json()["parameter"], parameter, "{query}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    server.stop().await;
}
