//! REST over the query layer: the compatible endpoints under `/api`, and `/api/v1`; and `/mcp`.

mod compat;
mod event;
mod guard;
mod mcp;
mod metrics;
mod openapi;
mod problem;
mod revoked;
mod routes;
mod stream;
mod token;
mod v1;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
pub use mcp::alone as mcp_alone;
pub use metrics::http::HttpFigures;
use routes::Class;
pub use token::{TokenError, Tokens};
use tokio::sync::{Semaphore, watch};
use tower_http::compression::{CompressionLayer, CompressionLevel};

use crate::event::{Connection, Process, ProcessInfo};
use crate::store::LocalSource;
use crate::tools::{Advisor, AllTools, RuleBased};

/// How a request came in, which decides what it may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP on a loopback address: every user of the host can connect, so command lines are
    /// withheld, and the Host header must name this host.
    Loopback,
    /// TCP, from clients that have shown a token.
    Token,
    /// The UNIX socket, whose file permissions say who may connect.
    Unix,
}

/// Streams that are open at a time.
pub const MAX_STREAMS: usize = 64;
/// The most memory that answers on their way to clients take; those who read slowly hold theirs.
const MAX_ANSWERS_KIB: u32 = 128 << 10;
/// Questions that are answered at a time; others wait.
const MAX_QUESTIONS: usize = 8;

/// What the endpoints share.
#[derive(Debug, Clone)]
pub struct Api {
    source: LocalSource,
    streams: Arc<Semaphore>,
    max_streams: usize,
    questions: Arc<Semaphore>,
    /// Room for answers on their way to clients, in KiB.
    answers: Arc<Semaphore>,
    figures: Arc<HttpFigures>,
    /// Who may ask over TCP; everybody who can connect, if there are none.
    tokens: Option<Arc<Tokens>>,
    /// Becomes true when the server stops, which ends streams.
    stopping: watch::Receiver<bool>,
    /// What `/mcp` offers.
    tools: Arc<AllTools>,
    /// Look-ups in databases of countries and networks that failed, where there are any.
    geoip_failures: Option<Arc<AtomicU64>>,
}

impl Api {
    /// Endpoints that answer from this source, until `stopping` becomes true.
    pub fn new(source: LocalSource, stopping: watch::Receiver<bool>) -> Self {
        let advised = Arc::new(source.clone());
        Api {
            source,
            tools: Arc::new(AllTools::new(advised, Arc::new(RuleBased))),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            max_streams: MAX_STREAMS,
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            answers: Arc::new(Semaphore::new(MAX_ANSWERS_KIB as usize)),
            figures: Arc::default(),
            tokens: None,
            geoip_failures: None,
            stopping,
        }
    }

    /// As many streams at a time.
    pub fn with_max_streams(mut self, streams: usize) -> Self {
        self.max_streams = streams;
        self.streams = Arc::new(Semaphore::new(streams));
        self
    }

    /// Those who come over TCP have to show one of these tokens.
    pub fn with_tokens(mut self, tokens: Arc<Tokens>) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Where look-ups in databases of countries and networks that fail are counted.
    pub fn with_geoip_failures(mut self, failures: Arc<AtomicU64>) -> Self {
        self.geoip_failures = Some(failures);
        self
    }

    /// Whom the tools of `/mcp` that interpret ask, rather than fixed rules.
    pub fn with_advisor(mut self, advisor: Arc<dyn Advisor>) -> Self {
        self.tools = Arc::new(AllTools::new(Arc::new(self.source.clone()), advisor));
        self
    }

    /// Where the figures of HTTP are kept.
    pub fn figures(&self) -> &Arc<HttpFigures> {
        &self.figures
    }

    /// The routes for requests that come in this way.
    pub fn router(&self, transport: Transport) -> Router {
        let limit = || axum::middleware::from_fn_with_state(self.clone(), guard::limit);
        let questions = routes::router(Class::Question).layer(limit());
        // The body comes first: a client that sends it slowly holds up nobody else.
        let with_body = routes::router(Class::WithBody)
            .layer(limit())
            .layer(axum::middleware::from_fn(guard::body));
        questions
            .merge(with_body)
            .merge(routes::router(Class::Free))
            .merge(mcp::router(crate::mcp::maker(Arc::clone(&self.tools)), self.stopping.clone()))
            // Streams are left alone: what compresses holds back what it has too little of.
            .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
            .layer(axum::middleware::from_fn_with_state((self.clone(), transport), guard::guard))
            .layer(axum::middleware::from_fn_with_state(self.clone(), metrics::http::measure))
            .layer(axum::Extension(transport))
            .with_state(self.clone())
    }
}

/// Takes out what those who can connect this way may not see.
fn withhold(connections: &mut [Connection], transport: Transport) {
    withhold_of(connections.iter_mut().filter_map(|c| c.process.as_mut()), transport);
}

fn withhold_of<'a>(processes: impl Iterator<Item = &'a mut Process>, transport: Transport) {
    if transport != Transport::Loopback {
        return;
    }
    // Processes are shared by records, before and after.
    let mut seen: HashMap<*const ProcessInfo, Arc<ProcessInfo>> = HashMap::new();
    for process in processes {
        let container = process.info.container.as_ref();
        let has_labels = container.is_some_and(|container| !container.labels.is_empty());
        let nothing = process.info.cmdline.is_none() && process.info.cwd.is_none();
        if nothing && !has_labels {
            continue;
        }
        let without = seen.entry(Arc::as_ptr(&process.info)).or_insert_with(|| {
            let mut info = ProcessInfo { cmdline: None, cwd: None, ..(*process.info).clone() };
            // Passwords stand in labels, too (those of proxies, for example).
            if let Some(container) = info.container.as_mut().filter(|_| has_labels) {
                Arc::make_mut(container).labels.clear();
            }
            Arc::new(info)
        });
        process.info = Arc::clone(without);
    }
}
