//! Questions for names: the same answers from the store and from the server, and over HTTP.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::records::*;
use common::{Server, server};
use netspy::accounting::DnsCounters;
use netspy::client::HttpSource;
use netspy::event::*;
use netspy::query::dns::{DnsList, parse};
use netspy::query::{Page, QueryError, Source};
use netspy::store::LocalSource;
use serde_json::{Value, json};

/// An answer, a failure, and one that nobody answered.
fn some() -> Vec<DnsRecord> {
    let missing = DnsRecord {
        name: "gone.example.org".into(),
        record_type: "AAAA".into(),
        protocol: Protocol::Tcp,
        outcome: DnsOutcome::Nxdomain,
        rcode: Some(3),
        addresses: Vec::new(),
        ttl_s: None,
        process: Some(Process { tid: 9, thread: "worker".into(), info: info(9, "wget") }),
        ..asked(2)
    };
    let silent = DnsRecord {
        name: "silent.example.com".into(),
        outcome: DnsOutcome::TimedOut,
        rcode: None,
        addresses: Vec::new(),
        ttl_s: None,
        answered: None,
        latency_us: None,
        sent: 3,
        ..asked(3)
    };
    vec![asked(1), missing, silent]
}

/// A question from a container of a pod.
fn contained(n: u64, id: &str, name: &str) -> DnsRecord {
    let mut web = (*info(11, "nginx")).clone();
    web.container = Some(
        Container {
            id: id.to_owned(),
            runtime: "containerd".to_owned(),
            name: Some(name.to_owned()),
            pod: Some("shop-7d9f".to_owned()),
            namespace: Some("prod".to_owned()),
            ..Container::default()
        }
        .into(),
    );
    let process = Some(Process { tid: 11, thread: "nginx".into(), info: web.into() });
    DnsRecord { process, ..asked(n) }
}

async fn serving(records: Vec<DnsRecord>) -> Server {
    let server = server(Vec::new()).await;
    let listed = records.len() as u64;
    server.capture.counters.lock().unwrap().dns =
        DnsCounters { questions: listed + 2, listed, ..DnsCounters::default() };
    server.store.apply_dns(records);
    server
}

fn sources(server: &Server) -> [Box<dyn Source>; 2] {
    let local = LocalSource::new(server.store.clone(), server.capture.clone());
    // The socket: over TCP the server withholds command lines.
    let unix = format!("unix:{}", server.unix.display());
    [Box::new(local), Box::new(HttpSource::new(unix.parse().unwrap()))]
}

async fn ask(source: &dyn Source, pairs: &[(&str, &str)]) -> Result<DnsList, QueryError> {
    let (filter, page) = parse(pairs.iter().copied())?;
    source.dns(&filter, &page).await
}

