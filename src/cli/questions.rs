//! The questions whose answers are figures: `count`, `top`, `series`, `diff` and `findings`.

use clap::Args;

use super::commands::{gather_into, tell_left_out};
use super::failure::Failure;
use super::filters::{Page, What, When};
use super::locate::{Capture, Origin};
use super::render::Output;
use super::render::answers::Printer;
use crate::query::diff::Compare;
use crate::query::series::Step;
use crate::query::top::TopBy;
use crate::query::{self, Filter};

/// Arguments of `count`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  netspy count --process curl --since 1h
  netspy count --outcome unsuccessful --output csv")]
pub struct Count {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub when: When,
}

/// Arguments of `top`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
On a terminal it is shown over the whole screen, and follows what happens: processes, remotes,
ports, units, outcomes and connections, with rates, a graph, orders and a filter to type (? lists
the keys).
Elsewhere, or with --by, --limit, --output, --since, --until or --duration, one table is printed.

Examples:
  netspy top
  netspy top --outcome unsuccessful
  netspy top --since 1h
  netspy top --by remote --process postgres
  netspy top --by port --outcome unsuccessful --limit 5 --output json")]
pub struct Top {
    /// What they are grouped by: process, pid, remote, endpoint, scope, country, asn, host_name, port,
    /// container, pod, namespace, image, unit, uid, outcome, protocol, direction, state, error, drop_reason or
    /// host [process]
    #[arg(long, value_name = "WHAT")]
    pub by: Option<String>,
    /// At most this many groups [10]
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<String>,
    /// The form of the answer
    #[arg(long, value_enum, value_name = "FORM")]
    pub output: Option<Output>,
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub when: When,
}

impl Top {
    /// Whether it is the view over the whole screen that is asked for, where there is one.
    pub fn is_view(&self) -> bool {
        let When { since, until, duration } = &self.when;
        let once = [&self.by, &self.limit, since, until].into_iter().any(Option::is_some);
        !once && duration.is_none() && self.output.is_none()
    }
}

/// Arguments of `series`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Examples:
  netspy series --since 1h
  netspy series --since 1d --step 15m --process nginx --output csv > day.csv")]
pub struct Series {
    /// Length of a step: 10s, 1m, 1h; as long as makes about 60 of them unless given
    #[arg(long, value_name = "LENGTH")]
    pub step: Option<String>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub when: When,
}

/// Arguments of `diff`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
The time asked for is the last hour unless given; it is compared with as long a time before it
unless told otherwise; where the two would overlap, the time before is cut. Needs a server: there
is nothing to compare a capture with that begins now.

Examples:
  netspy diff --since 15m
  netspy diff --since 1h --compare-since 25h --compare-until 24h
  netspy diff --process nginx --output json")]
pub struct Diff {
    /// Start of the time to compare with: an age (30s, 15m, 2h, 1d) or RFC 3339
    #[arg(long, value_name = "TIME")]
    pub compare_since: Option<String>,
    /// End of it; the start of the time asked for unless given
    #[arg(long, value_name = "TIME")]
    pub compare_until: Option<String>,
    /// At most this many of each kind [20]
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<String>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub when: When,
}

/// Arguments of `findings`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
Fixed rules, no model: failures that repeat, attempts that hang, packets that this host dropped,
scans, storms, services in clear text, names that fail. Each says its figures, why it is one, and
what to do next.

Examples:
  netspy findings --since 1h
  netspy findings --process curl --output json")]
pub struct Findings {
    /// At most this many [100]
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<String>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub when: When,
}

/// One of these questions.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    Count(&'a Count),
    Top(&'a Top),
    Series(&'a Series),
    Diff(&'a Diff),
    Findings(&'a Findings),
}

/// What is asked for beside the filter.
enum Asked {
    Count,
    Top(TopBy, Option<usize>),
    Series(Step),
    Diff(Compare, Option<usize>),
    Findings(Option<usize>),
}

/// The parameters that were given, as the REST API names them.
fn given<'a, const N: usize>(
    parameters: [(&'static str, &'a Option<String>); N],
) -> impl Iterator<Item = (&'static str, &'a str)> {
    parameters.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)))
}

