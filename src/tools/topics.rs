//! Answers of the fixed rules to what a question asks for, from the typed queries.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::ToolError;
use super::args::named;
use super::asked::Topic;
use super::hurt::Hurt;
use super::parts;
use super::rules::finding_line;
use crate::analysis::{Finding, Kind};
use crate::event::State;
use crate::query::diff::{Compare, Difference};
use crate::query::drops::DropFilter;
use crate::query::findings::Findings;
use crate::query::top::{Key, TopBy};
use crate::query::{Filter, Page, Source};
use crate::text;

/// Lines about one topic.
const LINES: usize = 6;

/// Answers topics, one after the other.
pub(super) async fn answers(
    topics: Vec<Topic>,
    filter: &Filter,
    source: &dyn Source,
) -> Result<String, ToolError> {
    // Asked for once, however many kinds of them are wanted.
    let mut all = None;
    let mut said = Vec::new();
    for topic in topics {
        said.push(match topic {
            Topic::Found(kind) => {
                let all = match &mut all {
                    Some(all) => all,
                    none => {
                        let limit = Some(Findings::MAX_LIMIT);
                        none.insert(source.findings(filter, limit).await.map_err(named)?)
                    }
                };
                found(kind, all, filter)
            }
            Topic::Listening => listening(filter, source).await?,
            Topic::Dropped => dropped(filter, source).await?,
            Topic::Trust => trust(filter, source).await?,
            Topic::Changes => changes(filter, source).await?,
        });
    }
    Ok(said.join("\n"))
}

/// The findings that are put into words, each kind's worst first, and how many are not.
pub(super) fn findings(found: &Findings, filter: &Filter) -> String {
    let mut said = format!("Findings: {}.", found.total);
    let shown = spread(&found.findings);
    for finding in &shown {
        let _ = write!(said, "\n- {}", finding_line(finding));
    }
    said.push_str(&more(found.total, shown.len(), filter));
    said
}

/// Findings come with the worst first; of each kind the first ones come before any second.
fn spread(findings: &[Finding]) -> Vec<&Finding> {
    let mut of_kind: BTreeMap<Kind, usize> = BTreeMap::new();
    let ranked = findings.iter().map(|finding| {
        let rank = of_kind.entry(finding.kind).or_insert(0);
        *rank += 1;
        (*rank, finding)
    });
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(LINES).map(|(_, finding)| finding).collect()
}

fn more(total: u64, shown: usize, filter: &Filter) -> String {
    let more = total.saturating_sub(shown as u64);
    if more == 0 {
        return String::new();
    }
    // In the words of the command line, without names that a shell would read otherwise.
    let since = filter.since.map(|time| format!(" --since {}", parts::day_and_time(time)));
    let since = since.unwrap_or_default();
    format!("\n… and {more} more: 'netspy findings{since}' (analyze_patterns over MCP) has all.")
}

fn found(kind: Kind, all: &Findings, filter: &Filter) -> String {
    let name = kind.to_string().replace('_', " ");
    let (total, looked_at) = (all.total, all.findings.len() as u64);
    let of_kind: Vec<_> = all.findings.iter().filter(|finding| finding.kind == kind).collect();
    let here = of_kind.len();
    let mut said = match here {
        0 => format!("No {name} among the {total} findings of this time."),
        n => format!("Findings of {name}: {n}."),
    };
    for finding in of_kind.iter().take(LINES) {
        let _ = write!(said, "\n- {}", finding_line(finding));
    }
    said.push_str(&more(here as u64, here.min(LINES), filter));
    if looked_at < total {
        let _ = write!(said, " Only the {looked_at} that matter most were looked at.");
    }
    if !all.exact {
        said.push_str(" There was more than could be told apart: some may be missing.");
    }
    said
}

async fn listening(filter: &Filter, source: &dyn Source) -> Result<String, ToolError> {
    // What listens or is open now began at any time.
    let now = |state| Filter { state: vec![state], since: None, ..filter.clone() };
    let page = Page { limit: Some(4 * LINES), ..Page::default() };
    let list = source.list(&now(State::Listening), &page).await.map_err(named)?;
    let mut said = format!("Sockets that listen: {}.", list.total);
    for c in &list.connections {
        let process = c.process.as_ref().map_or("?".into(), |p| text::short(&p.comm, 48));
        let place = match (c.local, &c.path) {
            (Some(local), _) => parts::address(local.ip, Some(local.port)),
            (None, Some(path)) => text::short(path, 48).into_owned(),
            (None, None) => "?".to_owned(),
        };
        let _ = write!(said, "\n- {process} at {place} ({})", c.protocol);
    }
    let left = list.total.saturating_sub(list.connections.len() as u64);
    if left > 0 {
        let _ = write!(said, "\n… and {left} more: 'netspy list --state listening' has all.");
    }
    let open = now(State::Open);
    let top = source.top(&open, TopBy::Process, Some(LINES)).await.map_err(named)?;
    let _ = write!(said, "\nOpen connections and sockets: {}.", top.total);
    for group in &top.groups {
        if let Key::Text(name) = &group.key {
            let _ = write!(said, "\n- {}: {}", text::short(name, 48), group.count);
        }
    }
    let shown: u64 = top.groups.iter().map(|group| group.count).sum();
    if top.total > shown {
        let left = top.total - shown;
        let _ = write!(said, "\n… and {left} of others: 'netspy list --state open' has all.");
    }
    Ok(said)
}

