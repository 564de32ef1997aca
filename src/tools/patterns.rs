//! `analyze_patterns`: what stands out, and why one process cannot reach one remote.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use strum::VariantNames;

use super::args::{Args, clip, invalid, named};
use super::parts::{self, Clock};
use super::reach::Reach;
use super::spec::{Tool, number, text};
use super::table::Table;
use super::{Answer, ToolError, shared};
use crate::analysis::{Finding, Kind};
use crate::query::findings::Findings;
use crate::query::top::{Key, TopBy};
use crate::query::{Filter, Source};

/// Findings unless asked otherwise, and the most.
const USUAL: usize = 8;
const MOST: usize = 200;
/// Bytes of rows.
const CONCISE: usize = 1_800;
const DETAILED: usize = 12_000;
/// Remotes with the most attempts that are named.
const REMOTES: usize = 5;

pub(super) const PATTERNS: Tool = Tool {
    name: "analyze_patterns",
    description: "What stands out: repeated failures, scans, storms, stuck attempts, clear text. \
                  With process and remote: why it cannot reach it.",
    params: &[
        shared::PROCESS,
        shared::PID,
        shared::REMOTE,
        shared::PORT,
        shared::UNIT,
        shared::DURATION,
        shared::SINCE,
        shared::UNTIL,
        text("kinds"),
        number("max_events"),
        shared::FORMAT.unlisted(),
    ],
    answers: &[("total", "integer"), parts::COMPLETE],
};

pub(super) async fn patterns(source: &dyn Source, args: &Args) -> Result<Answer, ToolError> {
    let kinds = kinds(args.text("kinds"))?;
    let mut filter = args.filter()?;
    shared::hide(&mut filter, source).await;
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
        content.insert("next".to_owned(), serde_json::json!(next));
    }
    let within =
        Filter { since: Some(found.window.since), until: Some(found.window.until), ..filter };
    let mut hints = Vec::new();
    if Reach::is_asked_by(&within) {
        let reach = Reach::of(source, &within).await.map_err(named)?;
        content.insert("reach".to_owned(), reach.shown());
    } else if kinds.is_empty() {
        content.insert("top_remotes".to_owned(), top_remotes(source, &within).await?);
    }
    if found.newest_outside_window.is_some() {
        hints.push(parts::nothing(found.newest_outside_window));
    } else if total == 0 {
        hints.push("Nothing stands out by these rules.".to_owned());
    } else if total > shown as u64 {
        hints.push("More findings: raise max_events, or name kinds.".to_owned());
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
        "why",
        "first_utc",
        "last_utc",
        "figures",
        "records",
    ]);
    for finding in findings {
        let evidence = &finding.evidence;
        let figures = detailed.then(|| parts::figures(&evidence.figures));
        let records = detailed
            .then(|| evidence.records.iter().map(|id| Value::from(id.to_string())).collect());
        table.push(vec![
            finding.severity.to_string().into(),
            finding.kind.to_string().into(),
            finding.subject.process.as_deref().map_or(Value::Null, parts::name),
            subject_remote(finding),
            finding.why.as_str().into(),
            clock.show(evidence.first),
            clock.show(evidence.last),
            figures.unwrap_or(Value::Null),
            records.unwrap_or(Value::Null),
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

async fn top_remotes(source: &dyn Source, filter: &Filter) -> Result<Value, ToolError> {
    let top = source.top(filter, TopBy::Remote, Some(REMOTES)).await.map_err(named)?;
    let mut remotes = Map::new();
    for group in top.groups {
        let key = match group.key {
            Key::Number(n) => n.to_string(),
            Key::Text(text) => text,
        };
        remotes.insert(key, parts::outcomes(&group.by_outcome));
    }
    Ok(Value::Object(remotes))
}
