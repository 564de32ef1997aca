//! `/metrics`: both forms, true figures, bounded labels, and Prometheus itself.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/tools.rs"]
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::records::*;
use common::{Server, server, server_over};
use jiff::Timestamp;
use netspy::Connection;
use netspy::accounting::{Counters, Lost, NatCounters};
use netspy::event::*;
use netspy::server::Terms;
use netspy::store::{HistoryOptions, Store};
use serde_json::{Value, json};
use strum::VariantArray;

const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn scrape(server: &Server) -> String {
    let head =
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n";
    let answer = server.ask(head, b"").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(OPEN)));
    String::from_utf8(answer.body).unwrap()
}

/// The samples by name and labels; checks the form on the way.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = String::new();
    let body = text.strip_suffix("# EOF\n").expect("an end");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} twice");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&family), "{line} is not of {family}");
            assert!(samples.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{line}");
        }
    }
    samples
}

fn drops(reason: &str, count: u64, n: u64) -> DropRecord {
    DropRecord { reason: reason.into(), count, ..dropped(n) }
}

#[tokio::test]
async fn the_figures_are_those_of_the_books_and_of_what_was_taken_in() {
    let curl = info(7, "curl");
    let server = server(vec![refused(1, &curl), refused(2, &curl), in_progress(3, &curl)]).await;
    // The third gets its outcome: it was none before.
    server.store.apply(vec![refused(3, &curl)]);
    server.store.apply_drops(vec![drops("NETFILTER_DROP", 5, 1), drops("made up", 2, 2)]);
    *server.capture.counters.lock().unwrap() = Counters {
        attempts: 20,
        delivered: 10,
        filtered: 3,
        lost: Lost { ring_full: 4, ..Lost::default() },
        exec_lost: 2,
        nat: NatCounters { asked: 5, translated: 2, failed: 1, skipped: 3 },
        ..Counters::default()
    };
    let s = samples(&scrape(&server).await);
    for (name, value) in [
        ("netspy_attempts_total", 20.0),
        ("netspy_delivered_total", 10.0),
        ("netspy_filtered_total", 3.0),
        ("netspy_lost_total{cause=\"ring_full\"}", 4.0),
        ("netspy_lost_total{cause=\"map_full\"}", 0.0),
        ("netspy_lost_total{cause=\"capture_ended\"}", 0.0),
        ("netspy_pending", 3.0),
        ("netspy_exec_lost_total", 2.0),
        ("netspy_nat_questions_total{result=\"translated\"}", 2.0),
        ("netspy_nat_questions_total{result=\"same\"}", 2.0),
        ("netspy_nat_questions_total{result=\"skipped\"}", 3.0),
        ("netspy_capture_up", 1.0),
        ("netspy_feature_up{feature=\"connect\"}", 1.0),
        ("netspy_store_records", 3.0),
        ("netspy_outcomes_total{direction=\"outbound\",protocol=\"tcp\",outcome=\"refused\"}", 3.0),
        ("netspy_dropped_packets_total{reason=\"NETFILTER_DROP\"}", 5.0),
        ("netspy_dropped_packets_total{reason=\"other\"}", 2.0),
        ("netspy_handshake_seconds_count", 0.0),
        ("netspy_http_in_flight", 1.0),
    ] {
        assert_eq!(s.get(name), Some(&value), "{name} in {s:#?}");
    }
    assert!(s.keys().any(|name| name.starts_with("netspy_build_info{version=\"")));
    assert!(s["process_resident_memory_bytes"] > 1e6 && s["process_open_fds"] > 3.0);
    let now = Timestamp::now().as_second() as f64;
    assert!((now - 600.0..now + 2.0).contains(&s["process_start_time_seconds"]));
    // The first scrape is in the second's figures.
    let s = samples(&scrape(&server).await);
    assert_eq!(s["netspy_http_requests_total{route=\"/metrics\",status=\"2xx\"}"], 1.0);
    assert_eq!(s["netspy_http_request_duration_seconds_count"], 1.0);
    *server.capture.stopped.lock().unwrap() = Some("it was stopped".to_owned());
    assert_eq!(samples(&scrape(&server).await)["netspy_capture_up"], 0.0);
    let plain = server.get("/metrics").await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    server.stop().await;
}

