//! Why a call has no answer, in words that say what to do next.

use crate::query::QueryError;
use crate::text::clean;

/// A call without an answer. Its text is for the model that called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// There is no such tool.
    #[error("there is no tool '{name}'; there are: {known}")]
    Unknown {
        /// What was called.
        name: String,
        /// What there is.
        known: String,
    },
    /// An argument is wrong.
    #[error("{parameter}: {problem}; accepted: {accepted}")]
    Invalid {
        /// Its name.
        parameter: String,
        /// What is wrong with it.
        problem: String,
        /// What would be right.
        accepted: String,
    },
    /// Nobody is there to answer; this says nothing about connections.
    #[error("no data: {why}. This says nothing about connections. To mend: {next}")]
    Unreachable {
        /// What was tried, and what happened.
        why: String,
        /// What to start.
        next: String,
    },
    /// The server answered with an error.
    #[error("{server} could not answer: {why}")]
    Server {
        /// Which server.
        server: String,
        /// What it said.
        why: String,
    },
    /// The advisor has nothing to say, and why.
    #[error("{0}")]
    Advisor(String),
}

/// What to do where no server answers.
pub const START_A_SERVER: &str = "start one on this host with 'sudo ebpf-server', or name another \
    with --server URL in the configuration of this MCP server; 'netspy mcp doctor' says what is \
    wrong";

impl From<QueryError> for ToolError {
    fn from(error: QueryError) -> Self {
        // Wrong values are repeated in messages, and a server may say anything.
        let clean = |text: String| clean(&text).into_owned();
        match error {
            QueryError::Invalid { parameter, problem, accepted } => ToolError::Invalid {
                parameter: clean(parameter),
                problem: clean(problem),
                accepted,
            },
            QueryError::Unreachable { server, why } => ToolError::Unreachable {
                why: clean(format!("no answer from {server}: {why}")),
                next: START_A_SERVER.to_owned(),
            },
            QueryError::Server { server, why } => ToolError::Server { server, why: clean(why) },
        }
    }
}
