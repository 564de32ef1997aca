//! Prints every connection attempt of this host. Needs root.

use netspy::ConnectionStream;

fn main() -> Result<(), netspy::CaptureError> {
    for connection in ConnectionStream::builder().start()? {
        let process = connection.process.as_ref().map_or("?", |p| &p.comm);
        let remote = connection.remote.as_ref().map(|r| format!("{}:{}", r.ip, r.port));
        println!("{process} -> {}: {}", remote.unwrap_or_default(), connection.outcome);
    }
    Ok(())
}
