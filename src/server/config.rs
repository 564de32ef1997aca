//! Options from three places: the command line, `NETSPY_…` variables, and a file, in this order of
//! precedence.
//!
//! The file is TOML; its keys are the long options, and what begins alike may stand in a table
//! (`[model]`). What the file says becomes the default of the
//! option, so that one parser knows all names and values, and no list has to be kept in step.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::lists;
use super::options::{Options, Place};

/// Options that make no sense in a file.
const NOT_IN_A_FILE: [&str; 6] = ["config", "check", "help", "version", "http", "addr"];
/// Options that may stand together: in the table `[model]`, `timeout` is `model-timeout`, and `name` is
/// `model` itself.
const TABLES: [&str; 1] = ["model"];
/// The largest file that is read.
const FILE_LIMIT: u64 = 1 << 20;

/// The configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong, and what is accepted.
        problem: String,
    },
    /// The command line, or a variable.
    #[error(transparent)]
    Usage(#[from] clap::Error),
}

/// What the options are, and what was said of each.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The options.
    pub options: Options,
    /// Each option's values as text, whichever place they come from.
    said: BTreeMap<String, Vec<OsString>>,
}

impl Configuration {
    /// Reads the command line (with the name of the program), the variables, and the file that one
    /// of them names.
    pub fn load(arguments: &[OsString]) -> Result<Self, ConfigError> {
        let first = command(&[]).try_get_matches_from(arguments)?;
        let path = first.get_one::<PathBuf>("config").cloned();
        let Some(path) = path else { return Self::of(&first) };
        let mut entries = read(&path)?;
        // What was said in a place that comes first rules out its opposite, too.
        let command = Options::command();
        let is_given = |id: &str| {
            matches!(
                first.value_source(id),
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            )
        };
        entries.retain(|entry| {
            let rivals = command.get_arguments().filter(|arg| is_given(arg.get_id().as_str()));
            !rivals.into_iter().any(|given| are_rivals(&command, given, &entry.id))
        });
        let matches = self::command(&entries).try_get_matches_from(arguments)?;
        Self::of(&matches)
    }

    fn of(matches: &ArgMatches) -> Result<Self, ConfigError> {
        let mut options = Options::from_arg_matches(matches)?;
        let settled = options.settle(|id| match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Place::Flag,
            Some(ValueSource::EnvVariable) => Place::Variable,
            // What the file says is a default by now.
            _ => Place::File,
        });
        settled.and_then(|()| options.check_together()).map_err(|problem| {
            Options::command().error(clap::error::ErrorKind::ArgumentConflict, problem)
        })?;
        let said = matches.ids().map(|id| {
            let values = matches.try_get_raw(id.as_str()).ok().flatten();
            let values = values.map(|values| values.map(ToOwned::to_owned).collect());
            (id.as_str().to_owned(), values.unwrap_or_default())
        });
        Ok(Configuration { options, said: said.collect() })
    }

    /// The options that another configuration has otherwise, as they are written.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names =
            self.said.keys().chain(other.said.keys().filter(|k| !self.said.contains_key(*k)));
        let changed = names.filter(|name| self.said.get(*name) != other.said.get(*name));
        changed.map(|name| name.replace('_', "-")).collect()
    }

    /// Takes what another configuration says of the options of which `which` holds.
    pub(super) fn take_over(&mut self, other: &Self, which: impl Fn(&str) -> bool) {
        for (name, values) in &other.said {
            if which(&name.replace('_', "-")) {
                self.said.insert(name.clone(), values.clone());
            }
        }
    }
}

fn are_rivals(command: &Command, given: &Arg, id: &str) -> bool {
    let conflicts = |arg: &Arg, id: &str| {
        command.get_arg_conflicts_with(arg).iter().any(|other| other.get_id().as_str() == id)
    };
    let entry = command.get_arguments().find(|arg| arg.get_id().as_str() == id);
    conflicts(given, id) || entry.is_some_and(|arg| conflicts(arg, given.get_id().as_str()))
}

/// A key of the file.
#[derive(Debug)]
struct Entry {
    id: String,
    values: Vec<String>,
}

/// The command line, where these take the place of the defaults.
fn command(entries: &[Entry]) -> Command {
    entries.iter().fold(Options::command(), |command, entry| {
        let values = entry.values.clone();
        command.mut_arg(&entry.id, |arg| arg.default_values(values))
    })
}

