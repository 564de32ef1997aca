//! Findings about names: what the source leaves of them, given what it has seen.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::IpAddr;
use std::sync::Arc;

use common::records::*;
use common::{Server, server};
use jiff::{SignedDuration, Timestamp};
use netspy::Connection;
use netspy::accounting::DnsCounters;
use netspy::analysis::Kind;
use netspy::client::HttpSource;
use netspy::event::*;
use netspy::query::filter;
use netspy::query::{Filter, Source};
use netspy::store::LocalSource;

const REMOTE: &str = "198.51.100.77";

fn after(seconds: i64) -> Timestamp {
    epoch().checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

/// A process that began so many seconds after capture did.
fn process(seconds: i64, comm: &str) -> Arc<ProcessInfo> {
    Arc::new(ProcessInfo { start_time: Some(after(seconds)), ..(*info(7, comm)).clone() })
}

/// Connections of this process, one a second, from a second after its start on.
fn connections(info: &Arc<ProcessInfo>, remote: &str, port: u16, n: u64) -> Vec<Connection> {
    let began = info.start_time.unwrap();
    let remote = Remote::new(remote.parse().unwrap(), port);
    let all = (0..n).map(|n| Connection {
        time: began.checked_add(SignedDuration::from_secs(1 + n as i64)).unwrap(),
        remote: Some(remote.clone()),
        ..established(n, info)
    });
    all.collect()
}

fn question(info: &Arc<ProcessInfo>, name: &str, answer: &str) -> DnsRecord {
    let process = Some(Process { tid: 7, thread: info.comm.clone(), info: info.clone() });
    let addresses = vec![answer.parse::<IpAddr>().unwrap()];
    DnsRecord { name: name.into(), time: after(1), addresses, process, ..asked(1) }
}

async fn serving(connections: Vec<Connection>, questions: Vec<DnsRecord>) -> Server {
    let server = server(connections).await;
    let listed = questions.len() as u64;
    server.capture.counters.lock().unwrap().dns =
        DnsCounters { questions: listed, listed, ..DnsCounters::default() };
    server.store.apply_dns(questions);
    server
}

async fn kinds(server: &Server, filter: &Filter) -> Vec<Kind> {
    let local = LocalSource::new(server.store.clone(), server.capture.clone());
    let http = HttpSource::new(format!("http://{}", server.address).parse().unwrap());
    let answer = local.findings(filter, None).await.unwrap();
    let over_http = http.findings(filter, None).await.unwrap();
    assert_eq!(answer.findings, over_http.findings);
    answer.findings.iter().map(|finding| finding.kind).collect()
}

/// Connections without a name stand out among these.
async fn is_found(connections: Vec<Connection>, questions: Vec<DnsRecord>) -> bool {
    let server = serving(connections, questions).await;
    let kinds = kinds(&server, &Filter::default()).await;
    server.stop().await;
    assert!(kinds.iter().all(|kind| *kind == Kind::ConnectionWithoutDns), "{kinds:?}");
    !kinds.is_empty()
}

#[tokio::test]
async fn a_connection_without_a_name_is_found_where_every_question_would_have_been_seen() {
    let agent = process(10, "agent");
    let asks = question(&agent, "www.example.com", "198.51.100.1");
    let all = || connections(&agent, REMOTE, 443, 5);
    assert!(is_found(all(), vec![asks.clone()]).await);
    assert!(!is_found(connections(&agent, REMOTE, 443, 4), vec![asks.clone()]).await);

    // It never asked in a way that is seen: then a cache must have been empty at its start.
    assert!(!is_found(all(), Vec::new()).await);
    assert!(is_found(connections(&process(7_300, "agent"), REMOTE, 443, 5), Vec::new()).await);

    // It began before capture did, or nobody knows when.
    let old = |start_time| Arc::new(ProcessInfo { start_time, ..(*agent).clone() });
    for start_time in [Some(after(-10)), Some(epoch()), None] {
        let mut records = all();
        for record in &mut records {
            record.process.as_mut().unwrap().info = old(start_time);
        }
        assert!(!is_found(records, vec![asks.clone()]).await, "{start_time:?}");
    }
}

#[tokio::test]
async fn what_explains_the_address_or_hides_the_question_is_taken_into_account() {
    let agent = process(10, "agent");
    let asks = question(&agent, "www.example.com", "198.51.100.1");
    let all = || connections(&agent, REMOTE, 443, 5);

    // Another process was told this address, and the one it may have it from.
    let other = question(&process(3, "parent"), "api.example.com", REMOTE);
    assert!(!is_found(all(), vec![asks.clone(), other]).await);
    // The file of hosts has a name, for one of them at least.
    let mut named = all();
    let remote = named[0].remote.as_mut().unwrap();
    (remote.name, remote.name_source) = (Some("api".into()), Some(NameSource::Hosts));
    assert!(!is_found(named, vec![asks.clone()]).await);
    // It may ask in ways that nobody sees: over TLS, or HTTPS, by name or by address.
    let mut over_tls = connections(&agent, "198.51.100.53", 853, 1);
    over_tls.extend(
        all()
            .into_iter()
            .map(|c| Connection { id: ConnectionId { start_ns: c.id.start_ns + 7, ..c.id }, ..c }),
    );
    assert!(!is_found(over_tls, vec![asks.clone()]).await);
    let doh = question(&agent, "mozilla.cloudflare-dns.com", "198.51.100.2");
    assert!(!is_found(all(), vec![asks.clone(), doh]).await);
    let mut by_address = connections(&agent, "9.9.9.9", 443, 1);
    by_address.extend(
        all()
            .into_iter()
            .map(|c| Connection { id: ConnectionId { start_ns: c.id.start_ns + 7, ..c.id }, ..c }),
    );
    assert!(!is_found(by_address, vec![asks.clone()]).await);
    // Networks of one's own have addresses rather than names, and so have name and time servers.
    for (remote, port) in
        [("10.1.2.3", 443), ("127.0.0.1", 443), ("fd00::1", 443), (REMOTE, 53), (REMOTE, 123)]
    {
        let records = connections(&agent, remote, port, 50);
        assert!(!is_found(records, vec![asks.clone()]).await, "{remote} {port}");
    }
}

#[tokio::test]
async fn nothing_is_said_of_names_where_questions_are_missing() {
    let agent = process(10, "agent");
    let asks = question(&agent, "www.example.com", "198.51.100.1");
    let server = serving(connections(&agent, REMOTE, 443, 5), vec![asks]).await;
    assert_eq!(kinds(&server, &Filter::default()).await, [Kind::ConnectionWithoutDns]);
    server.capture.counters.lock().unwrap().dns.messages_lost = 1;
    assert_eq!(kinds(&server, &Filter::default()).await, []);
    server.stop().await;
}

#[tokio::test]
async fn a_filter_means_questions_too() {
    let failing = |n: i64| {
        let time = after(n * 60);
        let id = DnsId { start_ns: 1_000 + n as u64, ..asked(1).id };
        let process = process(1, "worker");
        let record = question(&process, "db.example.org", "198.51.100.9");
        DnsRecord { id, time, outcome: DnsOutcome::Nxdomain, addresses: Vec::new(), ..record }
    };
    let server = serving(Vec::new(), (0..6).map(failing).collect()).await;
    for (name, matching, other) in [
        ("process", "worker", "curl"),
        ("pid", "7", "8"),
        ("uid", "1000", "0"),
        ("host_name", ".example.org", ".example.com"),
        ("remote", "192.0.2.53", "192.0.2.54"),
        ("cidr", "192.0.2.0/24", "198.51.100.0/24"),
        ("port", "53", "443"),
        ("protocol", "udp", "tcp"),
        ("direction", "outbound", "inbound"),
        ("outcome", "sent", "refused"),
        ("text", "DB.exam", "www"),
        ("preexisting", "false", "true"),
        ("until", "2100-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
    ] {
        let filter = |value| filter::parse([(name, value)]).unwrap().0;
        assert_eq!(kinds(&server, &filter(matching)).await, [Kind::FailingName], "{name}");
        assert_eq!(kinds(&server, &filter(other)).await, [], "{name}");
    }
    for (name, value) in [("state", "open"), ("country", "DE"), ("asn", "64500")] {
        let filter = filter::parse([(name, value)]).unwrap().0;
        assert_eq!(kinds(&server, &filter).await, [], "{name}");
    }
    server.stop().await;
}
