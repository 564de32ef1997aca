//! The sets of tools: those that answer from records, and all of them.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::advisor::{Advisor, Means};
use super::args::Args;
use super::spec::{Spec, Tool};
use super::{Answer, Progress, ToolError, Toolset};
use super::{advice, connections, drops, patterns, status, summary};
use crate::query::Source;
use crate::text;

const QUERY_TOOLS: [&Tool; 7] = [
    &summary::SUMMARY,
    &connections::LIST,
    &patterns::PATTERNS,
    &drops::SUMMARY,
    &drops::LIST,
    &connections::WATCH,
    &status::STATUS,
];

const ADVICE_TOOLS: [&Tool; 2] = [&advice::INSIGHTS, &advice::CONTEXTUAL];

/// The tools that answer from records alone: what a model in netspy's own loop may call.
#[derive(Clone)]
pub struct QueryTools {
    source: Arc<dyn Source>,
}

impl QueryTools {
    /// Tools that ask this source.
    pub fn new(source: Arc<dyn Source>) -> Self {
        QueryTools { source }
    }
}

impl std::fmt::Debug for QueryTools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryTools").field("source", &self.source.describe()).finish()
    }
}

#[async_trait]
impl Toolset for QueryTools {
    fn list(&self) -> Vec<Spec> {
        QUERY_TOOLS.iter().map(|tool| tool.spec(false)).collect()
    }

    async fn call_with(
        &self,
        name: &str,
        args: Value,
        progress: &dyn Progress,
    ) -> Result<Answer, ToolError> {
        let tool = find(&QUERY_TOOLS, name)?;
        let args = Args::read(tool, args)?;
        let source = &*self.source;
        match tool.name {
            "get_network_summary" => summary::summary(source, &args).await,
            "list_connections" => connections::list(source, &args).await,
            "analyze_patterns" => patterns::patterns(source, &args).await,
            "get_packet_drop_summary" => drops::summary(source, &args).await,
            "list_packet_drops" => drops::list(source, &args).await,
            "watch_connections" => connections::watch(source, &args, progress).await,
            "get_status" => status::status(source, &args).await,
            _ => Err(unknown(&QUERY_TOOLS, name)),
        }
    }
}

/// All tools: what an assistant gets.
#[derive(Clone)]
pub struct AllTools {
    query: QueryTools,
    advisor: Arc<dyn Advisor>,
}

impl AllTools {
    /// Tools that ask this source, and this advisor where something is to be interpreted.
    pub fn new(source: Arc<dyn Source>, advisor: Arc<dyn Advisor>) -> Self {
        AllTools { query: QueryTools::new(source), advisor }
    }

    /// Where the answers come from.
    pub fn source(&self) -> &dyn Source {
        &*self.query.source
    }
}

impl std::fmt::Debug for AllTools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AllTools").field("query", &self.query).finish_non_exhaustive()
    }
}

#[async_trait]
impl Toolset for AllTools {
    fn list(&self) -> Vec<Spec> {
        let mut all = self.query.list();
        let open = self.advisor.calls_out();
        all.extend(ADVICE_TOOLS.iter().map(|tool| tool.spec(open)));
        all
    }

    async fn call_with(
        &self,
        name: &str,
        args: Value,
        progress: &dyn Progress,
    ) -> Result<Answer, ToolError> {
        let Ok(tool) = find(&ADVICE_TOOLS, name) else {
            if find(&QUERY_TOOLS, name).is_err() {
                return Err(unknown(&[&QUERY_TOOLS[..], &ADVICE_TOOLS[..]].concat(), name));
            }
            return self.query.call_with(name, args, progress).await;
        };
        let args = Args::read(tool, args)?;
        let means = Means { source: self.source(), tools: &self.query, progress };
        match tool.name {
            "ai_insights" => advice::insights(&*self.advisor, means, &args).await,
            _ => advice::contextual(&*self.advisor, means, &args).await,
        }
    }
}

fn find<'a>(tools: &[&'a Tool], name: &str) -> Result<&'a Tool, ToolError> {
    tools.iter().find(|tool| tool.name == name).copied().ok_or_else(|| unknown(tools, name))
}

fn unknown(tools: &[&Tool], name: &str) -> ToolError {
    let known: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
    ToolError::Unknown { name: text::short(name, 64).into_owned(), known: known.join(", ") }
}
