//! What can follow on a command line: commands, options, and values, be they words that are known
//! beforehand or names that a source has seen.

use std::future::Future;
use std::time::Duration;

use clap::builder::ValueHint;
use clap::{Arg, Command};
use strum::{VariantArray, VariantNames};

use super::filters::last;
use super::legacy::Tool;
use super::render::groups::key;
use super::render::text::clean;
use crate::event::{Direction, Outcome, Protocol, Scope, State};
use crate::query::filter::escape;
use crate::query::top::TopBy;
use crate::query::{Filter, Sort, Source};

/// How long somebody who pressed Tab waits for names.
const PATIENCE: Duration = Duration::from_millis(500);

/// Names are of so many seconds, a day; of more than these nobody chooses.
const SECONDS: u32 = 86_400;
const MOST: usize = 200;

/// What can come next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// One of these words.
    Words(Vec<Candidate>),
    /// A file.
    Files,
    /// The command that begins at this word, or what follows it there.
    Command(usize),
}

/// A word, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The whole word.
    pub word: String,
    /// A line about it, or nothing.
    pub help: String,
}

/// Gives names of this kind that were seen.
pub type Names<'a> = &'a dyn Fn(TopBy) -> Vec<String>;

/// What a source knows, if it says so soon.
pub async fn in_time(names: impl Future<Output = Option<Vec<String>>>) -> Vec<String> {
    // Without an answer there is nothing to complete, which is what is seen.
    tokio::time::timeout(PATIENCE, names).await.ok().flatten().unwrap_or_default()
}

/// The names of this kind that a source has seen.
pub async fn names(source: &dyn Source, by: TopBy) -> Option<Vec<String>> {
    let filter = Filter { since: last(SECONDS), ..Filter::default() };
    let top = source.top(&filter, by, Some(MOST)).await.ok()?;
    let names = top.groups.iter().map(|group| key(&group.key));
    // Others can neither be shown nor typed.
    Some(names.filter(|name| !name.is_empty() && clean(name) == name.as_str()).collect())
}

/// What can stand at the end of these words, of which the last is begun and the first is the program.
pub fn next(root: &Command, words: &[String], names: Names<'_>) -> Next {
    let Some((begun, done)) = words.split_last() else { return Next::Words(Vec::new()) };
    let (mut command, mut awaited, mut places, mut only_places) = (root, None, 0, false);
    for (n, word) in done.iter().enumerate().skip(1) {
        if awaited.take().is_some() {
            continue;
        }
        if word == "--" && !only_places {
            only_places = true;
        } else if word.starts_with('-') && !only_places {
            awaited = option(command, word).filter(|option| takes_next(option));
        } else if let Some(inner) = command.find_subcommand(word).filter(|_| places == 0) {
            command = inner;
        } else if runs(command) {
            return Next::Command(n);
        } else {
            places += 1;
        }
    }
    if let Some(option) = awaited {
        return of_option(option, "", begun, names);
    }
    if !only_places && begun.starts_with('-') {
        return match begun.split_once('=') {
            Some((name, value)) => match option(command, name) {
                Some(option) => of_option(option, &format!("{name}="), value, names),
                None => Next::Words(Vec::new()),
            },
            None => options(command, begun),
        };
    }
    if runs(command) {
        return Next::Command(done.len());
    }
    let commands: Vec<_> = match places {
        0 if !only_places => command
            .get_subcommands()
            .filter(|inner| !inner.is_hide_set())
            .map(|inner| candidate(inner.get_name(), inner.get_about()))
            .collect(),
        _ => Vec::new(),
    };
    if !commands.is_empty() {
        return starting(begun, commands);
    }
    match command.get_positionals().nth(places) {
        Some(place) => of_option(place, "", begun, names),
        None if begun.is_empty() && !only_places => options(command, begun),
        None => Next::Words(Vec::new()),
    }
}

/// The last value that was given to an option so far.
pub fn given(words: &[String], name: &str) -> Option<String> {
    let done = words.split_last()?.1;
    let name = format!("--{name}");
    let until = done.iter().position(|word| word == "--").unwrap_or(done.len());
    let done = done.get(..until)?;
    let value = |(n, word): (usize, &String)| match word.strip_prefix(&name)? {
        "" => done.get(n + 1).cloned(),
        more => more.strip_prefix('=').map(str::to_owned),
    };
    done.iter().enumerate().filter_map(value).next_back()
}

/// The option of this word, if there is one.
fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    // The original took a single dash.
    let name = word.strip_prefix('-')?;
    let name = name.strip_prefix('-').unwrap_or(name);
    if name.contains('=') {
        return None;
    }
    command.get_arguments().find(|option| option.get_long() == Some(name))
}

/// Whether the next word is its value.
fn takes_next(option: &Arg) -> bool {
    takes_value(option) && option.get_num_args().is_none_or(|number| number.min_values() > 0)
}

/// Whether an option takes a value at all.
pub fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values()
}

/// Whether what follows is a command of its own.
fn runs(command: &Command) -> bool {
    command.get_positionals().any(Arg::is_trailing_var_arg_set)
}

fn options(command: &Command, begun: &str) -> Next {
    let options = command.get_arguments().filter(|option| !option.is_hide_set());
    let options = options.filter_map(|option| {
        Some(candidate(&format!("--{}", option.get_long()?), option.get_help()))
    });
    starting(begun, options.collect())
}

fn candidate(word: &str, help: Option<&clap::builder::StyledStr>) -> Candidate {
    let help = help.map(ToString::to_string).unwrap_or_default();
    let help = help.lines().next().unwrap_or_default().to_owned();
    Candidate { word: word.to_owned(), help }
}

