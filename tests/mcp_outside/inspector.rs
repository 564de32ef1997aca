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
                let case = format!("{transport}, {revision}");
                let strict = inspect(&node, target, era, &["--method", "tools/list", "--strict"]);
                let problems = String::from_utf8_lossy(&strict.stderr).into_owned();
                assert!(strict.status.success() && problems.is_empty(), "{case}: {problems}");
                let tools: Value = serde_json::from_slice(&strict.stdout).unwrap();
                assert_eq!(tools["result"]["tools"].as_array().unwrap().len(), 9, "{case}");
                for (list, length) in [("resources", 2), ("prompts", 4)] {
                    let method = format!("{list}/list");
                    let listed = answer(&node, target, era, &["--method", &method]);
                    assert_eq!(listed["result"][list].as_array().unwrap().len(), length, "{case}");
                }
                let call = ["--method", "tools/call", "--tool-name", "list_connections"];
                let call = [&call[..], &["--tool-arg", "process_name=curl"]].concat();
                let called = answer(&node, target, era, &call);
                assert_eq!(called["result"]["structuredContent"]["total"], 6, "{case}: {called}");
                println!("MCP inspector, {case}: no problem in strict mode, 4 methods");
            }
        }
    };
    tokio::task::spawn_blocking(asked).await.unwrap();
}
