//! Streamable HTTP: the service that a router carries under [`PATH`].

use std::io;
use std::sync::Arc;

use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Mcp;
use super::sessions::Sessions;
use crate::tools::AllTools;

/// Where the service is.
pub const PATH: &str = "/mcp";
/// The largest request.
pub const MAX_BODY: usize = 256 * 1024;

/// Pages that this host itself serves. A page of another origin is refused, whatever name it made
/// resolve to this address; programs send no origin.
const ORIGINS: [&str; 6] = [
    "http://localhost:*",
    "https://localhost:*",
    "http://127.0.0.1:*",
    "https://127.0.0.1:*",
    "http://[::1]:*",
    "https://[::1]:*",
];

/// A service that answers as what `make` makes does, one for each session or request, until
/// `stopping` becomes true. It checks `Origin`; the `Host` header and tokens are its router's to
/// check.
pub fn service<H: ServerHandler>(
    make: impl Fn() -> io::Result<H> + Send + Sync + 'static,
    mut stopping: watch::Receiver<bool>,
) -> StreamableHttpService<H, Sessions> {
    let ended = CancellationToken::new();
    let token = ended.clone();
    tokio::spawn(async move {
        // The sender being gone is an end, too.
        let _ = stopping.wait_for(|stopping| *stopping).await;
        token.cancel();
    });
    let config = StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .with_allowed_origins(ORIGINS)
        .with_max_request_body_bytes(MAX_BODY)
        .with_cancellation_token(ended);
    StreamableHttpService::new(make, Arc::default(), config)
}

/// Makes what answers with these tools.
pub fn maker(tools: Arc<AllTools>) -> impl Fn() -> io::Result<Mcp> + Send + Sync + 'static {
    move || Ok(Mcp::new(Arc::clone(&tools)))
}
