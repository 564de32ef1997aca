//! The shell on a terminal: completion, history, and Ctrl-C.

use netspy::Connection;

use super::cli_support::pty::Terminal;
use super::common::records::{established, info};
use super::{ago, server};

const PROMPT: &str = "netspy-mcp> ";

fn seen(pid: u32, comm: &str) -> Connection {
    ago(1, established(pid.into(), &info(pid, comm)))
}

#[tokio::test(flavor = "multi_thread")]
async fn tab_completes_commands_options_and_the_names_that_the_server_has_seen() {
    let server = server(vec![
        seen(101, "backupd"),
        seen(102, "tmux: server"),
        // Names that nobody could type are not offered.
        seen(103, "back\u{1b}[31m"),
    ])
    .await;
    let args = format!("--server http://{}", server.address);
    let Some(mut terminal) = Terminal::start(100, 24, &args, &[]) else { return };
    terminal.wait_for(PROMPT);
    terminal.send("conn\t");
    terminal.wait_for("netspy-mcp> connections ");
    terminal.send("--proc\t");
    terminal.wait_for("netspy-mcp> connections --process ");
    terminal.send("bac\t");
    terminal.wait_for("netspy-mcp> connections --process backupd ");
    terminal.send("--process tm\t\r");
    terminal.wait("both of them", |text| {
        text.contains("backupd[101]") && text.contains("tmux: server[102]")
    });
    // The line before.
    terminal.wait("the next prompt", |text| text.trim_end().ends_with(PROMPT.trim_end()));
    terminal.send("\x1b[A");
    terminal.wait("the line before", |text| {
        text.lines()
            .last()
            .is_some_and(|l| l.contains("--process backupd --process 'tmux: server'"))
    });
    terminal.send("\x15quit\r");
    assert_eq!(terminal.end().0, 0);
}

#[test]
fn control_c_ends_the_command_and_not_the_shell() {
    // It takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let args = format!("--server http://{}", silent.local_addr().unwrap());
    let Some(mut terminal) = Terminal::start(80, 24, &args, &[]) else { return };
    terminal.wait_for(PROMPT);
    for command in ["status", "watch"] {
        terminal.send(&format!("{command}\r"));
        let asked = silent.accept().unwrap();
        terminal.send("\x03");
        terminal.wait("the next prompt", |text| {
            text.contains(&format!("> {command}")) && text.trim_end().ends_with("netspy-mcp>")
        });
        drop(asked);
    }
    terminal.send("\x03");
    terminal.wait("a prompt more", |text| text.matches("netspy-mcp>").count() == 4);
    terminal.send("quit\r");
    let (code, text) = terminal.end();
    assert_eq!(code, 0);
    assert!(text.contains("cancelled") && text.contains("Goodbye!"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_full_screen_comes_and_goes_within_the_shell() {
    let server = server(vec![seen(101, "backupd")]).await;
    let args = format!("--server http://{}", server.address);
    let Some(mut terminal) = Terminal::start(80, 24, &args, &[]) else { return };
    terminal.wait_for(PROMPT);
    for _ in 0..2 {
        terminal.send("top\r");
        terminal.wait("the view", |text| text.contains("ATTEMPTS") && text.contains("backupd"));
        assert!(terminal.is_full_screen());
        terminal.send("q");
        terminal.wait("the shell", |text| {
            !text.contains("ATTEMPTS") && text.trim_end().ends_with("netspy-mcp>")
        });
    }
    terminal.send("quit\r");
    let (code, text) = terminal.end();
    assert_eq!(code, 0);
    assert!(text.contains("Goodbye!"), "{text}");
}

#[test]
fn whoever_waits_for_more_than_a_second_is_told_for_what() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("http://{}", silent.local_addr().unwrap());
    let args = format!("list --server {place}");
    let Some(mut terminal) = Terminal::start(100, 24, &args, &[]) else { return };
    terminal.wait_for(&format!("netspy: waiting for server {place} for 2 s"));
    terminal.send("\x03");
    terminal.end();
    // The answer takes the place of the words.
    let Some(mut terminal) = Terminal::start(100, 24, &format!("--server {place}"), &[]) else {
        return;
    };
    terminal.wait_for(PROMPT);
    terminal.send("status\r");
    terminal.wait_for("for 1 s");
    terminal.send("\x03");
    let text = terminal.wait_for("cancelled");
    assert!(!text.contains("waiting for"), "{text}");
}
