//! `/mcp`: the tools over streamable HTTP, beside the rest of the server or alone.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use rmcp::ServerHandler;
use tokio::sync::{Semaphore, watch};

use super::guard::{Held, refusal};
use super::problem::{Problem, explain};
use super::revoked::Shown;
use super::{Tokens, Transport};
use crate::mcp;

/// Requests that are under way at a time, streams among them.
const MAX_REQUESTS: usize = 128;

/// The route, for a router that checks who asks.
pub(super) fn router<S: Clone + Send + Sync + 'static, H: ServerHandler>(
    make: impl Fn() -> io::Result<H> + Send + Sync + 'static,
    stopping: watch::Receiver<bool>,
) -> Router<S> {
    let room = Arc::new(Semaphore::new(MAX_REQUESTS));
    Router::new()
        .route_service(mcp::PATH, mcp::service(make, stopping))
        .layer(from_fn_with_state(room, bound))
}

/// MCP alone, answered by what `make` makes, until `stopping` becomes true: with `tokens`, to those who show one, and otherwise to
/// those who ask for this host by name.
pub fn alone<H: ServerHandler>(
    make: impl Fn() -> io::Result<H> + Send + Sync + 'static,
    tokens: Option<Arc<Tokens>>,
    stopping: watch::Receiver<bool>,
) -> Router {
    let check = move |request: Request, next: Next| {
        let transport = if tokens.is_some() { Transport::Token } else { Transport::Loopback };
        let refused = refusal(transport, tokens.as_deref(), &request);
        let shown = tokens.as_ref().map(|tokens| Shown::new(tokens, request.headers()));
        async {
            let path = request.uri().path().to_owned();
            let response = match refused {
                Some(problem) => problem.into_response(),
                None => next.run(request).await,
            };
            let response = explain(response, &path);
            match shown {
                Some(shown) => shown.opened(response),
                None => response,
            }
        }
    };
    router(make, stopping).layer(from_fn(check))
}

/// Holds a place for each request until its answer is sent: streams stay open for long.
async fn bound(State(room): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    match room.try_acquire_owned() {
        Ok(place) => {
            let wanted = match request.method() {
                &Method::GET => "text/event-stream",
                _ => "application/json, text/event-stream (both)",
            };
            let response = next.run(request).await;
            if response.status() == StatusCode::NOT_ACCEPTABLE {
                let problem = "leaves out a form that the answer can have";
                return Problem::parameter(response.status(), "Accept", problem, wanted)
                    .into_response();
            }
            response.map(|body| Body::new(Held::new(body, place)))
        }
        Err(_) => {
            let detail = "too many MCP requests are under way: close streams that nobody reads";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
        }
    }
}
