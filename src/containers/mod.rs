//! What containers are called: asked of their runtimes, beside capture.
//!
//! The cgroup of a process tells the id of its container. Its name, its image, its labels and its pod
//! are known to the runtime, or the kubelet, which somebody has to ask. Capture does not wait for
//! that: a record is shown with what is known, and again when there is an answer.

mod late;
#[cfg(feature = "containers")]
mod sources;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capture::report::Feature;
use crate::event::Container;

pub(crate) use late::{Late, News};
#[cfg(feature = "containers")]
pub use sources::{
    ContainerNames, ContainerSources, InvalidSource, Kubelet, RuntimeSocket, SourceError,
};

/// A container that somebody wants to know more of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Question {
    /// Full id.
    pub id: String,
    /// Runtime, as the cgroup tells it.
    pub runtime: String,
    /// Uid of the Kubernetes pod.
    pub pod_uid: Option<String>,
    /// The user to whom this part of the tree of cgroups is delegated (`user@1000.service`): they may
    /// give their cgroups any name.
    pub user: Option<u32>,
}

/// What is known of a container at this moment.
#[derive(Debug, Clone)]
pub enum Look {
    /// All that is known.
    Known(Arc<Container>),
    /// Somebody is being asked; [`ContainerDetails::answered`] tells when there is an answer.
    Asked,
    /// Nothing, and nobody is asked for now.
    Unknown,
}

/// Tells more of containers than their cgroups do. Capture calls it for every record: nothing here
/// may wait.
pub trait ContainerDetails: std::fmt::Debug + Send + Sync {
    /// What is known; where nothing is, somebody is asked.
    fn look(&self, question: &Arc<Question>) -> Look;
    /// The questions that were answered since the last call, if only by nobody knowing.
    fn answered(&self) -> Vec<Arc<Question>>;
    /// So many records will not come again with an answer, because too many were waiting.
    fn forgot(&self, records: u64);
    /// How it goes.
    fn status(&self) -> ContainerStatus;
}

/// How asking about containers goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ContainerStatus {
    /// Questions that were asked.
    pub asked: u64,
    /// Of these, those that were answered.
    pub named: u64,
    /// Those about a container that no source knows.
    pub unknown: u64,
    /// Those that no source could answer because of a failure.
    pub failed: u64,
    /// Questions that were not asked, because too many were waiting.
    pub skipped: u64,
    /// Records that were not shown again with an answer, because too many were waiting.
    pub forgotten: u64,
    /// Who is asked, as far as they are there.
    pub sources: Vec<SourceStatus>,
}

/// Somebody who is asked about containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SourceStatus {
    /// Who: `docker`, `cri` or `kubelet`, and where.
    pub source: String,
    /// Why it does not answer, if it does not.
    pub problem: Option<String>,
    /// Requests to it.
    pub requests: u64,
    /// Of these, those that failed.
    pub failures: u64,
}

impl ContainerStatus {
    /// The same, among what is observed.
    pub(crate) fn feature(&self) -> Feature {
        let names: Vec<_> = self.sources.iter().map(|source| source.source.as_str()).collect();
        let problems: Vec<_> = self
            .sources
            .iter()
            .filter_map(|source| Some(format!("{}: {}", source.source, source.problem.as_ref()?)))
            .collect();
        let note = match (names.is_empty(), problems.is_empty()) {
            (true, _) => Some("no socket of a container runtime is there".to_owned()),
            (_, false) => Some(problems.join("; ")),
            _ => None,
        };
        Feature {
            hook: (!names.is_empty()).then(|| names.join(", ")),
            ok: problems.is_empty(),
            note,
            not_used: Vec::new(),
        }
    }
}
