//! The pods of this node, as the kubelet (`GET /pods`) or the API server lists them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Uri;
use hyper::header::HeaderValue;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::facts::Facts;
use super::http::Get;
use super::options::InvalidSource;
use super::{SourceError, http};
use crate::client::Access;
use crate::containers::Question;

/// Some hundred pods, of which one takes up to some tens of kilobytes.
const LIMIT: usize = 32 << 20;
/// Containers that are kept; a node has some hundred.
const CONTAINERS: usize = 20_000;
/// Time between two requests, and how long what was told counts.
const PAUSE: Duration = Duration::from_secs(2);
const FRESH: Duration = Duration::from_secs(60);
/// The longest token.
const TOKEN: u64 = 64 * 1024;

/// Who lists the pods of this node, and what is shown to them.
#[derive(Debug, Clone)]
pub struct Kubelet {
    is_https: bool,
    host: String,
    port: u16,
    target: String,
    token_file: Option<PathBuf>,
    access: Access,
}

impl Kubelet {
    /// The kubelet at `https://HOST:PORT` (or its read-only port, `http://`), or any URL that answers
    /// with a list of pods: `https://HOST/api/v1/pods?fieldSelector=spec.nodeName%3DNODE` of the API
    /// server.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL.
    pub fn new(url: &str) -> Result<Self, InvalidSource> {
        let invalid =
            |problem: &str| InvalidSource(format!("{problem}, such as https://127.0.0.1:10250"));
        let uri: Uri = url.trim().parse().map_err(|_| invalid("expected a URL"))?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(invalid("expected https:// or http://")),
        };
        let authority = uri.authority().ok_or_else(|| invalid("expected a host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid(
                "no user belongs into the URL; name a file with --kubelet-token-file",
            ));
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if target == "/" { "/pods" } else { target };
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Kubelet {
            is_https,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            target: target.to_owned(),
            token_file: None,
            access: Access::default(),
        })
    }

    /// Shows the token that is in this file at the time; tokens of service accounts change.
    #[must_use]
    pub fn with_token_file(mut self, path: &Path) -> Self {
        self.token_file = Some(path.to_owned());
        self
    }

    /// Trusts the certificates of this file (PEM), rather than the authorities of the system.
    #[must_use]
    pub fn with_authorities(mut self, path: &Path) -> Self {
        self.access = self.access.with_authorities(path);
        self
    }

    /// Shows this certificate (PEM), as a node does with its own.
    #[must_use]
    pub fn with_certificate(mut self, certificate: &Path, key: &Path) -> Self {
        self.access = self.access.with_certificate(certificate, key);
        self
    }

    /// Whether it is asked over TLS; otherwise nothing secret may be shown to it.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    async fn get(&self) -> Result<Pods, SourceError> {
        let authorization = self.token_file.as_deref().map(bearer).transpose()?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|source| SourceError::Connect { source })?;
        let host = self.authority();
        let get = Get { host: &host, target: &self.target, authorization, limit: LIMIT };
        let (status, body) = match self.is_https {
            false => get.over(stream).await?,
            true => {
                let config: Arc<ClientConfig> = self.access.tls()?;
                let name = ServerName::try_from(self.host.clone()).map_err(http::broken)?;
                let agreed = TlsConnector::from(config).connect(name, stream).await;
                get.over(agreed.map_err(|source| SourceError::Connect { source })?).await?
            }
        };
        if status != 200 {
            return Err(SourceError::Status { status });
        }
        Pods::read(&body)
    }
}

impl std::fmt::Display for Kubelet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        let target = self.target.split('?').next().unwrap_or_default();
        write!(f, "kubelet:{scheme}://{}{target}", self.authority())
    }
}

fn bearer(path: &Path) -> Result<HeaderValue, SourceError> {
    let what = "the token";
    let failed = |source| SourceError::Credentials { what, path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).map_err(failed)?.take(TOKEN).read_to_string(&mut text).map_err(failed)?;
    let value = HeaderValue::try_from(format!("Bearer {}", text.trim()));
    let mut value = value.map_err(|_| failed(std::io::Error::other("it is none")))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A kubelet, and what it said last.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) kubelet: Kubelet,
    last: Mutex<Option<(Instant, Pods)>>,
}

impl Asked {
    pub(super) fn new(kubelet: Kubelet) -> Self {
        Asked { kubelet, last: Mutex::new(None) }
    }

    /// What it said lately of a container. Of one that is being started it says the pod first.
    pub(super) async fn known(&self, question: &Question) -> Option<Facts> {
        let last = self.last.lock().await;
        let (at, pods) = last.as_ref()?;
        let facts = pods.facts(question)?;
        (at.elapsed() < FRESH && facts.name.is_some()).then_some(facts)
    }

    /// The same, once it was asked again, unless that was a moment ago.
    pub(super) async fn ask(&self, question: &Question) -> Result<Option<Facts>, SourceError> {
        let mut last = self.last.lock().await;
        if last.as_ref().is_none_or(|(at, _)| at.elapsed() >= PAUSE) {
            *last = Some((Instant::now(), self.kubelet.get().await?));
        }
        Ok(last.as_ref().and_then(|(_, pods)| pods.facts(question)))
    }
}

/// The pods by what is known of a container.
#[derive(Debug, Default)]
struct Pods {
    pods: Vec<Facts>,
    by_uid: HashMap<String, usize>,
    /// The pod, and name and image of the container.
    by_container: HashMap<String, (usize, Facts)>,
}

