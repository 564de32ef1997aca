//! Who is asked what containers are called.

use std::path::PathBuf;

use clap::Args;

use super::lists::Listed;
use crate::containers::{ContainerSources, Kubelet, RuntimeSocket};

/// How runtimes and the kubelet are asked.
#[derive(Debug, Clone, Args)]
// A group of their own would be an option that changes with them.
#[group(skip)]
pub struct ContainerOptions {
    /// Sockets of container runtimes, to ask what containers are called (repeat, or separate by commas; one within a path: `\,`; cri:PATH or docker:PATH where the name does not tell what it speaks), or none [default: those of Docker, podman, containerd, CRI-O and k3s where they usually are].
    #[arg(
        id = "runtime_socket",
        long = "runtime-socket",
        env = "NETSPY_RUNTIME_SOCKET",
        value_name = "PATH",
        value_parser = sockets
    )]
    pub sockets: Vec<Listed<Socket>>,

    /// The kubelet to ask what pods are called, such as https://NODE:10250, or the URL of a list of pods of the API server.
    #[arg(id = "kubelet", long = "kubelet", env = "NETSPY_KUBELET", value_name = "URL",
          value_parser = Kubelet::new)]
    pub kubelet: Option<Kubelet>,

    /// A file with the token that is shown to the kubelet; read anew for each request.
    #[arg(
        id = "kubelet_token_file",
        long = "kubelet-token-file",
        env = "NETSPY_KUBELET_TOKEN_FILE",
        value_name = "FILE"
    )]
    pub token_file: Option<PathBuf>,

    /// The certificates by which the kubelet is known (PEM) [default: the authorities of the system].
    #[arg(id = "kubelet_ca", long = "kubelet-ca", env = "NETSPY_KUBELET_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// The certificate that is shown to the kubelet (PEM), such as the node's own.
    #[arg(
        id = "kubelet_cert",
        long = "kubelet-cert",
        env = "NETSPY_KUBELET_CERT",
        value_name = "FILE"
    )]
    pub cert: Option<PathBuf>,

    /// The key of that certificate (PEM) [default: in the same file].
    #[arg(
        id = "kubelet_key",
        long = "kubelet-key",
        env = "NETSPY_KUBELET_KEY",
        value_name = "FILE"
    )]
    pub key: Option<PathBuf>,
}

/// A socket, or that there is to be none.
#[derive(Debug, Clone)]
pub enum Socket {
    /// Nobody is asked.
    None,
    /// This one is.
    At(RuntimeSocket),
}

fn sockets(text: &str) -> Result<Listed<Socket>, String> {
    Listed::read(text, socket)
}

fn socket(text: &str) -> Result<Socket, String> {
    match text.trim() {
        "none" => Ok(Socket::None),
        text => text.parse().map(Socket::At).map_err(|error: crate::containers::InvalidSource| {
            format!("{error}; none asks nobody")
        }),
    }
}

impl ContainerOptions {
    /// What makes no sense together, told with what to do.
    pub(super) fn check_together(&self) -> Result<(), String> {
        let named = || Listed::all(&self.sockets);
        if named().count() > 1 && named().any(|socket| matches!(socket, Socket::None)) {
            return Err(
                "--runtime-socket none stands alone: leave it, or the paths, out".to_owned()
            );
        }
        let shown = [
            ("token-file", self.token_file.is_some()),
            ("ca", self.ca.is_some()),
            ("cert", self.cert.is_some()),
            ("key", self.key.is_some()),
        ];
        let shown = shown.into_iter().find(|(_, is_set)| *is_set);
        match (&self.kubelet, shown) {
            (None, Some((name, _))) => {
                Err(format!("--kubelet-{name} needs --kubelet, the URL of whom it is for"))
            }
            (Some(kubelet), Some((name, _))) if !kubelet.is_https() => Err(format!(
                "--kubelet-{name} needs https: what is shown over http:// everybody on the way can read"
            )),
            _ if self.key.is_some() && self.cert.is_none() => {
                Err("--kubelet-key needs --kubelet-cert, its certificate".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Who is asked.
    pub fn sources(&self) -> ContainerSources {
        let mut sources = ContainerSources::usual();
        if !self.sockets.is_empty() {
            let named = Listed::all(&self.sockets).filter_map(|socket| match socket {
                Socket::None => None,
                Socket::At(socket) => Some(socket.clone()),
            });
            sources.sockets = named.collect();
        }
        sources.kubelet = self.kubelet.clone().map(|mut kubelet| {
            if let Some(path) = &self.token_file {
                kubelet = kubelet.with_token_file(path);
            }
            if let Some(path) = &self.ca {
                kubelet = kubelet.with_authorities(path);
            }
            match &self.cert {
                Some(cert) => kubelet.with_certificate(cert, self.key.as_ref().unwrap_or(cert)),
                None => kubelet,
            }
        });
        sources
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::server::options::Options;

    fn told(arguments: &[&str]) -> Result<(usize, Option<String>), String> {
        let all = [&["ebpf-server"][..], arguments].concat();
        let options = Options::try_parse_from(all).map_err(|error| error.to_string())?;
        options.check_together()?;
        let sources = options.containers.sources();
        Ok((sources.sockets.len(), sources.kubelet.map(|kubelet| kubelet.to_string())))
    }

    #[test]
    fn sockets_are_the_usual_ones_the_named_ones_or_none() {
        assert!(told(&[]).unwrap().0 > 3);
        assert_eq!(told(&["--runtime-socket", "none"]).unwrap().0, 0);
        let two = told(&["--runtime-socket", "/a.sock", "--runtime-socket", "cri:/b.sock"]);
        assert_eq!(two.unwrap().0, 2);
        assert_eq!(told(&["--runtime-socket", "/a.sock,/b.sock"]).unwrap().0, 2);
        assert!(told(&["--runtime-socket", "none,/b.sock"]).is_err());
        assert!(
            told(&["--runtime-socket", "docker.sock"]).unwrap_err().contains("none asks nobody")
        );
    }

    #[test]
    fn nothing_secret_is_shown_in_the_clear_or_to_nobody() {
        let kubelet = ["--kubelet", "https://127.0.0.1:10250", "--kubelet-token-file", "/t"];
        let shown = Some("kubelet:https://127.0.0.1:10250/pods".to_owned());
        assert_eq!(told(&kubelet).unwrap().1, shown);
        let clear = ["--kubelet", "http://127.0.0.1:10255", "--kubelet-token-file", "/t"];
        assert!(told(&clear).unwrap_err().contains("needs https"));
        assert!(told(&clear[..2]).is_ok());
        assert!(told(&kubelet[2..]).unwrap_err().contains("needs --kubelet"));
        let key = ["--kubelet", "https://n:1", "--kubelet-key", "/k"];
        assert!(told(&key).unwrap_err().contains("needs --kubelet-cert"));
    }
}