#[tokio::test]
async fn history_has_figures_where_it_is_kept() {
    let of_history = |s: &BTreeMap<String, f64>| {
        s.keys().filter(|name| name.starts_with("netspy_history_")).count()
    };
    let curl = info(7, "curl");
    let memory = server(vec![refused(1, &curl)]).await;
    assert_eq!(of_history(&samples(&scrape(&memory).await)), 0);
    memory.stop().await;
    let directory = std::env::temp_dir().join(format!("netspy-metrics-{}", std::process::id()));
    let options =
        HistoryOptions { directory: directory.clone(), limit_bytes: 1 << 30, max_age: None };
    let store = Store::open(16 << 20, &options).unwrap();
    let server = server_over(store, vec![refused(1, &curl), closed(2, &curl)], Terms::default());
    let server = server.await;
    // Writes what is on its way.
    server.store.close();
    let s = samples(&scrape(&server).await);
    for (name, value) in [
        ("netspy_history_up", 1.0),
        ("netspy_history_written_total", 2.0),
        ("netspy_history_unwritten_total", 0.0),
        ("netspy_history_behind", 0.0),
        ("netspy_history_limit_bytes", f64::from(1 << 30)),
        ("netspy_store_records", 2.0),
        ("netspy_store_oldest_timestamp_seconds", epoch().as_second() as f64),
    ] {
        assert_eq!(s.get(name), Some(&value), "{name} in {s:#?}");
    }
    assert!(s["netspy_history_bytes"] > 100.0 && of_history(&s) == 13, "{s:#?}");
    // Of four attempts two are pending, and lost when nobody watches any more.
    let lost = "netspy_lost_total{cause=\"capture_ended\"}";
    assert_eq!(s[lost], 0.0);
    *server.capture.counters.lock().unwrap() =
        Counters { attempts: 4, delivered: 2, ..Counters::default() };
    let written = || std::fs::read_to_string(directory.join("books")).unwrap_or_default();
    let end = Instant::now() + Duration::from_secs(60);
    while !written().contains("\"attempts\":4") {
        assert!(Instant::now() < end, "{}", written());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.stop().await;
    let store = Store::open(16 << 20, &options).unwrap();
    let server = server_over(store, Vec::new(), Terms::default()).await;
    let s = samples(&scrape(&server).await);
    assert_eq!((s[lost], s["netspy_attempts_total"]), (2.0, 0.0));
    server.stop().await;
    let _ = std::fs::remove_dir_all(directory);
}

/// Whatever runs here, and whoever asks: no name of theirs becomes a label, and the number of series
/// has a bound that is known beforehand.
#[tokio::test]
async fn hostile_names_make_no_series() {
    // Distinct processes, containers, hosts, remotes and reasons.
    const MANY: u64 = 10_000;
    let server = server(Vec::new()).await;
    let evil = |n: u64| format!("evil\"}} 1\n# {n}");
    let mut wild = Random(42);
    let mut batch = Vec::new();
    for n in 0..MANY {
        let mut c = wild.connection();
        c.id.start_ns = n;
        c.host = evil(n).into();
        c.process = Some(Process {
            tid: 1,
            thread: evil(n).into(),
            info: Arc::new(ProcessInfo {
                comm: evil(n).into(),
                unit: Some(evil(n).into()),
                container: Some(Arc::new(Container {
                    name: Some(evil(n)),
                    image: Some(evil(n)),
                    pod: Some(evil(n)),
                    ..Container::new(format!("{n:064x}"), evil(n))
                })),
                ..(*info(1, "x")).clone()
            }),
        });
        let [_, a, b, d] = (n as u32).to_be_bytes();
        c.remote = Some(Remote {
            name: Some(evil(n).into()),
            name_source: Some(NameSource::Dns),
            country: Some(evil(n).into()),
            as_name: Some(evil(n).into()),
            ..Remote::new([10, a, b, d].into(), n as u16)
        });
        batch.push(c);
    }
    server.store.apply(batch);
    server.store.apply_drops((0..MANY).map(|n| drops(&evil(n), 1, n)).collect());
    for n in 0..50 {
        server.get(&format!("/evil{n}")).await;
        server.get(&format!("/api/v1/connections/evil{n}")).await;
    }
    let text = scrape(&server).await;
    assert!(!text.contains("evil"), "{text}");
    let s = samples(&text);
    let count = |name: &str| s.keys().filter(|key| key.starts_with(name)).count();
    assert_eq!(count("netspy_dropped_packets_total"), 1);
    assert_eq!(s["netspy_dropped_packets_total{reason=\"other\"}"], MANY as f64);
    let combinations =
        Direction::VARIANTS.len() * Protocol::VARIANTS.len() * Outcome::VARIANTS.len();
    assert!((1..=combinations).contains(&count("netspy_outcomes_total")));
    // What a page has, whatever was seen: what is counted by outcome comes on top.
    let others = s.len() - count("netspy_outcomes_total");
    assert!(others < 250 && text.len() < 100_000, "{others} series, {} bytes", text.len());
    // One for what is nowhere, one for the ids, one for the scrape.
    assert!(count("netspy_http_requests_total") <= 3, "{s:#?}");
    assert_eq!(s["netspy_http_requests_total{route=\"none\",status=\"4xx\"}"], 50.0);
    server.stop().await;
}

#[tokio::test]
async fn promtool_has_nothing_to_say() {
    let Some(promtool) = tools::program("promtool") else { return };
    let server = server(vec![refused(1, &info(7, "curl"))]).await;
    server.store.apply_drops(vec![drops("NETFILTER_DROP", 5, 1)]);
    let page = server.get("/metrics").await.body;
    let mut lint = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    lint.stdin.take().unwrap().write_all(&page).unwrap();
    let output = lint.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
    server.stop().await;
}

struct Prometheus {
    child: Child,
    directory: PathBuf,
    address: SocketAddr,
}

impl Prometheus {
    /// Has it scrape this server every second.
    fn start(program: &Path, server: &Server) -> Self {
        let directory =
            std::env::temp_dir().join(format!("netspy-prometheus-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let config = format!(
            "scrape_configs:\n- job_name: netspy\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
             static_configs:\n  - targets: ['{}']\n",
            server.address
        );
        std::fs::write(directory.join("prometheus.yml"), config).unwrap();
        // It cannot be given a listener: a port that was free a moment ago has to do.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = Command::new(program)
            .arg(format!("--config.file={}/prometheus.yml", directory.display()))
            .arg(format!("--storage.tsdb.path={}/data", directory.display()))
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Prometheus { child, directory, address }
    }

    /// What it answers, as soon as that holds what is wanted.
    async fn answers(&self, query: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let encoded: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let answer = common::get(self.address, &format!("/api/v1/query?query={encoded}")).await;
            // It answers 503 until it has read what it stored.
            let answered = answer.as_ref().filter(|answer| answer.status == 200);
            let result = answered.map(|answer| answer.json()["data"]["result"].clone());
            if let Some(Value::Array(samples)) = result
                && holds(&samples)
            {
                return samples;
            }
            assert!(Instant::now() < until, "{query}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn prometheus_scrapes_it_and_every_panel_of_the_dashboard_has_something_to_show() {
    let Some(program) = tools::program("prometheus") else { return };
    let directory = std::env::temp_dir().join(format!("netspy-panels-{}", std::process::id()));
    let options =
        HistoryOptions { directory: directory.clone(), limit_bytes: 1 << 30, max_age: None };
    let curl = info(7, "curl");
    let accepted = Connection { direction: Direction::Inbound, ..closed(2, &curl) };
    let store = Store::open(16 << 20, &options).unwrap();
    let server =
        server_over(store, vec![refused(1, &curl), accepted, closed(3, &curl)], Terms::default());
    let server = server.await;
    server.store.apply_drops(vec![drops("NETFILTER_DROP", 5, 1)]);
    let prometheus = Prometheus::start(&program, &server);
    let refused = "netspy_outcomes_total{outcome=\"refused\"}";
    let found = prometheus.answers(refused, |samples| !samples.is_empty()).await;
    assert_eq!((found.len(), &found[0]["metric"]["protocol"]), (1, &json!("tcp")));
    assert_eq!(found[0]["value"][1], "1");

    let dashboard = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/grafana/netspy.json");
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(dashboard).unwrap()).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", "1m").replace("$__range", "1m");
            let query = query.replace("$instance", ".*");
            let shown = prometheus.answers(&query, |samples| !samples.is_empty()).await;
            // Each line has a name.
            let legend = target["legendFormat"].as_str().unwrap();
            for label in legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()) {
                let named = shown.iter().all(|sample| sample["metric"][label].is_string());
                assert!(named, "{}: {label} is in none of {shown:?}", panel["title"]);
            }
        }
    }
    server.stop().await;
    let _ = std::fs::remove_dir_all(directory);
}
