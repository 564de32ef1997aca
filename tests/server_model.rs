//! The model that `/mcp` of `ebpf-server` asks: who consents to it, what is told of it, and that it
//! holds up nothing else. The server is a process of its own, the model answers from a script.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ai_support;
mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Instant;

use ai_support::{Endpoint, calls, error, events_of, says};
use common::daemon::{Daemon, PATIENCE, command, recording};
use common::records::*;
use jiff::{SignedDuration, Timestamp};
use netspy::Connection;
use serde_json::{Value, json};

const KEY: &str = "sk-test-0123456789abcdefghij";

/// Six attempts of curl that were refused a minute ago, a key, and a configuration that names the
/// recording.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netspy-model-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let directory = Directory(path);
        let time = Timestamp::now().checked_sub(SignedDuration::from_secs(60)).unwrap();
        let curl = info(7, "curl");
        let mut records: Vec<_> = (0..6).map(|n| refused(n * 250, &curl)).collect();
        records.iter_mut().for_each(|record: &mut Connection| record.time = time);
        std::fs::write(directory.0.join("recording.jsonl"), recording(&records)).unwrap();
        directory.write("key", &format!("{KEY}\n"));
        directory
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A configuration with this model, which is asked with the key of the file.
    fn config(&self, model: &str, endpoint: &Endpoint, more: &str) -> String {
        let (key, base) = (self.0.join("key"), &endpoint.base);
        self.write(
            "server.toml",
            &format!("[model]\nname = {model:?}\nbase = {base:?}\nkey-file = {key:?}\n{more}"),
        )
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(env!("CARGO_BIN_EXE_ebpf-server"));
        command.args(["--no-unix", "--port", "0", "--replay"]).arg(self.0.join("recording.jsonl"));
        command.args(arguments);
        command
    }

    fn start(&self, arguments: &[&str]) -> Daemon {
        Daemon::start(self.command(arguments))
    }

    fn check(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(&[arguments, &["--check"]].concat()).output().unwrap();
        let text = all(&output);
        assert!(!text.contains(KEY), "{text}");
        (output.status.code(), text)
    }
}

fn all(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Sends a request of MCP that stands for itself; the answer is to be read.
fn send(address: &str, method: &str, name: Option<&str>, params: Value) -> TcpStream {
    let mut params = params;
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "0"},
    });
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let name = name.map_or_else(String::new, |name| format!("MCP-Name: {name}\r\n"));
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "POST /mcp HTTP/1.0\r\nHost: localhost\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         MCP-Method: {method}\r\n{name}Content-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> Value {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let lines = text.lines().map(|line| line.strip_prefix("data:").unwrap_or(line).trim());
    let message = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()).next_back();
    message.unwrap_or_else(|| panic!("no answer: {text}"))["result"].clone()
}

fn ask(server: &Daemon, tool: &str, arguments: Value) -> TcpStream {
    let params = json!({"name": tool, "arguments": arguments});
    send(&server.address(), "tools/call", Some(tool), params)
}

fn call(server: &Daemon, tool: &str, arguments: Value) -> Value {
    let result = answer(ask(server, tool, arguments));
    assert_ne!(result["isError"], true, "{result}");
    result["structuredContent"].clone()
}

fn question(server: &Daemon) -> TcpStream {
    ask(server, "contextual_analysis", json!({"query": "What fails?"}))
}

