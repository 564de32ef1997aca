//! `netspy watch` on a terminal.

use super::cli_support::pty::Terminal;
use super::common::records::{established, info, refused, unix};
use super::{add, ago, fits, server, wide_records};

#[tokio::test(flavor = "multi_thread")]
async fn it_pauses_and_takes_a_filter_while_it_runs() {
    let server = server(Vec::new()).await;
    let args = format!("watch --process first --server http://{}", server.address);
    let Some(mut terminal) = Terminal::start(80, 24, &args, &[]) else { return };
    let (first, second) = (info(1, "first"), info(2, "second"));
    // Whoever has seen the titles may still be about to follow.
    terminal.wait_for("PROCESS");
    add(&server, vec![ago(0, refused(1, &first)), ago(0, refused(2, &second))]);
    let text = terminal.wait_for("first[1]");
    assert!(!text.contains("second"), "{text}");
    for mode in ["-icanon", "-echo", "isig", "opost"] {
        assert!(terminal.has_mode(mode), "{mode}");
    }
    terminal.send(" ");
    terminal.wait_for("-- paused, 0 lines held");
    add(&server, vec![ago(0, established(3, &first))]);
    let text = terminal.wait_for("-- paused, 1 line held");
    assert!(!text.contains("established"), "{text}");
    terminal.send("p");
    let text = terminal.wait_for("established");
    assert!(!text.contains("paused"), "{text}");
    // Not a filter, then one that takes the place of the command line's.
    terminal.send("/port:0x\r");
    terminal.wait_for("port: '0x'");
    terminal.send("\x15process:second\r");
    terminal.wait_for("-- filter: process:second --");
    add(&server, vec![ago(0, established(4, &first)), ago(0, established(5, &second))]);
    let text = terminal.wait_for("second[2]");
    assert_eq!(text.matches("established").count(), 2, "{text}");
    terminal.send("?");
    terminal.wait("the keys", |text| text.matches("Space pauses").count() == 2);
    terminal.send("q");
    let (code, text) = terminal.end();
    assert_eq!(code, 0);
    assert!(text.contains("3 lines in"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_and_fits_no_filter_any_more_is_left_out_and_said_so() {
    let server = server(Vec::new()).await;
    let args = format!("watch --server http://{}", server.address);
    let Some(mut terminal) = Terminal::start(80, 24, &args, &[]) else { return };
    let (first, second) = (info(1, "first"), info(2, "second"));
    terminal.wait_for("PROCESS");
    terminal.send(" ");
    terminal.wait_for("-- paused, 0 lines held");
    add(&server, vec![ago(0, refused(1, &first)), ago(0, established(2, &second))]);
    terminal.wait_for("-- paused, 2 lines held");
    terminal.send("/process:second\r");
    terminal.wait_for("-- filter: process:second; 1 held line left out --");
    terminal.wait_for("-- paused, 1 line held");
    terminal.send(" ");
    let text = terminal.wait_for("second[2]");
    assert!(!text.contains("first[1]"), "{text}");
    terminal.send("q");
    let (_, text) = terminal.end();
    assert!(text.contains("1 line in") && !text.contains("1 refused"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_filter_is_none_is_said_whole() {
    let server = server(Vec::new()).await;
    let args = format!("watch --server http://{}", server.address);
    let Some(mut terminal) = Terminal::start(80, 24, &args, &[]) else { return };
    terminal.wait_for("PROCESS");
    terminal.send("/outcome:refus\r");
    terminal.wait("what would be right", |text| {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        words.contains("outcome: 'refus'")
            && words.contains("timed_out, unreachable,")
            && words.contains("listening, unsuccessful)")
    });
    // It is typed on.
    terminal.send("ed\r");
    terminal.wait_for("-- filter: outcome:refused --");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sees_nothing_is_told_what_is_left_out() {
    let server = server(Vec::new()).await;
    let args = format!("watch --server http://{}", server.address);
    let Some(mut terminal) = Terminal::start(80, 24, &args, &[]) else { return };
    terminal.wait_for("PROCESS");
    add(&server, vec![ago(0, unix(1, &info(1, "unixer"), "/run/no-such.sock"))]);
    terminal.wait_for("Left out: 1 UNIX socket (--all shows them).");
    terminal.send("q");
    let (code, text) = terminal.end();
    assert_eq!(code, 0);
    // Once while it ran, and once at the end.
    assert_eq!(text.matches("Left out: 1 UNIX socket").count(), 2, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fits_a_terminal_of_another_size_and_leaves_it_as_it_was() {
    let server = server(Vec::new()).await;
    let line = format!(
        "trap : INT; \"$NETSPY\" watch --server http://{}; echo code=$?; stty -a",
        server.address
    );
    let Some(mut terminal) = Terminal::start_shell(80, 24, &line, &[]) else { return };
    let narrow = terminal.wait_for("PROCESS");
    assert!(!narrow.contains("ERROR"), "{narrow}");
    terminal.resize(200, 50);
    terminal.wait("titles again, with a column more", |text| text.contains("ERROR"));
    terminal.send("\x03");
    let (_, text) = terminal.end();
    assert!(text.contains("code=0"), "{text}");
    let modes: Vec<&str> = text.split_whitespace().collect();
    assert!(modes.contains(&"icanon") && modes.contains(&"echo"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_for_somebody_else_are_left_alone() {
    let server = server(Vec::new()).await;
    let url = format!("http://{}", server.address);
    let lines = [
        format!("exec \"$NETSPY\" watch --server {url} < /dev/null"),
        format!("set -m; \"$NETSPY\" watch --server {url} & wait"),
    ];
    for line in lines {
        let Some(terminal) = Terminal::start_shell(80, 24, &line, &[]) else { return };
        let text = terminal.wait_for("PROCESS");
        assert!(!text.contains("Space pauses"), "{text}");
        assert!(terminal.has_mode("icanon") && terminal.has_mode("echo"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_and_long_names_take_one_line_each() {
    let server = server(Vec::new()).await;
    for (columns, rows) in [(80, 24), (200, 50)] {
        let args = format!("watch --server http://{}", server.address);
        let Some(mut terminal) = Terminal::start(columns, rows, &args, &[]) else { return };
        terminal.wait_for("PROCESS");
        let records = wide_records().into_iter().map(|mut record| {
            // Others at each size.
            record.id.start_ns += u64::from(columns) * 1_000_000;
            record
        });
        add(&server, records.collect());
        let parts = ["名前", "日本", "[2Jx", "ignore"];
        let screen = terminal.wait("all", |text| parts.iter().all(|part| text.contains(part)));
        fits(&screen, columns);
        for part in parts {
            let line = screen.lines().find(|line| line.contains(part)).unwrap();
            assert!(line.contains("refused"), "{part} in {screen}");
        }
        terminal.send("q");
        let (code, _, raw) = terminal.end_with_raw();
        assert_eq!(code, 0);
        for sequence in ["\u{1b}[2Jx", "\u{202e}", "\u{9b}"] {
            assert!(!raw.contains(sequence), "{sequence:?}");
        }
    }
}
