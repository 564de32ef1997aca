//! What is different on a terminal. `script` (util-linux) provides one.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)]

mod cli_support;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use cli_support::*;

/// Runs the binary on a terminal, gives it a line at each prompt, and returns what it showed;
/// `None` where there is no `script`.
fn on_a_terminal(args: &str, lines: &[&str], env: &[(&str, &str)]) -> Option<String> {
    let line = format!("stty cols 80; {} {args}", env!("CARGO_BIN_EXE_netspy"));
    let home = TempDir::new();
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    for name in ["NETSPY_SERVER", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm").env("TZ", "UTC").env("XDG_STATE_HOME", home.path());
    command.envs(env.iter().copied());
    let Ok(mut child) = command.spawn() else {
        eprintln!("skipped: no 'script' command to make a terminal");
        return None;
    };
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = Vec::new();
    for line in lines {
        // Line editors drop what was typed before they asked.
        let mut byte = [0];
        let from = shown.len();
        while !shown[from..].ends_with(b"netspy-mcp> ") && stdout.read(&mut byte).unwrap() > 0 {
            shown.push(byte[0]);
        }
        stdin.write_all(line.as_bytes()).unwrap();
    }
    stdout.read_to_end(&mut shown).unwrap();
    child.wait().unwrap();
    Some(String::from_utf8_lossy(&shown).replace("\r\n", "\n"))
}

fn server() -> Server {
    let mut record = connection(1, "a-process-name-x", "refused");
    record["time"] = serde_json::json!(jiff::Timestamp::now());
    record["remote"]["name"] = "a-very-long-host-name.in-a-very-long-domain.example.com".into();
    Server::tcp(&[(CONNECTIONS, json_answer(&list(&[record], 1)))])
}

#[test]
fn a_terminal_gets_colour_unless_no_color_is_set() {
    let server = server();
    let args = format!("list --server {}", server.url);
    let Some(colour) = on_a_terminal(&args, &[], &[]) else { return };
    assert!(colour.contains("\u{1b}[31mrefused\u{1b}[0m"), "{colour:?}");
    for env in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let plain = on_a_terminal(&args, &[], &[env]).unwrap();
        assert!(plain.contains("refused") && !plain.contains('\u{1b}'), "{plain:?}");
    }
    let plain = on_a_terminal(&args, &[], &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]).unwrap();
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
}

#[test]
fn a_table_fits_the_terminal_and_keeps_what_tells_the_most() {
    let server = server();
    let args = format!("list --server {}", server.url);
    let Some(text) = on_a_terminal(&args, &[], &[("NO_COLOR", "1")]) else { return };
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for part in ["[1001]", "refused", "ECONNREFUSED", "412 µs", "93.184."] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn the_shell_greets_prompts_and_says_goodbye() {
    let server = server();
    let args = format!("--server {}", server.url);
    let Some(text) = on_a_terminal(&args, &["list\r", "quit\r"], &[]) else { return };
    for part in ["Type 'help'", "netspy-mcp> ", "Recent connection events (1 total):", "Goodbye!"] {
        assert!(text.contains(part), "{part} in {text:?}");
    }
}
