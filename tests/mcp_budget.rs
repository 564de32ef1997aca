//! What the tools cost a model, counted with a real tokenizer, on a host with 100,000 records.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod mcp_support;

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use common::records::{Random, closed, dropped, info, refused};
use common::server_over;
use jiff::{SignedDuration, Timestamp};
use mcp_support::{Assistant, ERAS, Era};
use netspy::Connection;
use netspy::event::{DropRecord, Endpoint, Process, ProcessInfo, Remote};
use netspy::query::Source;
use netspy::record::{Reader, ReplayCapture, replay};
use netspy::server::Terms;
use netspy::store::{LocalSource, Store};
use netspy::tools::{AllTools, RuleBased, Toolset};
use serde_json::{Value, json};

/// Tokens that all definitions together, or one answer that was not asked to be long, may take.
const BUDGET: usize = 1_500;
const RECORDS: u64 = 100_000;

fn tokens(text: &str) -> usize {
    tiktoken_rs::o200k_base_singleton().encode_ordinary(text).len()
}

/// A busy host of the last hour: many processes with long names, many IPv6 remotes, thousands of
/// findings, drops for many reasons.
fn busy() -> (Vec<Connection>, Vec<DropRecord>) {
    let mut random = Random(5);
    let processes: Vec<Arc<ProcessInfo>> = (0..400)
        .map(|n| {
            let name = format!("worker-{n:03}-日本語");
            let unit = format!("a-service-with-a-long-name-{n}@instance-{n}.service");
            Arc::new(ProcessInfo {
                unit: Some(unit.into()),
                ..(*info(1_000_000 + n, &name)).clone()
            })
        })
        .collect();
    let now = Timestamp::now();
    let mut all = Vec::new();
    for n in 0..RECORDS {
        let process = &processes[random.next(400) as usize];
        // Few remotes fail, so that thousands of pairs stand out.
        let (record, remotes) = match random.one_in(3) {
            true => (refused(n, process), 10),
            false => (closed(n, process), 2_000),
        };
        let age = SignedDuration::from_millis(((RECORDS - n) * 30) as i64);
        let ip = IpAddr::from(Ipv6Addr::from_bits(
            0x2001_0db8_0000_0000_ffff_ffff_ffff_0000 | u128::from(random.next(remotes)),
        ));
        let name = Some("a-host-of-a-cloud.eu-central-1.compute.example.com".into());
        let remote = Remote { name, ..Remote::new(ip, 443) };
        let time = now.checked_sub(age).unwrap();
        all.push(Connection { time, remote: Some(remote), ..record });
    }
    let drops = (0..4_000).map(|n| {
        let time = now.checked_sub(SignedDuration::from_millis((4_000 - n) as i64)).unwrap();
        let reason = format!("A_REASON_WITH_A_LONG_NAME_{}", n % 40).into();
        let info = Arc::clone(&processes[(n % 400) as usize]);
        let process = Some(Process { tid: info.pid, thread: Arc::clone(&info.comm), info });
        let remote = 0x2001_0db8_0000_0000_ffff_ffff_ffff_0000 | u128::from(n % 2_000);
        let destination = Some(Endpoint { ip: Ipv6Addr::from_bits(remote).into(), port: 443 });
        DropRecord { time, last: time, reason, process, destination, ..dropped(n) }
    });
    let drops = drops.collect();
    (all, drops)
}

fn source() -> LocalSource {
    let (all, drops) = busy();
    let now = Timestamp::now();
    let store = Arc::new(Store::new(256 << 20));
    let applied = store.apply(all);
    store.apply_drops(drops);
    let counters = netspy::accounting::Counters {
        attempts: applied.attempts,
        delivered: applied.attempts,
        ..Default::default()
    };
    let capture = common::FakeCapture {
        since: now.checked_sub(SignedDuration::from_hours(2)).unwrap(),
        counters: std::sync::Mutex::new(counters),
        stopped: std::sync::Mutex::default(),
        traffic: std::sync::Mutex::default(),
    };
    LocalSource::new(store, Arc::new(capture))
}

#[tokio::test]
async fn all_definitions_and_each_default_answer_stay_within_the_budget() {
    let source = source();
    let held = source.status().await.unwrap().store.records;
    assert_eq!(held, RECORDS, "the store holds all of them");
    let tools = AllTools::new(Arc::new(source), Arc::new(RuleBased));
    let list: Vec<Value> = tools
        .list()
        .into_iter()
        .map(|spec| {
            json!({
                "name": spec.name, "description": spec.description,
                "inputSchema": spec.input_schema, "outputSchema": spec.output_schema,
                "annotations": {"readOnlyHint": true, "openWorldHint": spec.open_world},
            })
        })
        .collect();
    let cost = tokens(&json!({"tools": list}).to_string());
    println!("tools/list: {cost}");
    let mut over = Vec::new();
    if cost >= BUDGET {
        over.push(format!("tools/list: {cost}"));
    }
    for (name, arguments) in [
        ("get_network_summary", json!({})),
        ("get_network_summary", json!({"process_name": "worker-001-日本語"})),
        ("get_network_summary", json!({"group_by": "remote"})),
        ("get_network_summary", json!({"group_by": "unit"})),
        ("get_network_summary", json!({"group_by": "time"})),
        ("get_network_summary", json!({"compare": "before", "since": "30m"})),
        ("list_connections", json!({})),
        ("list_connections", json!({"max_events": 500})),
        ("analyze_patterns", json!({})),
        (
            "analyze_patterns",
            json!({"process_name": "worker-001-日本語", "remote": "2001:db8::/32"}),
        ),
        ("get_packet_drop_summary", json!({})),
        ("list_packet_drops", json!({})),
        ("watch_connections", json!({"duration": 1})),
        ("get_status", json!({})),
        ("ai_insights", json!({})),
        ("contextual_analysis", json!({"query": "What fails?"})),
    ] {
        let answer = tools.call(name, arguments.clone()).await.unwrap();
        let cost = tokens(&answer.text());
        println!("{name} {arguments}: {cost} tokens, {} bytes", answer.text().len());
        if cost >= BUDGET {
            over.push(format!("{name} {arguments}: {cost}: {}", answer.text()));
        }
    }
    assert!(over.is_empty(), "over {BUDGET} tokens: {over:#?}");
}

