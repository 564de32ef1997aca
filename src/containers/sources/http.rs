//! One request over HTTP/1.1 on a connection of its own, bounded in size; its time is bounded by
//! who asks.

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use super::SourceError;

pub(super) const AGENT: &str = concat!("netspy/", env!("CARGO_PKG_VERSION"));

/// Ends what drives a connection, whatever the other side does.
pub(super) struct Ends(pub JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is asked for.
pub(super) struct Get<'a> {
    pub host: &'a str,
    pub target: &'a str,
    /// The value of the header `Authorization`.
    pub authorization: Option<HeaderValue>,
    /// The largest answer.
    pub limit: usize,
}

impl Get<'_> {
    /// The status of the answer, and its body where that is 200.
    pub(super) async fn over<S>(self, stream: S) -> Result<(u16, Bytes), SourceError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let _ends = Ends(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a source of names ended");
            }
        }));
        let mut request = Request::get(self.target)
            .header(HOST, self.host)
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(broken)?;
        if let Some(value) = self.authorization {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        if status != 200 {
            return Ok((status, Bytes::new()));
        }
        let body = Limited::new(response.into_body(), self.limit).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => SourceError::TooLarge(self.limit),
            false => broken(error),
        })?;
        Ok((status, body.to_bytes()))
    }
}

pub(super) fn broken(error: impl std::fmt::Display) -> SourceError {
    SourceError::Http(error.to_string())
}