impl Question<'_> {
    fn parts(&self) -> (&What, &When, Output) {
        match self {
            Question::Count(args) => (&args.what, &args.when, args.output),
            Question::Top(args) => (&args.what, &args.when, args.output.unwrap_or_default()),
            Question::Series(args) => (&args.what, &args.when, args.output),
            Question::Diff(args) => (&args.what, &args.when, args.output),
            Question::Findings(args) => (&args.what, &args.when, args.output),
        }
    }

    /// Reads the values, with the parser of the REST API.
    fn read(&self) -> Result<(Filter, Asked), Failure> {
        let (what, when, _) = self.parts();
        let (filter, _) = what.read(when, &Page::default())?;
        let asked = match self {
            Question::Count(_) => Asked::Count,
            Question::Top(args) => {
                let by = ("by", args.by.as_deref().unwrap_or("process"));
                let pairs = given([("limit", &args.limit)]).chain([by]);
                let (_, by, limit) = query::top::parse(pairs)?;
                Asked::Top(by, limit)
            }
            Question::Series(args) => {
                Asked::Series(query::series::parse(given([("step", &args.step)]))?.1)
            }
            Question::Diff(args) => {
                // Whether the windows fit is told together with the filter's.
                let window = given([("since", &when.since), ("until", &when.until)]);
                let own = given([
                    ("compare_since", &args.compare_since),
                    ("compare_until", &args.compare_until),
                    ("limit", &args.limit),
                ]);
                let (_, compare, limit) = query::diff::parse(window.chain(own))?;
                Asked::Diff(compare, limit)
            }
            Question::Findings(args) => {
                Asked::Findings(query::findings::parse(given([("limit", &args.limit)]))?.1)
            }
        };
        Ok((filter, asked))
    }

    /// Refuses wrong values, and says what is needed where there is no server.
    pub fn check(&self) -> Result<Capture, Failure> {
        self.read()?;
        Ok(match self {
            Question::Diff(_) => Capture::Never,
            _ => {
                let (what, when, _) = self.parts();
                when.capture(Capture::Allowed { no_unix: what.hides_unix() })
            }
        })
    }

    /// Asks, and prints the answer. Where there is no server, captures for a while first.
    pub async fn ask(&self, origin: &Origin, printer: &mut Printer<'_>) -> Result<(), Failure> {
        let (mut filter, asked) = self.read()?;
        gather_into(&mut filter, self.parts().1, origin).await?;
        self.answer(filter, asked, origin, printer).await
    }

    /// Asks for what is known at this moment.
    pub async fn ask_now(&self, origin: &Origin, printer: &mut Printer<'_>) -> Result<(), Failure> {
        let (filter, asked) = self.read()?;
        self.answer(filter, asked, origin, printer).await
    }

    async fn answer(
        &self,
        mut filter: Filter,
        asked: Asked,
        origin: &Origin,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        let (what, _, output) = self.parts();
        let source = &*origin.source;
        what.hide_associated(&mut filter, source).await?;
        let (is_found, is_empty) = match asked {
            Asked::Count => {
                let count = source.count(&filter).await?;
                printer.count(&count, output)?;
                (count.total > 0, count.total == 0)
            }
            Asked::Top(by, limit) => {
                let top = source.top(&filter, by, limit).await?;
                printer.top(&top, output)?;
                (top.total > 0, top.total == 0)
            }
            Asked::Series(step) => {
                let series = source.series(&filter, step).await?;
                printer.series(&series, output)?;
                (series.total > 0, series.total == 0)
            }
            Asked::Diff(compare, limit) => {
                let diff = source.diff(&filter, compare, limit).await?;
                printer.diff(&diff, output)?;
                let all = [&diff.processes, &diff.remotes, &diff.flows];
                let differs = |d: &&query::diff::Differences| {
                    d.new_total + d.gone_total + d.changed_total > 0
                };
                (all.iter().any(differs), diff.total == 0 && diff.compared_with.total == 0)
            }
            Asked::Findings(limit) => {
                let findings = source.findings(&filter, limit).await?;
                printer.findings(&findings, output)?;
                // The question itself is answered: that a further one is not is no failure.
                let is_empty = findings.total == 0
                    && source.count(&filter).await.is_ok_and(|count| count.total == 0);
                (findings.total > 0, is_empty)
            }
        };
        if is_empty {
            tell_left_out(&filter, output, origin, printer).await?;
        }
        if is_found { Ok(()) } else { Err(Failure::Nothing) }
    }
}
