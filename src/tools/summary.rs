//! `get_network_summary`: totals, groups, attempts over time, and what differs from a time before.

use serde_json::{Map, Value, json};

use super::args::{Args, invalid, named};
use super::parts::{self, Clock};
use super::spec::{Tool, number, text, words};
use super::table::Table;
use super::{Answer, ToolError, lookups, shared};
use crate::query::diff::{Compare, Difference};
use crate::query::filter::parse_time;
use crate::query::series::Step;
use crate::query::top::{Key, TopBy};
use crate::query::{Filter, Source};

/// Groups unless asked otherwise.
const USUAL: usize = 8;
/// The most groups.
const MOST: usize = 200;
/// Bytes of rows.
const CONCISE: usize = 1_800;
const DETAILED: usize = 10_000;

pub(super) const SUMMARY: Tool = Tool {
    name: "get_network_summary",
    description: "Totals by outcome, handshake times, biggest groups. compare=before, or a start: \
                  what is new, gone, changed. protocol=dns: names looked up, what fails.",
    params: &[
        shared::PROCESS,
        shared::PID,
        shared::REMOTE,
        shared::PORT,
        text("protocol"),
        shared::UNIT,
        text("container"),
        shared::DIRECTION.unlisted(),
        text("state"),
        text("outcome"),
        shared::DURATION,
        shared::SINCE,
        shared::UNTIL,
        words(
            "group_by",
            &[
                "process",
                "pid",
                "remote",
                "scope",
                "host_name",
                "port",
                "container",
                "pod",
                "namespace",
                "unit",
                "uid",
                "outcome",
                "error",
                "drop_reason",
                "time",
            ],
        )
        .unlisted()
        .says("e.g. process, remote, port, pod, unit, error, time"),
        text("compare"),
        number("max_events", MOST as u64),
        shared::FORMAT.unlisted(),
    ],
    answers: &[("total", "integer"), parts::COMPLETE],
};

pub(super) async fn summary(source: &dyn Source, args: &Args) -> Result<Answer, ToolError> {
    if lookups::are_asked_for(args) {
        return lookups::summary(source, args).await;
    }
    let mut filter = args.filter()?;
    shared::hide(&mut filter, source).await?;
    if let Some(with) = args.text("compare") {
        if args.text("group_by").is_some() {
            let accepted = "one of both";
            return Err(invalid("compare", "given together with group_by", accepted));
        }
        return compare(source, args, &filter, with).await;
    }
    let summary = source.summary(&filter).await.map_err(named)?;
    let mut content = Map::new();
    content.insert("total".to_owned(), summary.total.into());
    content.insert("outcomes".to_owned(), parts::figures(&summary.by_outcome));
    let failed: u64 =
        summary.by_outcome.iter().filter(|(o, _)| o.is_unsuccessful()).map(|(_, n)| *n).sum();
    content.insert("unsuccessful".to_owned(), failed.into());
    content.insert("protocols".to_owned(), parts::figures(&summary.by_protocol));
    content.insert("directions".to_owned(), parts::figures(&summary.by_direction));
    content.insert("processes".to_owned(), summary.processes.into());
    content.insert("remotes".to_owned(), summary.remotes.into());
    let rate = (summary.rate_per_second * 1_000.0).round() / 1_000.0;
    content.insert("per_second".to_owned(), rate.into());
    // The rate is over this, which need not be all of the window.
    content.insert("watched_s".to_owned(), (summary.watched_seconds.round() as u64).into());
    if let Some(h) = summary.handshake {
        let times = json!({
            "p50": parts::ms(h.p50_us), "p95": parts::ms(h.p95_us), "p99": parts::ms(h.p99_us),
            "measured": h.count,
        });
        content.insert("handshake_ms".to_owned(), times);
    }
    let mut hints = Vec::new();
    if summary.total == 0 {
        let newest = summary.newest_outside_window;
        hints.push(shared::nothing(source, &filter, newest).await.map_err(named)?);
        hints.extend(shared::unknown_name(&filter));
    } else {
        // The same window, whatever the clock says by now.
        let within = Filter {
            since: Some(summary.window.since),
            until: filter.until.or(Some(summary.window.until)),
            ..filter
        };
        match args.text("group_by") {
            Some("time") => over_time(source, args, &within, &mut content).await?,
            by => groups(source, args, &within, by, &mut content, &mut hints).await?,
        }
    }
    parts::put_hints(&mut content, &hints);
    parts::close(&mut content, summary.window, &summary.accounting, args.now());
    Ok(Answer::of(content))
}

