//! Lines from a terminal, with editing and history, or from a pipe.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use super::super::failure::{Failure, note};
use super::complete::Completion;

/// Scripts and people know the original's prompt.
const PROMPT: &str = "netspy-mcp> ";

/// A line longer than this is no command.
const LONGEST: u64 = 64 * 1024;

/// What came.
pub enum Line {
    /// A command.
    Text(String),
    /// Ctrl-C at the prompt.
    Cancelled,
    /// The input ended.
    End,
}

/// Where commands come from.
pub enum Input {
    /// A person.
    Terminal {
        /// Editing and history.
        editor: Box<Editor<Completion, FileHistory>>,
        /// Where the history is kept.
        history: Option<PathBuf>,
    },
    /// A script.
    Pipe,
}

impl Input {
    /// Standard input, whatever it is.
    pub fn open(completion: Completion) -> Result<Self, Failure> {
        if !io::stdin().is_terminal() {
            return Ok(Input::Pipe);
        }
        let config = Config::builder().auto_add_history(true).max_history_size(1000);
        let config = config.map_err(broken)?.history_ignore_space(true);
        let config = config.completion_type(CompletionType::List).build();
        let history = FileHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history).map_err(broken)?;
        editor.set_helper(Some(completion));
        let history = history_file();
        if let Some(file) = &history {
            // The first time there is none.
            let _ = editor.load_history(file);
        }
        Ok(Input::Terminal { editor: Box::new(editor), history })
    }

    /// Whether a person sits there.
    pub fn is_interactive(&self) -> bool {
        matches!(self, Input::Terminal { .. })
    }

    /// The next line.
    pub fn next(&mut self) -> Result<Line, Failure> {
        match self {
            Input::Terminal { editor, .. } => match editor.readline(PROMPT) {
                Ok(line) => Ok(Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Cancelled),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(broken(error)),
            },
            Input::Pipe => read_line(&mut io::stdin().lock()),
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        let Input::Terminal { editor, history: Some(file) } = self else { return };
        if let Err(error) = editor.save_history(file) {
            note(&format!("the history cannot be kept in {}: {error}", file.display()));
        }
    }
}

fn broken(error: ReadlineError) -> Failure {
    Failure::Usage(format!("cannot read commands: {error}"))
}

fn read_line(input: &mut impl BufRead) -> Result<Line, Failure> {
    let mut line = Vec::new();
    let read = io::Read::take(&mut *input, LONGEST).read_until(b'\n', &mut line);
    let read = read.map_err(|error| Failure::Usage(format!("cannot read commands: {error}")))?;
    match u64::try_from(read) {
        Ok(0) => Ok(Line::End),
        Ok(n) if n >= LONGEST => Err(Failure::Usage("a command line is too long".to_owned())),
        _ => Ok(Line::Text(String::from_utf8_lossy(&line).into_owned())),
    }
}

/// `$XDG_STATE_HOME/netspy/history` (XDG base directory specification).
fn history_file() -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    let dir = state.join("netspy");
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
    builder.create(&dir).ok()?;
    Some(dir.join("history"))
}
