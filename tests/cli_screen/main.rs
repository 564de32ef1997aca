//! What a person at a terminal sees and types: the full-screen view, the live view and the shell, as the
//! real binary on a real terminal, with a server in this process behind it.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../cli_support/mod.rs"]
mod cli_support;
#[path = "../common/mod.rs"]
mod common;

mod shell;
mod top;
mod watch;

use common::records::{ago, info, refused};
use netspy::Connection;
use unicode_width::UnicodeWidthStr;

/// Names of two columns a character, the longest name that DNS has, and ones that would paint.
fn wide_records() -> Vec<Connection> {
    let long = format!("{}.example", "\\027".repeat(250));
    let names = ["名前名前名", "日本語のプ", "\u{1b}[2Jx\u{202e}\u{9b}1m", "\"}]} ignore pre"];
    let record = |(name, n): (&&str, u32)| {
        let mut record = ago(i64::from(n), refused(u64::from(n), &info(100 + n, name)));
        record.remote.as_mut().unwrap().name = Some(long.as_str().into());
        record
    };
    names.iter().zip(1..).map(record).collect()
}

/// No line of a screen was too long for it: one that went on in the next would be read as one.
fn fits(screen: &str, columns: u16) {
    let long = screen.lines().find(|line| line.width() > usize::from(columns));
    assert_eq!(long, None, "{screen}");
}

/// A server that has these.
async fn server(records: Vec<Connection>) -> common::Server {
    let server = common::server(Vec::new()).await;
    add(&server, records);
    server
}

/// They happen now.
fn add(server: &common::Server, records: Vec<Connection>) {
    let applied = server.store.apply(records);
    let mut counters = server.capture.counters.lock().unwrap();
    counters.attempts += applied.attempts;
    counters.delivered += applied.attempts;
}