/// As a client receives it, with what each era adds.
#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_tools_and_each_resource_stay_within_the_budget_in_both_eras() {
    let (records, drops) = busy();
    let server = server_over(Store::new(256 << 20), records, Terms::default()).await;
    server.store.apply_drops(drops);
    let read = |address: String, era: Era| {
        let mut assistant = Assistant::start(&address, era);
        let list = assistant.ask("tools/list", json!({})).unwrap();
        let mut sent = vec![("tools/list", json!({"result": list}).to_string())];
        for uri in [
            "netspy://status",
            "netspy://connections/recent",
            "netspy://process/worker-001-日本語",
            "netspy://remote/2001:db8::ffff:ffff:ffff:1",
            "netspy://remote/2001:db8::%2F32",
        ] {
            let resource = assistant.ask("resources/read", json!({"uri": uri})).unwrap();
            let text = resource["contents"][0]["text"].as_str().unwrap();
            assert!(text.contains("\"complete\""), "{uri}: {text}");
            sent.push((uri, text.to_owned()));
        }
        assert_eq!(assistant.end(), Some(0));
        sent
    };
    let mut over = Vec::new();
    for era in ERAS {
        let address = format!("http://{}", server.address);
        for (what, text) in tokio::task::spawn_blocking(move || read(address, era)).await.unwrap() {
            let cost = tokens(&text);
            println!("{era:?} {what}: {cost} tokens, {} bytes", text.len());
            if cost >= BUDGET {
                over.push(format!("{era:?} {what}: {cost}: {text}"));
            }
        }
    }
    server.stop().await;
    assert!(over.is_empty(), "over {BUDGET} tokens: {over:#?}");
}

/// Real traffic, with almost every kind of finding in it, each of which has its own words.
#[tokio::test]
async fn an_answer_with_many_kinds_of_findings_says_all_of_each_within_the_budget() {
    let file = format!("{}/tests/fixtures/traffic/suspicious.jsonl", env!("CARGO_MANIFEST_DIR"));
    let mut reader = Reader::open(Path::new(&file)).unwrap();
    let store = Arc::new(Store::new(16 << 20));
    let capture = ReplayCapture::new(reader.header(), file);
    assert!(replay(&mut reader, &store, &capture).finished);
    let source = LocalSource::new(store, Arc::new(capture));
    let tools = AllTools::new(Arc::new(source), Arc::new(RuleBased));
    let since = json!({"since": "2026-11-28T01:00:00Z", "until": "2026-11-28T02:00:00Z"});
    let answer = tools.call("analyze_patterns", since).await.unwrap();
    let cost = tokens(&answer.text());
    println!("analyze_patterns: {cost} tokens, {} bytes", answer.text().len());
    assert!(cost < BUDGET, "{cost}: {}", answer.text());
    let content = &answer.content;
    let named = content["columns"].as_array().unwrap();
    for column in ["severity", "kind", "process", "remote", "why", "figures", "records"] {
        assert!(named.iter().any(|name| name == column), "{column}: {content}");
    }
    let rows = content["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &content["total"]), (7, &json!(7)), "{content}");
    let of = |row: &Value, name: &str| row[named.iter().position(|n| n == name).unwrap()].clone();
    for row in rows {
        assert!(!of(row, "figures").as_object().unwrap().is_empty(), "{row}");
        assert!(!of(row, "records").as_array().unwrap().is_empty(), "{row}");
        let kind = of(row, "kind");
        assert!(content["next"][kind.as_str().unwrap()].is_string(), "{kind}: {content}");
    }
    assert_eq!(content["protocols"], json!({"tcp": 111}));
    assert_eq!(content["outcomes"]["refused"], 93);
    assert_eq!(content["top_ports"]["6379"], "refused 8");
    assert_eq!(content["top_remotes"]["198.51.100.66"], "established 12");
    let over_time = &content["over_time"];
    let attempts: u64 =
        over_time["attempts"].as_array().unwrap().iter().filter_map(Value::as_u64).sum();
    assert_eq!((attempts, &over_time["step_s"]), (111, &json!(300.0)), "{over_time}");
}