fn budget(args: &Args) -> usize {
    if args.detailed() { DETAILED } else { CONCISE }
}

async fn groups(
    source: &dyn Source,
    args: &Args,
    filter: &Filter,
    by: Option<&str>,
    content: &mut Map<String, Value>,
    hints: &mut Vec<String>,
) -> Result<(), ToolError> {
    // Of one process one asks where to; of all, who.
    let one = shared::says_who(filter);
    let by = match by {
        Some(word) => {
            let known = <TopBy as strum::VariantNames>::VARIANTS.join(", ");
            word.parse().map_err(|_| invalid("group_by", "is not understood", &known))?
        }
        None if one => TopBy::Remote,
        None => TopBy::Process,
    };
    let limit = args.limit(USUAL, MOST);
    let top = source.top(filter, by, Some(limit)).await.map_err(named)?;
    let clock = Clock::of(top.window);
    let mut table =
        Table::new(&["key", "name", "count", "unsuccessful", "outcomes", "first_utc", "last_utc"]);
    for group in &top.groups {
        let key = match &group.key {
            Key::Number(n) => (*n).into(),
            Key::Text(text) => parts::name(text),
        };
        table.push(vec![
            key,
            group.label.as_deref().map_or(Value::Null, parts::host),
            group.count.into(),
            group.unsuccessful.into(),
            parts::outcomes(&group.by_outcome),
            // Since when: what one asks of a failure.
            clock.show(group.first),
            clock.show(group.last),
        ]);
    }
    table.fit(budget(args));
    let shown = table.len();
    content.insert("grouped_by".to_owned(), by.to_string().into());
    table.put(content, "columns", "rows");
    content.insert("shown".to_owned(), shown.into());
    if let Some(distinct) = top.distinct {
        content.insert("groups".to_owned(), distinct.into());
    }
    if top.distinct.is_none_or(|n| n > shown as u64) {
        hints.push(
            "More groups: narrow, or raise max_events with response_format=detailed.".to_owned(),
        );
    }
    if !top.exact {
        hints.push("Too many groups to be sure that none that is not shown is larger.".to_owned());
    }
    Ok(())
}

/// Points that an answer shows: few enough to be read, whatever the window.
const POINTS: u64 = 30;

async fn over_time(
    source: &dyn Source,
    args: &Args,
    filter: &Filter,
    content: &mut Map<String, Value>,
) -> Result<(), ToolError> {
    let step = match (filter.since, filter.until) {
        (Some(since), Some(until)) if !args.detailed() => {
            let length = until.as_millisecond().saturating_sub(since.as_millisecond());
            Step::at_most(u64::try_from(length).unwrap_or(0), POINTS)
        }
        _ => Step::default(),
    };
    let series = source.series(filter, step).await.map_err(named)?;
    let clock = Clock::of(series.window);
    let mut table = Table::new(&["utc", "count", "unsuccessful"]);
    // Where nothing happened at either end there is nothing to read.
    let quiet = |point: &&crate::query::series::Point| point.count == 0;
    let skipped = series.points.iter().take_while(quiet).count();
    let behind = series.points.iter().rev().take_while(quiet).count();
    let end = series.points.len().saturating_sub(behind);
    for point in series.points.get(skipped..end).unwrap_or_default() {
        let row = vec![clock.show(point.time), point.count.into(), point.unsuccessful.into()];
        table.push(row);
    }
    table.fit(budget(args));
    content.insert("grouped_by".to_owned(), "time".into());
    content.insert("step_s".to_owned(), json!(series.step_ms as f64 / 1_000.0));
    content.insert("shown".to_owned(), table.len().into());
    table.put(content, "columns", "rows");
    Ok(())
}

