//! The tools over the Model Context Protocol: standard input and output, or streamable HTTP.
//!
//! Both eras are spoken: the handshake with `initialize` (up to 2025-11-25), and requests that stand
//! for themselves (2026-07-28, `server/discover`). Beside the tools there are resources that can be
//! watched, prompts for the usual investigations, and completion of names.

mod completion;
mod http;
mod lines;
mod live;
mod prompts;
mod resources;
mod server;
mod sessions;

use std::io;
use std::time::Duration;

use rmcp::ServiceExt;
use rmcp::transport::io::stdio_pipes;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use http::{MAX_BODY, PATH, maker, service};
pub use server::Mcp;

/// The connection to the client failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// The first words were not those of the protocol.
    #[error("the client on standard input does not speak MCP: {0}")]
    Opening(String),
    /// The task that serves it ended badly.
    #[error("serving MCP failed: {0}")]
    Serving(#[from] io::Error),
}

/// What is still under way when the client has closed its end gets so long to be answered: a client
/// that is a pipe may still read, one that is gone is not to keep the program.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Serves one client on standard input and output until it closes them, or `stopped`.
pub async fn serve_stdio(mcp: Mcp, stopped: impl Future<Output = ()>) -> Result<(), McpError> {
    let closed = CancellationToken::new();
    let left = async {
        closed.cancelled().await;
        sleep(LAST_ANSWERS).await;
    };
    // By itself, rmcp (3.11) waits five seconds for calls that nobody waits for any more.
    tokio::select! {
        served = converse(mcp, closed.clone()) => served,
        () = left => Ok(()),
        () = stopped => Ok(()),
    }
}

async fn converse(mcp: Mcp, closed: CancellationToken) -> Result<(), McpError> {
    use rmcp::service::ServerInitializeError::ConnectionClosed;
    let (read, write) = stdio_pipes();
    let running = match mcp.serve(lines::Lines::new(read, write, closed)).await {
        Ok(running) => running,
        // A client that only looked whether the program starts.
        Err(ConnectionClosed(_)) => return Ok(()),
        Err(error) => return Err(McpError::Opening(error.to_string())),
    };
    running.waiting().await.map_err(io::Error::other)?;
    Ok(())
}
