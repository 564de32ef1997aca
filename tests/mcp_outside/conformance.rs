//! The official conformance suite, of both revisions: against `netspy mcp --http`, as far as that has
//! what the suite asks for, and whole against the same stack with the suite's own tools, resources
//! and prompts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{fixture, place::Place};
use crate::common::server;
use crate::mcp_support::Serving;
use crate::node::{self, Node};
use serde_json::Value;

const REVISIONS: [&str; 2] = ["2025-11-25", "2026-07-28"];

/// A check that need not pass: beginning of its scenario's name, beginning of its own, and why.
type Excuse = (&'static str, &'static str, &'static str);

/// What nobody can run against this server.
const EVERYWHERE: [Excuse; 1] = [(
    "tasks-",
    "",
    "about the extension io.modelcontextprotocol/tasks, which netspy does not offer",
)];

const CALLS: &str = "calls tools of the suite";

/// What only a server with the suite's own tools, resources and prompts can pass.
const OWN: [Excuse; 16] = [
    ("tools-call-", "", CALLS),
    ("server-stateless", "sep-2575-server-rejects-undeclared-capability", CALLS),
    ("server-stateless", "sep-2575-missing-capability-http-400", CALLS),
    ("server-stateless", "sep-2575-http-server-no-independent-requests-on-stream", CALLS),
    ("server-stateless", "sep-2575-server-no-log-without-loglevel", CALLS),
    ("server-sse-polling", "server-sse-disconnect-resume", CALLS),
    ("json-schema-2020-12", "", "looks at a tool of the suite"),
    ("http-custom-header-server-validation", "", CALLS),
    ("elicitation-", "", CALLS),
    ("input-required-result-", "", CALLS),
    ("logging-set-level", "", "netspy sends no log messages, and does not say that it would"),
    ("resources-read-", "", "reads resources of the suite"),
    ("resources-templates-read", "", "reads a resource of the suite"),
    ("resources-subscribe", "", "subscribes to a resource of the suite"),
    ("resources-unsubscribe", "", "subscribes to a resource of the suite"),
    ("prompts-get-", "", "gets prompts of the suite"),
];

/// What came of one scenario.
#[derive(Default)]
struct Scenario {
    passed: usize,
    failed: Vec<(String, String)>,
}

/// Runs all scenarios of a revision, those that are not required for it included.
fn run(node: &Node, url: &str, revision: &str) -> BTreeMap<String, Scenario> {
    let place = Place::new(&format!("conformance-{revision}"));
    let mut suite = node.program("conformance", 120);
    suite.args(["server", "--url", url, "--requirements", revision, "--output-dir"]).arg(&place.0);
    let output = suite.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let files = std::fs::read_dir(&place.0);
    let files = files.unwrap_or_else(|_| panic!("the suite did not run: {said}"));
    // Only a run that went to its end has a summary, of as many scenarios as there are files.
    let summary = said.lines().filter(|line| line.starts_with(['✓', '✗'])).count();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert!(summary > 20 && files.len() == summary, "{said}");
    files.iter().map(|file| scenario(file)).collect()
}

/// The name of a scenario and what its checks found, from a directory `server-NAME-TIME`.
fn scenario(directory: &Path) -> (String, Scenario) {
    let name = directory.file_name().unwrap().to_str().unwrap().strip_prefix("server-").unwrap();
    let name = &name[..name.len() - "-2026-11-28T00-00-00-000Z".len()];
    let checks = std::fs::read(directory.join("checks.json")).unwrap();
    let checks: Vec<Value> = serde_json::from_slice(&checks).unwrap();
    let mut scenario = Scenario::default();
    for check in &checks {
        let said = |member: &str| check[member].as_str().unwrap_or_default().to_owned();
        match said("status").as_str() {
            "SUCCESS" => scenario.passed += 1,
            // What does not apply to a revision or to what the server offers, and remarks.
            "SKIPPED" | "INFO" => {}
            _ => scenario.failed.push((said("id"), said("errorMessage"))),
        }
    }
    (name.to_owned(), scenario)
}

/// Runs these revisions. Fails for whatever has no excuse, and for an excuse that nothing needs.
fn judge(whom: &str, node: &Node, url: &str, revisions: &[&str], excuses: &[Excuse]) {
    let mut used = BTreeSet::new();
    for revision in revisions {
        used.extend(found(whom, revision, run(node, url, revision), excuses));
    }
    let idle: Vec<_> = excuses.iter().filter(|excuse| !used.contains(excuse)).collect();
    assert!(idle.is_empty(), "{whom} passes without these excuses: {idle:?}");
}

/// Prints what was passed, and what was not and why; the excuses that were needed.
fn found(
    whom: &str,
    revision: &str,
    scenarios: BTreeMap<String, Scenario>,
    excuses: &[Excuse],
) -> BTreeSet<Excuse> {
    let mut used = BTreeSet::new();
    let (mut whole, mut checks, mut bad) = (0, 0, Vec::new());
    let mut excused: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, scenario) in &scenarios {
        checks += scenario.passed;
        let excuse_of = |check: &str| {
            excuses.iter().find(|(of, id, _)| name.starts_with(of) && check.starts_with(id))
        };
        let mut passed = true;
        for (check, error) in &scenario.failed {
            passed = false;
            match excuse_of(check) {
                Some(excuse @ (.., why)) => {
                    used.insert(*excuse);
                    let names = excused.entry(why).or_default();
                    if !names.contains(&name.as_str()) {
                        names.push(name);
                    }
                }
                None => bad.push(format!("{name}: {check}: {error}")),
            }
        }
        whole += usize::from(passed);
    }
    println!(
        "MCP conformance suite, {revision}, {whom}: {whole} of {} scenarios passed, {checks} checks",
        scenarios.len()
    );
    for (why, names) in excused {
        println!("- not asked of it, {why}: {}", names.join(", "));
    }
    assert!(bad.is_empty(), "{whom}, {revision}:\n{}", bad.join("\n"));
    used
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stack_passes_every_scenario_of_both_revisions() {
    let Some(node) = node::mcp_tools() else { return };
    let url = fixture::serve().await;
    let run = move || judge("the suite's own tools", &node, &url, &REVISIONS, &EVERYWHERE);
    tokio::task::spawn_blocking(run).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn netspy_passes_every_scenario_that_needs_no_tools_of_the_suite() {
    let Some(node) = node::mcp_tools() else { return };
    let server = server(Vec::new()).await;
    let serving = Serving::start(server.address, &[]);
    let url = format!("http://{}/mcp", serving.1);
    // The server's own, beside the rest of what it serves.
    let own = format!("http://{}/mcp", server.address);
    let run = move || {
        let excuses = [&EVERYWHERE[..], &OWN].concat();
        judge("netspy mcp --http", &node, &url, &REVISIONS, &excuses);
        let found = run(&node, &own, REVISIONS[0]);
        self::found("/mcp of ebpf-server", REVISIONS[0], found, &excuses);
    };
    tokio::task::spawn_blocking(run).await.unwrap();
    drop(serving);
}
