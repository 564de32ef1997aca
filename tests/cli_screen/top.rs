//! `netspy top` over the whole screen.

use std::sync::Arc;

use netspy::Connection;
use netspy::event::{Container, ProcessInfo};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::cli_support::pty::Terminal;
use super::common;
use super::common::records::{established, info, refused, unix};
use super::{add, ago, fits, server, wide_records};

fn process(pid: u32, comm: &str) -> Arc<ProcessInfo> {
    info(pid, comm)
}

/// Two processes: one with three attempts, of which two failed, and one with one.
fn records() -> Vec<Connection> {
    let (curl, wget) = (process(101, "curl"), process(102, "wget"));
    vec![
        ago(50, refused(1, &curl)),
        ago(40, refused(2, &curl)),
        ago(30, established(3, &curl)),
        ago(20, established(4, &wget)),
    ]
}

fn top(server: &common::Server, columns: u16, rows: u16, args: &str) -> Option<Terminal> {
    let args = format!("top --server http://{} {args}", server.address);
    Terminal::start(columns, rows, &args, &[])
}

fn line_with<'a>(screen: &'a str, part: &str) -> &'a str {
    screen.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part} in {screen}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_is_a_key_away_and_enter_leads_from_a_process_to_one_record() {
    let server = server(records()).await;
    let Some(mut terminal) = top(&server, 80, 24, "") else { return };
    let screen = terminal.wait_for("q quit");
    assert!(terminal.is_full_screen());
    assert!(screen.contains("4 attempts") && screen.contains("2 processes"), "{screen}");
    assert!(screen.contains("Attempts per minute"), "{screen}");
    let curl = line_with(&screen, "curl");
    assert!(curl.contains('3') && curl.contains("refused 2, established 1"), "{curl}");
    terminal.send("2");
    terminal.wait_for("192.0.2.1");
    terminal.send("3");
    terminal.wait("port 443", |text| text.contains("PORT") && text.contains("443"));
    terminal.send("5");
    terminal.wait("outcomes", |text| text.contains("OUTCOME ") && !text.contains("PORT "));
    terminal.send("6");
    terminal.wait_for("wget[102]");
    // The first process is curl: the one with the most attempts.
    terminal.send("1");
    // A key is for the rows that are there.
    terminal.wait("processes", |text| text.contains("ATTEMPTS") && text.contains("curl  "));
    terminal.send("\r");
    terminal.wait_for("Filter: process:curl");
    let screen = terminal.wait("its connections", |text| {
        text.matches("curl[101]").count() == 3 && !text.contains("ATTEMPTS")
    });
    assert!(!screen.contains("wget"), "{screen}");
    terminal.send("\r");
    let screen = terminal.wait_for("Executable");
    assert!(line_with(&screen, "Executable").contains("/usr/bin/curl"), "{screen}");
    // Back from the record, and from the process.
    terminal.send("\x1b");
    terminal.wait("the list", |text| !text.contains("Executable"));
    terminal.send("\x7f");
    terminal.wait("all processes", |text| text.contains("wget") && !text.contains("Filter"));
    terminal.send("?");
    terminal.wait_for("Ctrl-Z");
    terminal.send("x");
    terminal.wait("the help is gone", |text| !text.contains("Ctrl-Z"));
    terminal.send("q");
    let (code, _) = terminal.end();
    assert_eq!(code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_meanwhile_is_shown_and_a_pause_holds_it_back() {
    let server = server(records()).await;
    let Some(mut terminal) = top(&server, 80, 24, "") else { return };
    terminal.wait_for("4 attempts");
    add(&server, vec![ago(0, established(5, &process(103, "newcomer")))]);
    terminal
        .wait("the new process", |text| text.contains("newcomer") && text.contains("5 attempts"));
    terminal.send("p");
    terminal.wait_for("PAUSED");
    add(&server, vec![ago(0, established(6, &process(104, "latecomer")))]);
    // Another list is of the paused time, too.
    terminal.send("6");
    let screen = terminal.wait_for("newcomer[103]");
    assert!(!screen.contains("latecomer") && screen.contains("5 attempts"), "{screen}");
    terminal.send("p");
    let screen = terminal.wait_for("latecomer[104]");
    assert!(!screen.contains("PAUSED"), "{screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_works_while_it_is_typed_and_says_what_it_cannot_read() {
    let server = server(records()).await;
    let Some(mut terminal) = top(&server, 100, 24, "") else { return };
    terminal.wait_for("wget");
    terminal.send("/wge");
    terminal.wait("wget alone", |text| text.contains("1 attempt ") && !text.contains("curl  "));
    // Ctrl-U: from the start.
    terminal.send("\x15outcome:refus");
    terminal.wait_for("outcome: 'refus'");
    terminal.send("ed\r");
    terminal.wait("failures alone", |text| {
        text.contains("Filter: outcome:refused") && text.contains("2 attempts")
    });
    // Typed and not kept.
    terminal.send("/ port:1");
    terminal.wait_for("No connections match.");
    terminal.send("\x1b");
    terminal.wait_for("2 attempts");
    terminal.send("\x1b");
    terminal.wait("no filter", |text| text.contains("4 attempts") && text.contains("wget"));
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_filter_is_none_is_said_whole_on_a_small_screen() {
    let server = server(records()).await;
    let Some(mut terminal) = top(&server, 80, 24, "") else { return };
    terminal.wait_for("wget");
    terminal.send("/outcome:refus");
    let screen = terminal.wait("what would be right", |text| {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        words.contains("outcome: 'refus'") && words.contains("listening, unsuccessful)")
    });
    fits(&screen, 80);
    terminal.send("ed");
    terminal
        .wait("failures alone", |text| text.contains("2 attempts") && !text.contains("accepted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_says_what_it_leaves_out_and_how_it_is_seen() {
    let unixer = process(105, "unixer");
    let unixes = (0..7).map(|n| ago(60, unix(n, &unixer, "/run/no-such.sock"))).collect();
    let server = server(unixes).await;
    let Some(mut terminal) = top(&server, 80, 24, "") else { return };
    let screen = terminal.wait_for("Left out: 7 UNIX sockets (/ protocol:unix shows them).");
    assert!(screen.contains("No connections match."), "{screen}");
    // 1 min has none of them.
    terminal.send("--");
    terminal.wait_for("Left out outside this time: 7 UNIX sockets");
    terminal.send("/protocol:unix");
    terminal.wait("the sockets of another time", |text| {
        text.contains("The newest began") && !text.contains("Left out")
    });
    terminal.send("\r++");
    terminal.wait("the sockets", |text| text.contains("unixer") && !text.contains("Left out"));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_of_the_command_line_hold_and_can_be_typed_over() {
    let server = server(records()).await;
    let Some(mut terminal) = top(&server, 80, 24, "--process curl") else { return };
    let screen = terminal.wait_for("Filter: process:curl");
    assert!(screen.contains("3 attempts") && !screen.contains("wget"), "{screen}");
    terminal.send("/process:wget\r");
    terminal.wait("wget", |text| text.contains("1 attempt ") && text.contains("wget  "));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_in_the_order_that_was_chosen() {
    let server = server(records()).await;
    let Some(mut terminal) = top(&server, 80, 24, "") else { return };
    let first = |text: &str, name: &str| {
        let mut lines = text.lines().skip_while(|line| !line.contains("ATTEMPTS"));
        lines.nth(1).is_some_and(|line| line.starts_with(name))
    };
    terminal.wait("most attempts first", |text| first(text, "curl"));
    terminal.send("r");
    terminal.wait("fewest first", |text| first(text, "wget") && text.contains('▲'));
    // s: rate, failed, latest.
    terminal.send("sss");
    terminal.wait("latest first", |text| first(text, "wget") && text.contains("▼ latest"));
    terminal.send("s");
    terminal.wait("by name", |text| first(text, "curl") && text.contains("▼ name"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_window_is_used_and_a_tiny_one_survived() {
    let server = server(records()).await;
    let Some(mut terminal) = top(&server, 80, 24, "") else { return };
    terminal.wait_for("curl");
    terminal.resize(200, 50);
    // Beside the list: what curl is made of.
    let parts = ["REMOTES  3", "PORTS  1", "192.0.2.3:443", "refused             2  █"];
    terminal.wait("more about curl", |text| parts.iter().all(|part| text.contains(part)));
    for (columns, rows) in [(20, 5), (1, 1), (10, 50), (300, 3)] {
        terminal.resize(columns, rows);
        terminal.send("?");
        terminal.send("x");
        terminal.send("6");
        terminal.send("\r");
        terminal.send("\x7f");
        terminal.send("1");
    }
    terminal.resize(80, 24);
    terminal.wait("all is back", |text| text.contains("ATTEMPTS") && text.contains("wget"));
    terminal.send("q");
    assert_eq!(terminal.end().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_is_given_back_however_it_ends() {
    let server = server(records()).await;
    let url = format!("http://{}", server.address);
    let line = format!(
        "(sh -c 'echo $$ > \"$XDG_STATE_HOME\"/pid; exec \"$NETSPY\" top --server {url}'; \
         echo code=$?; stty -a)"
    );
    let ends = [("q", ""), ("\x03", ""), ("", "TERM"), ("", "INT"), ("", "HUP")];
    for (keys, signal) in ends {
        let Some(mut terminal) = Terminal::start_shell(80, 24, &line, &[]) else { return };
        terminal.wait_for("q quit");
        match signal {
            "" => terminal.send(keys),
            signal => terminal.signal(signal),
        }
        let (_, text) = terminal.end();
        assert!(text.contains("code=0"), "{text}");
        let words: Vec<&str> = text.split_whitespace().collect();
        for mode in ["icanon", "echo", "isig", "opost"] {
            assert!(words.iter().any(|w| w.trim_end_matches(';') == mode), "{mode} in {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_z_goes_to_the_shell_and_fg_comes_back() {
    let server = server(records()).await;
    let line = format!(
        "set -m; \"$NETSPY\" top --server http://{}; echo it is stopped; read -r answer; fg",
        server.address
    );
    let Some(mut terminal) = Terminal::start_shell(80, 24, &line, &[]) else { return };
    terminal.wait_for("q quit");
    terminal.send("\x1a");
    terminal.wait_for("it is stopped");
    assert!(!terminal.is_full_screen());
    terminal.send("\n");
    terminal.wait("the view again", |text| text.contains("Outcomes") && text.contains("curl"));
    assert!(terminal.is_full_screen());
    terminal.send("q");
    assert_eq!(terminal.end().0, 0);
}

/// A process in a container of a pod, and one in a container of its own.
fn contained() -> Vec<Connection> {
    let inside = |pid, comm: &str, id: &str, name: &str, pod: Option<&str>| {
        let mut info = ProcessInfo::clone(&process(pid, comm));
        let mut container = Container::new(id.repeat(32), "docker");
        container.name = Some(name.to_owned());
        container.pod = pod.map(str::to_owned);
        container.namespace = pod.map(|_| "shop".to_owned());
        info.container = Some(container.into());
        Arc::new(info)
    };
    let web = inside(201, "nginx", "0a", "web", Some("web-7d9f"));
    let db = inside(202, "postgres", "0b", "shop-db", None);
    vec![ago(9, refused(11, &web)), ago(8, established(12, &web)), ago(7, refused(13, &db))]
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_and_pods_are_lists_where_there_are_any() {
    let server = server(records()).await;
    let Some(mut terminal) = top(&server, 80, 24, "") else { return };
    let screen = terminal.wait_for("q quit");
    assert!(!screen.contains("Containers") && !screen.contains("Pods"), "{screen}");
    terminal.send("7");
    terminal.wait_for("PROCESS");
    add(&server, contained());
    let screen = terminal.wait("the new lists", |text| {
        text.contains("7 Containers") && text.contains("8 Pods") && text.contains("nginx")
    });
    fits(&screen, 80);
    terminal.send("7");
    let screen = terminal.wait_for("shop-db (0b0b0b0b0b0b)");
    assert!(line_with(&screen, "web (0a0a0a0a0a0a)").contains(" 2 "), "{screen}");
    terminal.send("8");
    let screen = terminal.wait_for("web-7d9f (shop)");
    assert!(!screen.contains("shop-db"), "{screen}");
    // The first container is the one with the most attempts.
    terminal.send("7");
    terminal.wait_for("shop-db (");
    terminal.send("\r");
    terminal.wait_for("Filter: container:0a0a0a0a0a0a");
    let screen = terminal.wait("its connections", |text| text.matches("nginx[201]").count() == 2);
    assert!(!screen.contains("postgres"), "{screen}");
    terminal.send("\r");
    let screen = terminal.wait_for("Executable");
    assert!(line_with(&screen, "Time ").contains(" s ago "), "{screen}");
    terminal.send("q");
    assert_eq!(terminal.end().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_is_told_of_and_what_it_said_stays() {
    let server = server(records()).await;
    let Some(mut terminal) = top(&server, 80, 24, "") else { return };
    terminal.wait_for("4 attempts");
    server.stop().await;
    let screen = terminal.wait_for("no answer from");
    assert!(screen.contains("NO ANSWER") && screen.contains("4 attempts"), "{screen}");
    terminal.send("q");
    assert_eq!(terminal.end().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_cannot_act_on_the_terminal() {
    let hostile = "\u{1b}[2Jx\u{202e}\u{9b}1m\n";
    let mut record = ago(5, established(1, &process(101, hostile)));
    record.remote.as_mut().unwrap().name = Some("a\u{1b}]0;title\u{7}b".into());
    let server = server(vec![record]).await;
    for (columns, rows) in [(80, 24), (200, 50)] {
        let Some(mut terminal) = top(&server, columns, rows, "") else { return };
        // The parser of the screen leaves out the characters that stand for others.
        terminal.wait_for("[2Jx");
        for (keys, shown) in [("2", "192.0.2.1"), ("6", "[101]"), ("\r", "Executable")] {
            terminal.send(keys);
            terminal.wait_for(shown);
        }
        terminal.send("\x7f1");
        terminal.wait("processes", |text| text.contains("ATTEMPTS") && text.contains("[2Jx"));
        // A process by its name, which then stands in the filter.
        terminal.send("\r");
        terminal.wait_for("Filter: ");
        terminal.send("q");
        let raw = terminal.raw();
        for sequence in ["\u{1b}[2Jx", "\u{202e}", "\u{9b}", "\u{1b}]0;title"] {
            assert!(!raw.contains(sequence), "{sequence:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_and_long_names_stay_in_their_columns() {
    let server = server(wide_records()).await;
    for (columns, rows) in [(80, 24), (200, 50)] {
        let Some(mut terminal) = top(&server, columns, rows, "") else { return };
        let screen = terminal.wait("all names", |text| {
            ["名前名前名", "日本語のプ", "[2Jx", "ignore pre"].iter().all(|n| text.contains(n))
        });
        fits(&screen, columns);
        // Each figure stands below its title, however wide the name before it.
        let titles = line_with(&screen, "ATTEMPTS");
        let end = titles[..titles.find("ATTEMPTS").unwrap()].width() + "ATTEMPTS▼".width();
        for name in ["名前名前名", "ignore pre"] {
            let line = line_with(&screen, name);
            let mut used = 0;
            let before = line.chars().take_while(|c| {
                used += c.width().unwrap_or(0);
                used <= end
            });
            assert!(before.collect::<String>().ends_with(" 1"), "{name}: {screen}");
        }
        for (keys, shown) in [("2", "192.0.2.1"), ("6", "[101]"), ("\r", "Esc closes")] {
            terminal.send(keys);
            fits(&terminal.wait_for(shown), columns);
        }
        terminal.send("qqq");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_its_terminal() {
    let server = server(records()).await;
    for keys in ["", "/curl", " ", "?"] {
        let Some(mut terminal) = top(&server, 80, 24, "") else { return };
        terminal.wait_for("Outcomes");
        terminal.send(keys);
        terminal.hang_up();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_is_printed_where_its_form_is_asked_for() {
    let server = server(records()).await;
    for args in ["--by remote", "--since 5m", "--output csv", "--limit 1"] {
        let Some(terminal) = top(&server, 80, 24, args) else { return };
        let (code, text) = terminal.end();
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("192.0.2.1") || text.contains("curl"), "{text}");
    }
}
