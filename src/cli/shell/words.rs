//! The commands of the shell.

#[cfg(not(feature = "ai"))]
use std::fmt;

use clap::{Args, Parser, Subcommand};

use super::super::analyze::Analyze;
use super::super::args::{self, Question};
#[cfg(feature = "ai")]
use super::super::ask::{Ask, Insights};
use super::super::filters::Narrow;
use super::super::questions;

/// What `help` says.
pub const HELP: &str = "\
summary [--process NAME] [--pid PID] [--duration SECONDS]
    How many outbound connections were attempted in the last 60 seconds, and how they ended
list [--process NAME] [--pid PID] [--max-events COUNT]
    The latest connection events
connections [filters]
    The same as 'netspy list': connections with process, outcome, error and latency
count, top, series, diff, findings [filters]
    The same as 'netspy count' and so on: figures, what changed, what stands out
analyze [--process NAME] [--pid PID] [filters]
    Destinations, protocols, outcomes, ports and rates of the last hour, and what stands out
top
    Over the whole screen: who connects where now; ? lists its keys, q ends it
watch [filters]
    Connections as they happen; Space pauses, / filters, Ctrl-C ends it
dropsummary [--process NAME] [--pid PID] [--duration SECONDS]
    How many packets the kernel dropped in the last 60 seconds, and why
droplist [--process NAME] [--pid PID] [--max-events COUNT]
    The latest dropped packets
drops [filters]
    The same as 'netspy drops': dropped packets with reason, addresses and process
dns [filters]
    The same as 'netspy dns': questions for names, who asked, and what came of them
insights [SUMMARY-TEXT], contextual QUESTION
    What stands out, and answers to questions, in words: by a model if one is named, else by rules
show ID
    Everything that is known of one connection
status
    Health, what is observed by which hooks, and the books
tools
    The tools of the original netspy that this version has
help, quit, exit

summary and list take --remote, --cidr, --port, --protocol, --state, --outcome, --uid and --unit
too; COMMAND --help explains every flag. Tab completes commands, flags, and names that were seen.
Examples:
    summary --process curl --duration 120
    list --outcome unsuccessful --max-events 20
    connections --since 15m --port 443
";

/// What `tools` says.
pub const TOOLS: &str = "\
get_network_summary: outbound connection attempts of one process or of all ('summary')
list_connections: recent connection events ('list')
analyze_patterns: destinations, protocols, rates, and what stands out ('analyze')
get_packet_drop_summary: packets that the kernel dropped, of one process or of all ('dropsummary')
list_packet_drops: recent packet drop events ('droplist')
ai_insights: what stands out and what it may mean, in words ('insights')
contextual_analysis: the answer to a question, in words ('contextual')
";

/// One line of input.
#[derive(Debug, Parser)]
#[command(name = "netspy", multicall = true, disable_help_subcommand = true)]
pub struct ShellLine {
    #[command(subcommand)]
    pub command: ShellCommand,
}

/// A question of the original, which may be narrowed further.
#[derive(Debug, Clone, Default, Args)]
pub struct Narrowed {
    #[command(flatten)]
    pub question: Question,
    #[command(flatten)]
    pub narrow: Narrow,
}

/// A command of the shell.
#[derive(Debug, Subcommand)]
pub enum ShellCommand {
    /// How many outbound connections were attempted, and how they ended
    Summary(Narrowed),
    /// The latest connection events
    List(Narrowed),
    /// Connections with process, outcome, error and latency
    Connections(args::List),
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
    Analyze(Analyze),
    /// What stands out and what it may mean, in words
    #[cfg(feature = "ai")]
    Insights(Insights),
    /// The answer to a question in words
    #[cfg(feature = "ai")]
    #[command(visible_alias = "ask")]
    Contextual(Ask),
    /// Connections as they happen; Ctrl-C ends it
    Watch(args::Watch),
    /// How many packets the kernel dropped, and why
    Dropsummary(Question),
    /// The latest dropped packets
    Droplist(Question),
    /// Dropped packets with reason, addresses and process
    Drops(args::Drops),
    /// Questions for names, and what came of them
    Dns(args::Dns),
    /// Everything that is known of one connection
    Show(args::Show),
    /// Health, what is observed by which hooks, and the books
    Status(args::Status),
    /// The tools of the original netspy that this version has
    Tools,
    /// The commands
    Help,
    /// Leave
    #[command(alias = "exit")]
    Quit,
}

/// A command of the original that this build does not have.
#[cfg(not(feature = "ai"))]
pub struct MissingCommand(&'static str);

#[cfg(not(feature = "ai"))]
impl MissingCommand {
    /// The command of this name, if it is one of them.
    pub fn named(name: &str) -> Option<Self> {
        let missing = ["insights", "contextual"];
        missing.into_iter().find(|missing| *missing == name).map(MissingCommand)
    }
}

#[cfg(not(feature = "ai"))]
impl fmt::Display for MissingCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0;
        write!(
            f,
            "{name} is not in this version; it has summary, list, top, series, diff, findings, analyze, watch, \
             drops, show and status"
        )
    }
}
