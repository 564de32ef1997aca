//! One POST to an endpoint, and its answer piece by piece.
//!
//! The client of openai-api-rs is not used for this (version 10.0): its stream loses the pieces of
//! a tool call after the first, and the tokens used; its errors have neither status nor
//! `Retry-After`; its time-out covers a whole answer and its bodies have no bound; and it ends the
//! process where TLS cannot be set up.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::error::ModelError;
use super::settings::Settings;
use crate::client::Access;
use crate::text;

const CONNECT: Duration = Duration::from_secs(10);
/// Of an error's text.
const ERROR_LIMIT: usize = 64 << 10;
/// Of an error's text, in a message.
const WORDS: usize = 300;
/// Of a whole answer: a long one has some ten kilobytes, and each word of it comes in a few
/// hundred bytes of JSON.
pub(super) const ANSWER_LIMIT: usize = 8 << 20;

/// A body that is still coming.
pub(super) struct Answer {
    pub(super) is_stream: bool,
    endpoint: String,
    body: Incoming,
    silence: Duration,
    /// When it last said something.
    heard: Instant,
    received: usize,
}

impl Answer {
    /// What came was something: the time of silence begins anew.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ModelError> {
        loop {
            let frame = timeout_at(self.heard + self.silence, self.body.frame()).await;
            let frame = frame.map_err(|_| silent(&self.endpoint, "word", self.silence))?;
            let frame = match frame {
                None => return Ok(None),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    let (endpoint, why) = (self.endpoint.clone(), format!(" ({error})"));
                    return Err(ModelError::Cut { endpoint, why });
                }
            };
            let Ok(data) = frame.into_data() else { continue };
            self.received = self.received.saturating_add(data.len());
            if self.received > ANSWER_LIMIT {
                let endpoint = self.endpoint.clone();
                return Err(ModelError::TooLarge { endpoint, limit: ANSWER_LIMIT });
            }
            return Ok(Some(data));
        }
    }
}

fn silent(endpoint: &str, what: &'static str, silence: Duration) -> ModelError {
    ModelError::Timeout { endpoint: endpoint.to_owned(), what, seconds: silence.as_secs() }
}

/// Sends a request; the answer is there when its header is.
pub(super) async fn post(settings: &Settings, body: Vec<u8>) -> Result<Answer, ModelError> {
    let place = settings.endpoint.to_string();
    let unreachable = |why: String| ModelError::Unreachable { endpoint: place.clone(), why };
    let endpoint = &settings.endpoint;
    let connecting = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
    let stream = timeout(CONNECT, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| unreachable(error.to_string()))?;
    let _ = stream.set_nodelay(true);
    let sent = async {
        if !endpoint.is_tls {
            return send(settings, stream, body).await;
        }
        let tls = Access::default().tls().map_err(|error| unreachable(error.to_string()))?;
        let name = ServerName::try_from(endpoint.host.clone())
            .map_err(|_| unreachable("its name can be no certificate's".to_owned()))?;
        let stream = TlsConnector::from(tls).connect(name, stream).await;
        let stream = stream.map_err(|error| unreachable(format!("no TLS with it: {error}")))?;
        send(settings, stream, body).await
    };
    let response = timeout(settings.silence, sent).await;
    let response = response.map_err(|_| silent(&place, "answer", settings.silence))??;
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_stream = kind.unwrap_or_default().to_ascii_lowercase().starts_with("text/event-stream");
    let (head, body) = response.into_parts();
    let (silence, heard) = (settings.silence, Instant::now());
    let mut answer = Answer { is_stream, endpoint: place, body, silence, heard, received: 0 };
    if head.status.is_success() {
        return Ok(answer);
    }
    let mut text = Vec::new();
    // What an error says is worth having, and no more than that.
    while let Ok(Some(piece)) = answer.next().await {
        answer.heard();
        text.extend_from_slice(&piece);
        if text.len() > ERROR_LIMIT {
            break;
        }
    }
    Err(refusal(settings, head.status.as_u16(), &head.headers, &text))
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    settings: &Settings,
    stream: S,
    body: Vec<u8>,
) -> Result<Response<Incoming>, ModelError> {
    let place = || settings.endpoint.to_string();
    let broken = |error: hyper::Error| ModelError::Unreachable {
        endpoint: place(),
        why: format!("no valid HTTP: {error}"),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the answer.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the model ended");
        }
    });
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    let wrong = |why: String| ModelError::Unreachable { endpoint: place(), why };
    *request.uri_mut() =
        settings.endpoint.target().parse().map_err(|error| wrong(format!("{error}")))?;
    let host = HeaderValue::from_str(&settings.endpoint.authority());
    let headers = request.headers_mut();
    headers.insert(HOST, host.map_err(|error| wrong(error.to_string()))?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"));
    let agent = concat!("netspy/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    if let Some(key) = &settings.key {
        headers.insert(AUTHORIZATION, key.header.clone());
    }
    sender.send_request(request).await.map_err(broken)
}

/// What a server said, bounded, without the key, and harmless on a terminal.
pub(super) fn words(settings: &Settings, said: &str) -> String {
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = match &settings.key {
        Some(key) => key.strip(&said),
        None => said,
    };
    if said.is_empty() { said } else { format!(": {}", text::short(&said, WORDS)) }
}

fn refusal(settings: &Settings, status: u16, headers: &HeaderMap, body: &[u8]) -> ModelError {
    let body = String::from_utf8_lossy(body);
    let json: Option<serde_json::Value> = serde_json::from_str(&body).ok();
    let error = json.as_ref().map(|json| json.get("error").unwrap_or(json));
    let message = error.and_then(|e| e.get("message").unwrap_or(e).as_str());
    // A page for browsers says nothing that the status does not.
    let message = message.unwrap_or(if body.trim_start().starts_with('<') { "" } else { &body });
    let code = error.and_then(|e| e.get("code")).and_then(|code| code.as_str());
    let (endpoint, said) = (settings.endpoint.to_string(), words(settings, message));
    match status {
        401 | 403 => ModelError::Unauthorized { endpoint, status, said },
        404 => ModelError::NotFound { endpoint, model: settings.model.clone(), said },
        429 if code == Some("insufficient_quota") => ModelError::Quota { endpoint, said },
        429 => {
            let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = after.and_then(|after| seconds(after, Timestamp::now()));
            ModelError::RateLimited { endpoint, retry_after, said }
        }
        500.. => ModelError::Server { endpoint, status: Some(status), said },
        _ => ModelError::Refused { endpoint, status, said },
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
fn seconds(text: &str, now: Timestamp) -> Option<u64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds);
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    u64::try_from(date.as_second().saturating_sub(now.as_second())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        assert_eq!(seconds("12", now), Some(12));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(37));
        for text in ["", "soon", "-1", "Sun, 06 Nov 1994 08:48:00 GMT", "99999999999999999999999"] {
            assert_eq!(seconds(text, now), None, "{text}");
        }
    }
}
