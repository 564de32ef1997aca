//! What an assistant is told of names: which are looked up and what fails, and whose containers and
//! pods connect.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod mcp_support;

use std::sync::Arc;

use common::records::{ago, asked, closed, info};
use common::{Server, server};
use jiff::{Timestamp, ToSpan};
use mcp_support::{Assistant, Era, column};
use netspy::event::*;
use serde_json::json;

/// curl finds one name and not the other; a worker of a pod asks for something else.
async fn situation() -> Server {
    let container = Arc::new(Container {
        id: "0123456789abcdef".to_owned(),
        runtime: "containerd".to_owned(),
        name: Some("app".to_owned()),
        pod: Some("web-0".to_owned()),
        namespace: Some("prod".to_owned()),
        ..Container::default()
    });
    let of_pod =
        Arc::new(ProcessInfo { container: Some(container.clone()), ..(*info(9, "nginx")).clone() });
    let mut records: Vec<_> = (0..3).map(|n| ago(30, closed(n, &of_pod))).collect();
    records.extend((3..5).map(|n| ago(30, closed(n, &info(8, "sshd")))));
    let server = server(records).await;
    let question = |n: u64, comm: &str, name: &str, outcome: DnsOutcome| {
        let container = (comm == "worker").then(|| container.clone());
        let info = Arc::new(ProcessInfo { container, ..(*info(7, comm)).clone() });
        let process = Some(Process { tid: 7, thread: comm.into(), info });
        let record = DnsRecord { process, name: name.into(), outcome, ..asked(n) };
        let time = Timestamp::now() - 60.seconds() + (n as i64).seconds();
        match outcome {
            DnsOutcome::Answered => DnsRecord { time, ..record },
            _ => DnsRecord { time, addresses: Vec::new(), ..record },
        }
    };
    let mut all: Vec<_> =
        (0..6).map(|n| question(n, "curl", "db.corp.example", DnsOutcome::Nxdomain)).collect();
    let found = "www.example.com";
    all.extend((6..16).map(|n| question(n, "curl", found, DnsOutcome::Answered)));
    all.push(question(16, "worker", "queue.example.com", DnsOutcome::Servfail));
    server.store.apply_dns(all);
    server
}

/// Runs a conversation on a thread of its own, as the server needs this one.
async fn talk(server: &Server, conversation: impl FnOnce(&mut Assistant) + Send + 'static) {
    let address = format!("http://{}", server.address);
    let told = tokio::task::spawn_blocking(move || {
        let mut assistant = Assistant::start(&address, Era::Handshake);
        conversation(&mut assistant);
        assert_eq!(assistant.end(), Some(0));
    });
    told.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn which_names_does_a_process_look_up_and_what_fails() {
    let server = situation().await;
    talk(&server, |assistant| {
        let told = json!({"process_name": "curl", "protocol": "dns"});
        let told = assistant.call("get_network_summary", told);
        assert_eq!((&told["total"], &told["complete"]), (&json!(16), &json!(true)), "{told}");
        assert_eq!(told["outcomes"], json!({"answered": 10, "nxdomain": 6}));
        assert_eq!(told["answer_ms"]["p50"], 0.412);
        // What fails comes first.
        let names = ["db.corp.example", "www.example.com"].map(|name| json!(name));
        assert_eq!(column(&told, "name"), names);
        assert_eq!(column(&told, "look_ups"), [json!(6), json!(10)]);
        assert_eq!(column(&told, "unsuccessful"), [json!(6), json!(0)]);
        assert_eq!(column(&told, "outcomes"), [json!("nxdomain 6"), json!("answered 10")]);
        assert_eq!(column(&told, "answer")[1], "198.51.100.1");

        let failed = json!({"protocol": "dns", "outcome": "unsuccessful", "max_events": 2});
        let failed = assistant.call("list_connections", failed);
        assert_eq!((&failed["total"], &failed["shown"]), (&json!(7), &json!(2)), "{failed}");
        let newest = ["queue.example.com", "db.corp.example"].map(|name| json!(name));
        assert_eq!(column(&failed, "name"), newest);
        assert_eq!(column(&failed, "outcome"), [json!("servfail"), json!("nxdomain")]);
        let rest = json!({
            "protocol": "dns", "outcome": "unsuccessful", "cursor": failed["next_cursor"],
        });
        assert_eq!(assistant.call("list_connections", rest)["shown"], 5);
        // By the name, or by an address that was the answer.
        for (remote, total) in
            [(".example.com", 11), ("db.corp.example", 6), ("198.51.100.1", 10), ("192.0.2.53", 17)]
        {
            let told = json!({"protocol": "dns", "remote": remote, "response_format": "detailed"});
            assert_eq!(assistant.call("list_connections", told)["total"], total, "{remote}");
        }
        // Whose look-ups.
        for (container, total) in [("app", 1), ("pod:web-0", 1), ("namespace:x", 0), ("ap", 0)] {
            let told = json!({"protocol": "dns", "container": container});
            assert_eq!(assistant.call("list_connections", told)["total"], total, "{container}");
        }
        let found = assistant.call("analyze_patterns", json!({"kinds": "failing_name"}));
        assert_eq!(column(&found, "name"), [json!("db.corp.example")], "{found}");
        assert_eq!(column(&found, "process"), [json!("curl")]);
        assert!(column(&found, "why")[0].as_str().unwrap().starts_with("6 of 6 look-ups"));
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_go_with_look_ups_is_told() {
    let server = situation().await;
    talk(&server, |assistant| {
        for (name, value) in [
            ("port", json!(53)),
            ("unit", json!("x.service")),
            ("container", json!("app,pod:web")),
            ("state", json!("open")),
            ("direction", json!("outbound")),
            ("sort", json!("oldest")),
            ("remote", json!("10.0.0.0/8")),
            ("outcome", json!("refused_by_all")),
        ] {
            let said = assistant.fail("list_connections", json!({"protocol": "dns", name: value}));
            assert!(said.contains(name), "{name}: {said}");
        }
        let grouped = json!({"protocol": "dns", "group_by": "process"});
        assert!(assistant.fail("get_network_summary", grouped).contains("group_by"));
        let none = json!({"protocol": "dns", "process_name": "nobody"});
        let none = assistant.call("get_network_summary", none);
        assert_eq!(none["total"], 0, "{none}");
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_and_pods_are_asked_for_by_one_parameter() {
    let server = situation().await;
    talk(&server, |assistant| {
        for (container, total) in [
            ("app", 3),
            ("0123456789ab", 3),
            ("pod:web-0", 3),
            ("pod:web-1, pod:web-0", 3),
            ("namespace:prod", 3),
            ("web-0", 0),
            ("pod:app", 0),
        ] {
            let told = json!({"container": container});
            for tool in ["list_connections", "get_network_summary"] {
                assert_eq!(assistant.call(tool, told.clone())["total"], total, "{container}");
            }
        }
        let pods = assistant.call("get_network_summary", json!({"group_by": "pod"}));
        assert!(column(&pods, "key").contains(&json!("web-0")), "{pods}");
        let mixed = assistant.fail("list_connections", json!({"container": "app,pod:web-0"}));
        assert!(mixed.contains("container"), "{mixed}");
    })
    .await;
    server.stop().await;
}
