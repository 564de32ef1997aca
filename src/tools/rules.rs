//! [`RuleBased`]: advice without a model. It puts the findings and figures of the records into
//! words, and never more than they say.

use std::fmt::Write as _;

use async_trait::async_trait;
use jiff::Timestamp;

use super::advisor::{Advice, Advisor, Means, Scope};
use super::args::named;
use super::patterns::subject_remote;
use super::reach::Reach;
use super::{ToolError, asked, parts, shared, topics};
use crate::analysis::Finding;
use crate::query::findings::Findings;
use crate::query::top::{Key, TopBy};
use crate::query::{Filter, Source, Summary};
use crate::text;

/// Names of processes, and of hosts, that a question is searched for.
const NAMES: usize = 500;

/// Fixed rules: no key, no network, the same answer to the same records.
#[derive(Debug, Clone, Copy, Default)]
pub struct RuleBased;

#[async_trait]
impl Advisor for RuleBased {
    fn calls_out(&self) -> bool {
        false
    }

    async fn insights(
        &self,
        summary: &str,
        scope: &Scope,
        means: Means<'_>,
    ) -> Result<Advice, ToolError> {
        let mut advice = Advice::by_rules(told(means.source, &scope.filter).await?);
        if !summary.trim().is_empty() {
            let note = "rules read the records of this window, not summary_text";
            advice.note = Some(note.to_owned());
        }
        Ok(advice)
    }

    async fn answer(
        &self,
        question: &str,
        scope: &Scope,
        means: Means<'_>,
    ) -> Result<Advice, ToolError> {
        let words = words(question);
        let mut filter = scope.filter.clone();
        let span = asked::span(&words).and_then(|(length, said)| {
            let until = filter.until.unwrap_or_else(Timestamp::now);
            Some((until.checked_sub(length).ok()?, said))
        });
        if let Some((since, _)) = &span {
            filter.since = Some(*since);
        }
        let (filter, mut about) = narrowed(&words, &filter, means.source).await?;
        // The name of a process is no word of the question.
        let free = words.iter().copied();
        let free: Vec<&str> = free.filter(|w| !filter.process.iter().any(|p| p == w)).collect();
        let wanted = asked::topics(&free);
        about.extend(span.map(|(_, said)| said));
        let mut said = match about.is_empty() {
            true if !wanted.is_empty() => "About all connections.\n".to_owned(),
            true => "The question names no process, host, address or port that rules recognise in \
                     the records; this is about all connections.\n"
                .to_owned(),
            false => format!("About {}.\n", about.join(", ")),
        };
        if Reach::is_asked_by(&filter) {
            let reach = Reach::of(means.source, &filter).await.map_err(named)?;
            said.push_str(&reach.verdict());
            said.push('\n');
        }
        said.push_str(&match wanted.is_empty() {
            true => told(means.source, &filter).await?,
            false => topics::answers(wanted, &filter, means.source).await?,
        });
        Ok(Advice::by_rules(said))
    }
}

/// Figures and findings in words.
async fn told(source: &dyn Source, filter: &Filter) -> Result<String, ToolError> {
    let summary = source.summary(filter).await.map_err(named)?;
    let mut said = match summary.total {
        0 => nothing(source, filter, &summary).await?,
        _ => figures(&summary),
    };
    let found = source.findings(filter, Some(Findings::MAX_LIMIT)).await.map_err(named)?;
    match found.total {
        0 if summary.total > 0 => said.push_str("\nNothing stands out by the fixed rules."),
        0 => {}
        _ => {
            said.push('\n');
            said.push_str(&topics::findings(&found, filter));
        }
    }
    Ok(said)
}

/// What there is where nothing is that views show.
async fn nothing(
    source: &dyn Source,
    filter: &Filter,
    summary: &Summary,
) -> Result<String, ToolError> {
    let newest = summary.newest_outside_window;
    let mut said = shared::nothing(source, filter, newest).await.map_err(named)?;
    let whole = source.summary(&filter.with_left_out()).await.map_err(named)?;
    if whole.total > 0 {
        let _ = write!(said, "\nThese are {}", figures(&whole));
    }
    Ok(said)
}

