//! The original's questions, answered in its words.
//!
//! Scripts read these lines: what is new follows on the same line after ` | `, or on lines of its
//! own. As in the original, outbound attempts count, UNIX sockets and associated datagram sockets
//! included.

pub mod drops;
#[cfg(feature = "ai")]
pub mod words;

use std::fmt::Write as _;
use std::io;

use super::args::Question;
use super::failure::Failure;
use super::filters::{Narrow, last};
use super::render::answers::{Printer, incomplete};
use super::render::record;
use super::render::text::clean;
use super::render::units::{self, Clock};
use crate::event::{Connection, Direction, Protocol};
use crate::query::{Filter, List, Page, Source, Summary, filter};
use jiff::Timestamp;

/// Seconds that a summary looks back.
pub const DURATION: u32 = 60;

/// Seconds that a list and an analysis look back: the default of the original's server.
pub const LIST_DURATION: u32 = 3600;

/// Lines of a list where the question names none: in the shell, and for `--tool`.
pub const SHELL_EVENTS: u32 = 10;
/// See [`SHELL_EVENTS`].
pub const TOOL_EVENTS: u32 = 100;

/// Tools of the original that this build does not have.
#[cfg(not(feature = "ai"))]
const MISSING_TOOLS: [&str; 2] = ["ai_insights", "contextual_analysis"];

/// A tool of the original that this version has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `get_network_summary`.
    Summary,
    /// `list_connections`.
    List,
    /// `analyze_patterns`.
    Patterns,
    /// `get_packet_drop_summary`.
    DropSummary,
    /// `list_packet_drops`.
    DropList,
    /// `ai_insights`.
    #[cfg(feature = "ai")]
    Insights,
    /// `contextual_analysis`.
    #[cfg(feature = "ai")]
    Contextual,
}

impl Tool {
    /// The names of all of them.
    pub const NAMES: &[&str] = &[
        "get_network_summary",
        "list_connections",
        "analyze_patterns",
        "get_packet_drop_summary",
        "list_packet_drops",
        #[cfg(feature = "ai")]
        "ai_insights",
        #[cfg(feature = "ai")]
        "contextual_analysis",
    ];

    /// The tool of this name, or why there is none.
    pub fn named(name: &str) -> Result<Tool, Failure> {
        #[cfg(feature = "ai")]
        const HERE: &str = "this version, which has get_network_summary, list_connections, \
                            analyze_patterns, get_packet_drop_summary, list_packet_drops, \
                            ai_insights and contextual_analysis";
        #[cfg(not(feature = "ai"))]
        const HERE: &str = "this version, which has get_network_summary, list_connections, \
                            analyze_patterns, get_packet_drop_summary and list_packet_drops";
        match name {
            "get_network_summary" => Ok(Tool::Summary),
            "list_connections" => Ok(Tool::List),
            "analyze_patterns" => Ok(Tool::Patterns),
            "get_packet_drop_summary" => Ok(Tool::DropSummary),
            "list_packet_drops" => Ok(Tool::DropList),
            #[cfg(feature = "ai")]
            "ai_insights" => Ok(Tool::Insights),
            #[cfg(feature = "ai")]
            "contextual_analysis" => Ok(Tool::Contextual),
            #[cfg(not(feature = "ai"))]
            name if MISSING_TOOLS.contains(&name) => {
                Err(Failure::Usage(format!("the tool {name} is not in {HERE}")))
            }
            name => {
                Err(Failure::Usage(format!("unknown tool: {}; it is not in {HERE}", clean(name))))
            }
        }
    }
}

impl Question {
    /// Seconds to look back, or to capture.
    pub fn seconds(&self) -> u32 {
        self.duration.filter(|s| *s > 0).unwrap_or(DURATION)
    }

    fn page(&self) -> Page {
        let events = self.max_events.unwrap_or(SHELL_EVENTS);
        // 0 fell back to the shell's default in the original.
        let events = if events == 0 { SHELL_EVENTS } else { events };
        let limit = usize::try_from(events).unwrap_or(Page::MAX_LIMIT).min(Page::MAX_LIMIT);
        Page { limit: Some(limit), ..Page::default() }
    }

    /// `until`: the end of what was captured in this process, if it was.
    fn filter(
        &self,
        narrow: &Narrow,
        seconds: u32,
        until: Option<Timestamp>,
    ) -> Result<Filter, Failure> {
        let (filter, _) = filter::parse(narrow.pairs())?;
        Ok(Filter {
            process: self.names()?,
            pid: self.pid.filter(|pid| *pid > 0).into_iter().collect(),
            direction: vec![Direction::Outbound],
            preexisting: Some(false),
            since: if until.is_some() { None } else { last(seconds) },
            until,
            ..filter
        })
    }

