//! The Container Runtime Interface of Kubernetes, which containerd and CRI-O serve: gRPC over a UNIX
//! socket (k8s.io/cri-api, `runtime/v1/api.proto`).
//!
//! Two calls with one short message each way: HTTP/2 and a decoder of messages are enough, and a
//! tenth of what a framework for gRPC takes to compile.

use std::collections::HashMap;
use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;

use super::SourceError;
use super::facts::Facts;
use super::http::{AGENT, Ends, broken};

/// What is told of a container takes some kilobytes, mostly annotations.
const LIMIT: usize = 1 << 20;
/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Codes of gRPC.
const NOT_FOUND: u32 = 5;

/// `ContainerStatusRequest` and `PodSandboxStatusRequest`.
#[derive(Clone, PartialEq, Message)]
struct OfId {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<ContainerStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerStatus {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "8")]
    pub image: Option<ImageSpec>,
    #[prost(map = "string, string", tag = "12")]
    pub labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ImageSpec {
    #[prost(string, tag = "1")]
    pub image: String,
    #[prost(string, tag = "18")]
    pub user_specified_image: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<PodSandboxStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxStatus {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    #[prost(map = "string, string", tag = "7")]
    pub labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// What it knows of a container, or of the sandbox of a pod, which looks like one from outside; `None`
/// if it has neither of this id.
pub(super) async fn ask(socket: &Path, id: &str) -> Result<Option<Facts>, SourceError> {
    let stream =
        UnixStream::connect(socket).await.map_err(|source| SourceError::Connect { source })?;
    let connected = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(16 * 1024)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = connected.map_err(broken)?;
    let _ends = Ends(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a source of names ended");
        }
    }));
    let mut calls = Calls { sender };
    let container: Option<ContainerStatusResponse> = calls.call("ContainerStatus", id).await?;
    if let Some(status) = container.and_then(|response| response.status) {
        return of_container(status, id).map(Some);
    }
    let sandbox: Option<PodSandboxStatusResponse> = calls.call("PodSandboxStatus", id).await?;
    sandbox.and_then(|response| response.status).map(|status| of_sandbox(status, id)).transpose()
}

fn of_container(status: ContainerStatus, id: &str) -> Result<Facts, SourceError> {
    is_meant(&status.id, id)?;
    let name = status.metadata.map(|metadata| metadata.name);
    let image = status.image.map(|image| match image.user_specified_image.is_empty() {
        true => image.image,
        false => image.user_specified_image,
    });
    Ok(Facts::of_runtime(name, image, status.labels))
}

fn of_sandbox(status: PodSandboxStatus, id: &str) -> Result<Facts, SourceError> {
    is_meant(&status.id, id)?;
    let (pod, namespace) = status.metadata.map(|of| (of.name, of.namespace)).unzip();
    let facts = Facts::of_runtime(None, None, status.labels);
    Ok(Facts { pod, namespace, ..Facts::default() }.or(facts))
}

fn is_meant(told: &str, id: &str) -> Result<(), SourceError> {
    let other = || SourceError::Garbage("it is about another container".to_owned());
    (told == id).then_some(()).ok_or_else(other)
}

struct Calls {
    sender: http2::SendRequest<Full<Bytes>>,
}

impl Calls {
    /// One call of the service; `None` where there is no such thing.
    async fn call<T: Message + Default>(
        &mut self,
        method: &str,
        id: &str,
    ) -> Result<Option<T>, SourceError> {
        let message = OfId { id: id.to_owned() }.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
        body.extend(message);
        let target = format!("http://localhost/runtime.v1.RuntimeService/{method}");
        let request = Request::post(target.parse::<Uri>().map_err(broken)?)
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header(USER_AGENT, AGENT)
            .body(Full::new(Bytes::from(body)))
            .map_err(broken)?;
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

fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn message_of<T: Message + Default>(bytes: &[u8]) -> Result<T, SourceError> {
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

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((message.len() as u32).to_be_bytes());
        bytes.extend(message);
        bytes
    }

    #[test]
    fn members_have_the_numbers_of_the_interface() {
        // As protoc would write it: 1: "c1", 2: {1: "app", 2: 3}, 3: 1, 8: {1: "sha256:1", 18: "nginx"},
        // 12: {"k": "v"}, 15: "/log".
        let status = b"\x0a\x02c1\x12\x07\x0a\x03app\x10\x03\x18\x01\
                       \x42\x12\x0a\x08sha256:1\x92\x01\x05nginx\
                       \x62\x06\x0a\x01k\x12\x01v\x7a\x04/log";
        let mut message = vec![0x0a, status.len() as u8];
        message.extend(status);
        let response: ContainerStatusResponse = message_of(&framed(&message)).unwrap();
        let facts = of_container(response.status.unwrap(), "c1").unwrap();
        assert_eq!(facts.name.as_deref(), Some("app"));
        assert_eq!(facts.image.as_deref(), Some("nginx"));
        assert_eq!(facts.labels["k"], "v");
        // 1: "c1", 2: {1: "web-0", 2: "uid", 3: "prod", 4: 0}, 7: {"app": "web"}.
        let status = b"\x0a\x02c1\x12\x14\x0a\x05web-0\x12\x03uid\x1a\x04prod\x20\x00\
                       \x3a\x0a\x0a\x03app\x12\x03web";
        let mut message = vec![0x0a, status.len() as u8];
        message.extend(status);
        let response: PodSandboxStatusResponse = message_of(&framed(&message)).unwrap();
        let facts = of_sandbox(response.status.unwrap(), "c1").unwrap();
        assert_eq!(
            (facts.pod.as_deref(), facts.namespace.as_deref()),
            (Some("web-0"), Some("prod"))
        );
        assert_eq!(facts.labels["app"], "web");
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
            let error = message_of::<ContainerStatusResponse>(bytes).unwrap_err();
            assert!(matches!(error, SourceError::Garbage(_)), "{bytes:?}: {error}");
        }
        let other = ContainerStatus { id: "c2".to_owned(), ..ContainerStatus::default() };
        assert!(of_container(other, "c1").is_err());
    }
}