async fn compare(
    source: &dyn Source,
    args: &Args,
    filter: &Filter,
    with: &str,
) -> Result<Answer, ToolError> {
    let compare = match with {
        "before" => Compare::default(),
        time => {
            let since = parse_time("compare", time, args.now()).map_err(|_| {
                let accepted = "before (the equally long window before), or a start as RFC 3339 \
                                or an age such as 1d";
                invalid("compare", "is not understood", accepted)
            })?;
            if filter.since.is_some_and(|start| since >= start) {
                let problem = "is not before the start of the window that it is compared with";
                return Err(invalid("compare", problem, "before, or a time before since"));
            }
            let until = filter.until.unwrap_or(args.now());
            let length = filter.since.map(|start| until.duration_since(start));
            let end = length.and_then(|length| since.checked_add(length).ok());
            Compare { since: Some(since), until: end }
        }
    };
    let limit = args.limit(USUAL, MOST);
    let diff = source.diff(filter, compare, Some(limit)).await.map_err(named)?;
    let mut table = Table::new(&[
        "change",
        "process",
        "remote",
        "before",
        "after",
        "outcomes_before",
        "outcomes_after",
    ]);
    let flows = &diff.flows;
    for (change, list) in [("new", &flows.new), ("changed", &flows.changed), ("gone", &flows.gone)]
    {
        list.iter().for_each(|d| table.push(row(change, d)));
    }
    table.fit(budget(args));
    let mut content = Map::new();
    content.insert("total".to_owned(), diff.total.into());
    content.insert("total_before".to_owned(), diff.compared_with.total.into());
    let counts = |d: &crate::query::diff::Differences| {
        json!({
            "new": d.new_total, "gone": d.gone_total, "changed": d.changed_total, "same": d.same,
        })
    };
    content.insert("processes".to_owned(), counts(&diff.processes));
    content.insert("remotes".to_owned(), counts(&diff.remotes));
    content.insert("flows".to_owned(), counts(flows));
    let news = diff.processes.new.iter().filter_map(|d| d.process.as_deref());
    content.insert("new_processes".to_owned(), news.take(limit).map(parts::name).collect());
    let differing = flows.new_total + flows.gone_total + flows.changed_total;
    let mut hints = Vec::new();
    if diff.compared_with.cut {
        let hint =
            "The windows would overlap: the one before is cut where the other begins (since).";
        hints.push(hint.to_owned());
    }
    if differing > table.len() as u64 {
        hints.push(
            "More differences: narrow, or raise max_events with response_format=detailed."
                .to_owned(),
        );
    }
    content.insert("shown".to_owned(), table.len().into());
    table.put(&mut content, "columns", "rows");
    let before = diff.compared_with.window;
    content.insert(
        "compared_with".to_owned(),
        json!({
            "since": parts::day_and_time(before.since), "until": parts::day_and_time(before.until),
        }),
    );
    if !diff.compared_with.accounting.complete {
        hints.push("Records of the window compared with may be missing.".to_owned());
    }
    parts::put_hints(&mut content, &hints);
    parts::close(&mut content, diff.window, &diff.accounting, args.now());
    if !diff.compared_with.accounting.complete {
        content.insert("complete".to_owned(), false.into());
    }
    Ok(Answer::of(content))
}

fn row(change: &'static str, d: &Difference) -> Vec<Value> {
    let remote = match (d.remote, d.port) {
        (Some(ip), port) => parts::address(ip, port).into(),
        (None, Some(port)) => format!("port {port}").into(),
        (None, None) => Value::Null,
    };
    let outcomes = |seen: &crate::query::diff::Seen| match seen.count {
        0 => Value::Null,
        _ => parts::outcomes(&seen.by_outcome),
    };
    let process = d.process.as_deref().map_or(Value::Null, parts::host);
    let (before, after) = (d.before.count, d.after.count);
    let words = (outcomes(&d.before), outcomes(&d.after));
    vec![change.into(), process, remote, before.into(), after.into(), words.0, words.1]
}
