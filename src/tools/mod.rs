//! The typed tools that an assistant calls: the same for the MCP server and for the loop in which a
//! model calls them.
//!
//! A tool asks a [`Source`](crate::query::Source) and makes a compact answer of what that said; no
//! figure is computed here that the query layer has. The two tools that interpret rather than
//! answer, `ai_insights` and `contextual_analysis`, ask an [`Advisor`].

mod advice;
pub mod advisor;
mod args;
mod asked;
mod beside;
mod connections;
mod drops;
mod error;
mod hurt;
mod lookups;
mod parts;
mod patterns;
mod reach;
mod rules;
mod set;
mod shared;
mod spec;
mod status;
mod summary;
mod table;
mod topics;

use async_trait::async_trait;
use serde_json::{Map, Value};

pub use advisor::{Advice, Advisor, By, Scope};
#[cfg(feature = "mcp")]
pub(crate) use args::remote_filter;
pub use error::ToolError;
pub use rules::RuleBased;
pub use set::{AllTools, QueryTools};
pub use spec::Spec;

/// What a tool answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// A JSON object that fits the tool's output schema.
    pub content: Value,
}

impl Answer {
    fn of(content: Map<String, Value>) -> Self {
        Answer { content: Value::Object(content) }
    }

    /// The answer as compact JSON, which is what a model reads.
    pub fn text(&self) -> String {
        self.content.to_string()
    }
}

/// Hears how far a call has come.
#[async_trait]
pub trait Progress: Send + Sync {
    /// `done` of `total`, in the tool's own unit, and what is going on.
    async fn report(&self, done: f64, total: f64, message: &str);
}

/// Nobody who wants to hear it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

#[async_trait]
impl Progress for Silent {
    async fn report(&self, _done: f64, _total: f64, _message: &str) {}
}

/// Tools that can be listed and called by name.
///
/// To cancel a call, drop it.
#[async_trait]
pub trait Toolset: Send + Sync {
    /// What there is.
    fn list(&self) -> Vec<Spec>;

    /// Calls a tool; `args` is a JSON object, or null for none.
    async fn call(&self, name: &str, args: Value) -> Result<Answer, ToolError> {
        self.call_with(name, args, &Silent).await
    }

    /// The same, telling `progress` how far it is.
    async fn call_with(
        &self,
        name: &str,
        args: Value,
        progress: &dyn Progress,
    ) -> Result<Answer, ToolError>;
}
