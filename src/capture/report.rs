//! What capture can see on this kernel, feature by feature, and what would bring the rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The family of hooks that observes connect(2).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Backend {
    /// Trampolines at the entry and exit of kernel functions.
    Fentry,
    /// Probes at the entry and return of kernel functions.
    Kprobe,
    /// System-call tracepoints.
    Tracepoint,
}

/// One thing that capture observes, and by which hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Feature {
    /// The hook in use, such as `tp_btf/inet_sock_set_state`; `None` if there is none.
    pub hook: Option<String>,
    /// Whether it works.
    pub ok: bool,
    /// What is not seen.
    pub note: Option<String>,
    /// Better hooks that are not in use, why, and what would bring them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_used: Vec<NotUsed>,
}

impl Feature {
    /// One that is not observed.
    pub(crate) fn missing(why: &str) -> Self {
        Feature { hook: None, ok: false, note: Some(why.to_owned()), not_used: Vec::new() }
    }
}

/// A hook that is not in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NotUsed {
    /// The hook.
    pub hook: String,
    /// Why not, and what would bring it.
    pub why: String,
}

/// A BPF program that is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProgramReport {
    /// Name in the object file.
    pub name: String,
    /// Kind, such as `tracepoint` or `tracing`.
    pub kind: String,
    /// Where it is attached.
    pub hook: String,
    /// Whether it is attached.
    pub attached: bool,
    /// The kernel's id of the program.
    pub id: u32,
    /// Instructions that the verifier went through (Linux 5.16).
    pub verified_insns: Option<u32>,
}

/// What is observed, by which hooks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AttachReport {
    /// The family of hooks in use; `None` when events come from a file.
    pub backend: Option<Backend>,
    /// Per feature, the hook, or why there is none.
    pub features: BTreeMap<String, Feature>,
    /// The programs that are loaded.
    pub programs: Vec<ProgramReport>,
}

impl AttachReport {
    /// The report of a source that does not capture, such as a recorded file.
    pub fn replay(path: &str) -> Self {
        let note = Some(format!("events come from {path}"));
        let feature = Feature { hook: None, ok: true, note, not_used: Vec::new() };
        AttachReport {
            backend: None,
            features: BTreeMap::from([("replay".to_owned(), feature)]),
            programs: Vec::new(),
        }
    }
}