fn read(path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > FILE_LIMIT {
        return Err(failed(std::io::Error::other("it is larger than 1 MiB")));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    parse(&text).map_err(|(at, problem)| {
        let before = text.get(..at).unwrap_or(&text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        ConfigError::Wrong { path: path.to_owned(), line, problem }
    })
}

/// An offset in the text, and what is wrong there.
type Wrong = (usize, String);

fn parse(text: &str) -> Result<Vec<Entry>, Wrong> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (at, error.message().to_owned())
    })?;
    let command = Options::command();
    let mut entries: Vec<Entry> = Vec::new();
    for (key, at, value) in keys(table.get_ref()) {
        let id = key.replace('-', "_");
        let known = accepted(&command).find(|arg| arg.get_id().as_str() == id);
        let arg = known.ok_or_else(|| (at, unknown(&command, &key)))?;
        if entries.iter().any(|entry| entry.id == id) {
            return Err((at, format!("{key} is there twice")));
        }
        let values = values(arg, value).map_err(|problem| (value.span().start, problem))?;
        check(&command, arg, &values).map_err(|problem| (value.span().start, problem))?;
        if let Some(values) = values {
            entries.push(Entry { id, values });
        }
    }
    let given = |id: &str| entries.iter().any(|entry| entry.id == id);
    for arg in accepted(&command).filter(|arg| given(arg.get_id().as_str())) {
        let mut rivals = command.get_arg_conflicts_with(arg).into_iter();
        if let Some(rival) = rivals.find(|rival| given(rival.get_id().as_str())) {
            let (one, other) = (name(arg), name(rival));
            return Err((0, format!("{one} and {other} exclude each other: leave one out")));
        }
    }
    Ok(entries)
}

/// The keys of a file as the options that they are, with where they stand.
fn keys<'a>(table: &'a DeTable<'a>) -> Vec<(String, usize, &'a Spanned<DeValue<'a>>)> {
    let mut keys = Vec::new();
    for (key, value) in table {
        let name = key.get_ref();
        match value.get_ref() {
            DeValue::Table(inner) if TABLES.contains(&&**name) => {
                keys.extend(inner.iter().map(|(key, value)| {
                    let option = match &**key.get_ref() {
                        "name" => name.to_string(),
                        key => format!("{name}-{key}"),
                    };
                    (option, key.span().start, value)
                }));
            }
            _ => keys.push((name.to_string(), key.span().start, value)),
        }
    }
    keys
}

/// The options that a file may set.
fn accepted(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !NOT_IN_A_FILE.contains(&arg.get_id().as_str()))
}

fn name(arg: &Arg) -> &str {
    arg.get_long().unwrap_or_else(|| arg.get_id().as_str())
}

fn unknown(command: &Command, key: &str) -> String {
    let names: Vec<_> = accepted(command).map(name).collect();
    let key: String = key.chars().take(80).collect();
    format!("there is no option '{}' (accepted: {})", key.escape_debug(), names.join(", "))
}

/// The values of a key as text; `None` for a switch that is off.
fn values(arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Option<Vec<String>>, String> {
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let wrong = |what: &str| Err(format!("{}: expected {what}", name(arg)));
    match value.get_ref() {
        DeValue::Boolean(true) if is_switch => Ok(Some(vec!["true".to_owned()])),
        DeValue::Boolean(false) if is_switch => Ok(None),
        _ if is_switch => wrong("true or false"),
        DeValue::Array(items) if lists::is_list(arg) => {
            let items = items.iter().map(|item| Some(lists::item(arg, one(item.get_ref())?)));
            let items: Option<Vec<_>> = items.collect();
            match items {
                Some(items) if items.is_empty() => Ok(None),
                Some(items) => Ok(Some(items)),
                None => wrong("a list of texts or numbers"),
            }
        }
        value => match one(value) {
            Some(text) => Ok(Some(lists::texts(arg, text))),
            None if lists::is_list(arg) => wrong("a text, a number or a list"),
            None => wrong("a text or a number"),
        },
    }
}

fn one(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().replace('_', "")),
        _ => None,
    }
}

/// Whether the option takes these values, told as for the command line.
fn check(command: &Command, arg: &Arg, values: &Option<Vec<String>>) -> Result<(), String> {
    let Some(values) = values.as_ref().filter(|_| arg.get_action().takes_values()) else {
        return Ok(());
    };
    let long = name(arg).to_owned();
    for value in values {
        let alone = command.clone().mut_args(|arg| arg.env(Resettable::Reset));
        let words = ["ebpf-server".to_owned(), format!("--{long}={value}")];
        if let Err(error) = alone.try_get_matches_from(words) {
            return Err(format!("{long}: {}", complaint(arg, value, &error)));
        }
    }
    Ok(())
}

