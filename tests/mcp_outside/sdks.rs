//! The client libraries of Python that assistants' programs are built on: each calls every tool over
//! standard input and output and over HTTP, in the eras that it speaks (tests/fixtures/mcp-sdks).

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::common::records::{ago, closed, info, refused};
use crate::common::server;
use crate::mcp_support::Serving;
use crate::python;
use serde_json::Value;
use tokio::net::TcpListener;

const OLD: &str = "2025-11-25";
const NEW: &str = "2026-07-28";
const CHECKS: [&str; 9] = [
    "tools",
    "progress",
    "cancellation",
    "completion",
    "prompts",
    "resources",
    "live",
    "errors",
    "unreachable",
];
/// How often something new happens.
const BEAT: Duration = Duration::from_millis(50);

/// Who serves HTTP.
#[derive(PartialEq, Eq)]
enum Http {
    /// `netspy mcp --http`.
    Netspy,
    /// `ebpf-server` itself.
    Server,
}

/// curl has failed six times; wget goes on connecting.
async fn passes_every_check(list: &str, script: &str, eras: &[&str], http: Http) {
    let Some(programs) = python::environment(list) else { return };
    let curl = info(7, "curl");
    let server = server((0..6).map(|n| ago(60, refused(n * 250, &curl))).collect()).await;
    let store = Arc::clone(&server.store);
    let feed = tokio::spawn(async move {
        let wget = info(30, "wget");
        for n in 10_000.. {
            store.apply(vec![ago(0, closed(n, &wget))]);
            tokio::time::sleep(BEAT).await;
        }
    });
    // Nobody else gets the port as long as it is bound, and nobody answers there.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let serving = Serving::start(server.address, &[]);
    let at = if http == Http::Server { server.address } else { serving.1 };
    let lost = Serving::start(nobody, &[]);
    let mut client = Command::new("timeout");
    client
        .arg("240")
        .arg(programs.join("python"))
        .arg(format!("{}/tests/fixtures/mcp-sdks/{script}.py", env!("CARGO_MANIFEST_DIR")))
        .arg(env!("CARGO_BIN_EXE_netspy"))
        .arg(format!("http://{}", server.address))
        .arg(format!("http://{at}/mcp"))
        .arg(format!("http://{nobody}"))
        .arg(format!("http://{}/mcp", lost.1))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = tokio::task::spawn_blocking(move || client.output().unwrap()).await.unwrap();
    feed.abort();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let passed: BTreeSet<_> = said
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            ["transport", "era", "check"].map(|member| line[member].as_str().unwrap().to_owned())
        })
        .collect();
    let mut wanted = BTreeSet::new();
    for transport in ["stdio", "http"] {
        for era in eras {
            wanted.extend(CHECKS.map(|check| [transport, era, check].map(str::to_owned)));
        }
    }
    assert_eq!(passed, wanted);
    println!(
        "MCP client {} (Python), stdio and HTTP, {}: {}",
        python::list(list).trim(),
        eras.join(" and "),
        CHECKS.join(", ")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdk_2_does_everything_in_both_eras() {
    passes_every_check("mcp-sdk-2", "sdk_mcp_2", &[OLD, NEW], Http::Netspy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_finds_the_same_at_mcp_of_the_server() {
    passes_every_check("mcp-sdk-2", "sdk_mcp_2", &[OLD, NEW], Http::Server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdk_1_does_everything_in_the_era_that_it_speaks() {
    passes_every_check("mcp-sdk-1", "sdk_mcp_1", &[OLD], Http::Netspy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fastmcp_does_everything_in_both_eras() {
    passes_every_check("mcp-sdk-fastmcp", "sdk_fastmcp", &[OLD, NEW], Http::Netspy).await;
}
