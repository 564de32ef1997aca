//! What can be asked on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::completions::{Complete, Completions};
use super::filters::{DropPage, Page, What, WhatDns, WhatDrops, When};
use super::mcp;
use super::questions;
use super::render::Output;

const EXAMPLES: &str = "\
Examples:
  netspy watch                                 every connection as it happens
  netspy watch --process curl --outcome unsuccessful
  netspy list --since 15m --port 443 --output json
  netspy summary --since 1h --unit nginx.service
  netspy top --by remote --since 1h
  netspy diff --since 15m
  netspy analyze --process curl                where it went, how that ended, what stands out
  netspy run -- npm test                       what a command reached, and what it could not
  netspy ask 'why can curl not reach 192.0.2.1?'
  netspy --tool get_network_summary --process curl --duration 120
  netspy                                       the interactive shell

Where does it look? --server, else the server's socket /run/netspy/api.sock, else a server on
127.0.0.1:8080 (root believes only one that root runs), else it captures in its own process,
which needs root or CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_RESOURCE.

Exit codes:
  0  done; for all that list, count, sum up or compare: something was found (--tool: done)
  1  nothing matches; diff: nothing differs; findings: nothing stands out
  2  wrong usage, or a file that cannot be read or written
  3  no answer from the server
  4  no server here, and no privilege to capture
run ends with the exit code of its command; see netspy run --help.";

/// Which process on this host connects where, and how it ended.
#[derive(Debug, Parser)]
#[command(name = "netspy", version = crate::VERSION_AND_COMMIT, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub tool: ToolArgs,
    /// Without a command: the interactive shell.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Ask this server: http://HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(long, global = true, env = "NETSPY_SERVER", hide_env_values = true, value_name = "URL")]
    pub server: Option<String>,
    /// A file with the token that the server of --server wants
    #[arg(
        long,
        global = true,
        env = "NETSPY_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub token_file: Option<PathBuf>,
    /// The certificate (PEM) by which to know a server over https [the system's authorities]
    #[arg(
        long,
        global = true,
        env = "NETSPY_CA_CERT",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub ca_cert: Option<PathBuf>,
    /// Log on standard error what is asked and answered
    #[arg(long, global = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value_t = false, hide_default_value = true,
          hide_possible_values = true, value_name = "BOOL")]
    pub verbose: bool,
}

impl Common {
    /// Leaves out what names a server, but for the options of which `which` holds.
    pub fn keep(&mut self, which: impl Fn(&str) -> bool) {
        self.server.take_if(|_| !which("server"));
        self.token_file.take_if(|_| !which("token_file"));
        self.ca_cert.take_if(|_| !which("ca_cert"));
    }
}

/// One question in the form of the original netspy.
#[derive(Debug, Args)]
#[command(next_help_heading = "One question, answered in the words of the original netspy")]
pub struct ToolArgs {
    /// get_network_summary, list_connections, analyze_patterns, get_packet_drop_summary,
    /// list_packet_drops, ai_insights or contextual_analysis
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    #[command(flatten)]
    pub question: Question,
    /// What ai_insights is to consider
    #[arg(long, value_name = "TEXT", requires = "tool")]
    pub summary_text: Option<String>,
    /// What contextual_analysis is to answer
    #[arg(long, value_name = "QUESTION", requires = "tool")]
    pub query: Option<String>,
}

/// A number of the original, which took every number: 0 and less stand for "not given".
fn number(text: &str) -> Result<u32, String> {
    let n: i64 = text.parse().map_err(|_| "not a whole number".to_owned())?;
    u32::try_from(n.max(0)).map_err(|_| format!("more than {}", u32::MAX))
}

/// The same for a time, of which less than nothing is a mistake: the answer would be about another
/// time than the one asked for.
fn seconds(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(..0) => {
            Err("a time ahead of now; accepted: seconds to look back, 0 for the usual time"
                .to_owned())
        }
        _ => number(text),
    }
}

/// Parameters of the original's tools. 0 stands for "not given", as it did there.
#[derive(Debug, Clone, Default, Args)]
pub struct Question {
    /// Only this process, by name
    #[arg(long, value_name = "NAME")]
    pub process: Option<String>,
    /// Only this process, by id
    #[arg(long, value_name = "PID", value_parser = number, allow_negative_numbers = true)]
    pub pid: Option<u32>,
    /// Seconds that the summary looks back [60]; without a server, how long to capture
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    pub duration: Option<u32>,
    /// Lines that the list shows [--tool: 100, shell: 10]
    #[arg(long, value_name = "COUNT", value_parser = number, allow_negative_numbers = true)]
    pub max_events: Option<u32>,
}

