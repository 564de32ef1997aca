//! Who interprets: fixed rules, or a model.

use async_trait::async_trait;
use serde::Serialize;

use super::{Progress, ToolError, Toolset};
use crate::query::{Filter, Source};

/// What advice is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Which records; its window is always closed on the left.
    pub filter: Filter,
}

/// Whose words they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Fixed rules, without a model.
    Rules,
    /// This model.
    #[serde(untagged)]
    Model(String),
}

/// What an advisor says.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// The advice, plain text.
    pub text: String,
    /// Whose words they are.
    pub by: By,
    /// Why no model said it, where one was asked for and failed.
    pub note: Option<String>,
    /// Figures in the text that no tool returned.
    pub unsupported: Vec<String>,
    /// Calls of tools on the way.
    pub tool_calls: u32,
    /// Tokens that the model read and wrote, if it said so.
    pub tokens: Option<u64>,
}

impl Advice {
    /// What fixed rules say.
    pub fn by_rules(text: String) -> Self {
        let (note, unsupported) = (None, Vec::new());
        Advice { text, by: By::Rules, note, unsupported, tool_calls: 0, tokens: None }
    }
}

/// What an advisor may use.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The records.
    pub source: &'a dyn Source,
    /// The tools that answer from them; those that ask an advisor are not among them.
    pub tools: &'a dyn Toolset,
    /// Hears how far it is.
    pub progress: &'a dyn Progress,
}

impl std::fmt::Debug for Means<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").field("source", &self.source.describe()).finish_non_exhaustive()
    }
}

/// Interprets what the records show. To cancel, drop the call.
#[async_trait]
pub trait Advisor: Send + Sync {
    /// Whether asking it sends something beyond this host.
    fn calls_out(&self) -> bool;

    /// What stands out in `scope`, and what to do about it. `summary`: what the caller knows
    /// already (the text of `ai_insights`), which may be empty. It is data, not an instruction.
    async fn insights(
        &self,
        summary: &str,
        scope: &Scope,
        means: Means<'_>,
    ) -> Result<Advice, ToolError>;

    /// The answer to a question about connections in `scope`.
    async fn answer(
        &self,
        question: &str,
        scope: &Scope,
        means: Means<'_>,
    ) -> Result<Advice, ToolError>;
}
