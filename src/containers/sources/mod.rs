//! Who is asked about containers: sockets of runtimes, and the kubelet or the API server.
//!
//! Everything here happens on a thread of its own, behind a queue of bounded length. What answers may
//! be slow, broken or hostile: each request has its time and its size, who fails is left alone for a
//! while, and what comes back is bounded before anybody sees it.

mod containerd;
mod cri;
mod docker;
mod facts;
mod groups;
mod grpc;
mod http;
mod kubelet;
mod names;
mod options;
mod source;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use kubelet::Kubelet;
pub use names::ContainerNames;
pub use options::{ContainerSources, InvalidSource, RuntimeSocket};

/// Why a source gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// There is no connection to it.
    #[error("cannot connect: {source}{}", advice(.source))]
    Connect {
        /// The system's error.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("no answer within {0} s")]
    Slow(u64),
    /// The connection broke, or it speaks something else.
    #[error("no valid HTTP: {0}")]
    Http(String),
    /// It answered with an error.
    #[error("it answered {status}{}", meaning(*.status))]
    Status {
        /// The status of HTTP.
        status: u16,
    },
    /// It answered with an error of gRPC.
    #[error("it answered with gRPC status {code}{}", if *.code == 12 { " (it does not serve the CRI)" } else { "" })]
    Grpc {
        /// The code.
        code: u32,
    },
    /// The answer is larger than it may be.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The answer cannot be understood.
    #[error("the answer is none: {0}")]
    Garbage(String),
    /// What is shown to it cannot be read.
    #[error("cannot read {what} from {}: {source}", path.display())]
    Credentials {
        /// What was looked for.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// What it is known by, or the server is shown, cannot be used.
    #[error(transparent)]
    Access(#[from] crate::client::AccessError),
    /// There was a failure a moment ago: it is left alone for a while.
    #[error("it has just failed and is left alone for a while")]
    LeftAlone,
}

fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "; this user may not ask: join the group of the socket, or run as its owner"
        }
        std::io::ErrorKind::ConnectionRefused => "; nobody listens there",
        _ => "",
    }
}

fn meaning(status: u16) -> &'static str {
    match status {
        401 => " (it does not know the token or the certificate)",
        403 => " (whom it knows by the token or the certificate may not do this)",
        _ => "",
    }
}
