//! The kubelet, over TLS.

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;

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
    let cases = [
        (401, String::new(), "it answered 401 (it does not know the token"),
        (403, String::new(), "it answered 403 (whom it knows"),
        (500, String::new(), "it answered 500"),
        (200, "<html>".to_owned(), "the answer is none"),
        (200, too_large, "larger than 33554432 bytes"),
        (0, String::new(), "no answer within"),
    ];
    let question = Arc::new(Question { user: None, ..(*of_pod(ID, "cri")).clone() });
    // All are asked at once, since failures are waited out.
    let all = cases.map(|(status, body, expected)| {
        let directory = Directory::new();
        let scripted = kubelet(&directory, vec![(status, body)], false);
        let names = asking(&[], Some(asked_with(&directory, &scripted)));
        names.look(&question);
        (directory, scripted, names, status, expected)
    });
    for (_directory, scripted, names, status, expected) in all {
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
    let cases = [
        (new().with_authorities(&stranger), "certificate"),
        (new().with_authorities(&directory.at("none.pem")), "cannot read certificate from"),
        (
            asked_with(&directory, &scripted).with_token_file(&directory.at("none")),
            "cannot read the token from",
        ),
    ];
    let all = cases.map(|(kubelet, expected)| {
        let names = asking(&[], Some(kubelet));
        names.look(&question);
        (names, expected)
    });
    for (names, expected) in all {
        assert!(settled(&names, &question).is_none());
        let problem = problem(&names);
        assert!(problem.contains(expected), "{problem}");
    }
    assert_eq!(scripted.requests.load(Ordering::SeqCst), 0);
}
