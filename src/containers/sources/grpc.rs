//! gRPC over UNIX sockets: a few calls with one short message each way, for which HTTP/2 and a decoder
//! of messages are enough, and a tenth of what a framework takes to compile.

use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;

use super::SourceError;
use super::http::{AGENT, Ends, broken};

/// What is told of a container takes some kilobytes, mostly annotations.
const LIMIT: usize = 1 << 20;
/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Codes of gRPC.
const NOT_FOUND: u32 = 5;

/// A request, or a part of one, that is about what has this id.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OfId {
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Calls over one connection.
pub(super) struct Calls {
    sender: http2::SendRequest<Full<Bytes>>,
    namespace: Option<HeaderValue>,
    _ends: Ends,
}

impl Calls {
    /// To whoever listens at this socket.
    pub(super) async fn to(socket: &Path) -> Result<Self, SourceError> {
        let stream =
            UnixStream::connect(socket).await.map_err(|source| SourceError::Connect { source })?;
        let connected = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(16 * 1024)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = connected.map_err(broken)?;
        let ends = Ends(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a source of names ended");
            }
        }));
        Ok(Calls { sender, namespace: None, _ends: ends })
    }

    /// In which namespace of containerd the calls that follow look.
    pub(super) fn within(&mut self, namespace: HeaderValue) {
        self.namespace = Some(namespace);
    }

    /// One call of a service; `None` where there is no such thing.
    pub(super) async fn call<T: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        message: &impl Message,
    ) -> Result<Option<T>, SourceError> {
        let bytes = Bytes::from(framed(&message.encode_to_vec()));
        let target = format!("http://localhost/{service}/{method}");
        let mut request = Request::post(target.parse::<Uri>().map_err(broken)?)
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header(USER_AGENT, AGENT);
        if let Some(namespace) = &self.namespace {
            request = request.header("containerd-namespace", namespace);
        }
        let request = request.body(Full::new(bytes)).map_err(broken)?;
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        let (head, mut body) = response.into_parts();
        if head.status.as_u16() != 200 {
            return Err(SourceError::Status { status: head.status.as_u16() });
        }
        // Without a body, what would be the trailer stands in the head.
        let mut code = status(&head.headers);
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame.map_err(broken)?.into_data() {
                Ok(data) if bytes.len() + data.len() > LIMIT => {
                    return Err(SourceError::TooLarge(LIMIT));
                }
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => code = frame.trailers_ref().and_then(status).or(code),
            }
        }
        match code {
            Some(0) => message_of(&bytes).map(Some),
            Some(NOT_FOUND) => Ok(None),
            Some(code) => Err(SourceError::Grpc { code }),
            None => Err(SourceError::Garbage("it ends without a status".to_owned())),
        }
    }
}

/// A message as a call carries it: not compressed, behind its length.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
    bytes.extend(message);
    bytes
}

fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

pub(super) fn message_of<T: Message + Default>(bytes: &[u8]) -> Result<T, SourceError> {
    let garbage = |why: String| SourceError::Garbage(why);
    let cut = || garbage("it is cut".to_owned());
    let (prefix, message) = bytes.split_first_chunk::<PREFIX>().ok_or_else(cut)?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(garbage("it is compressed, which was not asked for".to_owned()));
    }
    if usize::try_from(u32::from_be_bytes(length)).ok() != Some(message.len()) {
        return Err(cut());
    }
    T::decode(message).map_err(|error| garbage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Holder {
        #[prost(message, optional, tag = "1")]
        held: Option<OfId>,
    }

    #[test]
    fn what_is_no_message_is_none() {
        let whole = framed(b"\x0a\x00");
        for bytes in [
            &b""[..],
            &whole[..4],
            &whole[..6],
            &[&whole[..], b"x"].concat(),
            &framed(b"\x0a\xff"),
            &framed(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            b"\x01\x00\x00\x00\x00",
            b"\x00\xff\xff\xff\xff",
        ] {
            let error = message_of::<Holder>(bytes).unwrap_err();
            assert!(matches!(error, SourceError::Garbage(_)), "{bytes:?}: {error}");
        }
    }
}
