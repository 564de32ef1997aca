//! The MCP inspector's command line, in its strict mode: what it says of the tools' schemas, and
//! whether it gets on with everything else.

use std::process::Output;

use crate::common::records::{ago, info, refused};
use crate::common::server;
use crate::mcp_support::Serving;
use crate::node::{self, Node};
use crate::place::Place;
use serde_json::Value;

/// Eras by the inspector's names.
const ERAS: [(&str, &str); 2] = [("2025-11-25", "legacy"), ("2026-07-28", "modern")];

/// One question of its command line; the configuration that it keeps goes with the test.
fn inspect(node: &Node, target: &[&str], era: &str, more: &[&str]) -> Output {
    let place = Place::new("inspector");
    let mut inspector = node.program("inspector", 60);
    inspector.args(["--cli", "--protocol-era", era, "--format", "json"]).args(more);
    inspector.arg("--").args(target).env("HOME", &place.0);
    inspector.output().unwrap()
}

fn answer(node: &Node, target: &[&str], era: &str, more: &[&str]) -> Value {
    let output = inspect(node, target, era, more);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{more:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inspector_finds_no_problem_with_any_schema_or_answer() {
    let Some(node) = node::mcp_tools() else { return };
    let curl = info(7, "curl");
    let server = server((0..6).map(|n| ago(60, refused(n * 250, &curl))).collect()).await;
    let serving = Serving::start(server.address, &[]);
    let http = format!("http://{}/mcp", serving.1);
    let url = format!("http://{}", server.address);
    let asked = move || {
        let stdio = [env!("CARGO_BIN_EXE_netspy"), "mcp", "--server", &url];
        for (transport, target) in [("stdio", &stdio[..]), ("HTTP", &[&http[..]])] {
            for (revision, era) in ERAS {
                let strict = ["--method", "tools/list", "--strict"];
                let said = inspect(&node, target, era, &strict);
                let errors = String::from_utf8_lossy(&said.stderr).into_owned();
                assert!(said.status.success(), "{transport}, {revision}: {errors}");
                assert!(!errors.contains("inputSchema"), "{transport}, {revision}: {errors}");
                let tools: Value = serde_json::from_slice(&said.stdout).unwrap();
                println!("{tools} {errors}");
                let resources = answer(&node, target, era, &["--method", "resources/list"]);
                println!("{resources}");
                let prompts = answer(&node, target, era, &["--method", "prompts/list"]);
                println!("{prompts}");
                let call = ["--method", "tools/call", "--tool-name", "list_connections"];
                let call = [&call[..], &["--tool-arg", "process_name=curl"]].concat();
                let called = answer(&node, target, era, &call);
                println!("{called}");
            }
        }
    };
    tokio::task::spawn_blocking(asked).await.unwrap();
}
