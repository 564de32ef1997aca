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
use crate::containers::sources::containerd::{
    self, GetContainerResponse, ListNamespacesResponse, Namespace,
};
use crate::containers::sources::cri::{
    ContainerMetadata, ContainerStatus, ContainerStatusResponse, ListContainersResponse,
    ListedContainer, PodSandboxMetadata, PodSandboxStatus, PodSandboxStatusResponse,
};

type Body = BoxBody<Bytes, hyper::Error>;

/// A container of nerdctl, in a namespace of containerd.
const OF_NERDCTL: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A runtime that serves the CRI: `ID` is a container, `OTHER` the sandbox of its pod. As containerd it
/// has more services.
fn cri(path: &Path, is_containerd: bool) {
    let listener = UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(
                        TokioIo::new(stream),
                        service_fn(move |request| call(request, is_containerd)),
                    );
                tokio::spawn(async move { drop(served.await) });
            }
        });
    });
}

async fn call(
    request: Request<Incoming>,
    is_containerd: bool,
) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert_eq!(head.headers["te"], "trailers");
    let body = body.collect().await?.to_bytes();
    // An id is the last of each message that has one.
    let id = String::from_utf8_lossy(&body[body.len().saturating_sub(ID.len())..]).into_owned();
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
        ("/runtime.v1.RuntimeService/ListContainers", ID) => {
            // The filter takes a prefix, so that there may be another.
            let listed = [(OF_NERDCTL, ID), (ID, OTHER)].map(|(id, pod)| ListedContainer {
                id: id.to_owned(),
                pod_sandbox_id: pod.to_owned(),
            });
            Some(ListContainersResponse { containers: listed.into() }.encode_to_vec())
        }
        ("/containerd.services.namespaces.v1.Namespaces/List", _) if is_containerd => {
            let names = ["k8s.io", "moby", "a", "default"];
            let namespaces = names.map(|name| Namespace { name: name.to_owned() }).into();
            Some(ListNamespacesResponse { namespaces }.encode_to_vec())
        }
        ("/containerd.services.containers.v1.Containers/Get", OF_NERDCTL)
            if head.headers["containerd-namespace"] == "default" =>
        {
            let labels = [("nerdctl/name".to_owned(), "web".to_owned())].into();
            let container = containerd::Container { id, labels, image: "nginx:1".to_owned() };
            Some(GetContainerResponse { container: Some(container) }.encode_to_vec())
        }
        _ => None,
    };
    let is_known = is_containerd || head.uri.path().starts_with("/runtime.v1.");
    let response = Response::builder().header("content-type", "application/grpc");
    let Some(message) = message else {
        // As servers do it that have nothing else to say.
        let empty = Full::default().map_err(|never| match never {}).boxed();
        let status = if is_known { "5" } else { "12" };
        return Ok(response.header("grpc-status", status).body(empty).unwrap());
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
    let socket = directory.at("crio.sock");
    cri(&socket, false);
    let names = asking(&[socket.to_str().unwrap()], None);
    let container = settled(&names, &of_pod(ID, "containerd")).unwrap();
    // The pod's, beside those that the kubelet has put on the container.
    assert_eq!(container.labels["app"], "web");
    assert_eq!(container.labels["io.kubernetes.pod.name"], "web-0");
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

#[test]
fn containers_of_nerdctl_are_named_by_containerd_in_whichever_namespace() {
    let directory = Directory::new();
    let socket = directory.at("containerd.sock");
    cri(&socket, true);
    let names = asking(&[socket.to_str().unwrap()], None);
    let container = settled(&names, &question(OF_NERDCTL, "containerd")).unwrap();
    assert_eq!(
        (container.name.as_deref(), container.image.as_deref()),
        (Some("web"), Some("nginx:1"))
    );
    assert_eq!(container.labels["nerdctl/name"], "web");
    assert!(settled(&names, &question(&"00".repeat(32), "containerd")).is_none());
    assert_eq!(names.status().sources[0].problem, None);
}