async fn dropped(filter: &Filter, source: &dyn Source) -> Result<String, ToolError> {
    let drops = DropFilter {
        process: filter.process.clone(),
        pid: filter.pid.clone(),
        remote: filter.remote.clone(),
        port: filter.port.clone(),
        protocol: filter.protocol.clone(),
        since: filter.since,
        until: filter.until,
        ..DropFilter::default()
    };
    let (hurt, list) = Hurt::of(source, &drops).await.map_err(named)?;
    if let Some(why) = &list.not_seen {
        return Ok(format!("Dropped packets are not seen here: {}.", text::short(why, 160)));
    }
    if list.packets == 0 {
        return Ok("No packet was dropped in this time.".to_owned());
    }
    let mut reasons: Vec<_> = list.by_reason.iter().collect();
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let reasons = reasons.iter().take(LINES);
    let reasons: Vec<String> =
        reasons.map(|(reason, n)| format!("{} {n}", text::short(reason, 48))).collect();
    let mut said = format!("Packets dropped: {}; {}.", list.packets, reasons.join(", "));
    said.push_str(&hurt.lines(LINES));
    Ok(said)
}

async fn trust(filter: &Filter, source: &dyn Source) -> Result<String, ToolError> {
    let summary = source.summary(filter).await.map_err(named)?;
    let status = source.status().await.map_err(named)?;
    let books = &summary.accounting;
    let mut said = match books.complete {
        true => "Yes: no record of this time is missing.".to_owned(),
        false => "Not entirely: records of this time may be missing.".to_owned(),
    };
    let _ = write!(
        said,
        " Of {} attempts that the kernel counted {} were delivered, {} left out by filters of \
         capture, {} lost, {} pending; {} later versions were lost, {} runs of programs missed, \
         {} records have aged out.",
        books.attempts,
        books.delivered,
        books.filtered,
        books.lost.total(),
        books.pending,
        books.updates_lost,
        books.missed,
        books.evicted
    );
    for gap in books.gaps.iter().rev().take(LINES) {
        let (since, until) = (parts::day_and_time(gap.since), parts::day_and_time(gap.until));
        let _ =
            write!(said, "\n- not watched from {since} to {until}: {}", text::short(&gap.why, 120));
    }
    let missing: Vec<String> = status
        .features
        .iter()
        .filter(|(_, feature)| !feature.ok)
        .map(|(name, _)| text::short(name, 48).into_owned())
        .collect();
    let _ = write!(said, "\nHealth of capture: {}.", text::short(&status.health, 48));
    if !missing.is_empty() {
        let _ = write!(said, " Not seen here: {} ('netspy status').", missing.join(", "));
    }
    Ok(said)
}

async fn changes(filter: &Filter, source: &dyn Source) -> Result<String, ToolError> {
    let diff = source.diff(filter, Compare::default(), Some(LINES)).await.map_err(named)?;
    let before = diff.compared_with.window;
    let (since, until) = (parts::day_and_time(before.since), parts::day_and_time(before.until));
    let flows = &diff.flows;
    let mut said = format!(
        "Compared with {since} to {until}: {} attempts, {} before. By process and remote: {} new, \
         {} gone, {} changed, {} as before.",
        diff.total,
        diff.compared_with.total,
        flows.new_total,
        flows.gone_total,
        flows.changed_total,
        flows.same
    );
    let line = |change: &str, d: &Difference| {
        let process = d.process.as_deref().map_or("?".into(), |name| text::short(name, 48));
        let remote = d.remote.map(|ip| format!(" -> {}", parts::address(ip, d.port)));
        let remote = remote.unwrap_or_default();
        format!("\n- {change}: {process}{remote}, {} before, {} now", d.before.count, d.after.count)
    };
    let lists = [("new", &flows.new), ("changed", &flows.changed), ("gone", &flows.gone)];
    for (change, list) in lists {
        list.iter().for_each(|difference| said.push_str(&line(change, difference)));
    }
    let shown = (flows.new.len() + flows.changed.len() + flows.gone.len()) as u64;
    let left = (flows.new_total + flows.changed_total + flows.gone_total).saturating_sub(shown);
    if left > 0 {
        let since = parts::day_and_time(diff.window.since);
        let _ = write!(said, "\n… and {left} more: 'netspy diff --since {since}' has all.");
    }
    if !diff.compared_with.accounting.complete {
        said.push_str("\nRecords of the time before may be missing.");
    }
    Ok(said)
}