fn complaint(arg: &Arg, value: &str, error: &clap::Error) -> String {
    let value: String = value.chars().take(80).collect();
    let possible: Vec<_> =
        arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
    let why = std::error::Error::source(error).map_or_else(String::new, |e| format!(": {e}"));
    let accepted = match possible.is_empty() {
        false => possible.join(", "),
        true => {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            help.trim_end_matches('.').to_owned()
        }
    };
    format!("'{}' is not accepted{why} (accepted: {accepted})", value.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> (usize, String) {
        let (at, problem) = parse(text).unwrap_err();
        (text[..at].matches('\n').count() + 1, problem)
    }

    struct Written(PathBuf);

    impl Written {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("netspy-config-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, text).unwrap();
            Written(path)
        }

        fn load(&self, arguments: &[&str]) -> Result<Configuration, ConfigError> {
            let own = ["ebpf-server", "--config", self.0.to_str().unwrap()];
            let all: Vec<_> = own.iter().chain(arguments).map(OsString::from).collect();
            Configuration::load(&all)
        }
    }

    impl Drop for Written {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn every_option_has_a_key_and_a_variable() {
        for arg in accepted(&Options::command()) {
            let variable = format!("NETSPY_{}", arg.get_id().as_str().to_ascii_uppercase());
            let found = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            assert_eq!(found, Some(variable), "{}", name(arg));
        }
    }

    #[test]
    fn a_file_says_what_the_command_line_could() {
        let file = Written::new(
            "all",
            "# comment\nlisten = \"[::1]:9\"\nmemory-limit = \"1GiB\"\nring_size = 65536\n\
             only-port = [443, \"80\"]\nonly-process = \"curl\"\nno-loopback = true\n\
             no-inbound = false\nlog-format = \"json\"\n",
        );
        let options = file.load(&[]).unwrap().options;
        assert_eq!(options.tcp_address(), "[::1]:9".parse().unwrap());
        assert_eq!((options.memory_limit, options.ring_size), (1 << 30, 65_536));
        assert_eq!(options.only_port, [443, 80]);
        assert_eq!(options.capture().only_process, ["curl"]);
        assert!(options.no_loopback && !options.no_inbound);
        // The command line wins, over the whole of a list.
        let options = file.load(&["--only-port", "22", "--memory-limit", "2MiB"]).unwrap().options;
        assert_eq!((options.only_port, options.memory_limit), (vec![22], 2 << 20));
    }

    #[test]
    fn a_list_of_texts_is_the_same_wherever_it_is_written_and_a_comma_can_be_part_of_one() {
        let names = |file: &str, arguments: &[&str]| {
            Written::new("lists", file).load(arguments).map(|c| c.options.capture().only_process)
        };
        for (file, arguments) in [
            ("", &["--only-process", r"a\,b,curl, tmux: server"][..]),
            ("", &["--only-process", r"a\,b", "--only-process", "curl,tmux: server"]),
            (r#"only-process = ["a,b", "curl", "tmux: server"]"#, &[]),
            (r"only-process = 'a\,b,curl,tmux: server'", &[]),
            (r"only-process = 'x,y'", &["--only-process", r"a\,b,curl,tmux: server"]),
        ] {
            let read = names(file, arguments).unwrap();
            assert_eq!(read, ["a,b", "curl", "tmux: server"], "{file} {arguments:?}");
        }
        assert_eq!(names(r#"only-process = [" x ", "\\"]"#, &[]).unwrap(), [" x ", "\\"]);
        let options = |file: &str| Written::new("paths", file).load(&[]).unwrap().options;
        let geo = options(r#"geoip = ["/a,b.mmdb", "/c.mmdb"]"#).geoip;
        let paths: Vec<_> = crate::server::Listed::all(&geo).cloned().collect();
        assert_eq!(paths, [PathBuf::from("/a,b.mmdb"), PathBuf::from("/c.mmdb")]);
        let sockets = options(r#"runtime-socket = ["/a,docker.sock"]"#).containers.sources();
        assert_eq!(sockets.sockets.len(), 1);
        // How it is written makes no other configuration of it.
        let text = Written::new("text", r"only-process = 'a\,b,c'").load(&[]).unwrap();
        let list = Written::new("list", r#"only-process = ["a,b", "c"]"#).load(&[]).unwrap();
        assert_eq!(text.differences(&list), ["config"]);
        let error = names("", &["--only-process", "curl,,wget"]).unwrap_err().to_string();
        assert!(error.contains("'': expected 1 to 15 bytes"), "{error}");
        assert!(names("only-process = ['a', '']", &[]).is_err());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_what_is_accepted() {
        for (text, line, says) in [
            ("a = 1", 1, "there is no option 'a' (accepted: listen, port,"),
            ("\n\nmemory-limit = \"1\"", 3, "memory-limit: '1' is not accepted: at least 1MiB"),
            ("log-format = \"xml\"\n", 1, "accepted: text, json"),
            ("port = 99999", 1, "port: '99999'"),
            ("port = [1]", 1, "port: expected a text or a number"),
            ("port = 1.5", 1, "port: expected"),
            ("\nno-unix = \"yes\"", 2, "no-unix: expected true or false"),
            ("only-port = [443, {}]", 1, "only-port: expected a list"),
            ("only-port = [443, 99999]", 1, "only-port: '99999'"),
            ("port = 1\nport = 2", 2, "duplicate key"),
            ("memory-limit = 1\nmemory_limit = 1", 1, "memory-limit"),
            ("[server]\nport = 1", 1, "there is no option 'server'"),
            ("[model]\n\nkey = 1", 3, "there is no option 'model-key'"),
            ("model-timeout = 1\n[model]\ntimeout = 2", 1, "model-timeout is there twice"),
            ("[model]\ntimeout = 0", 2, "model-timeout: '0' is not accepted"),
            ("port = ", 1, ""),
            ("check = true", 1, "there is no option 'check'"),
            ("config = \"x\"", 1, "there is no option 'config'"),
            ("replay = \"a\"\nrecord = \"b\"", 1, "exclude each other"),
        ] {
            let (at, problem) = wrong(text);
            assert!(at == line && problem.contains(says), "{text}: {at}: {problem}");
        }
    }

    #[test]
    fn what_is_said_on_the_command_line_rules_out_its_opposite_in_the_file() {
        let file = Written::new("rival", "unix = \"/run/x.sock\"\n");
        assert!(file.load(&[]).unwrap().options.unix.is_some());
        let options = file.load(&["--no-unix"]).unwrap().options;
        assert!(options.no_unix && options.unix.is_none());
    }

    #[test]
    fn a_port_stands_in_for_that_of_an_address_unless_the_address_was_said_in_a_place_before() {
        for (file, arguments, expected) in [
            ("listen = \"[::1]:9\"\nport = 10", &[][..], "[::1]:10"),
            ("listen = \"[::1]:9\"", &["--port", "11"], "[::1]:11"),
            ("listen = \"[::1]:9\"\nport = 10", &["--port", "11"], "[::1]:11"),
            ("port = 10", &["--listen", "127.0.0.2:12"], "127.0.0.2:12"),
            ("port = 10", &["--addr", ":12"], "127.0.0.1:12"),
            ("port = 10", &["--listen", "127.0.0.2:12", "--port", "13"], "127.0.0.2:13"),
            ("port = 10", &[], "127.0.0.1:10"),
        ] {
            let options = Written::new("port", file).load(arguments).unwrap().options;
            assert_eq!(options.tcp_address().to_string(), expected, "{file:?} {arguments:?}");
        }
    }

    #[test]
    fn what_is_captured_cannot_be_filtered_where_nothing_is() {
        for filter in [&["--only-port", "5"][..], &["--only-process", "a"], &["--no-inbound"]] {
            let arguments = [&["--replay", "x"], filter].concat();
            let error = Written::new("replay", "").load(&arguments).unwrap_err().to_string();
            assert!(error.contains(filter[0]) && error.contains("--replay"), "{error}");
        }
        assert!(Written::new("replay-file", "replay = \"x\"\nonly-port = 5").load(&[]).is_err());
        // The same file serves to capture and to look at a recording.
        let file = Written::new("replay-flag", "only-port = 5\nno-loopback = true");
        assert!(file.load(&["--replay", "x"]).is_ok());
    }

    #[test]
    fn differences_have_the_names_of_the_options() {
        let one = Written::new("one", "log-level = \"debug\"\nport = 1\n");
        let other = Written::new("other", "port = 2\nno-loopback = true\nlog-level = \"debug\"");
        let (one, other) = (one.load(&[]).unwrap(), other.load(&[]).unwrap());
        let mut names = one.differences(&other);
        names.retain(|name| name != "config");
        assert_eq!(names, ["no-loopback", "port"]);
        assert!(one.differences(&one).is_empty());
    }

    #[cfg(feature = "ai")]
    #[test]
    fn a_table_is_what_its_keys_begin_with() {
        let table = Written::new(
            "table",
            "[model]\nname = \"m\"\nkey-file = \"/k\"\ntimeout = 7\nhide-addresses = true\n",
        );
        let model = table.load(&[]).unwrap().options.model;
        assert_eq!((model.name.as_deref(), model.timeout), (Some("m"), 7));
        assert!(model.hide_addresses && model.key_file == Some("/k".into()));
        let flag = table.load(&["--model-timeout", "9"]).unwrap();
        assert_eq!(flag.options.model.timeout, 9);
        let flat = Written::new("flat", "model = \"m\"\nmodel-timeout = 7\n");
        let (flat, none) = (flat.load(&[]).unwrap(), flat.load(&["--model", "n"]).unwrap());
        assert_eq!(none.options.model.name.as_deref(), Some("n"));
        assert_eq!(flat.differences(&none), ["model"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let arguments = ["ebpf-server", "--config", "/nonexistent/x.toml"].map(OsString::from);
        let error = Configuration::load(&arguments).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/x.toml: No such file"), "{error}");
    }
}
