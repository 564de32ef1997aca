//! Why a command fails, and the exit code that says so to a script.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::quiet::Stderr;
use super::render::text::clean;
use crate::capture::error::CaptureError;
use crate::query::QueryError;
use crate::record::RecordError;

/// A command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing matches; said already.
    #[error("nothing found")]
    Nothing,
    /// The command line is wrong, or names a file that cannot be used.
    #[error("{0}")]
    Usage(String),
    /// No server answers, and this process cannot stand in for it.
    #[error("{0}")]
    Unreachable(String),
    /// No server answers, and this process may not capture.
    #[error("{0}")]
    NoPrivilege(String),
    /// A failure with this exit code that was reported already.
    #[error("said already")]
    Said(u8),
    /// Writing the answer failed.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// What is wrong with a parameter, by the name of its flag.
    pub fn of_flag(parameter: &str, problem: &str, accepted: &str) -> Self {
        let flag = parameter.replace('_', "-");
        Failure::Usage(format!("--{flag}: {problem} (accepted: {accepted})"))
    }

    /// The number for the shell. The help text lists them.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Nothing => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::NoPrivilege(_) => 4,
            Failure::Said(code) => *code,
            // The reader has seen enough (`| head`): nothing went wrong.
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Failure::Output(_) => 2,
        }
    }

    /// A stream of `source` that was there and ended with an error.
    pub fn of_stream(source: &str, error: QueryError) -> Self {
        match error {
            QueryError::Unreachable { why, .. } => {
                Failure::Unreachable(format!("{source} went away: {why}"))
            }
            error => error.into(),
        }
    }

    /// The same for the exit code, without words.
    pub fn said(&self) -> Self {
        Failure::Said(self.code())
    }

    /// Says on standard error what went wrong, where that was not said.
    pub fn report(&self) -> ExitCode {
        let silent = matches!(self, Failure::Nothing | Failure::Said(_)) || self.code() == 0;
        if !silent {
            note(&self.to_string());
        }
        ExitCode::from(self.code())
    }
}

/// A line on standard error. Nothing is done about a standard error that is closed.
pub fn note(text: &str) {
    use std::io::Write;
    let lines: Vec<_> = text.lines().map(clean).collect();
    let _ = writeln!(Stderr, "netspy: {}", lines.join("\n"));
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Invalid { parameter, problem, accepted } => {
                Failure::of_flag(&parameter, &problem, &accepted)
            }
            error => Failure::Unreachable(error.to_string()),
        }
    }
}

impl From<CaptureError> for Failure {
    fn from(error: CaptureError) -> Self {
        match error {
            CaptureError::NoPrivilege { .. } => Failure::NoPrivilege(error.to_string()),
            error => Failure::Unreachable(error.to_string()),
        }
    }
}

/// What is wrong with a recording, with the name of its file where the error does not have it.
pub fn of_file(file: &Path, error: &RecordError) -> String {
    let (file, error) = (file.display().to_string(), error.to_string());
    if error.contains(&file) { error } else { format!("{file}: {error}") }
}
