//! Completion of the command line in the shells themselves, each with the script that netspy prints.
//! A shell that is not installed is skipped.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli_support;
mod common;

use std::process::Command;

use cli_support::pty::Terminal;
use cli_support::{TempDir, netspy, run};
use common::records::{ago, established, info};
use common::server;

/// The script for a shell, in a file; `None`, and said, where there is no such shell.
fn script(shell: &str, file: &str) -> Option<(TempDir, String)> {
    let ran = run(&["completions", shell]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{shell}");
    if Command::new(shell).arg("--version").output().is_err() {
        println!("skipped: no {shell} to read its script");
        return None;
    }
    let dir = TempDir::new();
    let path = dir.path().join(file);
    std::fs::write(&path, &ran.out).unwrap();
    // What is typed is `netspy`.
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_netspy"), dir.path().join("netspy")).unwrap();
    let path = path.to_str().unwrap().to_owned();
    Some((dir, path))
}

/// What a shell that runs this line finds, line by line.
fn lines(shell: &str, dir: &TempDir, server: &str, line: &str) -> Vec<String> {
    let mut command = Command::new(shell);
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    command.env("PATH", path).env("NETSPY_SERVER", server).current_dir(dir.path());
    let args: &[&str] = if shell == "bash" { &["--norc", "-c", line] } else { &["-c", line] };
    let output = command.args(args).env("HOME", dir.path()).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}: {out}");
    out.lines().map(str::to_owned).collect()
}

/// A server that has seen these processes.
async fn seen() -> common::Server {
    let names = ["curl", "tmux: server", "a,b", "bad\u{1b}[31m"];
    let record = |(n, name)| ago(1, established(n, &info(101 + n as u32, name)));
    server((0..).zip(names).map(record).collect()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bash_completes_lists_names_and_what_is_run() {
    let Some((dir, script)) = script("bash", "netspy.bash") else { return };
    std::fs::write(dir.path().join("report.txt"), "").unwrap();
    let server = seen().await;
    let address = format!("http://{}", server.address);
    let cases: [(&str, &[&str]); 10] = [
        ("netspy su", &["summary"]),
        ("netspy list --outcome refused,ti", &["refused,timed_out"]),
        ("netspy list --outcome=refused,ti", &["refused,timed_out"]),
        ("netspy list --process cu", &["curl"]),
        ("netspy list --process tm", &["tmux:\\ server"]),
        // For the shell, and for netspy.
        ("netspy list --process a", &["a\\\\,b"]),
        ("netspy list --process bad", &[]),
        ("netspy run --report rep", &["report.txt"]),
        ("netspy run --output=json -- compg", &["compgen"]),
        ("netspy run -- cat rep", &["report.txt"]),
    ];
    let asked = tokio::task::spawn_blocking(move || {
        cases.map(|(typed, expected)| {
            // Words as bash cuts them, at white space and at =.
            let words = typed.replace('=', " = ");
            let line = format!(
                "source {script}; COMP_LINE='{typed}'; COMP_POINT=${{#COMP_LINE}}; \
                 COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _netspy; \
                 printf '%s\\n' \"${{COMPREPLY[@]}}\""
            );
            let found = lines("bash", &dir, &address, &line);
            let found: Vec<_> = found.into_iter().filter(|line| !line.is_empty()).collect();
            (typed, found, expected)
        })
    });
    for (typed, found, expected) in asked.await.unwrap() {
        assert_eq!(found, expected, "{typed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fish_completes_lists_names_and_what_is_run() {
    let Some((dir, script)) = script("fish", "netspy.fish") else { return };
    std::fs::write(dir.path().join("report.txt"), "").unwrap();
    let server = seen().await;
    let address = format!("http://{}", server.address);
    let cases = [
        ("netspy su", "summary"),
        ("netspy list --outcome refused,ti", "refused,timed_out"),
        ("netspy list --outcome=refused,ti", "--outcome=refused,timed_out"),
        ("netspy list --process cu", "curl"),
        ("netspy list --process tm", "tmux: server"),
        ("netspy list --process a", "a\\,b"),
        ("netspy run --report rep", "report.txt"),
        ("netspy run -- cat rep", "report.txt"),
    ];
    let asked = tokio::task::spawn_blocking(move || {
        cases.map(|(typed, expected)| {
            let line = format!("source {script}; complete -C '{typed}'");
            (typed, lines("fish", &dir, &address, &line), expected)
        })
    });
    for (typed, found, expected) in asked.await.unwrap() {
        let words: Vec<_> = found.iter().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(words, [expected], "{typed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zsh_completes_lists_names_and_what_is_run() {
    let Some((dir, script)) = script("zsh", "_netspy") else { return };
    std::fs::write(dir.path().join("report.txt"), "").unwrap();
    let server = seen().await;
    let address = format!("http://{}", server.address);
    let start = format!(
        "cd {place}; export PATH={place}:$PATH NETSPY_SERVER={address} HOME={place}; exec zsh -f -i",
        place = dir.path().display()
    );
    let Some(mut terminal) = Terminal::start_shell(120, 40, &start, &[]) else { return };
    terminal.send(&format!(
        "PS1='> '; autoload -Uz compinit; compinit -u -D; source {script}; echo rea''dy\r"
    ));
    terminal.wait_for("\nready");
    for (typed, completed) in [
        ("netspy su", "> netspy summary"),
        ("netspy list --outcome refused,ti", "--outcome refused,timed_out"),
        ("netspy list --outcome=refused,ti", "--outcome=refused,timed_out"),
        ("netspy list --process cu", "--process curl"),
        ("netspy list --process tm", "--process tmux:\\ server"),
        ("netspy list --process a", "--process a\\\\,b"),
        ("netspy run --report rep", "--report report.txt"),
        ("netspy run -- cat rep", "-- cat report.txt"),
    ] {
        terminal.send(&format!("{typed}\t"));
        terminal.wait_for(completed);
        terminal.send("\x15\x0c");
        terminal.wait("an empty line", |text| text.trim() == ">");
    }
    terminal.send("exit\r");
    assert_eq!(terminal.end().0, 0);
}

#[test]
fn a_shell_without_a_script_is_refused_and_what_scripts_call_is_not_in_the_help() {
    assert_eq!(run(&["completions", "tcsh"]).code, 2);
    assert!(!run(&["--help"]).out.contains("  complete "));
    // Without a server there are no names, and no word about it.
    let mut command =
        netspy(&["complete", "--shell", "fish", "--", "netspy", "list", "--outcome", "ref"]);
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "words\nrefused\t\n");
    assert!(output.stderr.is_empty());
}
