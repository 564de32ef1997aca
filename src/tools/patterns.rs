//! `analyze_patterns`: what stands out among which attempts, and why one process cannot reach one
//! remote.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use strum::VariantNames;

use super::args::{Args, clip, invalid, named};
use super::parts::{self, Clock};
use super::reach::Reach;
use super::spec::{Tool, number, text};
use super::table::Table;
use super::{Answer, ToolError, shared};
use crate::analysis::{Finding, Kind};
use crate::query::findings::Findings;
use crate::query::series::Step;
use crate::query::top::{Key, TopBy};
use crate::query::{Filter, Source};

/// Findings unless asked otherwise, and the most.
const USUAL: usize = 8;
const MOST: usize = 200;
/// Bytes of rows.
const CONCISE: usize = 1_800;
const DETAILED: usize = 12_000;
/// Remotes and ports with the most attempts that are named.
const REMOTES: usize = 5;
/// Steps of time by which attempts are counted.
const STEPS: u64 = 12;
/// Records of a finding that are named, where no more is asked for.
const RECORDS: usize = 2;

pub(super) const PATTERNS: Tool = Tool {
    name: "analyze_patterns",
    description: "What stands out: repeated failures, scans, beacons, storms, stuck attempts, \
                  failing names. With process and remote: why it cannot reach it.",
    params: &[
        shared::PROCESS,
        shared::PID,
        shared::REMOTE,
        shared::PORT,
        shared::UNIT,
        text("container"),
        shared::DURATION,
        shared::SINCE,
        shared::UNTIL,
        text("kinds"),
        number("max_events", MOST as u64),
        shared::FORMAT.unlisted(),
    ],
    answers: &[parts::COMPLETE],
};

pub(super) async fn patterns(source: &dyn Source, args: &Args) -> Result<Answer, ToolError> {
    let kinds = kinds(args.text("kinds"))?;
    let mut filter = args.filter()?;
    shared::hide(&mut filter, source).await?;
    let limit = if kinds.is_empty() { args.limit(USUAL, MOST) } else { Findings::MAX_LIMIT };
    let found = source.findings(&filter, Some(limit)).await.map_err(named)?;
    let (mut findings, mut total) = (found.findings, found.total);
    if !kinds.is_empty() {
        findings.retain(|finding| kinds.contains(&finding.kind));
        total = findings.len() as u64;
        findings.truncate(args.limit(USUAL, MOST));
    }
    let mut content = Map::new();
    content.insert("total".to_owned(), total.into());
    let mut table = table(&findings, args.detailed(), Clock::of(found.window));
    table.fit(if args.detailed() { DETAILED } else { CONCISE });
    let shown = table.len();
    content.insert("shown".to_owned(), shown.into());
    findings.truncate(shown);
    if shown > 0 {
        table.put(&mut content, "columns", "rows");
        let next: BTreeMap<String, &str> =
            findings.iter().map(|f| (f.kind.to_string(), f.next.as_str())).collect();
        content.insert("next".to_owned(), json!(next));
    }
    let within =
        Filter { since: Some(found.window.since), until: Some(found.window.until), ..filter };
    let mut hints = Vec::new();
    if Reach::is_asked_by(&within) {
        let reach = Reach::of(source, &within).await.map_err(named)?;
        content.insert("reach".to_owned(), reach.shown());
    } else if kinds.is_empty() {
        overview(source, &within, &mut content).await?;
    }
    let is_empty = total == 0 && source.count(&within).await.map_err(named)?.total == 0;
    if is_empty {
        let newest = found.newest_outside_window;
        hints.push(shared::nothing(source, &within, newest).await.map_err(named)?);
    } else if total == 0 && !content.contains_key("reach") {
        hints.push("Nothing stands out by these rules.".to_owned());
    } else if total > shown as u64 {
        hints.push(
            "More findings: name kinds, or raise max_events with response_format=detailed."
                .to_owned(),
        );
    }
    if !found.exact {
        hints.push("Too much to tell apart: findings may be missing, figures too low.".to_owned());
    }
    parts::put_hints(&mut content, &hints);
    parts::close(&mut content, found.window, &found.accounting, args.now());
    Ok(Answer::of(content))
}