fn starting(begun: &str, mut all: Vec<Candidate>) -> Next {
    all.retain(|candidate| candidate.word.starts_with(begun));
    Next::Words(all)
}

/// The values of an option, each behind `prefix` and what of a list is there already.
fn of_option(option: &Arg, prefix: &str, begun: &str, names: Names<'_>) -> Next {
    let is_path = matches!(
        option.get_value_hint(),
        ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath
    );
    if is_path {
        return Next::Files;
    }
    let name = option.get_long().unwrap_or_else(|| option.get_id().as_str());
    let (before, last) = begun.split_at(last_value(begun));
    let all = values(option, name, names);
    let all = all.into_iter().filter(|value| value.starts_with(last));
    let word = |value| Candidate { word: format!("{prefix}{before}{value}"), help: String::new() };
    Next::Words(all.map(word).collect())
}

/// Where the last value of a list begins. A comma behind a backslash belongs to its value.
pub fn last_value(list: &str) -> usize {
    let (mut at, mut is_escaped) = (0, false);
    for (n, c) in list.char_indices() {
        if c == ',' && !is_escaped {
            at = n + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    at
}

/// What an option can be, as one value of a list.
pub fn values(option: &Arg, name: &str, names: Names<'_>) -> Vec<String> {
    let escaped = |names: Vec<String>| names.iter().map(|name| escape(name)).collect();
    match name {
        "process" => escaped(names(TopBy::Process)),
        "unit" => escaped(names(TopBy::Unit)),
        "container" => escaped(names(TopBy::Container)),
        "host-name" => escaped(names(TopBy::HostName)),
        "pid" => names(TopBy::Pid),
        "remote" => names(TopBy::Remote),
        "port" => names(TopBy::Port),
        "uid" => names(TopBy::Uid),
        "reason" => names(TopBy::DropReason),
        "outcome" => [all::<Outcome>(), vec!["unsuccessful".to_owned()]].concat(),
        "protocol" => all::<Protocol>(),
        "scope" => all::<Scope>(),
        "state" => all::<State>(),
        "direction" => all::<Direction>(),
        "by" => all::<TopBy>(),
        "tool" => Tool::NAMES.iter().map(|name| (*name).to_owned()).collect(),
        "sort" => <Sort as VariantNames>::VARIANTS.iter().map(|name| (*name).to_owned()).collect(),
        _ => {
            let values = option.get_possible_values();
            let shown = values.iter().filter(|value| !value.is_hide_set());
            shown.map(|value| value.get_name().to_owned()).collect()
        }
    }
}

fn all<T: VariantArray + ToString>() -> Vec<String> {
    T::VARIANTS.iter().map(T::to_string).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::args::Cli;

    fn after(line: &str) -> Next {
        let mut commands = Cli::command();
        commands.build();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        next(&commands, &words, &|by| match by {
            TopBy::Process => ["curl", "a,b"].map(str::to_owned).to_vec(),
            TopBy::Remote => vec!["2001:db8::1".to_owned()],
            _ => Vec::new(),
        })
    }

    fn words(line: &str) -> Vec<String> {
        match after(line) {
            Next::Words(words) => words.into_iter().map(|candidate| candidate.word).collect(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_options_and_values_follow_one_another() {
        assert_eq!(words("netspy su"), ["summary"]);
        assert!(!words("netspy c").contains(&"complete".to_owned()));
        assert_eq!(words("netspy mcp d"), ["doctor"]);
        assert_eq!(words("netspy list --proc"), ["--process"]);
        assert_eq!(words("netspy list --process c"), ["curl"]);
        assert_eq!(words("netspy list --process a"), ["a\\,b"]);
        assert_eq!(words("netspy list --process=a\\,b,cu"), ["--process=a\\,b,curl"]);
        assert_eq!(words("netspy list --outcome refused,ti"), ["refused,timed_out"]);
        assert_eq!(words("netspy list --outcome=refused,ti"), ["--outcome=refused,timed_out"]);
        assert_eq!(words("netspy list --remote 2001:"), ["2001:db8::1"]);
        assert_eq!(words("netspy list --output jsonl --sort o"), ["oldest"]);
        assert_eq!(words("netspy --server http://x list --state l"), ["listening"]);
        assert_eq!(words("netspy completions z"), ["zsh"]);
        let tools = ["get_network_summary", "get_packet_drop_summary"];
        assert_eq!(words("netspy --tool get"), tools);
        assert_eq!(words("netspy --tool=list_p"), ["--tool=list_packet_drops"]);
        // A flag whose value is written behind = alone takes no word.
        assert_eq!(words("netspy --verbose su"), ["summary"]);
        assert!(words("netspy nonsense --x").is_empty());
    }

    #[test]
    fn files_and_commands_are_the_shells_own() {
        assert_eq!(after("netspy run --report x"), Next::Files);
        assert_eq!(after("netspy run --report=x"), Next::Files);
        assert_eq!(after("netspy replay "), Next::Files);
        assert_eq!(after("netspy run -- npm te"), Next::Command(3));
        assert_eq!(after("netspy run "), Next::Command(2));
        assert_eq!(after("netspy run npm --pre"), Next::Command(2));
        assert_eq!(after("netspy run --output json -- "), Next::Command(5));
        assert_eq!(words("netspy run --outp"), ["--output"]);
    }

    #[test]
    fn a_server_that_was_typed_is_the_one_that_is_asked() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            given(&words("netspy --server a list --server=b "), "server").as_deref(),
            Some("b")
        );
        assert_eq!(given(&words("netspy run -- x --server a "), "server"), None);
    }
}
