//! REST over the query layer: the compatible endpoints under `/api`, and `/api/v1`.

mod compat;
mod event;
mod guard;
mod problem;
mod stream;
mod v1;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use compat::drops;
use tokio::sync::{Semaphore, watch};

use crate::event::{Connection, Process, ProcessInfo};
use crate::store::LocalSource;

/// How a request came in, which decides what it may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP on a loopback address: every user of the host can connect, so command lines are
    /// withheld, and the Host header must name this host.
    Loopback,
    /// The UNIX socket, whose file permissions say who may connect.
    Unix,
}

/// Streams that are open at a time.
pub const MAX_STREAMS: usize = 64;
/// Questions that are answered at a time; others wait.
const MAX_QUESTIONS: usize = 8;

/// What the endpoints share.
#[derive(Debug, Clone)]
pub struct Api {
    source: LocalSource,
    streams: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    /// Becomes true when the server stops, which ends streams.
    stopping: watch::Receiver<bool>,
}

impl Api {
    /// Endpoints that answer from this source, until `stopping` becomes true.
    pub fn new(source: LocalSource, stopping: watch::Receiver<bool>) -> Self {
        Api {
            source,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            stopping,
        }
    }

    /// The routes for requests that come in this way.
    pub fn router(&self, transport: Transport) -> Router {
        let limit = || axum::middleware::from_fn_with_state(self.clone(), guard::limit);
        let questions = Router::new()
            .route("/api/events", get(compat::events))
            .route("/api/programs", get(compat::programs))
            .route("/api/v1/connections", get(v1::list))
            .route("/api/v1/connections/{id}", get(v1::get))
            .route("/api/v1/summary", get(v1::summary))
            .route("/api/v1/drops", get(v1::drops))
            .route("/api/v1/findings", get(v1::findings))
            .route("/api/v1/status", get(v1::status))
            .layer(limit());
        // The body comes first: a client that sends it slowly holds up nobody else.
        let with_body = Router::new()
            .route("/api/connection-summary", get(compat::summary).post(compat::summary))
            .route("/api/list-connections", get(compat::list).post(compat::list))
            .route("/api/packet-drop-summary", get(drops::summary).post(drops::summary))
            .route("/api/list-packet-drops", get(drops::list).post(drops::list))
            .layer(limit())
            .layer(axum::middleware::from_fn(guard::body));
        questions
            .merge(with_body)
            // Whoever watches over the server has to hear of it most of all when it is busy.
            .route("/health", get(compat::health))
            .route("/api/v1/stream", get(stream::stream))
            .layer(axum::middleware::from_fn_with_state(transport, guard::guard))
            .layer(axum::Extension(transport))
            .with_state(self.clone())
    }
}

/// Takes out what those who can connect this way may not see.
fn withhold(connections: &mut [Connection], transport: Transport) {
    withhold_of(connections.iter_mut().filter_map(|c| c.process.as_mut()), transport);
}

fn withhold_of<'a>(processes: impl Iterator<Item = &'a mut Process>, transport: Transport) {
    if transport == Transport::Unix {
        return;
    }
    // Processes are shared by records, before and after.
    let mut seen: HashMap<*const ProcessInfo, Arc<ProcessInfo>> = HashMap::new();
    for process in processes {
        if process.info.cmdline.is_none() {
            continue;
        }
        let without = seen
            .entry(Arc::as_ptr(&process.info))
            .or_insert_with(|| Arc::new(ProcessInfo { cmdline: None, ..(*process.info).clone() }));
        process.info = Arc::clone(without);
    }
}
