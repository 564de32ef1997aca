//! What is different on a terminal. `script` (util-linux) provides one.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)]

mod cli_support;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use cli_support::pty::Terminal;
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

#[test]
fn watch_pauses_and_takes_a_filter_while_it_runs() {
    let named = |n, comm: &str| {
        let mut record = connection(n, comm, "refused");
        record["time"] = serde_json::json!(jiff::Timestamp::now());
        record
    };
    let stream = event(1, &named(1, "first")) + &event(2, &named(2, "second"));
    let server = Server::tcp(&[(STREAM, events(stream))]);
    let args = format!("watch --process first --server {}", server.url);
    let Some(mut terminal) = Terminal::start(80, 24, &args, &[]) else { return };
    terminal.wait("both lines", |t| t.contains("first[1001]") && t.contains("second[1002]"));
    assert!(terminal.modes().contains("-icanon") && terminal.modes().contains("-echo "));
    terminal.send(" ");
    terminal.wait_for("-- paused, 0 lines held");
    // The server tells its two again to whoever asks anew.
    terminal.send("/process:x\\");
    terminal.wait_for("filter: process:x");
    terminal.send("\x15port:0x\r");
    terminal.wait_for("port: '0x'");
    terminal.send("\x15process:second\r");
    terminal.wait_for("-- paused, 2 lines held");
    terminal.send(" ");
    terminal.wait("what was held", |t| t.matches("second[1002]").count() == 2);
    let asked = server.asked();
    let streams: Vec<&String> = asked.iter().filter(|path| path.contains("/stream")).collect();
    assert!(streams[0].contains("process=first") && streams[1].contains("process=second"));
    assert_eq!(streams.len(), 2, "{streams:?}");
    terminal.send("q");
    let (code, text) = terminal.end();
    assert_eq!(code, 0);
    assert!(text.contains("4 lines in") && text.contains("-- filter: process:second --"), "{text}");
}

#[test]
fn watch_fits_a_terminal_that_becomes_another_size_and_leaves_it_as_it_was() {
    let record = connection(1, "a-process-name-x", "refused");
    let server = Server::tcp(&[(STREAM, events(event(1, &record)))]);
    let line = format!(
        "\"$NETSPY\" watch --server {} & echo $! > $XDG_STATE_HOME/pid; wait $!",
        server.url
    );
    // In the background keys are for somebody else.
    let Some(terminal) = Terminal::start_shell(80, 24, &line, &[]) else { return };
    terminal.wait_for("a-process-name-x[1001]");
    terminal.signal("TERM");
    terminal.wait_for("1 lines in");

    let line = format!("\"$NETSPY\" watch --server {}; echo code=$?; stty -a", server.url);
    let Some(mut terminal) = Terminal::start_shell(80, 24, &line, &[]) else { return };
    let narrow = terminal.wait_for("a-process-name-x[1001]");
    assert!(!narrow.contains("ERROR"), "{narrow}");
    terminal.resize(200, 50);
    terminal.wait("titles again, with a column more", |t| t.contains("ERROR"));
    terminal.send("\x03");
    let (_, text) = terminal.end();
    assert!(text.contains("code=0"), "{text}");
    let modes: Vec<&str> = text.split_whitespace().collect();
    assert!(modes.contains(&"icanon") && modes.contains(&"echo"), "{text}");
}

#[test]
fn without_a_terminal_to_type_at_watch_leaves_the_modes_alone() {
    let server = Server::tcp(&[(STREAM, events(event(1, &connection(1, "curl", "refused"))))]);
    let args = format!("watch --server {} < /dev/null", server.url);
    let Some(mut terminal) = Terminal::start(80, 24, &args, &[]) else { return };
    terminal.wait_for("curl[1001]");
    assert!(terminal.modes().contains(" icanon"), "{}", terminal.modes());
    terminal.send("\x03");
    assert_eq!(terminal.end().0, 0);
}
