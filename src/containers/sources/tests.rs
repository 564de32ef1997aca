//! The whole of asking, against scripted runtimes and kubelets.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::containerd::{self, GetContainerResponse, ListNamespacesResponse, Namespace};
use super::cri::{
    ContainerMetadata, ContainerStatus, ContainerStatusResponse, ListContainersResponse,
    ListedContainer, PodSandboxMetadata, PodSandboxStatus, PodSandboxStatusResponse,
};
use super::{ContainerNames, ContainerSources, Kubelet};
use crate::capture::privileges::GiveUp;
use crate::containers::{ContainerDetails, Look, Question};
use crate::event::Container;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const UID: &str = "8f7c1a52-3b1e-4d6a-9c55-0a1b2c3d4e5f";
/// Longer than anything here is waited for by what is tested.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of a test's own.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("netspy-names-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.at(name), text).unwrap();
        self.at(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Answers each connection by what the script writes to it; the script gets the target that is asked
/// for. It goes on until the test's process ends.
fn docker(path: &Path, script: impl Fn(&str, &mut UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = head(&mut stream);
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            script(&target, &mut stream);
        }
    });
}

fn head(stream: &mut impl Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

fn answer(stream: &mut impl Write, status: u16, body: &str) {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
    // Whoever asks may have had enough.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body.as_bytes());
}

fn inspected(id: &str, name: &str) -> String {
    format!(
        r#"{{"Id":"{id}","Name":"/{name}","Config":{{"Image":"nginx:1","Labels":{{"a":"b"}}}}}}"#
    )
}

fn asking(sockets: &[&str], kubelet: Option<Kubelet>) -> Arc<ContainerNames> {
    let sockets = sockets.iter().map(|text| text.parse().unwrap()).collect();
    let sources = ContainerSources { sockets, kubelet };
    ContainerNames::start(sources, GiveUp::default()).unwrap()
}

/// Of a container of this user: root's are nobody's own.
fn question(id: &str, runtime: &str) -> Arc<Question> {
    let user = rustix::process::geteuid();
    Arc::new(Question {
        id: id.to_owned(),
        runtime: runtime.to_owned(),
        pod_uid: None,
        user: (!user.is_root()).then_some(user.as_raw()),
    })
}

fn of_pod(id: &str, runtime: &str) -> Arc<Question> {
    Arc::new(Question { pod_uid: Some(UID.to_owned()), ..(*question(id, runtime)).clone() })
}

/// What is known once nobody is being asked any more.
fn settled(names: &ContainerNames, question: &Arc<Question>) -> Option<Arc<Container>> {
    let end = Instant::now() + PATIENCE;
    loop {
        match names.look(question) {
            Look::Known(container) => return Some(container),
            Look::Unknown => return None,
            Look::Asked => assert!(Instant::now() < end, "{:?}", names.status()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn problem(names: &ContainerNames) -> String {
    let status = names.status();
    status.sources[0].problem.clone().unwrap_or_else(|| panic!("{status:?}"))
}

#[test]
fn a_container_is_named_by_the_runtime_and_asked_about_once() {
    let directory = Directory::new();
    let socket = directory.at("docker.sock");
    let targets: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&targets);
    docker(&socket, move |target, stream| {
        seen.lock().unwrap().push(target.to_owned());
        match target.contains(ID) {
            true => answer(stream, 200, &inspected(ID, "web")),
            false => answer(stream, 404, r#"{"message":"No such container"}"#),
        }
    });
    let names = asking(&[socket.to_str().unwrap()], None);
    let question = question(ID, "docker");
    assert!(matches!(names.look(&question), Look::Asked));
    let container = settled(&names, &question).unwrap();
    assert_eq!((&*container.id, &*container.runtime), (ID, "docker"));
    assert_eq!(container.name.as_deref(), Some("web"));
    assert_eq!(container.image.as_deref(), Some("nginx:1"));
    assert_eq!(container.labels["a"], "b");
    assert_eq!(names.answered(), [Arc::clone(&question)]);
    assert!(names.answered().is_empty());
    assert!(matches!(names.look(&question), Look::Known(again) if Arc::ptr_eq(&again, &container)));
    assert_eq!(*targets.lock().unwrap(), [format!("/containers/{ID}/json")]);

    let other = self::question(OTHER, "docker");
    assert!(settled(&names, &other).is_none());
    // For a while.
    assert!(matches!(names.look(&other), Look::Unknown));
    let status = names.status();
    assert_eq!((status.asked, status.named, status.unknown, status.failed), (2, 1, 1, 0));
    assert_eq!(status.sources[0].requests, 2);
    assert!(status.feature().ok);
}

#[test]
fn nobody_is_asked_about_what_no_runtime_here_has_or_what_is_no_id() {
    let names = asking(&["/nowhere/docker.sock"], None);
    for question in [
        question("web", "lxc"),
        question(ID, "containerd"),
        question("../../events", "docker"),
        question("", "docker"),
    ] {
        assert!(matches!(names.look(&question), Look::Unknown), "{question:?}");
    }
    assert_eq!(names.status().asked, 0);
}

#[test]
fn the_cgroups_of_a_user_are_not_looked_up_among_those_of_another() {
    let directory = Directory::new();
    let socket = directory.at("docker.sock");
    docker(&socket, |_, stream| answer(stream, 200, &inspected(ID, "of-root")));
    let names = asking(&[socket.to_str().unwrap()], None);
    let forged = Arc::new(Question { user: Some(4242), ..(*question(ID, "docker")).clone() });
    assert!(settled(&names, &forged).is_none());
    assert!(settled(&names, &question(ID, "docker")).is_some());
}

#[test]
fn a_broken_hostile_or_silent_socket_costs_an_answer_and_nothing_else() {
    let directory = Directory::new();
    let other = directory.at("podman.sock");
    docker(&other, |target, stream| match target.contains(OTHER) {
        true => answer(stream, 200, &inspected(OTHER, "db")),
        false => answer(stream, 404, "{}"),
    });
    type Script = fn(&str, &mut UnixStream);
    let scripts: [(&str, Script, &str); 7] = [
        ("error", |_, stream| answer(stream, 500, "x"), "it answered 500"),
        ("garbage", |_, stream| answer(stream, 200, "\x1b[31m{"), "the answer is none"),
        ("another", |_, stream| answer(stream, 200, &inspected("c0", "x")), "another container"),
        ("not-http", |_, stream| drop(stream.write_all(b"SSH-2.0-x\r\n")), "no valid HTTP"),
        ("closed", |_, _| {}, "no valid HTTP"),
        ("silent", |_, stream| drop(stream.read(&mut [0])), "no answer within"),
        (
            "endless",
            |_, stream| {
                let _ = stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 99999999999\r\n\r\n");
                while stream.write_all(&[b'['; 4096]).is_ok() {}
            },
            "larger than 1048576 bytes",
        ),
    ];
    for (name, script, expected) in scripts {
        let socket = directory.at(&format!("{name}.sock"));
        docker(&socket, script);
        let names = asking(&[socket.to_str().unwrap(), other.to_str().unwrap()], None);
        let one = question(ID, "docker");
        assert!(matches!(names.look(&one), Look::Asked));
        // The other socket goes on answering meanwhile.
        let two = question(OTHER, "docker");
        let container = settled(&names, &two).unwrap();
        assert_eq!(container.name.as_deref(), Some("db"));
        let end = Instant::now() + PATIENCE;
        while names.status().sources[0].problem.is_none() {
            assert!(Instant::now() < end, "{name}: {:?}", names.status());
            std::thread::sleep(Duration::from_millis(5));
        }
        let problem = problem(&names);
        assert!(problem.contains(expected), "{name}: {problem}");
        assert!(!problem.chars().any(char::is_control), "{problem:?}");
        assert!(!names.status().feature().ok);
    }
}

#[test]
fn a_runtime_that_comes_back_is_asked_again_and_less_often_while_it_does_not() {
    let directory = Directory::new();
    let socket = directory.at("docker.sock");
    let names = asking(&[socket.to_str().unwrap()], None);
    let question = question(ID, "docker");
    assert!(matches!(names.look(&question), Look::Asked));
    let end = Instant::now() + PATIENCE;
    while names.status().sources[0].failures == 0 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(problem(&names).contains("cannot connect"), "{}", problem(&names));
    docker(&socket, |_, stream| answer(stream, 200, &inspected(ID, "web")));
    assert_eq!(settled(&names, &question).unwrap().name.as_deref(), Some("web"));
    let status = names.status();
    assert_eq!(status.sources[0].problem, None);
    assert!(status.sources[0].requests <= 4, "{status:?}");
}

#[test]
fn the_queue_is_bounded_and_what_does_not_fit_is_counted() {
    let directory = Directory::new();
    let socket = directory.at("docker.sock");
    // Nobody accepts.
    let _listener = UnixListener::bind(&socket).unwrap();
    let names = asking(&[socket.to_str().unwrap()], None);
    for number in 0..2000 {
        let _ = names.look(&question(&format!("{number:064x}"), "docker"));
    }
    let status = names.status();
    assert_eq!(status.asked + status.skipped, 2000, "{status:?}");
    assert!(status.skipped > 1000, "{status:?}");
}

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

/// A kubelet with a certificate for localhost, which the file `ca.pem` vouches for, and whose clients
/// have to be known by the same. It says what `bodies` say, one after the other, and the last for ever.
struct Scripted {
    url: String,
    requests: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

fn kubelet(directory: &Directory, answers: Vec<(u16, String)>, asks: bool) -> Scripted {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    directory.write("ca.pem", &ca.pem());
    let ca_der = ca.der().clone();
    let issuer = Issuer::new(params, key);
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (node, node_key) = signed("node-1");
    directory.write("node.pem", &format!("{}{}", node.pem(), node_key.serialize_pem()));
    let (own, own_key) = signed("localhost");
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match asks {
        false => config.with_no_client_auth(),
        true => {
            let mut roots = RootCertStore::empty();
            roots.add(ca_der).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let der = PrivateKeyDer::try_from(own_key.serialize_der()).unwrap();
    let config = Arc::new(config.with_single_cert(vec![own.der().clone()], der).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let (requests, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (count, seen) = (Arc::clone(&requests), Arc::clone(&heads));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut tls = tokio_rustls::rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = tokio_rustls::rustls::Stream::new(&mut tls, &mut stream);
            let head = head(&mut stream);
            if head.is_empty() {
                continue;
            }
            let number = count.fetch_add(1, Ordering::SeqCst);
            seen.lock().unwrap().push(head);
            let (status, body) = answers.get(number).or(answers.last()).unwrap();
            match status {
                // Says nothing, until the other side has had enough.
                0 => drop(stream.read(&mut [0])),
                status => answer(&mut stream, *status, body),
            }
        }
    });
    Scripted { url, requests, heads }
}

fn pods(pods: &[(&str, &str, &str)]) -> String {
    let items = pods.iter().map(|(name, uid, id)| {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"prod","uid":"{uid}"}},"status":
                {{"containerStatuses":[{{"name":"app","image":"nginx","containerID":"{id}"}}]}}}}"#
        )
    });
    format!(r#"{{"items":[{}]}}"#, items.collect::<Vec<_>>().join(","))
}

fn asked_with(directory: &Directory, scripted: &Scripted) -> Kubelet {
    Kubelet::new(&scripted.url).unwrap().with_authorities(&directory.at("ca.pem"))
}

#[test]
fn a_pod_is_named_by_the_kubelet_with_token_and_certificate_of_the_node() {
    let directory = Directory::new();
    let list = pods(&[("web-0", UID, &format!("containerd://{ID}"))]);
    let scripted = kubelet(&directory, vec![(200, list)], true);
    let token = directory.write("token", "se-cret\n");
    let node = directory.at("node.pem");
    let source =
        asked_with(&directory, &scripted).with_token_file(&token).with_certificate(&node, &node);
    assert!(!format!("{source:?}").contains("se-cret"));
    let names = asking(&[], Some(source));
    let question = of_pod(ID, "cri");
    let root = Arc::new(Question { user: None, ..(*question).clone() });
    let container = settled(&names, &root).unwrap();
    let told = [&container.name, &container.pod, &container.namespace, &container.image];
    assert_eq!(told.map(|text| text.as_deref().unwrap()), ["app", "web-0", "prod", "nginx"]);
    let heads = scripted.heads.lock().unwrap().clone();
    assert!(heads[0].starts_with("GET /pods HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[0].to_lowercase().contains("authorization: bearer se-cret\r\n"), "{heads:?}");
    // Another container of a pod that is known already takes no request.
    let other = Arc::new(Question { id: OTHER.to_owned(), ..(*root).clone() });
    drop(settled(&names, &other));
    assert!(!format!("{:?}", names.status()).contains("se-cret"));
}

#[test]
fn a_container_that_the_kubelet_does_not_know_yet_is_asked_for_again() {
    let directory = Directory::new();
    let late = pods(&[("web-0", UID, &format!("containerd://{ID}"))]);
    let scripted = kubelet(&directory, vec![(200, pods(&[])), (200, late)], false);
    let names = asking(&[], Some(asked_with(&directory, &scripted)));
    let question = Arc::new(Question { user: None, ..(*of_pod(ID, "cri")).clone() });
    assert_eq!(settled(&names, &question).unwrap().name.as_deref(), Some("app"));
    assert_eq!(scripted.requests.load(Ordering::SeqCst), 2);
}

#[test]
fn a_pod_that_takes_the_place_of_another_is_another() {
    let directory = Directory::new();
    let before = pods(&[("web-0", UID, &format!("containerd://{ID}"))]);
    let uid = "11111111-2222-3333-4444-555555555555";
    let after = pods(&[("web-0", uid, &format!("containerd://{OTHER}"))]);
    let scripted = kubelet(&directory, vec![(200, before), (200, after)], false);
    let names = asking(&[], Some(asked_with(&directory, &scripted)));
    let old = Arc::new(Question { user: None, ..(*of_pod(ID, "cri")).clone() });
    let known = settled(&names, &old).unwrap();
    let new = Question { id: OTHER.to_owned(), pod_uid: Some(uid.to_owned()), ..(*old).clone() };
    let replaced = settled(&names, &Arc::new(new)).unwrap();
    assert_eq!((replaced.pod.as_deref(), replaced.pod_uid.as_deref()), (Some("web-0"), Some(uid)));
    // What was told of the first stays as it was.
    assert!(matches!(names.look(&old), Look::Known(again) if Arc::ptr_eq(&again, &known)));
}

#[test]
fn a_kubelet_that_refuses_fails_is_slow_or_talks_nonsense_is_told_and_left_alone() {
    let too_large = "[".repeat(33 << 20);
    for (status, body, expected) in [
        (401, String::new(), "it answered 401 (it does not know the token"),
        (403, String::new(), "it answered 403 (whom it knows"),
        (500, String::new(), "it answered 500"),
        (200, "<html>".to_owned(), "the answer is none"),
        (200, too_large, "larger than 33554432 bytes"),
        (0, String::new(), "no answer within"),
    ] {
        let directory = Directory::new();
        let scripted = kubelet(&directory, vec![(status, body)], false);
        let names = asking(&[], Some(asked_with(&directory, &scripted)));
        let question = Arc::new(Question { user: None, ..(*of_pod(ID, "cri")).clone() });
        assert!(settled(&names, &question).is_none());
        let problem = problem(&names);
        assert!(problem.contains(expected), "{status}: {problem}");
        let requests = scripted.requests.load(Ordering::SeqCst);
        assert!((1..=4).contains(&requests), "{status}: {requests}");
        assert_eq!(names.status().failed, 1);
    }
}

#[test]
fn a_kubelet_is_believed_only_with_a_certificate_that_is_trusted_and_a_token_that_can_be_read() {
    let directory = Directory::new();
    let list = pods(&[("web-0", UID, &format!("containerd://{ID}"))]);
    let scripted = kubelet(&directory, vec![(200, list)], false);
    let (other, key) = (Directory::new(), KeyPair::generate().unwrap());
    let stranger = CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&key).unwrap();
    let stranger = other.write("ca.pem", &stranger.pem());
    let question = Arc::new(Question { user: None, ..(*of_pod(ID, "cri")).clone() });
    let new = || Kubelet::new(&scripted.url).unwrap();
    for (kubelet, expected) in [
        (new().with_authorities(&stranger), "certificate"),
        (new().with_authorities(&directory.at("none.pem")), "cannot read certificate from"),
        (
            asked_with(&directory, &scripted).with_token_file(&directory.at("none")),
            "cannot read the token from",
        ),
    ] {
        let names = asking(&[], Some(kubelet));
        assert!(settled(&names, &question).is_none());
        let problem = problem(&names);
        assert!(problem.contains(expected), "{problem}");
    }
    assert_eq!(scripted.requests.load(Ordering::SeqCst), 0);
}
