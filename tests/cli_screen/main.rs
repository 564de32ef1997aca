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

use common::records::ago;
use netspy::Connection;

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
