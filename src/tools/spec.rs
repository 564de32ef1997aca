//! What there is to know about a tool before it is called.

use serde_json::Value;

/// A tool: what it is for, what it takes and what it answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// By which it is called.
    pub name: &'static str,
    /// What it is for, for the model that chooses.
    pub description: &'static str,
    /// JSON schema of the arguments.
    pub input_schema: Value,
    /// JSON schema of the answer.
    pub output_schema: Value,
    /// Whether a call can reach something beyond this host's records, such as a model elsewhere.
    pub open_world: bool,
}