fn figures(summary: &Summary) -> String {
    let outcomes = parts::outcomes(&summary.by_outcome);
    let mut said = format!(
        "{} of {} and {}: {}.",
        counted(summary.total, "record", "records"),
        counted(summary.processes, "process", "processes"),
        counted(summary.remotes, "remote", "remotes"),
        outcomes.as_str().unwrap_or_default()
    );
    if let Some(h) = summary.handshake {
        let _ = write!(
            said,
            " Handshakes: median {} ms, 99th percentile {} ms.",
            parts::ms(h.p50_us),
            parts::ms(h.p99_us)
        );
    }
    said
}

/// Without marks between digits: others count them in these words.
fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

pub(super) fn finding_line(finding: &Finding) -> String {
    let process = finding.subject.process.as_deref().map(|name| text::short(name, 48));
    let remote = subject_remote(finding);
    let whom = match (process, remote.as_str()) {
        (Some(process), Some(remote)) => format!("{process} -> {remote}"),
        (Some(process), None) => process.into_owned(),
        (None, Some(remote)) => remote.to_owned(),
        (None, None) => "this host".to_owned(),
    };
    let name = finding.subject.name.as_deref();
    let name = name.map(|name| format!(" {}", text::short_host(name, 48))).unwrap_or_default();
    let (kind, severity) = (finding.kind, finding.severity);
    format!("{severity}, {kind}: {whom}{name}: {}. Next: {}.", finding.why, finding.next)
}

fn words(question: &str) -> Vec<&str> {
    let edge = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '?' | '!' | '"' | '\'' | '`');
    question
        .split(edge)
        .map(|word| word.trim_matches(['.', '(', ')', '[', ']']))
        .filter(|word| !word.is_empty())
        .collect()
}

/// The filter narrowed to what the question names, and what that is in words.
async fn narrowed(
    words: &[&str],
    filter: &Filter,
    source: &dyn Source,
) -> Result<(Filter, Vec<String>), ToolError> {
    let mut filter = filter.clone();
    let mut about = Vec::new();
    // Who did only what is left out is there all the same.
    let whole = filter.with_left_out();
    let top = source.top(&whole, TopBy::Process, Some(NAMES)).await.map_err(named)?;
    for group in top.groups {
        let Key::Text(name) = group.key else { continue };
        if words.contains(&name.as_str()) && !filter.process.contains(&name) {
            about.push(format!("process {}", text::short(&name, 48)));
            filter.process.push(name);
        }
    }
    let top = source.top(&filter, TopBy::HostName, Some(NAMES)).await.map_err(named)?;
    for group in top.groups {
        let Key::Text(name) = group.key else { continue };
        // Names without a dot would be taken for words.
        let is_meant = |word: &&str| name.contains('.') && host(word).eq_ignore_ascii_case(&name);
        if words.iter().any(is_meant) && !filter.host_name.contains(&name) {
            about.push(format!("host {}", text::short(&name, 80)));
            filter.host_name.push(name);
        }
    }
    for (n, word) in words.iter().enumerate() {
        let end = word.parse::<std::net::SocketAddr>().ok();
        let ip = end.map(|end| end.ip()).or_else(|| word.parse().ok());
        if let Some(ip) = ip {
            let ip = ip.to_canonical();
            if !filter.remote.contains(&ip) {
                about.push(format!("remote {ip}"));
                filter.remote.push(ip);
            }
        }
        let named = words.get(n.wrapping_sub(1)).is_some_and(|w| w.eq_ignore_ascii_case("port"));
        let of_host = || {
            let (before, after) = word.rsplit_once(':')?;
            filter.host_name.iter().any(|name| name.eq_ignore_ascii_case(before)).then_some(after)
        };
        let port = end.map(|end| end.port()).or_else(|| of_host()?.parse().ok());
        let port = port.or_else(|| word.parse().ok().filter(|_| named));
        if let Some(port) = port.filter(|port| !filter.port.contains(port)) {
            about.push(format!("port {port}"));
            filter.port.push(port);
        }
    }
    Ok((filter, about))
}

/// The name in `shop.example:8081`, or in `shop.example`.
fn host(word: &str) -> &str {
    let port = |end: &str| !end.is_empty() && end.bytes().all(|b| b.is_ascii_digit());
    match word.rsplit_once(':') {
        Some((name, end)) if port(end) => name,
        _ => word,
    }
}
