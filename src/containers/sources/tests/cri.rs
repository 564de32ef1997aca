//! containerd and CRI-O, by the CRI over gRPC.

use std::os::unix::net::UnixListener;
use std::path::Path;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use super::*;
use crate::containers::sources::cri::{
    ContainerMetadata, ContainerStatus, ContainerStatusResponse, PodSandboxMetadata,
    PodSandboxStatus, PodSandboxStatusResponse,
};

type Body = BoxBody<Bytes, hyper::Error>;

/// A runtime that serves the CRI: `ID` is a container, `OTHER` the sandbox of its pod.
fn cri(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(call));
                tokio::spawn(async move { drop(served.await) });
            }
        });
    });
}

async fn call(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert_eq!(head.headers["te"], "trailers");
    let body = body.collect().await?.to_bytes();
    let id = String::from_utf8_lossy(&body[7..]).into_owned();
    let labels = [
        ("io.kubernetes.container.name", "app"),
        ("io.kubernetes.pod.name", "web-0"),
        ("io.kubernetes.pod.namespace", "prod"),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let message = match (head.uri.path(), id.as_str()) {
        ("/runtime.v1.RuntimeService/ContainerStatus", ID) => {
            let metadata = Some(ContainerMetadata { name: "app".to_owned() });
            let status = ContainerStatus { id, metadata, image: None, labels };
            Some(ContainerStatusResponse { status: Some(status) }.encode_to_vec())
        }
        ("/runtime.v1.RuntimeService/PodSandboxStatus", OTHER) => {
            let metadata =
                PodSandboxMetadata { name: "web-0".to_owned(), namespace: "prod".to_owned() };
            let labels = [("app".to_owned(), "web".to_owned())].into();
            let status = PodSandboxStatus { id, metadata: Some(metadata), labels };
            Some(PodSandboxStatusResponse { status: Some(status) }.encode_to_vec())
        }
        _ => None,
    };
    let response = Response::builder().header("content-type", "application/grpc");
    let Some(message) = message else {
        // As servers do it that have nothing else to say.
        let empty = Full::default().map_err(|never| match never {}).boxed();
        return Ok(response.header("grpc-status", "5").body(empty).unwrap());
    };
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    let trailers = HeaderMap::from_iter([(
        hyper::header::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let frames = [Frame::data(Bytes::from(framed)), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, hyper::Error>)));
    Ok(response.body(BodyExt::boxed(body)).unwrap())
}

#[test]
fn containers_of_pods_and_their_sandboxes_are_named_by_the_cri() {
    let directory = Directory::new();
    let socket = directory.at("containerd.sock");
    cri(&socket);
    let names = asking(&[socket.to_str().unwrap()], None);
    let container = settled(&names, &of_pod(ID, "containerd")).unwrap();
    let told = |c: &Container| [c.name.clone(), c.pod.clone(), c.namespace.clone()];
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(told(&container), [some("app"), some("web-0"), some("prod")]);
    assert_eq!(container.pod_uid.as_deref(), Some(UID));
    let sandbox = settled(&names, &of_pod(OTHER, "containerd")).unwrap();
    assert_eq!(told(&sandbox), [None, some("web-0"), some("prod")]);
    assert_eq!(sandbox.labels["app"], "web");
    let neither = "00".repeat(32);
    assert!(settled(&names, &of_pod(&neither, "containerd")).is_none());
    assert_eq!(names.status().sources[0].problem, None);
}
