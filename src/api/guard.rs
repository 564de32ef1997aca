//! What every request passes: the Host check, limits of time and number, and headers.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::problem::{Problem, explain};
use super::revoked::Shown;
use super::{Api, MAX_ANSWERS_KIB, Tokens, Transport};

/// The longest that an answer may take once the request is here.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// The longest that a request's body may take to come in.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Answers below this size hold no room.
const SMALL_ANSWER_KIB: u64 = 64;
/// The largest head of a request.
const HEAD_LIMIT: usize = 64 * 1024;
/// The largest body that is read.
const BODY_LIMIT: usize = 64 * 1024;

pub(super) async fn guard(
    State((api, transport)): State<(Api, Transport)>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let tokens = api.tokens.as_ref().filter(|_| transport == Transport::Token);
    let shown = tokens.map(|tokens| Shown::new(tokens, request.headers()));
    let response = match refusal(transport, api.tokens.as_deref(), &request) {
        Some(problem) => {
            if problem.status == StatusCode::UNAUTHORIZED {
                api.figures.unauthorized.fetch_add(1, Ordering::Relaxed);
            }
            problem.into_response()
        }
        None => next.run(request).await,
    };
    let mut response = explain(response, &path);
    if let Some(shown) = shown {
        response = shown.opened(response);
    }
    let headers = response.headers_mut();
    // What may be kept says so itself.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Why this client gets no answer, if it gets none.
pub(super) fn refusal(
    transport: Transport,
    tokens: Option<&Tokens>,
    request: &Request,
) -> Option<Problem> {
    if head_bytes(request) > HEAD_LIMIT {
        let detail = "the head of the request is larger than 64 KiB";
        return Some(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail));
    }
    match transport {
        Transport::Unix => None,
        // A page of a hostile site knows no token, whatever its name resolves to.
        Transport::Token => {
            if tokens.is_some_and(|tokens| tokens.are_shown_by(request.headers())) {
                return None;
            }
            let detail = "this server wants a token: send it as 'Authorization: Bearer TOKEN'";
            Some(Problem::new(StatusCode::UNAUTHORIZED, detail))
        }
        Transport::Loopback if is_local(request) => None,
        Transport::Loopback => Some(Problem::new(
            StatusCode::FORBIDDEN,
            "the Host header does not name this host: ask for localhost or a loopback address",
        )),
    }
}

/// What the head of a request takes, as it was sent. The server refuses some that are larger before
/// they come here, and reads up to twice as much of others.
fn head_bytes(request: &Request) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    // A colon, a space, and the end of the line.
    let lines = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    target + lines.sum::<usize>()
}

/// Reads the body of a POST, before anything is held for it that others wait for.
pub(super) async fn body(request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match read_body(body, BODY_TIME).await {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(problem) => problem.into_response(),
    }
}

async fn read_body(body: Body, patience: Duration) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 64 KiB");
    // What announces itself as too large need not be sent first.
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return Err(too_large());
    }
    let read = tokio::time::timeout(patience, to_bytes(body, BODY_LIMIT)).await;
    let read = read.map_err(|_| {
        let detail = format!("the body did not come within {} seconds", BODY_TIME.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, detail)
    })?;
    read.map_err(|error| {
        let first: &(dyn std::error::Error + 'static) = &error;
        let mut causes = std::iter::successors(Some(first), |error| error.source());
        match causes.any(|error| error.is::<LengthLimitError>()) {
            true => too_large(),
            false => Problem::new(StatusCode::BAD_REQUEST, "the body could not be read"),
        }
    })
}

pub(super) async fn limit(State(api): State<Api>, request: Request, next: Next) -> Response {
    let answer = async {
        match api.questions.acquire().await {
            // What is made without room is dropped before the next question begins: beyond the room
            // there are never more answers than questions at a time.
            Ok(_permit) => hold(&api, next.run(request).await),
            Err(_) => busy(),
        }
    };
    tokio::time::timeout(ANSWER_TIME, answer).await.unwrap_or_else(|_| busy())
}

/// Holds room for an answer until it is sent: who reads large ones slowly makes others wait rather
/// than the server grow.
fn hold(api: &Api, response: Response) -> Response {
    let kib = response.body().size_hint().exact().unwrap_or(0) >> 10;
    // Small ones are let through, however little room there is.
    if kib < SMALL_ANSWER_KIB {
        return response;
    }
    // A buffer that grew as it was written to is up to twice as large as what is in it.
    let kib = u32::try_from((kib + 1).next_power_of_two()).unwrap_or(u32::MAX);
    match Arc::clone(&api.answers).try_acquire_many_owned(kib.min(MAX_ANSWERS_KIB)) {
        Ok(room) => response.map(|body| Body::new(Held::new(body, room))),
        Err(_) => {
            let detail = "too many large answers are on their way to clients that read slowly";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
        }
    }
}

/// The body of an answer, for which room is held until it is sent.
///
/// The server takes all of a body at once and then drops it, long before the client has read
/// it. So each piece holds the room, too, until the last byte of it is written.
pub(super) struct Held {
    body: Body,
    room: Arc<OwnedSemaphorePermit>,
}

impl Held {
    pub(super) fn new(body: Body, room: OwnedSemaphorePermit) -> Self {
        Held { body, room: Arc::new(room) }
    }
}

/// Bytes on their way to a client.
struct Piece {
    bytes: Bytes,
    _room: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let holding = |bytes| Bytes::from_owner(Piece { bytes, _room: Arc::clone(&self.room) });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(holding))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn busy() -> Response {
    let seconds = ANSWER_TIME.as_secs();
    let detail = format!("no answer within {seconds} seconds: too many questions at a time");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
}

/// Whether the request asks for this host by a name that nobody else can point here. A page of a
/// hostile site can make its own name resolve to 127.0.0.1 and read what comes back (DNS
/// rebinding); the browser then sends that name.
fn is_local(request: &Request) -> bool {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    // Requests without Host come from HTTP/1.0, not from a browser.
    authority.is_none_or(is_local_authority) && hosts(request.headers()).all(is_local_authority)
}

fn hosts(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or("?"))
}

fn is_local_authority(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, port.strip_prefix(':').or(Some("?"))),
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_in_time_is_given_up() {
        let never = futures_util::stream::pending::<std::io::Result<Bytes>>();
        let problem = read_body(Body::from_stream(never), Duration::from_millis(5)).await;
        assert_eq!(problem.unwrap_err().status, StatusCode::REQUEST_TIMEOUT);
        let read = read_body(Body::from("{}"), Duration::from_secs(5)).await;
        assert_eq!(read.unwrap(), "{}");
    }

    #[test]
    fn only_names_that_cannot_be_pointed_here_are_local() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.8.8.8:1", "[::1]:8080"] {
            assert!(is_local_authority(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "10.0.0.1",
            "[::2]",
            "a:b",
            "[",
            "127.0.0.1:80@evil",
            "user@localhost",
            "[::1]x",
            "127.0.0.1.evil.com:8080",
        ] {
            assert!(!is_local_authority(host), "{host}");
        }
    }
}
