//! What stands out in recordings of real traffic (tests/fixtures/traffic/record makes them): all of it
//! in the one where something is wrong, nothing in the other.
#![cfg(feature = "store")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use netspy::query::{Filter, Source};
use netspy::record::{Reader, ReplayCapture, replay};
use netspy::store::{LocalSource, Store};

/// The findings of a recording, each as `kind process remote port`.
async fn findings(recording: &str) -> Vec<String> {
    let file = format!("{}/tests/fixtures/traffic/{recording}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let mut reader = Reader::open(Path::new(&file)).unwrap();
    let store = Arc::new(Store::new(16 << 20));
    let capture = ReplayCapture::new(reader.header(), file);
    let replayed = replay(&mut reader, &store, &capture);
    assert!(replayed.finished && replayed.errors.is_empty(), "{:?}", replayed.errors);
    let source = LocalSource::new(store, Arc::new(capture));
    let answer = source.findings(&Filter::default(), None).await.unwrap();
    assert!(answer.exact && answer.accounting.complete, "{:?}", answer.accounting);
    let mut found = Vec::new();
    for finding in &answer.findings {
        let subject = &finding.subject;
        for id in &finding.evidence.records {
            let record = source.get(*id).await.unwrap().unwrap();
            let process = record.process.map(|process| process.comm.clone());
            assert_eq!(process, subject.process, "{finding:?}");
        }
        let kind = serde_json::to_value(finding.kind).unwrap();
        let process = subject.process.as_deref().unwrap_or("*");
        let remote = subject.remote.map_or("*".to_owned(), |ip| ip.to_string());
        let port = subject.port.map_or("*".to_owned(), |port| port.to_string());
        found.push(format!("{} {process} {remote} {port}", kind.as_str().unwrap()));
    }
    found.sort();
    found
}

#[tokio::test]
async fn nothing_stands_out_in_ordinary_traffic() {
    assert_eq!(findings("normal").await, [""; 0]);
}

#[tokio::test]
async fn each_thing_that_is_wrong_is_found_once_and_nothing_else() {
    let expected = [
        "beaconing updater 198.51.100.66 8443",
        "clear_text_service telnet 198.51.100.78 23",
        "port_scan portscan 10.99.0.2 *",
        "port_scan sweep * 22",
        "repeated_failures worker 10.99.0.2 6379",
        "stuck_attempts stuck 10.99.0.2 7000",
        "unusual_port ssh 198.51.100.77 2222",
    ];
    assert_eq!(findings("suspicious").await, expected);
}
