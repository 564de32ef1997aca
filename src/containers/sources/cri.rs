//! The Container Runtime Interface of Kubernetes, which containerd and CRI-O serve
//! (k8s.io/cri-api, `runtime/v1/api.proto`).

use std::collections::HashMap;
use std::path::Path;

use prost::Message;

use super::facts::Facts;
use super::grpc::{Calls, OfId};
use super::{SourceError, containerd};

/// What carries the calls.
const SERVICE: &str = "runtime.v1.RuntimeService";

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

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    pub filter: Option<OfId>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<ListedContainer>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListedContainer {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
}

/// What it knows of a container, or of the sandbox of a pod, which looks like one from outside; `None`
/// if it has neither of this id. What is no container of a pod the CRI does not tell of, and
/// containerd by other calls.
pub(super) async fn ask(socket: &Path, id: &str) -> Result<Option<Facts>, SourceError> {
    let mut calls = Calls::to(socket).await?;
    let of_id = OfId { id: id.to_owned() };
    let container: Option<ContainerStatusResponse> =
        calls.call(SERVICE, "ContainerStatus", &of_id).await?;
    if let Some(status) = container.and_then(|response| response.status) {
        let facts = of_container(status, id)?;
        // What is known is not given up for want of the rest.
        let of_pod = sandbox_of(&mut calls, of_id).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the pod of a container is not known");
            None
        });
        return Ok(Some(match of_pod {
            Some(of_pod) => facts.or(of_pod),
            None => facts,
        }));
    }
    if let Some(facts) = sandbox(&mut calls, &of_id).await? {
        return Ok(Some(facts));
    }
    containerd::ask(&mut calls, &of_id).await
}

/// What is known of the pod of a container: labels above all, which the container does not have.
async fn sandbox_of(calls: &mut Calls, of_id: OfId) -> Result<Option<Facts>, SourceError> {
    let id = of_id.id.clone();
    let request = ListContainersRequest { filter: Some(of_id) };
    let listed: Option<ListContainersResponse> =
        calls.call(SERVICE, "ListContainers", &request).await?;
    let listed = listed.map(|response| response.containers).unwrap_or_default();
    // A prefix of an id is enough for the filter.
    let Some(own) = listed.into_iter().find(|container| container.id == id) else {
        return Ok(None);
    };
    sandbox(calls, &OfId { id: own.pod_sandbox_id }).await
}

async fn sandbox(calls: &mut Calls, of_id: &OfId) -> Result<Option<Facts>, SourceError> {
    let told: Option<PodSandboxStatusResponse> =
        calls.call(SERVICE, "PodSandboxStatus", of_id).await?;
    let status = told.and_then(|response| response.status);
    status.map(|status| of_sandbox(status, &of_id.id)).transpose()
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

pub(super) fn is_meant(told: &str, id: &str) -> Result<(), SourceError> {
    let other = || SourceError::Garbage("it is about another container".to_owned());
    (told == id).then_some(()).ok_or_else(other)
}

#[cfg(test)]
mod tests {
    use super::super::grpc::{framed, message_of};
    use super::*;

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
    fn what_is_told_of_another_container_is_refused() {
        let other = ContainerStatus { id: "c2".to_owned(), ..ContainerStatus::default() };
        assert!(of_container(other, "c1").is_err());
        let other = PodSandboxStatus { id: "c2".to_owned(), ..PodSandboxStatus::default() };
        assert!(of_sandbox(other, "c1").is_err());
    }
}
