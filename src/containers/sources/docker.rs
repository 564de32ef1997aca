//! The API of Docker over its socket, which podman serves, too: `GET /containers/ID/json`.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use tokio::net::UnixStream;

use super::SourceError;
use super::facts::Facts;
use super::http::Get;

/// What is told of a container takes some tens of kilobytes.
const LIMIT: usize = 1 << 20;

#[derive(Deserialize)]
struct Inspected {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Name", default)]
    name: Option<String>,
    #[serde(rename = "Config", default)]
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "Image", default)]
    image: Option<String>,
    #[serde(rename = "Labels", default)]
    labels: Option<HashMap<String, String>>,
}

/// What it knows of a container; `None` if it has none of this id, which is one that is looked for by
/// a path of hexadecimal digits.
pub(super) async fn ask(socket: &Path, id: &str) -> Result<Option<Facts>, SourceError> {
    let stream =
        UnixStream::connect(socket).await.map_err(|source| SourceError::Connect { source })?;
    let target = format!("/containers/{id}/json");
    let get = Get { host: "localhost", target: &target, authorization: None, limit: LIMIT };
    match get.over(stream).await? {
        (200, body) => read(&body, id).map(Some),
        (404, _) => Ok(None),
        (status, _) => Err(SourceError::Status { status }),
    }
}

fn read(body: &[u8], id: &str) -> Result<Facts, SourceError> {
    let garbage = |why: String| SourceError::Garbage(why);
    let told: Inspected = serde_json::from_slice(body).map_err(|e| garbage(e.to_string()))?;
    if told.id != id {
        return Err(garbage("it is about another container".to_owned()));
    }
    let (image, labels) = told.config.map_or((None, None), |config| (config.image, config.labels));
    // "/web" is what others call "web".
    let name = told.name.map(|name| name.strip_prefix('/').unwrap_or(&name).to_owned());
    Ok(Facts::of_runtime(name, image, labels.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_and_podman_say_is_understood() {
        let docker =
            br#"{"Id":"c1","Created":"2026-11-22T10:00:00Z","Path":"nginx","State":{"Pid":7},
            "Image":"sha256:1234","Name":"/shop-web-1","HostConfig":{"Binds":null},
            "Config":{"Hostname":"c1","Image":"nginx:1.29","Labels":
                {"com.docker.compose.project":"shop","com.docker.compose.service":"web"}}}"#;
        let facts = read(docker, "c1").unwrap();
        assert_eq!(facts.name.as_deref(), Some("shop-web-1"));
        assert_eq!(facts.image.as_deref(), Some("nginx:1.29"));
        assert_eq!(facts.labels["com.docker.compose.service"], "web");
        let podman =
            br#"{"Id":"c1","Name":"web","Config":{"Image":"docker.io/library/nginx:latest",
            "Labels":null}}"#;
        let facts = read(podman, "c1").unwrap();
        assert_eq!(facts.name.as_deref(), Some("web"));
        assert!(facts.labels.is_empty());
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"Id":"c2","Name":"/x"}"#,
            r#"{"Id":"c1","Name":7}"#,
            r#"{"Id":"c1","Config":{"Labels":{"a":{}}}}"#,
            &format!(r#"{{"Id":"c1","x":{}"#, "[".repeat(100_000)),
        ] {
            let error = read(text.as_bytes(), "c1").unwrap_err();
            assert!(matches!(error, SourceError::Garbage(_)), "{error}");
        }
    }
}