    /// The names of processes, of which the original took one.
    fn names(&self) -> Result<Vec<String>, Failure> {
        let given = self.process.as_deref().filter(|names| !names.is_empty());
        let (filter, _) = filter::parse(given.map(|names| ("process", names)))?;
        Ok(filter.process)
    }

    fn whom(&self) -> Result<Whom, Failure> {
        let names = self.names()?;
        Ok(match self.pid {
            Some(pid) if pid > 0 => Whom::Pid(pid),
            _ if names.is_empty() => Whom::All,
            _ => Whom::Process(names.join(", ")),
        })
    }
}

enum Whom {
    Pid(u32),
    Process(String),
    All,
}

/// Answers `get_network_summary`.
pub async fn summary(
    question: &Question,
    narrow: &Narrow,
    until: Option<Timestamp>,
    source: &dyn Source,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let filter = question.filter(narrow, question.seconds(), until)?;
    let summary = source.summary(&filter).await?;
    let text = summary_text(&question.whom()?, question.seconds(), &summary, &printer.clock);
    print(printer, &text)
}

/// Answers `list_connections`.
pub async fn list(
    question: &Question,
    narrow: &Narrow,
    until: Option<Timestamp>,
    source: &dyn Source,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let filter = question.filter(narrow, LIST_DURATION, until)?;
    let list = source.list(&filter, &question.page()).await?;
    let text = list_text(&list, &printer.clock);
    print(printer, &text)
}

fn print(printer: &mut Printer<'_>, text: &str) -> Result<(), Failure> {
    printer.out.write_all(text.as_bytes()).map_err(|e: io::Error| e.into())
}

fn summary_text(whom: &Whom, seconds: u32, summary: &Summary, clock: &Clock) -> String {
    let mut text = String::new();
    let n = summary.total;
    if n == 0 {
        let whom = match whom {
            Whom::Pid(pid) => format!("PID {pid}"),
            Whom::Process(name) => format!("process '{}'", clean(name)),
            Whom::All => "all processes".to_owned(),
        };
        let _ =
            writeln!(text, "No network connections found for {whom} in the last {seconds} seconds");
    } else {
        let whom = match whom {
            Whom::Pid(pid) => format!("PID {pid}"),
            Whom::Process(name) => format!("Process '{}'", clean(name)),
            Whom::All => "All processes".to_owned(),
        };
        let _ = writeln!(
            text,
            "{whom} made {n} outbound connection attempts over the last {seconds} seconds"
        );
        let mut outcomes: Vec<_> = summary.by_outcome.iter().filter(|(_, n)| **n > 0).collect();
        outcomes.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let outcomes: Vec<_> =
            outcomes.iter().map(|(outcome, n)| format!("{outcome} {n}")).collect();
        let _ = writeln!(text, "  Outcomes: {}", outcomes.join(", "));
        if let Some(h) = summary.handshake {
            let (p50, p99) = (units::duration(h.p50_us), units::duration(h.p99_us));
            let _ = writeln!(text, "  Handshake: median {p50}, 99th percentile {p99}");
        }
    }
    if let Some(warning) = incomplete(&summary.accounting, clock) {
        let _ = writeln!(text, "  {warning}");
    }
    text
}

fn list_text(list: &List, clock: &Clock) -> String {
    let mut text = String::new();
    if list.connections.is_empty() {
        text.push_str("No connection events found\n");
    } else {
        let _ = writeln!(text, "Recent connection events ({} total):", list.total);
        for connection in &list.connections {
            let _ = writeln!(text, "  {}", event_line(connection, clock));
        }
        let shown = u64::try_from(list.connections.len()).unwrap_or(u64::MAX);
        let more = list.total.saturating_sub(shown);
        if more > 0 {
            let _ = writeln!(text, "  ... and {more} more events");
        }
    }
    if let Some(warning) = incomplete(&list.accounting, clock) {
        let _ = writeln!(text, "  {warning}");
    }
    text
}

fn event_line(c: &Connection, clock: &Clock) -> String {
    let destination = match &c.remote {
        Some(remote) => record::address(remote.ip, remote.port),
        None => "(local socket)".to_owned(),
    };
    let process = c.process.as_ref().map_or("-".into(), |p| clean(&p.comm));
    let protocol = c.protocol.as_str().to_uppercase();
    let mut line = format!("{} | {destination} | {protocol} | {process}", clock.short(c.time));
    let _ = write!(line, " | {}", c.outcome);
    let error = record::error(c);
    if !error.is_empty() {
        let _ = write!(line, " {error}");
    }
    if let (Protocol::Unix, Some(path)) = (c.protocol, &c.path) {
        let _ = write!(line, " | {}", clean(path));
    }
    if let Some(name) = c.remote.as_ref().and_then(|r| r.name.as_deref()) {
        let _ = write!(line, " | {}", clean(name));
    }
    line
}
