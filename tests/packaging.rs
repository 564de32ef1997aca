//! What is installed beside the programs: unit, example configuration, alert rules, dashboard. And that
//! the documentation tells every option.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/tools.rs"]
mod tools;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::CommandFactory;
use netspy::server::Options;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn file(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("netspy-packaging-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Temporary(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The samples' names that the server exposes: of counters with `_total`, of histograms with their
/// three endings.
async fn exposed() -> BTreeSet<String> {
    let server = common::server(Vec::new()).await;
    let page = String::from_utf8(server.get("/metrics").await.body).unwrap();
    server.stop().await;
    let mut names = BTreeSet::new();
    for line in page.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let endings: &[&str] = match kind {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        names.extend(endings.iter().map(|ending| format!("{name}{ending}")));
    }
    names
}

/// The names of metrics in an expression.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("netspy_") || word.starts_with("process_")).collect()
}

/// What the panels of the dashboard ask for.
fn dashboard() -> Vec<String> {
    let dashboard: serde_json::Value =
        serde_json::from_str(&file("packaging/grafana/netspy.json")).unwrap();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        expressions
            .extend(targets.iter().map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    expressions
}

#[tokio::test]
async fn every_metric_of_rules_and_dashboard_is_exposed() {
    let exposed = exposed().await;
    let mut expressions = dashboard();
    let shown: BTreeSet<_> = expressions.iter().flat_map(|expression| named(expression)).collect();
    for name in exposed.iter().filter(|name| name.starts_with("netspy_history_")) {
        assert!(shown.contains(name.as_str()), "no panel shows {name}");
    }
    let rules = file(RULES);
    // Comments of the rules may name anything.
    expressions.extend(rules.lines().filter(|l| !l.contains("summary:")).map(str::to_owned));
    let mut count = 0;
    for expression in &expressions {
        for name in named(expression) {
            assert!(exposed.contains(name), "{name} in {expression} is not exposed: {exposed:#?}");
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
    // What an operator can look up is all there is.
    let documentation = file("docs/operations.md");
    for name in exposed.iter().filter(|name| name.starts_with("netspy_")) {
        let ending = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let name = ending.unwrap_or(name);
        assert!(documentation.contains(&format!("`{name}`")), "docs/operations.md lacks {name}");
    }
    for alert in alerts(&rules) {
        assert!(
            documentation.contains(&format!("| {alert} |")),
            "docs/operations.md lacks {alert}"
        );
    }
}

const RULES: &str = "packaging/prometheus/netspy.rules.yml";

fn alerts(rules: &str) -> Vec<&str> {
    let alerts: Vec<_> = rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 8, "{alerts:?}");
    alerts
}

#[test]
fn promtool_takes_the_rules_and_what_the_dashboard_asks() {
    let Some(promtool) = tools::program("promtool") else { return };
    let directory = Temporary::new("dashboard");
    // Grafana puts its own values in place of these.
    let asked = |expression: String| {
        let values = [("$__rate_interval", "1m"), ("$__range", "6h"), ("$instance", ".*")];
        values.into_iter().fold(expression, |text, (name, value)| text.replace(name, value))
    };
    let rules: Vec<_> = dashboard()
        .into_iter()
        .map(asked)
        .enumerate()
        .map(|(n, expr)| serde_json::json!({"record": format!("panel:{n}"), "expr": expr}))
        .collect();
    let rules = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let panels = directory.0.join("dashboard.json");
    std::fs::write(&panels, rules.to_string()).unwrap();
    for rules in [root().join(RULES), panels] {
        let output = Command::new(&promtool).args(["check", "rules"]).arg(&rules).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
}

/// As tests/fixtures/rules.test.yml says, which has both for each alert.
#[test]
fn each_alert_fires_when_it_is_to_and_only_then() {
    let Some(promtool) = tools::program("promtool") else { return };
    let directory = Temporary::new("rules");
    let rules = file(RULES);
    let cases = file("tests/fixtures/rules.test.yml");
    let test = |name: &str, rules: &str| {
        let (rules_path, cases_path) = (format!("{name}.yml"), format!("{name}.test.yml"));
        std::fs::write(directory.0.join(&rules_path), rules).unwrap();
        let cases = cases.replace(&format!("../../{RULES}"), &rules_path);
        std::fs::write(directory.0.join(&cases_path), cases).unwrap();
        let mut command = Command::new(&promtool);
        command.args(["test", "rules"]).arg(directory.0.join(cases_path)).output().unwrap()
    };
    let output = test("netspy", &rules);
    assert!(output.status.success(), "{}", said(&output));
    for alert in alerts(&rules) {
        let quiet = format!("alertname: {alert}\n        exp_alerts: []\n");
        assert!(cases.contains(&quiet), "no case in which {alert} does not fire");
        let without = rules.replace(&format!("- alert: {alert}\n"), "- alert: Another\n");
        assert!(!test(alert, &without).status.success(), "no case in which {alert} fires");
    }
}

#[test]
fn systemd_takes_the_unit() {
    if !has("systemd-analyze") {
        println!("skipped: there is no systemd-analyze");
        return;
    }
    let directory = Temporary::new("unit");
    let unit = file("packaging/systemd/ebpf-server.service");
    // It is not installed here.
    let unit = unit.replace("/usr/local/bin/ebpf-server", env!("CARGO_BIN_EXE_ebpf-server"));
    let path = directory.0.join("ebpf-server.service");
    std::fs::write(&path, unit).unwrap();
    let output = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
    let words = said(&output);
    assert!(output.status.success() && !words.contains("ebpf-server.service:"), "{words}");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--threshold=40"])
        .arg(&path)
        .output()
        .unwrap();
    let words = said(&output);
    if words.contains("--offline") {
        println!("skipped: exposure: this systemd-analyze has no --offline");
        return;
    }
    assert!(output.status.success(), "{words}");
}

/// Each key of the example is taken, those in comments as the lines that they are without the sign.
#[test]
fn every_line_of_the_example_configuration_is_accepted() {
    let directory = Temporary::new("example");
    let text = file("packaging/server.toml");
    let keys: Vec<_> = text
        .lines()
        .map(|line| line.strip_prefix('#').unwrap_or(line))
        .filter(|line| line.contains(" = ") && line.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    assert!(keys.len() > 8, "{keys:?}");
    // The user of the example is made when the package is installed.
    let all = keys.join("\n").replace("\"netspy\"", "\"root\"");
    let path: PathBuf = directory.0.join("server.toml");
    std::fs::write(&path, all).unwrap();
    let arguments = ["ebpf-server", "--config"].map(std::ffi::OsString::from);
    let arguments: Vec<_> = arguments.into_iter().chain([path.into_os_string()]).collect();
    let configuration = netspy::server::Configuration::load(&arguments);
    assert!(configuration.is_ok(), "{}", configuration.unwrap_err());
}

/// A row of the table of options: what it is called, its variable, its default, what it does.
fn row(arg: &clap::Arg) -> String {
    let name = arg.get_long().unwrap();
    let value = arg.get_value_names().filter(|_| arg.get_action().takes_values());
    let value = value.map_or_else(String::new, |names| format!(" {}", names[0]));
    let variable = arg
        .get_env()
        .map_or_else(|| "-".to_owned(), |name| format!("`{}`", name.to_string_lossy()));
    let defaults: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    let takes_values = arg.get_action().takes_values() && !defaults.is_empty();
    let default = if takes_values { format!("`{}`", defaults.join(",")) } else { "-".to_owned() };
    let possible: Vec<_> =
        arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
    let possible = match arg.get_action().takes_values() && !possible.is_empty() {
        true => format!(" ({})", possible.join(", ")),
        false => String::new(),
    };
    let help = arg.get_help().unwrap().to_string();
    format!("| `--{name}{value}` | {variable} | {default} | {help}{possible} |")
}

#[test]
fn the_documentation_has_every_option_as_it_is() {
    let command = Options::command();
    let rows: Vec<_> =
        command.get_arguments().filter(|a| a.get_long().is_some()).map(row).collect();
    let documentation = file("docs/operations.md");
    let there: Vec<_> = documentation.lines().filter(|line| line.starts_with("| `--")).collect();
    assert!(rows == there, "docs/operations.md is to have these rows:\n{}", rows.join("\n"));
}

#[test]
fn what_is_reloaded_is_told_in_the_documentation() {
    let documentation = file("docs/operations.md");
    for name in netspy::server::RELOADED {
        assert!(documentation.contains(&format!("`{name}`")), "{name}");
    }
    assert!(Path::new(&root().join("packaging/systemd/netspy.sysusers.conf")).exists());
}