#[derive(Deserialize)]
struct List {
    // The kubelet says null where there are none.
    items: Option<Vec<Pod>>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    uid: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<HashMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    name: String,
    image: Option<String>,
    #[serde(rename = "containerID")]
    id: Option<String>,
}

/// For a pod that comes from a file on the node the API server has another uid than the cgroup.
const OF_FILE: &str = "kubernetes.io/config.hash";

impl Pods {
    fn read(body: &[u8]) -> Result<Self, SourceError> {
        let list: List = serde_json::from_slice(body)
            .map_err(|error| SourceError::Garbage(error.to_string()))?;
        let mut pods = Pods::default();
        for Pod { metadata, status } in list.items.unwrap_or_default() {
            if pods.by_container.len() >= CONTAINERS || pods.pods.len() >= CONTAINERS {
                break;
            }
            let at = pods.pods.len();
            let of_file = metadata.annotations.and_then(|mut all| all.remove(OF_FILE));
            for uid in of_file.into_iter().chain([metadata.uid]) {
                pods.by_uid.insert(uid, at);
            }
            let facts = Facts {
                pod: Some(metadata.name),
                namespace: metadata.namespace,
                labels: metadata.labels.unwrap_or_default(),
                ..Facts::default()
            };
            pods.pods.push(facts.bounded());
            let Status { container_statuses: usual, init_container_statuses: init, .. } = status;
            let all = [usual, init, status.ephemeral_container_statuses];
            for container in all.into_iter().flatten().flatten().take(CONTAINERS) {
                // "containerd://ID".
                let id = container.id.as_deref().and_then(|id| id.split_once("://"));
                let Some((_, id)) = id else { continue };
                let (name, image) = (Some(container.name), container.image);
                let facts = Facts { name, image, ..Facts::default() }.bounded();
                pods.by_container.insert(id.to_owned(), (at, facts));
            }
        }
        Ok(pods)
    }

    fn facts(&self, question: &Question) -> Option<Facts> {
        let container = self.by_container.get(&question.id);
        let by_uid = || self.by_uid.get(question.pod_uid.as_ref()?).copied();
        let at = container.map(|(at, _)| *at).or_else(by_uid)?;
        let pod = self.pods.get(at)?.clone();
        Some(match container {
            Some((_, container)) => container.clone().or(pod),
            None => pod,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: &str, pod_uid: &str) -> Question {
        Question {
            id: id.to_owned(),
            runtime: "cri".to_owned(),
            pod_uid: Some(pod_uid.to_owned()),
            user: None,
        }
    }

    #[test]
    fn urls_name_the_kubelet_or_the_api_server() {
        for (url, shown, target) in [
            ("https://127.0.0.1:10250", "kubelet:https://127.0.0.1:10250/pods", "/pods"),
            ("http://[::1]:10255/", "kubelet:http://[::1]:10255/pods", "/pods"),
            ("https://node-1", "kubelet:https://node-1:443/pods", "/pods"),
            (
                "https://10.96.0.1/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1",
                "kubelet:https://10.96.0.1:443/api/v1/pods",
                "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1",
            ),
        ] {
            let kubelet = Kubelet::new(url).unwrap();
            assert_eq!((kubelet.to_string().as_str(), kubelet.target.as_str()), (shown, target));
        }
        for url in ["", "127.0.0.1:10250", "ftp://x", "https://", "https://u:secret@x", "/pods"] {
            let error = Kubelet::new(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_container_is_found_by_its_id_and_its_pod_by_its_uid() {
        let list = r#"{"kind":"PodList","items":[
            {"metadata":{"name":"web-0","namespace":"prod","uid":"u1","labels":{"app":"web"}},
             "status":{"containerStatuses":[
                {"name":"app","image":"nginx:1","containerID":"containerd://c1","ready":true},
                {"name":"late","image":"x","state":{"waiting":{}}}],
              "initContainerStatuses":[{"name":"init","image":"busybox","containerID":"cri-o://c2"}]}},
            {"metadata":{"name":"etcd-node-1","namespace":"kube-system","uid":"of-the-mirror",
              "annotations":{"kubernetes.io/config.hash":"of-the-file"}},"spec":{}}]}"#;
        let pods = Pods::read(list.as_bytes()).unwrap();
        let told = |id, uid| {
            let facts = pods.facts(&question(id, uid))?;
            Some([facts.name, facts.image, facts.pod, facts.namespace])
        };
        let some = |texts: [&str; 4]| {
            Some(texts.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty())))
        };
        assert_eq!(told("c1", "u1"), some(["app", "nginx:1", "web-0", "prod"]));
        assert_eq!(told("c2", "u1"), some(["init", "busybox", "web-0", "prod"]));
        assert_eq!(told("c3", "u1"), some(["", "", "web-0", "prod"]));
        assert_eq!(told("c4", "of-the-file"), some(["", "", "etcd-node-1", "kube-system"]));
        assert_eq!(told("c5", "unknown"), None);
        assert_eq!(pods.facts(&question("c1", "u1")).unwrap().labels["app"], "web");
    }

    #[test]
    fn what_is_no_list_of_pods_is_none() {
        for text in ["", "[]", "7", r#"{"items":[7]}"#, r#"{"items":[{"metadata":{"name":1}}]}"#] {
            let error = Pods::read(text.as_bytes()).unwrap_err();
            assert!(matches!(error, SourceError::Garbage(_)), "{text}: {error}");
        }
        assert!(Pods::read(br#"{"items":null}"#).unwrap().pods.is_empty());
    }
}
