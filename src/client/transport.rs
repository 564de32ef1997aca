//! Requests by HTTP/1.1, over connections that are kept for the next ones: a view that asks again and
//! again would otherwise be among the busiest clients of the host that it shows.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::access::Access;
use super::address::Address;
use crate::query::QueryError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A server says no more than that it is at work on a question for as long as this: its own limit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// After so long without an answer it is asked whether it is there at all, which it has to say within
/// the time after that: whoever waits is told after ten seconds that nobody is there.
const DOUBT: Duration = Duration::from_secs(7);
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);
/// Above the largest page that a server sends (10,000 records of a few kilobytes).
const BODY_LIMIT: usize = 64 << 20;
/// Connections that are kept.
const IDLE: usize = 8;
/// The longest text of a server that goes into a message.
const WORDS_LIMIT: usize = 600;

/// A whole answer.
pub(super) struct Answer {
    pub status: StatusCode,
    pub content_type: String,
    pub body: Bytes,
}

type Sender = http1::SendRequest<Empty<Bytes>>;

/// Connections to one server on which nothing is going on.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Vec<Sender>>);

impl Idle {
    fn take(&self) -> Option<Sender> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|sender| !sender.is_closed());
        idle.pop()
    }

    /// Keeps a connection whose answer was read, where it can be asked again.
    async fn keep(&self, mut sender: Sender) {
        if sender.ready().await.is_err() {
            return;
        }
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(sender);
        }
    }
}

/// Asks `path` and reads the whole answer.
pub(super) async fn get(
    address: &Address,
    access: &Access,
    idle: &Idle,
    path: &str,
) -> Result<Answer, QueryError> {
    let exchange = async {
        // The server may end a connection at any time: what was asked then is asked again.
        while let Some(mut sender) = idle.take() {
            let asked = ask(address, access, &mut sender, path, &[])?;
            let Ok(response) = asked.await else { continue };
            let answer = read(address, response).await?;
            idle.keep(sender).await;
            return Ok(answer);
        }
        let (sender, response) = open(address, access, path, &[]).await?;
        let answer = read(address, response).await?;
        idle.keep(sender).await;
        Ok(answer)
    };
    in_time(address, access, exchange).await
}

/// Asks `path` and returns as soon as the header of the answer is there.
pub(super) async fn open_in_time(
    address: &Address,
    access: &Access,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<Response<Incoming>, QueryError> {
    let opening = async {
        let (_, response) = open(address, access, path, headers).await?;
        Ok(response)
    };
    in_time(address, access, opening).await
}

/// Waits for what a server that is there may need for an answer, and no longer than it takes to see
/// that none is there: something may accept connections, and never say a word.
async fn in_time<T>(
    address: &Address,
    access: &Access,
    exchange: impl Future<Output = Result<T, QueryError>>,
) -> Result<T, QueryError> {
    let patience = async {
        sleep(DOUBT).await;
        let sign = timeout(SIGN_OF_LIFE, open(address, access, "/health", &[])).await;
        if !matches!(sign, Ok(Ok(_))) {
            return slow(address, DOUBT + SIGN_OF_LIFE);
        }
        sleep(REQUEST_TIMEOUT - DOUBT).await;
        slow(address, REQUEST_TIMEOUT)
    };
    tokio::select! {
        answer = exchange => answer,
        error = patience => Err(error),
    }
}

/// Reads the rest of an answer.
pub(super) async fn read(
    address: &Address,
    response: Response<Incoming>,
) -> Result<Answer, QueryError> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, BODY_LIMIT)
        .collect()
        .await
        .map_err(|e| server(address, &format!("the answer could not be read: {e}")))?
        .to_bytes();
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    Ok(Answer { status: parts.status, content_type, body })
}

async fn open(
    address: &Address,
    access: &Access,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<(Sender, Response<Incoming>), QueryError> {
    match address {
        Address::Http { host, port } => {
            let stream = connect(address, TcpStream::connect((host.as_str(), *port))).await?;
            // One small request: waiting for more to send would only delay it.
            let _ = stream.set_nodelay(true);
            send(address, access, stream, path, headers).await
        }
        Address::Https { host, port } => {
            let stream = connect(address, TcpStream::connect((host.as_str(), *port))).await?;
            let _ = stream.set_nodelay(true);
            let stream = agree(address, access, host, stream).await?;
            send(address, access, stream, path, headers).await
        }
        Address::Unix(socket) => {
            let stream = connect(address, UnixStream::connect(socket)).await?;
            send(address, access, stream, path, headers).await
        }
    }
}

/// Agrees on TLS.
async fn agree(
    address: &Address,
    access: &Access,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, QueryError> {
    let tls = access.tls().map_err(|error| unreachable(address, error.to_string()))?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| unreachable(address, format!("'{host}' can be no certificate's name")))?;
    let agreed = timeout(CONNECT_TIMEOUT, TlsConnector::from(tls).connect(name, stream)).await;
    let agreed = agreed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    agreed.map_err(|error| {
        let why = format!("no TLS with it: {error}; --ca-cert names the certificate to trust");
        unreachable(address, why)
    })
}

async fn connect<S>(
    address: &Address,
    connecting: impl Future<Output = io::Result<S>>,
) -> Result<S, QueryError> {
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(unreachable(address, why_unreachable(&error))),
        Err(_) => Err(unreachable(
            address,
            format!("no connection within {} s; check the address", CONNECT_TIMEOUT.as_secs()),
        )),
    }
}

fn why_unreachable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused; is the server running? start it with: sudo ebpf-server".to_owned()
        }
        io::ErrorKind::NotFound => {
            "no such socket; is the server running? start it with: sudo ebpf-server".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; join the group netspy, or use sudo".to_owned()
        }
        _ => error.to_string(),
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    address: &Address,
    access: &Access,
    stream: S,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<(Sender, Response<Incoming>), QueryError> {
    let broken = |e: hyper::Error| server(address, &format!("no valid HTTP: {e}"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the sender when the answer has been read, or with the response that is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the server ended");
        }
    });
    let response = ask(address, access, &mut sender, path, headers)?.await.map_err(broken)?;
    Ok((sender, response))
}

/// One request on a connection.
fn ask<'a>(
    address: &Address,
    access: &Access,
    sender: &'a mut Sender,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<impl Future<Output = hyper::Result<Response<Incoming>>> + use<'a>, QueryError> {
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = path.parse().map_err(|e| QueryError::Invalid {
        parameter: "filter".to_owned(),
        problem: format!("cannot be sent: {e}"),
        accepted: "shorter values".to_owned(),
    })?;
    let host = HeaderValue::from_str(&address.authority());
    let host = host.map_err(|e| unreachable(address, e.to_string()))?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("netspy/", env!("CARGO_PKG_VERSION"))),
    );
    request
        .headers_mut()
        .insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    if let Some(token) = &access.token {
        request.headers_mut().insert(AUTHORIZATION, token.clone());
    }
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            request.headers_mut().insert(*name, value);
        }
    }
    tracing::debug!(server = %address, path, "asking");
    Ok(sender.send_request(request))
}

fn slow(address: &Address, limit: Duration) -> QueryError {
    unreachable(address, format!("nothing came within {} s", limit.as_secs()))
}

pub(super) fn unreachable(address: &Address, why: String) -> QueryError {
    QueryError::Unreachable { server: address.to_string(), why }
}

/// What a server said, bounded.
pub(super) fn server(address: &Address, why: &str) -> QueryError {
    let why = why.trim().chars().take(WORDS_LIMIT).collect();
    QueryError::Server { server: address.to_string(), why }
}

#[cfg(test)]
mod tests;
