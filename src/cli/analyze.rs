//! `analyze`: the destinations, protocols, outcomes, ports and rates of outbound attempts, and what
//! stands out among them.
//!
//! It counts what the other commands of the original count ([`legacy`](super::legacy)): every
//! outbound attempt, UNIX sockets and datagram sockets that sent nothing included.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::args::Question;
use super::commands::gather_into;
use super::failure::Failure;
use super::filters::{Page, What, When, Which, last};
use super::legacy::LIST_DURATION;
use super::locate::Origin;
use super::render::Output;
use super::render::analysis::steps;
use super::render::answers::Printer;
use crate::event::Direction;
use crate::query::findings::{self, Findings};
use crate::query::series::{Series, Step};
use crate::query::top::{Top, TopBy};
use crate::query::{Filter, QueryError, Source, Summary};

/// Destinations, ports and findings that are shown unless asked otherwise; of destinations the
/// original showed as many.
const SHOWN: usize = 10;
/// Reasons for drops: there are few.
const REASONS: usize = 5;

/// Arguments of `analyze`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Outbound attempts of the last hour, unless told otherwise: where they went, by which protocols and
ports, how they ended, when they were made, and what stands out among them by fixed rules (as in
'netspy findings'), each finding with its figures, the records that it rests on, and what to do next.
UNIX sockets, and datagram sockets that sent nothing, count as in the original netspy.

Examples:
  netspy analyze --process curl
  netspy analyze --since 15m --outcome unsuccessful
  netspy analyze --since 1d --port 443 --output json | jq .findings.findings")]
pub struct Analyze {
    /// At most this many destinations, ports and findings [10]
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<String>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    #[command(
        flatten,
        next_help_heading = "Which attempts (several values: separated by commas, one within a value: \\,)"
    )]
    pub which: Which,
    #[command(flatten)]
    pub when: When,
}

/// The answers that make one analysis, each as the REST API gives it, of one and the same time.
#[derive(Debug, Serialize)]
pub struct Analysis {
    /// Totals.
    pub summary: Summary,
    /// By remote address and port.
    pub destinations: Top,
    /// By remote port.
    pub ports: Top,
    /// By the kernel's reason for dropping packets of them.
    pub drop_reasons: Top,
    /// Over time.
    pub series: Series,
    /// What stands out.
    pub findings: Findings,
    /// The most that are shown of each.
    #[serde(skip)]
    pub limit: usize,
}

impl Analyze {
    /// As the original's `--tool analyze_patterns` asked. 0 and nothing stand for "not given".
    pub fn of_tool(question: &Question) -> Self {
        let pid = question.pid.filter(|pid| *pid > 0).map(|pid| pid.to_string());
        // The original took every number.
        let most = u32::try_from(Findings::MAX_LIMIT).unwrap_or(u32::MAX);
        let limit = question.max_events.filter(|n| *n > 0).map(|n| n.min(most));
        let process = question.process.as_deref().filter(|name| !name.is_empty());
        Analyze {
            limit: limit.map(|n| n.to_string()),
            which: Which {
                process: process.map(str::to_owned).into_iter().collect(),
                pid: pid.into_iter().collect(),
                ..Which::default()
            },
            when: When { duration: question.duration.filter(|s| *s > 0), ..When::default() },
            ..Analyze::default()
        }
    }

    fn read(&self) -> Result<(Filter, usize), Failure> {
        // Nothing is hidden: all of it was counted in the original.
        let what = What { which: self.which.clone(), all: true, ..What::default() };
        let (filter, _) = what.read(&self.when, &Page::default())?;
        let limit = self.limit.as_deref().map(|limit| ("limit", limit));
        let (_, limit) = findings::parse(limit)?;
        let (direction, preexisting) = (vec![Direction::Outbound], Some(false));
        let filter = Filter { direction, preexisting, ..filter };
        Ok((filter, limit.unwrap_or(SHOWN)))
    }

    /// Refuses wrong values before anything is asked or captured.
    pub fn check(&self) -> Result<(), Failure> {
        self.read().map(drop)
    }

    /// Asks, and prints the answer; whether anything was found. Where there is no server, captures
    /// first, for so many seconds unless a time is given.
    pub async fn ask(
        &self,
        capture: Option<u32>,
        origin: &Origin,
        printer: &mut Printer<'_>,
    ) -> Result<bool, Failure> {
        let (mut filter, limit) = self.read()?;
        let when = When { duration: self.when.duration.or(capture), ..self.when.clone() };
        gather_into(&mut filter, &when, origin).await?;
        self.answer(filter, limit, origin, printer).await
    }

    /// Asks for what is known at this moment.
    pub async fn ask_now(&self, origin: &Origin, printer: &mut Printer<'_>) -> Result<(), Failure> {
        let (filter, limit) = self.read()?;
        self.answer(filter, limit, origin, printer).await.map(drop)
    }

    async fn answer(
        &self,
        mut filter: Filter,
        limit: usize,
        origin: &Origin,
        printer: &mut Printer<'_>,
    ) -> Result<bool, Failure> {
        // What this process captures has begun lately: all of it is meant.
        if filter.since.is_none() && origin.own.is_none() {
            filter.since = before(filter.until, LIST_DURATION);
        }
        let steps = steps(&printer.screen);
        let analysis = Analysis::of(&*origin.source, &filter, limit, steps).await?;
        printer.analysis(&analysis, self.output)?;
        Ok(analysis.summary.total > 0)
    }
}

/// The start of a window of so many seconds that ends at this time, or now.
fn before(until: Option<Timestamp>, seconds: u32) -> Option<Timestamp> {
    match until {
        None => last(seconds),
        Some(until) => until.checked_sub(jiff::SignedDuration::from_secs(seconds.into())).ok(),
    }
}

impl Analysis {
    async fn of(
        source: &dyn Source,
        filter: &Filter,
        limit: usize,
        steps: u64,
    ) -> Result<Self, QueryError> {
        let summary = source.summary(filter).await?;
        // The same window for all of them, whatever the clock says by now.
        let window = summary.window;
        let filter = Filter {
            since: filter.since.or(Some(window.since)),
            until: filter.until.or(Some(window.until)),
            ..filter.clone()
        };
        let length = window.until.as_millisecond().saturating_sub(window.since.as_millisecond());
        let step = Step::at_most(u64::try_from(length).unwrap_or(0), steps);
        Ok(Analysis {
            summary,
            destinations: source.top(&filter, TopBy::Endpoint, Some(limit)).await?,
            ports: source.top(&filter, TopBy::Port, Some(limit)).await?,
            drop_reasons: source.top(&filter, TopBy::DropReason, Some(REASONS)).await?,
            series: source.series(&filter, step).await?,
            findings: source.findings(&filter, Some(limit)).await?,
            limit,
        })
    }
}
