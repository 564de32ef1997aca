//! `/mcp`: the tools over streamable HTTP, beside the rest of the server or alone.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use rmcp::ServerHandler;
use rmcp::model::ProtocolVersion;
use tokio::sync::{Semaphore, watch};

use super::guard::{Held, refusal};
use super::problem::{Problem, explain};
use super::revoked::Shown;
use super::{Tokens, Transport};
use crate::{mcp, text};

/// Of an error in plain words.
const WORDS: usize = 4 * 1024;
/// The headers that requests belong by.
const SESSION: &str = "Mcp-Session-Id";
const VERSION: &str = "MCP-Protocol-Version";
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
        .route_layer(from_fn(ended))
        // Not of what is no route of these: the rest of the API answers that.
        .route_layer(from_fn(words))
        .route_layer(from_fn_with_state(room, bound))
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

/// Errors of the transport, which come in a few plain words, as those of the rest of the API: with
/// what was wrong and what is accepted.
async fn words(request: Request, next: Next) -> Response {
    let is_json = is_application(request.headers());
    let asked = Asked::of(request.headers());
    let response = next.run(request).await;
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    // Errors of JSON-RPC say it all. The one left out is told where the headers are known.
    if !failed || is_application(response.headers()) || status == StatusCode::NOT_ACCEPTABLE {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let said = to_bytes(body, WORDS).await.unwrap_or_default();
    let said = text::short(&text::clean(&String::from_utf8_lossy(&said)), 300).into_owned();
    let problem = match status {
        StatusCode::BAD_REQUEST if !asked.knows_version => Problem::parameter(
            status,
            VERSION,
            "there is no such version of the protocol",
            &versions(),
        ),
        StatusCode::BAD_REQUEST if !asked.has_session => Problem::parameter(
            status,
            SESSION,
            "is missing: this request belongs to a session",
            "what the answer to initialize gave; a request of 2026-07-28 takes none, and says so with \
             MCP-Protocol-Version",
        ),
        // No session could be begun, or this one ended just now.
        StatusCode::INTERNAL_SERVER_ERROR if !asked.has_session => return no_session(),
        StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => Problem::parameter(
            StatusCode::NOT_FOUND,
            SESSION,
            "there is no such session: it has ended, or was never begun here",
            "what the answer to initialize gave; without the header, initialize begins another",
        ),
        StatusCode::FORBIDDEN => Problem::parameter(
            status,
            "Origin",
            "pages from there are refused",
            "no Origin, as of programs, or a page of this host such as http://localhost:3000",
        ),
        // What is called a wrong type is a right one with a body that cannot be read.
        StatusCode::UNSUPPORTED_MEDIA_TYPE if is_json => return no_message(&said),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::parameter(status, "Content-Type", "not that of a message", "application/json")
        }
        status if said.is_empty() => return (status, head.headers).into_response(),
        status => Problem::new(status, said),
    };
    let mut explained = problem.into_response();
    if let Some(allow) = head.headers.remove(ALLOW) {
        explained.headers_mut().insert(ALLOW, allow);
    }
    explain(explained, mcp::PATH)
}

/// A session that has ended has nothing more to say. rmcp (3.11) has 202 for that, which clients
/// take for a failure.
async fn ended(request: Request, next: Next) -> Response {
    let is_end = request.method() == Method::DELETE;
    let response = next.run(request).await;
    match response.status() {
        StatusCode::ACCEPTED if is_end => StatusCode::NO_CONTENT.into_response(),
        _ => response,
    }
}

/// What the headers of a request say, which an error of the transport leaves out.
struct Asked {
    has_session: bool,
    knows_version: bool,
}

impl Asked {
    fn of(headers: &HeaderMap) -> Self {
        let known = |value: &HeaderValue| {
            ProtocolVersion::KNOWN_VERSIONS.iter().any(|known| known.as_str() == value)
        };
        Asked {
            has_session: headers.contains_key(SESSION),
            knows_version: headers.get(VERSION).is_none_or(known),
        }
    }
}

fn versions() -> String {
    let known = ProtocolVersion::KNOWN_VERSIONS.iter().map(ProtocolVersion::as_str);
    known.collect::<Vec<_>>().join(", ")
}

/// The answer of JSON-RPC to a body that is no message.
fn no_message(why: &str) -> Response {
    let message = format!("the body is no message of JSON-RPC 2.0: {why}");
    rpc_error(StatusCode::BAD_REQUEST, -32700, &message)
}

/// The same where all sessions are in use.
fn no_session() -> Response {
    let message = "all sessions are open and in use: try again after a minute, end sessions that \
                   nobody needs (DELETE with Mcp-Session-Id), or speak 2026-07-28, which has none";
    let mut response = rpc_error(StatusCode::SERVICE_UNAVAILABLE, -32000, message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

fn rpc_error(status: StatusCode, code: i32, message: &str) -> Response {
    let error = serde_json::json!({"code": code, "message": message});
    let body = axum::Json(serde_json::json!({"jsonrpc": "2.0", "error": error}));
    (status, body).into_response()
}

fn is_application(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/"))
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