#[tokio::test]
async fn store_and_server_give_the_same_answers() {
    let server = serving(some()).await;
    for source in sources(&server) {
        let all = ask(&*source, &[]).await.unwrap();
        let mut expected = some();
        expected.reverse();
        assert_eq!(all.questions, expected, "newest first");
        assert_eq!((all.total, all.next_cursor), (3, None));
        let by_outcome = [("answered", 1), ("nxdomain", 1), ("timed_out", 1)];
        let by_outcome = by_outcome.map(|(outcome, n)| (outcome.to_owned(), n));
        assert_eq!(all.by_outcome, by_outcome.into());
        let times = all.answer_times.unwrap();
        assert_eq!((times.count, times.p50_us, times.p99_us), (2, 412, 412));
        assert_eq!((all.not_seen, all.newest_outside_window), (None, None));
        let books = &all.accounting;
        assert!(books.balances() && books.complete, "{books:?}");
        assert_eq!((books.questions, books.listed, books.pending), (5, 3, 2));
        assert_eq!(all.window.since, epoch());

        for (pairs, total) in [
            (&[("process", "curl")][..], 2),
            (&[("process", "worker"), ("pid", "9")], 1),
            (&[("host_name", ".example.com")], 2),
            (&[("host_name", "gone.example.org")], 1),
            (&[("remote", "198.51.100.1")], 1),
            (&[("remote", "192.0.2.53"), ("protocol", "udp")], 2),
            (&[("type", "aaaa")], 1),
            (&[("outcome", "unsuccessful")], 2),
            (&[("outcome", "answered,timed_out")], 2),
            (&[("until", "2023-11-14T22:13:20.000003Z")], 2),
        ] {
            assert_eq!(ask(&*source, pairs).await.unwrap().total, total, "{pairs:?}");
        }
        let outside = ask(&*source, &[("type", "AAAA"), ("since", "2024-01-01T00:00:00Z")]);
        assert_eq!(outside.await.unwrap().newest_outside_window, Some(micros(2)));

        let mut seen = Vec::new();
        let mut page = Page { limit: Some(2), ..Page::default() };
        loop {
            let part = source.dns(&Default::default(), &page).await.unwrap();
            seen.extend(part.questions);
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

/// As with connections: a part of an id means all that begin with it, a part of a name nothing.
#[tokio::test]
async fn containers_and_pods_ask_too() {
    let (web, db) = ("0123456789abcdef", "0123456789ffffff");
    let mut records = some();
    records.extend([contained(4, web, "web"), contained(5, web, "web"), contained(6, db, "db")]);
    let server = serving(records).await;
    let cases = [
        ("container", "web", 2),
        ("container", "web,db", 3),
        ("container", "0123456789abcdef", 2),
        ("container", "012345", 3),
        ("container", "01234", 0),
        ("container", "we", 0),
        ("container", "nobody", 0),
        ("pod", "shop-7d9f", 3),
        ("pod", "shop", 0),
        ("namespace", "dev,prod", 3),
    ];
    for source in sources(&server) {
        for (name, value, total) in cases {
            let found = ask(&*source, &[(name, value)]).await.unwrap();
            assert_eq!(found.total, total, "{name}={value}");
            assert!(found.questions.iter().all(|q| q.process.as_ref().unwrap().pid == 11));
        }
        let narrow = [("container", "web"), ("process", "curl")];
        assert_eq!(ask(&*source, &narrow).await.unwrap().total, 0);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_said() {
    let server = serving(some()).await;
    for (query, parameter) in [
        ("state=open", "state"),
        ("sort=oldest", "sort"),
        ("outcome=established", "outcome"),
        ("type=", "type"),
        ("limit=0", "limit"),
        ("cursor=q12", "cursor"),
        ("pid=1&pid=2", "pid"),
    ] {
        let answer = server.get(&format!("/api/v1/dns?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.json()["parameter"], parameter);
        assert!(!answer.json()["accepted"].as_str().unwrap().is_empty());
    }
    assert_eq!(server.post("/api/v1/dns", "application/json", b"{}").await.status, 405);
    server.stop().await;
}

#[tokio::test]
async fn command_lines_are_withheld_over_loopback() {
    let server = serving(some()).await;
    let over_tcp = server.get("/api/v1/dns?outcome=answered").await.json();
    let record = &over_tcp["questions"][0];
    assert_eq!((&record["type"], &record["outcome"]), (&json!("A"), &json!("answered")));
    assert_eq!(record["process"]["cmdline"], Value::Null);
    let over_unix = server.get_unix("/api/v1/dns?outcome=answered").await.json();
    assert_eq!(over_unix["questions"][0]["process"]["cmdline"], "curl --secret");
    server.stop().await;
}

#[tokio::test]
async fn what_aged_out_or_is_not_watched_makes_the_books_incomplete() {
    let server = serving((0..60_000).map(asked).collect()).await;
    for source in sources(&server) {
        let all = ask(&*source, &[("limit", "1")]).await.unwrap();
        assert!(!all.accounting.complete && all.accounting.evicted > 0);
        assert_eq!(all.accounting.evicted + all.total, 60_000);
        let before = [("since", "2023-01-01T00:00:00Z"), ("until", "2023-02-01T00:00:00Z")];
        let before = ask(&*source, &before).await.unwrap();
        assert!(!before.accounting.complete && before.accounting.gaps.len() == 1);
    }
    server.stop().await;
}

#[tokio::test]
async fn metrics_count_outcomes_and_answer_times_once() {
    let server = serving(some()).await;
    // A later version of one that is known.
    let id = ConnectionId { start_ns: 1, tid: 7, boot: 1 };
    server.store.apply_dns(vec![DnsRecord { connections: vec![id], ..asked(1) }]);
    let text = String::from_utf8(server.get("/metrics").await.body).unwrap();
    for line in [
        "netspy_dns_outcomes_total{outcome=\"answered\"} 1",
        "netspy_dns_outcomes_total{outcome=\"timed_out\"} 1",
        "netspy_dns_answer_seconds_count 2",
        "netspy_dns_questions_total 5",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    server.stop().await;
}