fn kinds(text: Option<&str>) -> Result<Vec<Kind>, ToolError> {
    let words = text.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    let kind = |word: &str| {
        word.parse().map_err(|_| {
            let problem = format!("'{}' is not understood", clip(word));
            invalid("kinds", &problem, &Kind::VARIANTS.join(", "))
        })
    };
    words.filter(|word| !word.is_empty()).map(kind).collect()
}

fn table(findings: &[Finding], detailed: bool, clock: Clock) -> Table {
    let mut table = Table::new(&[
        "severity",
        "kind",
        "process",
        "remote",
        "name",
        "why",
        "first_utc",
        "last_utc",
        "figures",
        "records",
        "questions",
    ]);
    for finding in findings {
        let evidence = &finding.evidence;
        let most = if detailed { evidence.records.len() } else { RECORDS };
        let ids = |all: Vec<String>| match all.is_empty() {
            true => Value::Null,
            false => all.into(),
        };
        let records = evidence.records.iter().take(most).map(ToString::to_string).collect();
        let questions = evidence.questions.iter().take(most).map(ToString::to_string).collect();
        table.push(vec![
            finding.severity.to_string().into(),
            finding.kind.to_string().into(),
            finding.subject.process.as_deref().map_or(Value::Null, parts::name),
            subject_remote(finding),
            finding.subject.name.as_deref().map_or(Value::Null, parts::host),
            finding.why.as_str().into(),
            clock.show(evidence.first),
            clock.show(evidence.last),
            parts::figures(&evidence.figures),
            ids(records),
            ids(questions),
        ]);
    }
    table
}

/// The remote, or the port alone, that a finding is about.
pub(super) fn subject_remote(finding: &Finding) -> Value {
    match (finding.subject.remote, finding.subject.port) {
        (Some(ip), port) => parts::address(ip, port).into(),
        (None, Some(port)) => format!("port {port}").into(),
        (None, None) => Value::Null,
    }
}

/// What the attempts are among which something stands out, or nothing does.
async fn overview(
    source: &dyn Source,
    filter: &Filter,
    content: &mut Map<String, Value>,
) -> Result<(), ToolError> {
    let summary = source.summary(filter).await.map_err(named)?;
    if summary.total == 0 {
        return Ok(());
    }
    content.insert("outcomes".to_owned(), parts::figures(&summary.by_outcome));
    content.insert("protocols".to_owned(), parts::figures(&summary.by_protocol));
    for (name, by) in [("top_remotes", TopBy::Remote), ("top_ports", TopBy::Port)] {
        let top = source.top(filter, by, Some(REMOTES)).await.map_err(named)?;
        let groups = top.groups.into_iter().map(|group| {
            let key = match group.key {
                Key::Number(n) => n.to_string(),
                Key::Text(text) => text,
            };
            (key, parts::outcomes(&group.by_outcome))
        });
        content.insert(name.to_owned(), Value::Object(groups.collect()));
    }
    let window = summary.window;
    let length = window.until.as_millisecond().saturating_sub(window.since.as_millisecond());
    let step = Step::at_most(u64::try_from(length).unwrap_or(0), STEPS);
    let series = source.series(filter, step).await.map_err(named)?;
    let each = |figure: fn(&crate::query::series::Point) -> u64| -> Vec<u64> {
        series.points.iter().map(figure).collect()
    };
    let first = series.points.first().map(|point| Clock::of(window).show(point.time));
    let over_time = json!({
        "from_utc": first, "step_s": series.step_ms as f64 / 1_000.0,
        "attempts": each(|point| point.count), "unsuccessful": each(|point| point.unsuccessful),
    });
    content.insert("over_time".to_owned(), over_time);
    Ok(())
}
