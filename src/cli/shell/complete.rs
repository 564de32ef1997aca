//! Completion of commands, options and values. Names of processes, remotes, ports and units are
//! those that the source knows.

use std::sync::{Arc, Mutex, PoisonError};

use clap::{Command, CommandFactory};
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use tokio::runtime::Handle;

use super::super::suggest::{self, Names};
use super::words::ShellLine;
use crate::query::Source;
use crate::query::top::TopBy;

/// The source, once there is one.
pub type Known = Arc<Mutex<Option<Arc<dyn Source>>>>;

/// Completes lines of the shell.
pub struct Completion {
    commands: Command,
    runtime: Handle,
    source: Known,
}

impl Completion {
    /// With names from this source.
    pub fn new(runtime: Handle, source: Known) -> Self {
        let mut commands = ShellLine::command();
        commands.build();
        Completion { commands, runtime, source }
    }

    fn names(&self, by: TopBy) -> Vec<String> {
        let known = self.source.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(source) = known else { return Vec::new() };
        self.runtime.block_on(suggest::in_time(suggest::names(&*source, by)))
    }
}

impl Completer for Completion {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..pos).unwrap_or(line);
        Ok(complete(&self.commands, before, &|by| self.names(by)))
    }
}

impl Helper for Completion {}
impl Highlighter for Completion {}
impl Validator for Completion {}
impl Hinter for Completion {
    type Hint = String;
}

/// What can follow a line: where the part begins that it stands for, and all that it can be.
fn complete(commands: &Command, line: &str, names: Names<'_>) -> (usize, Vec<String>) {
    let start = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let (done, word) = line.split_at(start);
    let words: Vec<&str> = done.split_whitespace().collect();
    let Some(command) = words.first() else {
        let all = commands.get_subcommands().filter(|c| !c.is_hide_set());
        return (start, starting(word, all.map(|c| c.get_name().to_owned()), " "));
    };
    let Some(command) = commands.find_subcommand(command) else { return (start, Vec::new()) };
    let option = words.last().and_then(|last| last.strip_prefix("--"));
    let (option, value, start) = match word.strip_prefix("--").and_then(|w| w.split_once('=')) {
        Some((option, value)) => (Some(option), value, line.len() - value.len()),
        None => (option.filter(|name| takes_value(command, name)), word, start),
    };
    match option {
        None => {
            let options = command.get_arguments().filter(|a| !a.is_hide_set());
            let options = options.filter_map(|a| Some(format!("--{}", a.get_long()?)));
            (start, starting(word, options, " "))
        }
        Some(option) => {
            // The last of several.
            let at = suggest::last_value(value);
            let values = values(command, option, names);
            (start + at, starting(&value[at..], values.into_iter(), " "))
        }
    }
}

fn takes_value(command: &Command, option: &str) -> bool {
    let argument = command.get_arguments().find(|a| a.get_long() == Some(option));
    argument.is_some_and(suggest::takes_value)
}

/// What an option can be, as one word of the shell.
fn values(command: &Command, option: &str, names: Names<'_>) -> Vec<String> {
    let argument = command.get_arguments().find(|a| a.get_long() == Some(option));
    let values = argument.map(|argument| suggest::values(argument, option, names));
    let quote = |value: String| shlex::try_quote(&value).ok().map(|word| word.into_owned());
    values.unwrap_or_default().into_iter().filter_map(quote).collect()
}

/// Those that begin like `word`; the only one is followed by `end`.
fn starting(word: &str, all: impl Iterator<Item = String>, end: &str) -> Vec<String> {
    // A name that needs quotes is found without them, too.
    let bare = |text: &str| text.trim_start_matches(['\'', '"']).to_owned();
    let mut found: Vec<String> = all.filter(|text| bare(text).starts_with(&bare(word))).collect();
    if let [only] = found.as_mut_slice() {
        only.push_str(end);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(line: &str) -> (usize, Vec<String>) {
        let mut commands = ShellLine::command();
        commands.build();
        complete(&commands, line, &|by| match by {
            TopBy::Process => ["curl", "cupsd", "tmux: server", "a,b"].map(str::to_owned).to_vec(),
            TopBy::Remote => vec!["192.0.2.1".to_owned(), "2001:db8::1".to_owned()],
            _ => Vec::new(),
        })
    }

    #[test]
    fn a_command_then_its_options_then_their_values() {
        assert_eq!(after("su"), (0, vec!["summary ".to_owned()]));
        assert!(after("").1.contains(&"watch".to_owned()));
        assert_eq!(after("connections --proc"), (12, vec!["--process ".to_owned()]));
        assert_eq!(after("summary --process cu"), (18, vec!["curl".into(), "cupsd".into()]));
        assert_eq!(after("list --remote 19"), (14, vec!["192.0.2.1 ".to_owned()]));
        assert_eq!(after("list --remote=2"), (14, vec!["2001:db8::1 ".to_owned()]));
        assert_eq!(after("top --by remo"), (9, vec!["remote ".to_owned()]));
        assert_eq!(after("connections --outcome refused,uns"), (30, vec!["unsuccessful ".into()]));
        assert_eq!(after("connections --output j"), (21, vec!["json".into(), "jsonl".into()]));
    }

    #[test]
    fn names_that_a_shell_would_split_are_quoted() {
        assert_eq!(after("summary --process tm"), (18, vec!["'tmux: server' ".to_owned()]));
        assert_eq!(after("summary --process a"), (18, vec!["\"a\\\\,b\" ".to_owned()]));
        assert_eq!(after("summary --process 'tm"), (18, vec!["'tmux: server' ".to_owned()]));
    }

    #[test]
    fn nothing_is_made_up() {
        assert_eq!(after("nonsense --pro").1, Vec::<String>::new());
        assert_eq!(after("show --id=").1, Vec::<String>::new());
        // A flag takes no value: another option may follow it.
        assert!(after("connections --all --por").1.contains(&"--port ".to_owned()));
    }
}
