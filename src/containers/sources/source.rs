//! One source: asked a few questions at a time, and left alone for a while when it fails.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::facts::Facts;
use super::kubelet;
use super::options::{ContainerSources, RuntimeSocket, Speaks};
use super::{SourceError, cri, docker};
use crate::containers::{Question, SourceStatus};

/// How long one request may take.
pub(super) const PATIENCE: Duration =
    if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(5) };
/// How long a source is left alone after its first failure; twice as long after each that follows.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Requests at a time.
const AT_A_TIME: usize = 4;
/// The longest text of a problem that is told.
const WORDS: usize = 300;

#[derive(Debug)]
pub(super) struct Source {
    place: Place,
    health: Mutex<Health>,
    room: Semaphore,
}

#[derive(Debug)]
enum Place {
    Socket(RuntimeSocket),
    Kubelet(Box<kubelet::Asked>),
}

#[derive(Debug, Default)]
struct Health {
    requests: u64,
    failures: u64,
    in_a_row: u32,
    again: Option<Instant>,
    problem: Option<String>,
    /// Whether the log says that some containers have no names.
    has_warned: bool,
}

impl Source {
    pub(super) fn all(sources: ContainerSources) -> Vec<Self> {
        let sockets = sources.sockets.into_iter().map(Place::Socket);
        let kubelet =
            sources.kubelet.map(|kubelet| Place::Kubelet(kubelet::Asked::new(kubelet).into()));
        // Runtimes first: they know more, and are asked for one container alone.
        let places = sockets.chain(kubelet);
        let (health, room) = (Mutex::default, || Semaphore::new(AT_A_TIME));
        places.map(|place| Source { place, health: health(), room: room() }).collect()
    }

    /// Whether it may know such containers at all.
    pub(super) fn may_know(&self, question: &Question) -> bool {
        match &self.place {
            Place::Kubelet(_) => question.pod_uid.is_some(),
            Place::Socket(socket) => {
                let runtimes: &[&str] = match socket.speaks {
                    Speaks::Docker => &["docker", "podman", "cri"],
                    Speaks::Cri => &["containerd", "cri-o", "cri", "docker"],
                };
                // Of Docker's containers, those of a kubelet alone are known to what serves it.
                let is_served = socket.speaks == Speaks::Docker
                    || question.runtime != "docker"
                    || question.pod_uid.is_some();
                runtimes.contains(&question.runtime.as_str()) && is_served
            }
        }
    }

    /// Whether it is to be asked: who may name cgroups as they like are believed for what is their
    /// own alone, and so are their sockets.
    pub(super) fn is_to_be_asked(&self, question: &Question) -> bool {
        let owner = match &self.place {
            Place::Kubelet(_) => Some(0),
            Place::Socket(socket) => match std::fs::metadata(&socket.path) {
                Ok(metadata) => Some(metadata.uid()),
                Err(_) if socket.is_usual => None,
                // Asking tells what is wrong.
                Err(_) => Some(question.user.unwrap_or(0)),
            },
        };
        self.may_know(question) && owner == Some(question.user.unwrap_or(0))
    }

    /// Whether what it says may be incomplete for a moment.
    pub(super) fn lags(&self) -> bool {
        matches!(self.place, Place::Kubelet(_))
    }

    pub(super) async fn ask(&self, question: &Question) -> Result<Option<Facts>, SourceError> {
        if let Place::Kubelet(kubelet) = &self.place
            && let Some(known) = kubelet.known(question).await
        {
            return Ok(Some(known));
        }
        // Never closed.
        let _room = self.room.acquire().await;
        if self.left_alone_for().is_some() {
            return Err(SourceError::LeftAlone);
        }
        self.health().requests += 1;
        let asking = async {
            match &self.place {
                Place::Kubelet(kubelet) => kubelet.ask(question).await,
                Place::Socket(socket) => match socket.speaks {
                    Speaks::Docker => docker::ask(&socket.path, &question.id).await,
                    Speaks::Cri => cri::ask(&socket.path, &question.id).await,
                },
            }
        };
        let told = timeout(PATIENCE, asking).await;
        let told = told.unwrap_or(Err(SourceError::Slow(PATIENCE.as_secs())));
        match &told {
            Err(error) if self.is_of_one_container(error) => self.note_of_one(error),
            _ => self.note(told.as_ref().err()),
        }
        told
    }

    /// Whether a failure says nothing about other containers: the runtime answers, but not as it should
    /// about this one. A kubelet is asked for all at once.
    pub(super) fn is_of_one_container(&self, error: &SourceError) -> bool {
        /// Of gRPC: nobody there knows such calls.
        const UNIMPLEMENTED: u32 = 12;
        let is_answer = match error {
            SourceError::Grpc { code } => *code != UNIMPLEMENTED,
            SourceError::Status { .. } | SourceError::TooLarge(_) | SourceError::Garbage(_) => true,
            _ => false,
        };
        is_answer && matches!(self.place, Place::Socket(_))
    }

    fn note_of_one(&self, error: &SourceError) {
        let mut health = self.health();
        let words = bounded(&error.to_string());
        if !std::mem::replace(&mut health.has_warned, true) {
            tracing::warn!("a container has no name from {self} for now: {words}");
        }
        health.failures += 1;
        (health.in_a_row, health.again, health.problem) = (0, None, Some(words));
    }

    fn note(&self, error: Option<&SourceError>) {
        let mut health = self.health();
        let Some(error) = error else {
            if health.problem.is_some() {
                tracing::info!("{self} answers again");
            }
            (health.in_a_row, health.again, health.problem) = (0, None, None);
            return;
        };
        let words = bounded(&error.to_string());
        if health.problem.is_none() {
            tracing::warn!("containers have no names from {self} for now: {words}");
        }
        let pause = PAUSE.saturating_mul(1 << health.in_a_row.min(10)).min(LONGEST_PAUSE);
        health.failures += 1;
        health.in_a_row += 1;
        health.again = Some(Instant::now() + pause);
        health.problem = Some(words);
    }

    /// How long it is left alone from now on, if it is.
    pub(super) fn left_alone_for(&self) -> Option<Duration> {
        let again = self.health().again?;
        let left = again.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// How it is; `None` for a socket that is looked for, but not there.
    pub(super) fn status(&self) -> Option<SourceStatus> {
        if let Place::Socket(socket) = &self.place
            && socket.is_usual
            && !socket.path.exists()
        {
            return None;
        }
        let health = self.health();
        Some(SourceStatus {
            source: self.to_string(),
            problem: health.problem.clone(),
            requests: health.requests,
            failures: health.failures,
        })
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Socket(socket) => socket.fmt(f),
            Place::Kubelet(asked) => asked.kubelet.fmt(f),
        }
    }
}

/// A text in which may stand what a source has said.
fn bounded(text: &str) -> String {
    text.chars().take(WORDS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
