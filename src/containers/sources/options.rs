//! Which sources there are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::kubelet::Kubelet;

/// Where runtimes listen unless they are told otherwise.
const USUAL: [(&str, Speaks); 6] = [
    ("/run/docker.sock", Speaks::Docker),
    ("/run/podman/podman.sock", Speaks::Docker),
    ("/run/containerd/containerd.sock", Speaks::Cri),
    ("/run/crio/crio.sock", Speaks::Cri),
    ("/run/k3s/containerd/containerd.sock", Speaks::Cri),
    ("/run/cri-dockerd.sock", Speaks::Cri),
];

/// Who is asked what containers are called.
#[derive(Debug, Clone, Default)]
pub struct ContainerSources {
    /// The sockets of runtimes.
    pub sockets: Vec<RuntimeSocket>,
    /// The kubelet, or the API server.
    pub kubelet: Option<Kubelet>,
}

impl ContainerSources {
    /// The sockets where they usually are, as far as they are there when somebody is to be asked.
    pub fn usual() -> Self {
        let sockets = USUAL.iter().map(|(path, speaks)| RuntimeSocket {
            path: PathBuf::from(path),
            speaks: *speaks,
            is_usual: true,
        });
        ContainerSources { sockets: sockets.collect(), kubelet: None }
    }

    /// Whether nobody is asked.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty() && self.kubelet.is_none()
    }
}

/// What a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// The API of Docker, which podman has, too.
    Docker,
    /// The Container Runtime Interface of Kubernetes.
    Cri,
}

/// A socket of a container runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeSocket {
    pub(super) path: PathBuf,
    pub(super) speaks: Speaks,
    /// It is looked for, but need not be there.
    pub(super) is_usual: bool,
}

impl RuntimeSocket {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for RuntimeSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let speaks = match self.speaks {
            Speaks::Docker => "docker",
            Speaks::Cri => "cri",
        };
        write!(f, "{speaks}:{}", self.path.display())
    }
}

/// The text names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSource(pub(super) String);

impl FromStr for RuntimeSocket {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        let text = text.trim();
        let (speaks, path) = match text.split_once(':') {
            Some(("docker", path)) => (Some(Speaks::Docker), path),
            Some(("cri", path)) => (Some(Speaks::Cri), path),
            _ => (None, text),
        };
        if !path.starts_with('/') {
            return Err(InvalidSource(
                "expected the path of a UNIX socket, such as /run/docker.sock, or docker:PATH or \
                 cri:PATH for one whose name does not tell what it speaks"
                    .to_owned(),
            ));
        }
        // sun_path holds 108 bytes with its end (unix(7)).
        if path.len() > 107 {
            let problem = "the path of a UNIX socket has at most 107 bytes";
            return Err(InvalidSource(problem.to_owned()));
        }
        let is_cri = ["containerd", "crio", "cri-"].iter().any(|name| path.contains(name));
        let by_name = if is_cri { Speaks::Cri } else { Speaks::Docker };
        Ok(RuntimeSocket { path: path.into(), speaks: speaks.unwrap_or(by_name), is_usual: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_socket_speaks_is_told_by_its_name_or_said() {
        for (text, shown) in [
            ("/var/run/docker.sock", "docker:/var/run/docker.sock"),
            ("/run/user/1000/podman/podman.sock", "docker:/run/user/1000/podman/podman.sock"),
            ("/run/containerd/containerd.sock", "cri:/run/containerd/containerd.sock"),
            ("/var/run/crio/crio.sock", "cri:/var/run/crio/crio.sock"),
            ("/run/cri-dockerd.sock", "cri:/run/cri-dockerd.sock"),
            ("cri:/srv/x.sock", "cri:/srv/x.sock"),
            (" docker:/srv/containerd/x.sock", "docker:/srv/containerd/x.sock"),
        ] {
            assert_eq!(text.parse::<RuntimeSocket>().unwrap().to_string(), shown, "{text}");
        }
        for text in ["", "docker.sock", "docker:", "http://x", &format!("/{}", "x".repeat(107))] {
            assert!(text.parse::<RuntimeSocket>().is_err(), "{text}");
        }
    }
}
