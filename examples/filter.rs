//! Filters in the kernel: what is left out costs neither an event nor a wake-up, and is counted.
//! Needs root.
//!
//! `cargo run --example filter -- 443` shows ten attempts to that remote port.

use netspy::ConnectionStream;
use netspy::stream::Builder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "443".to_owned()).parse()?;
    // Any value of one member may match; all members that are set must.
    let filter = Builder {
        only_port: vec![port],
        no_loopback: true,
        no_unix: true,
        ..ConnectionStream::builder()
    };
    let mut stream = filter.start()?;
    for connection in stream.by_ref().take(10) {
        let process = connection.process.as_ref().map_or("?", |p| &p.comm);
        let remote = connection.remote.as_ref().map(|r| r.ip.to_string());
        println!("{process} -> {}: {}", remote.unwrap_or_default(), connection.outcome);
    }
    let books = stream.accounting();
    println!("{} attempts, {} of them filtered out", books.attempts, books.filtered);
    Ok(())
}