impl ToolArgs {
    /// The first parameter of a tool that is there without a tool.
    pub fn stray(&self) -> Option<&'static str> {
        let q = &self.question;
        let given = [
            (q.process.is_some(), "--process"),
            (q.pid.is_some(), "--pid"),
            (q.duration.is_some(), "--duration"),
            (q.max_events.is_some(), "--max-events"),
        ];
        let stray = given.into_iter().find(|(given, _)| *given && self.tool.is_none());
        stray.map(|(_, name)| name)
    }
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Connections as they happen, one line per outcome
    Watch(Watch),
    /// Recent connections
    List(List),
    /// Everything that is known of one connection
    Show(Show),
    /// Totals by outcome, protocol and direction
    Summary(Summary),
    /// How many connections match
    Count(questions::Count),
    /// The processes, remotes, ports, ... with the most connections
    Top(questions::Top),
    /// Attempts over time
    Series(questions::Series),
    /// What is new, gone and changed since a time before
    Diff(questions::Diff),
    /// What stands out: failures, scans, storms, ...
    Findings(questions::Findings),
    /// Where attempts went, how they ended, when, and what stands out among them
    Analyze(super::analyze::Analyze),
    /// What stands out and what it may mean, in words: by a model, else by fixed rules
    #[cfg(feature = "ai")]
    Insights(super::ask::Insights),
    /// The answer to a question in words: by a model that calls tools, else by fixed rules
    #[cfg(feature = "ai")]
    #[command(visible_alias = "contextual")]
    Ask(super::ask::Ask),
    /// Packets that the kernel dropped, and why
    Drops(Drops),
    /// Questions for names: who asked for what, and what came of it
    Dns(Dns),
    /// Health, what is observed by which hooks, and the books
    Status(Status),
    /// What capture can see on this machine, and what would bring the rest
    Doctor(Doctor),
    /// The same answers as tools for an AI assistant (Model Context Protocol)
    Mcp(mcp::Mcp),
    /// Write connections to a file as they happen
    Record(Record),
    /// List what a recording holds
    Replay(Replay),
    /// Run a command, and report every connection that it and its descendants made
    Run(super::run::Run),
    /// A script by which bash, zsh or fish completes netspy's commands and options
    Completions(Completions),
    /// What can follow on a command line, for those scripts
    #[command(hide = true)]
    Complete(Complete),
}

/// Arguments of `watch`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Equal lines are shown as one with their number (×25) when more come than anyone can read.
Every change of a record, closes included, is in the JSON lines. On a terminal, Space pauses, / takes
a filter (process:curl outcome:unsuccessful, or a part of a name or address), q or Ctrl-C ends.

Examples:
  netspy watch --port 443,8443
  netspy watch --outcome unsuccessful
  netspy watch --json | jq .remote.ip")]
pub struct Watch {
    /// JSON lines: each new or changed record
    #[arg(long)]
    pub json: bool,
    /// End after this many lines
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// End after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub duration: Option<u32>,
    #[command(flatten)]
    pub what: What,
}

impl Watch {
    /// Whether only Ctrl-C or a signal ends it.
    pub fn is_endless(&self) -> bool {
        self.limit.is_none() && self.duration.is_none()
    }
}

/// Arguments of `list`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  netspy list --since 15m --outcome refused,timed_out
  netspy list --process curl --limit 20 --sort oldest
  netspy list --cidr 10.0.0.0/8 --output csv > internal.csv")]
pub struct List {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub when: When,
    #[command(flatten)]
    pub page: Page,
}

/// Arguments of `show`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  netspy show 1f0c22ab-3b9aca00-4d2
  netspy show $(netspy list --limit 1 --output jsonl | jq -r .id) --output json")]
pub struct Show {
    /// The connection's id, from `list` or `watch --json`
    pub id: String,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
}

/// Arguments of `summary`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  netspy summary --since 1h
  netspy summary --process curl --output json")]
pub struct Summary {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub when: When,
}

/// Arguments of `drops`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
A line is of packets of one flow that were dropped for one reason within half a second. Reasons
have the kernel's names (include/net/dropreason-core.h), without SKB_DROP_REASON_.

Examples:
  netspy drops --since 15m
  netspy drops --reason NETFILTER_DROP --port 443
  netspy drops --process curl --output json")]
pub struct Drops {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    #[command(flatten)]
    pub what: WhatDrops,
    #[command(flatten)]
    pub when: When,
    #[command(flatten)]
    pub page: DropPage,
}

/// Arguments of `dns`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
A line is a question that a process sent to a name server, over UDP or TCP. What a cache answered is
no question; one over TLS or HTTPS is not seen.

Examples:
  netspy dns --since 15m
  netspy dns --outcome unsuccessful
  netspy dns --host-name .example.com --process curl --output json")]
pub struct Dns {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    #[command(flatten)]
    pub what: WhatDns,
    #[command(flatten)]
    pub when: When,
    #[command(flatten)]
    pub page: DropPage,
}

/// Arguments of `status`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  netspy status
  netspy status --output json | jq .accounting")]
pub struct Status {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
}

/// Arguments of `doctor`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Attaches every hook for a moment, as capture would, so it needs the same privileges. Exit codes: 0 \
capture works, 2 not with the backend asked for, 3 not at all, 4 no privilege.

Examples:
  sudo netspy doctor
  sudo netspy doctor --backend kprobe")]
pub struct Doctor {
    /// Try only this family of hooks: fentry, kprobe or tracepoint
    #[arg(long, value_name = "NAME", value_parser = super::doctor::backend)]
    pub backend: Option<crate::capture::report::Backend>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
}

/// Arguments of `record`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  netspy record --duration 60 minute.jsonl && netspy replay minute.jsonl --outcome unsuccessful")]
pub struct Record {
    /// The file to write (JSON lines); it must not exist yet
    pub file: PathBuf,
    /// End after this many seconds; until Ctrl-C unless given
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub duration: Option<u32>,
    #[command(flatten)]
    pub what: What,
}

/// Arguments of `replay`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  netspy replay minute.jsonl --outcome refused
  netspy replay minute.jsonl --watch")]
pub struct Replay {
    /// A file that `record` wrote
    pub file: PathBuf,
    /// The lines that `watch` would have shown, rather than a list
    #[arg(long, conflicts_with_all = ["output", "limit", "cursor", "sort"])]
    pub watch: bool,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub page: Page,
}