/// The tools of which a client is told that they ask somebody beyond this host.
fn open_world(server: &Daemon) -> Vec<String> {
    let list = answer(send(&server.address(), "tools/list", None, json!({})));
    let tools = list["tools"].as_array().unwrap().iter();
    let open = tools.filter(|tool| tool["annotations"]["openWorldHint"] == true);
    open.map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_key_and_an_endpoint_in_the_environment_are_no_consent() {
    let directory = Directory::new("consent");
    let endpoint = Endpoint::new(vec![says("I was not to be asked.")]);
    let mut command = directory.command(&[]);
    command.env("OPENAI_API_KEY", KEY).env("OPENAI_API_BASE", &endpoint.base);
    let server = Daemon::start(command);
    for (tool, arguments) in
        [("ai_insights", json!({})), ("contextual_analysis", json!({"query": "What fails?"}))]
    {
        let content = call(&server, tool, arguments);
        assert_eq!(content["by"], "rules", "{content}");
        assert!(content["text"].as_str().unwrap().contains("repeated_failures"), "{content}");
    }
    assert!(endpoint.asked().is_empty() && open_world(&server).is_empty());
    server.stop();
}

#[test]
fn the_model_of_the_configuration_answers_by_the_tools_of_this_server() {
    let directory = Directory::new("asked");
    let endpoint = Endpoint::new(vec![
        calls(&[("get_network_summary", "{\"process_name\":\"curl\"}")]),
        says("All 6 attempts of curl were refused."),
        says("curl: 6 refused."),
    ]);
    let server = directory.start(&["--config", &directory.config("test-model", &endpoint, "")]);
    let said = server.beginning.join("\n");
    assert!(said.contains("ask test-model at http://127.0.0.1:"), "{said}");
    assert!(said.contains("what it is told stays on this host") && !said.contains(KEY), "{said}");
    let content = answer(question(&server))["structuredContent"].clone();
    assert_eq!(content["text"], "All 6 attempts of curl were refused.", "{content}");
    assert_eq!((&content["by"], &content["tool_calls"]), (&json!("model test-model"), &json!(1)));
    assert_eq!(content.get("unsupported_figures"), None, "{content}");
    let content = call(&server, "ai_insights", json!({"summary_text": "curl fails"}));
    assert_eq!(content["text"], "curl: 6 refused.", "{content}");
    let asked = endpoint.asked();
    assert_eq!(asked.len(), 3);
    for request in &asked {
        assert!(request.head.contains(&format!("Bearer {KEY}")) && !request.text.contains(KEY));
        // Redacted as for the command line.
        assert!(!request.text.contains("\"ann\"") && !request.text.contains("--secret"));
    }
    let summary: Value = serde_json::from_str(&asked[1].said_by("tool")[0]).unwrap();
    assert_eq!(summary["total"], 6);
    // The model is on this host.
    assert!(open_world(&server).is_empty());
    server.stop();
}

#[test]
fn clients_are_told_where_answers_leave_this_host() {
    let directory = Directory::new("world");
    let mut command = directory.command(&["--model-base", "https://192.0.2.1/v1"]);
    // Flag, variable and file are one.
    command.env("NETSPY_MODEL", "test-model").env("OPENAI_API_KEY", KEY);
    let server = Daemon::start(command);
    let said = server.beginning.join("\n");
    assert!(said.contains("test-model at https://192.0.2.1/v1 with the key of OPENAI_API_KEY"));
    assert!(said.contains("leaves this host"), "{said}");
    assert_eq!(open_world(&server), ["ai_insights", "contextual_analysis"]);
    server.stop();
}

#[test]
fn where_the_model_fails_rules_answer_and_say_why() {
    let directory = Directory::new("fails");
    let endpoint = Endpoint::new(vec![error(401, &format!("wrong key {KEY}"))]);
    let server = directory.start(&["--config", &directory.config("test-model", &endpoint, "")]);
    let content = answer(question(&server))["structuredContent"].clone();
    assert_eq!(content["by"], "rules", "{content}");
    let note = content["note"].as_str().unwrap();
    assert!(note.starts_with("by rules, since the model failed: ") && !note.contains(KEY));
    assert!(content["text"].as_str().unwrap().contains("repeated_failures"), "{content}");
    let line = server.says("the model gave no answer");
    assert!(!line.contains(KEY), "{line}");
    server.stop();
}

#[test]
fn a_model_that_is_silent_holds_up_nothing_else() {
    let directory = Directory::new("silent");
    let endpoint = Endpoint::new(vec![events_of(": wait\n\n").hang()]);
    let config = directory.config("test-model", &endpoint, "timeout = 4\n");
    let server = directory.start(&["--config", &config]);
    let started = Instant::now();
    let waiting: Vec<_> = (0..4).map(|_| question(&server)).collect();
    while endpoint.asked().len() < 4 {
        assert!(started.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    // The next one is not asked, and not kept waiting.
    let content = answer(question(&server))["structuredContent"].clone();
    let note = content["note"].as_str().unwrap();
    assert!(note.contains("is being asked 4 questions already"), "{content}");
    assert_eq!((&content["by"], endpoint.asked().len()), (&json!("rules"), 4));
    assert_eq!(call(&server, "get_network_summary", json!({}))["total"], 6);
    assert_eq!(server.json("/api/v1/summary")["total"], 6);
    for stream in waiting {
        let content = answer(stream)["structuredContent"].clone();
        assert_eq!(content["by"], "rules", "{content}");
        let note = content["note"].as_str().unwrap();
        assert!(note.contains("4 s"), "{note}");
    }
    // There is room again; and what still waits for an answer does not keep the server.
    let _left = question(&server);
    while endpoint.asked().len() < 5 {
        assert!(started.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    server.stop();
}

#[test]
fn sighup_exchanges_the_model_and_its_key_unless_something_is_wrong() {
    let directory = Directory::new("reload");
    let (one, other) = (Endpoint::new(vec![says("One.")]), Endpoint::new(vec![says("Other.")]));
    let config = directory.config("model-1", &one, "");
    let server = directory.start(&["--config", &config]);
    let by = || answer(question(&server))["structuredContent"]["by"].clone();
    assert_eq!(by(), "model model-1");
    directory.config("model-2", &other, "");
    directory.write("key", "sk-another-key");
    let line = server.reload("reloaded");
    assert!(line.contains("changed: model, model-base"), "{line}");
    assert_eq!(by(), "model model-2");
    assert!(other.asked()[0].head.contains("Bearer sk-another-key"));
    // What is wrong changes nothing.
    let key = directory.0.join("key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let line = server.reload("stays as it was");
    assert!(line.contains("chmod 600") && !line.contains("sk-another"), "{line}");
    assert_eq!(by(), "model model-2");
    // Nobody named: nobody asked.
    directory.write("server.toml", "");
    let line = server.reload("reloaded");
    assert!(line.contains("changed: model, model-base, model-key-file"), "{line}");
    assert_eq!(by(), "rules");
    server.stop();
}

#[test]
fn check_tells_which_model_is_asked_and_what_is_wrong_with_it() {
    let directory = Directory::new("check");
    let (code, text) = directory.check(&[]);
    assert!(code == Some(0) && text.contains("\nmodel: none is named, fixed rules answer\n"));
    let key = directory.0.join("key");
    let key = key.to_str().unwrap();
    let (code, text) = directory.check(&["--model", "m", "--model-key-file", key]);
    let says = format!(
        "\nmodel: m at https://api.openai.com/v1 with the key of {key}; what it is told leaves this \
         host\n"
    );
    assert!(code == Some(0) && text.contains(&says), "{text}");
    let empty = directory.write("empty", "\n");
    let open = directory.write("open", KEY);
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o640)).unwrap();
    for (arguments, says) in [
        (&["--model", "m"][..], "name a file that holds it with model-key-file"),
        (
            &["--model", "m", "--model-key-file", "/nonexistent/key"],
            "/nonexistent/key: No such file",
        ),
        (&["--model", "m", "--model-key-file", &empty], "holds no key"),
        (&["--model", "m", "--model-key-file", &open], "chmod 600"),
        (&["--model", "m", "--model-base", "https://u:sk-test@x/v1"], "not into the URL"),
        (&["--model-timeout", "0"], "--model-timeout"),
    ] {
        let (code, text) = directory.check(arguments);
        assert!(code == Some(2) && text.contains(says), "{arguments:?}: {text}");
        assert!(!text.contains("sk-test"), "{text}");
    }
}
