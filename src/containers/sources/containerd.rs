//! The API of containerd itself, at the same socket as the CRI: it knows the containers that no kubelet
//! has, such as those of nerdctl (containerd's `api/services`).

use std::collections::HashMap;

use hyper::header::HeaderValue;
use prost::Message;

use super::SourceError;
use super::cri::is_meant;
use super::facts::Facts;
use super::grpc::{Calls, OfId};

const CONTAINERS: &str = "containerd.services.containers.v1.Containers";
const NAMESPACES: &str = "containerd.services.namespaces.v1.Namespaces";
/// The code of gRPC for a service that is not there: CRI-O has none of these.
const UNIMPLEMENTED: u32 = 12;
/// Namespaces that are looked into.
const MOST: usize = 16;
/// Those of others, who tell more themselves: Kubernetes and Docker.
const OTHERS: [&str; 2] = ["k8s.io", "moby"];

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetContainerResponse {
    #[prost(message, optional, tag = "1")]
    pub container: Option<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(map = "string, string", tag = "2")]
    pub labels: HashMap<String, String>,
    #[prost(string, tag = "3")]
    pub image: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListNamespacesRequest {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListNamespacesResponse {
    #[prost(message, repeated, tag = "1")]
    pub namespaces: Vec<Namespace>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Namespace {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// What it knows of a container, in whichever namespace; `None` if it has none of this id.
pub(super) async fn ask(calls: &mut Calls, of_id: &OfId) -> Result<Option<Facts>, SourceError> {
    let request = ListNamespacesRequest::default();
    let listed: Result<Option<ListNamespacesResponse>, _> =
        calls.call(NAMESPACES, "List", &request).await;
    let listed = match listed {
        Err(SourceError::Grpc { code: UNIMPLEMENTED }) => return Ok(None),
        listed => listed?.map(|response| response.namespaces).unwrap_or_default(),
    };
    let names = listed.into_iter().map(|namespace| namespace.name);
    for name in names.filter(|name| !OTHERS.contains(&name.as_str())).take(MOST) {
        // Containerd allows letters, digits and what is between them alone.
        let Ok(namespace) = HeaderValue::try_from(name) else { continue };
        calls.within(namespace);
        let told: Option<GetContainerResponse> = calls.call(CONTAINERS, "Get", of_id).await?;
        if let Some(container) = told.and_then(|response| response.container) {
            return of_container(container, &of_id.id).map(Some);
        }
    }
    Ok(None)
}

fn of_container(told: Container, id: &str) -> Result<Facts, SourceError> {
    is_meant(&told.id, id)?;
    // The id is all that containerd calls it by; nerdctl has a label for what its user does.
    let name = told.labels.get("nerdctl/name").cloned();
    Ok(Facts::of_runtime(name, Some(told.image), told.labels))
}

#[cfg(test)]
mod tests {
    use super::super::grpc::{framed, message_of};
    use super::*;

    #[test]
    fn members_have_the_numbers_of_the_interface() {
        // As protoc would write it: 1: "c1", 2: {"nerdctl/name": "web"}, 3: "nginx", 6: "overlayfs".
        let container = b"\x0a\x02c1\x12\x13\x0a\x0cnerdctl/name\x12\x03web\x1a\x05nginx\
                          \x32\x09overlayfs";
        let mut message = vec![0x0a, container.len() as u8];
        message.extend(container);
        let response: GetContainerResponse = message_of(&framed(&message)).unwrap();
        let facts = of_container(response.container.unwrap(), "c1").unwrap();
        assert_eq!((facts.name.as_deref(), facts.image.as_deref()), (Some("web"), Some("nginx")));
        let other = Container { id: "c2".to_owned(), ..Container::default() };
        assert!(of_container(other, "c1").is_err());
        let response: ListNamespacesResponse =
            message_of(&framed(b"\x0a\x09\x0a\x07default\x0a\x08\x0a\x06k8s.io")).unwrap();
        assert_eq!(response.namespaces.len(), 2);
        assert_eq!(response.namespaces[0].name, "default");
    }
}
