//! Embeds the stream in a tokio service: one task takes records, another reports, and SIGTERM or
//! Ctrl-C ends capture, after which what was captured is still read to its end. Needs root.

use std::collections::BTreeMap;
use std::time::Duration;

use netspy::ConnectionStream;
use netspy::event::{Connection, Outcome};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Loading programs blocks for a moment, the service need not.
    let stream = tokio::task::spawn_blocking(|| ConnectionStream::builder().start()).await??;
    let handle = stream.handle();
    let (failures, inbox) = mpsc::channel(1024);
    let reader = tokio::spawn(read(stream, failures));
    let reporter = tokio::spawn(report(inbox));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // The reader gets the rest and then the end, which ends the reporter in its turn.
    handle.stop();
    let records = reader.await?;
    reporter.await?;
    let books = handle.accounting();
    println!("{records} records; attempts {}, delivered {}", books.attempts, books.delivered);
    Ok(())
}

/// Takes records in batches: at high rates that is much cheaper than one by one.
async fn read(mut stream: ConnectionStream, failures: mpsc::Sender<Connection>) -> usize {
    let mut records = 0;
    while let Some(batch) = stream.next_batch().await {
        records += batch.len();
        let bad = [Outcome::Refused, Outcome::TimedOut, Outcome::Unreachable, Outcome::Denied];
        for connection in batch.into_iter().filter(|c| bad.contains(&c.outcome)) {
            // A full channel makes this task wait, the kernel's ring fills, and what is then lost
            // is counted: nothing grows without bound.
            if failures.send(connection).await.is_err() {
                return records;
            }
        }
    }
    records
}

/// Says every few seconds who fails, and how.
async fn report(mut inbox: mpsc::Receiver<Connection>) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    let mut failures: BTreeMap<(String, Outcome), u64> = BTreeMap::new();
    loop {
        let open = tokio::select! {
            connection = inbox.recv() => {
                if let Some(connection) = &connection {
                    let process = connection.process.as_ref().map_or("?", |p| &p.comm).to_owned();
                    *failures.entry((process, connection.outcome)).or_default() += 1;
                }
                connection.is_some()
            }
            _ = tick.tick() => true,
        };
        if !open || inbox.is_empty() {
            for ((process, outcome), count) in std::mem::take(&mut failures) {
                println!("{process}: {count} {outcome}");
            }
        }
        if !open {
            return;
        }
    }
}
