//! Why somebody cannot reach a remote: what the records, those of others and the drops say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{parts, shared};
use crate::event::Outcome;
use crate::query::drops::DropFilter;
use crate::query::top::{Key, TopBy};
use crate::query::{Filter, Page, QueryError, Source, Summary};
use crate::text::short;

/// Remotes whose drops are looked up.
const REMOTES: usize = 16;

/// What is known about the way from some processes to some remotes.
#[derive(Debug)]
pub(super) struct Reach {
    own: Summary,
    errors: Vec<(String, u64)>,
    /// What all processes, these included, made of the same remotes.
    all: Summary,
    /// Packets of these attempts that this kernel dropped, by reason.
    drops: BTreeMap<String, u64>,
}

impl Reach {
    /// Whether both ends are named.
    pub(super) fn is_asked_by(filter: &Filter) -> bool {
        let who = shared::says_who(filter);
        let whom =
            !filter.remote.is_empty() || !filter.cidr.is_empty() || !filter.host_name.is_empty();
        who && whom
    }

    pub(super) async fn of(source: &dyn Source, filter: &Filter) -> Result<Reach, QueryError> {
        let own = source.summary(filter).await?;
        let by_error = source.top(filter, TopBy::Error, Some(5)).await?;
        let errors = by_error.groups.into_iter().map(|group| match group.key {
            Key::Text(error) => (error, group.count),
            Key::Number(n) => (n.to_string(), group.count),
        });
        let errors = errors.collect();
        // At other ports the same remotes say nothing about this way.
        let mut port = filter.port.clone();
        if port.is_empty() {
            let tried = source.top(filter, TopBy::Port, Some(REMOTES)).await?.groups;
            port.extend(tried.iter().filter_map(|g| u16::try_from(g.key.number()?).ok()));
        }
        let others = Filter {
            port: port.clone(),
            process: Vec::new(),
            pid: Vec::new(),
            unit: Vec::new(),
            uid: Vec::new(),
            container: Vec::new(),
            pod: Vec::new(),
            namespace: Vec::new(),
            ..filter.clone()
        };
        let all = source.summary(&others).await?;
        let remotes = source.top(filter, TopBy::Remote, Some(REMOTES)).await?.groups;
        let remotes = remotes.into_iter().filter_map(|g| g.key.text()?.parse::<IpAddr>().ok());
        let mut process = filter.process.clone();
        if process.is_empty() && filter.pid.is_empty() {
            // Drops know processes, and neither units nor containers.
            let of_unit = source.top(filter, TopBy::Process, Some(REMOTES)).await?.groups;
            process.extend(of_unit.into_iter().filter_map(|group| group.key.text()));
        }
        let dropped = DropFilter {
            process,
            pid: filter.pid.clone(),
            remote: remotes.collect(),
            port,
            since: filter.since,
            until: filter.until,
            ..DropFilter::default()
        };
        let drops = match dropped.remote.is_empty() {
            // Without an address the filter would mean every drop.
            true => BTreeMap::new(),
            false => {
                let page = Page { limit: Some(1), ..Page::default() };
                source.drops(&dropped, &page).await?.by_reason
            }
        };
        Ok(Reach { own, errors, all, drops })
    }

    pub(super) fn shown(&self) -> Value {
        let mut content = Map::new();
        content.insert("attempts".to_owned(), self.own.total.into());
        content.insert("outcomes".to_owned(), parts::figures(&self.own.by_outcome));
        if !self.errors.is_empty() {
            let errors = self.errors.iter();
            let errors: Map<_, _> =
                errors.map(|(error, n)| (short(error, 48).into_owned(), Value::from(*n))).collect();
            content.insert("errors".to_owned(), errors.into());
        }
        let (attempts, reached) = self.others();
        content.insert("others".to_owned(), json!({"attempts": attempts, "reached": reached}));
        if !self.drops.is_empty() {
            content.insert("drops".to_owned(), parts::figures(&self.drops));
        }
        content.insert("verdict".to_owned(), self.verdict().into());
        Value::Object(content)
    }

    /// Attempts of other processes at the same remotes, and how many of them got there.
    fn others(&self) -> (u64, u64) {
        let attempts = self.all.total.saturating_sub(self.own.total);
        let of = |summary| count(summary, Outcome::Established);
        (attempts, of(&self.all).saturating_sub(of(&self.own)))
    }

    /// What this points at. Figures only as they are in the records.
    pub(super) fn verdict(&self) -> String {
        let total = self.own.total;
        if total == 0 {
            return "No such attempt in this window: it may not have tried, or under another name \
                    or address."
                .to_owned();
        }
        let got = count(&self.own, Outcome::Established);
        let sent = count(&self.own, Outcome::Sent);
        // What lost a race of two addresses is aborted, too: it is no failure where another got there.
        let has_failed =
            |outcome: Outcome| outcome.is_unsuccessful() || outcome == Outcome::Aborted && got == 0;
        let failures = self.own.by_outcome.iter().filter(|(o, n)| has_failed(**o) && **n > 0);
        let Some((worst, n)) = failures.max_by_key(|(_, n)| **n) else {
            return self.without_failure(got, sent);
        };
        let mut text = format!("{n} of {total} attempts ended {worst}, {got} succeeded: ");
        text.push_str(meaning(*worst));
        let (attempts, others) = self.others();
        let sent = count(&self.all, Outcome::Sent).saturating_sub(sent);
        text.push_str(&match (attempts, others) {
            (0, _) => " No other process tried.".to_owned(),
            (n, 0) if sent == n => format!(
                " Other processes have sent there in {n} attempts; whether that got there is not \
                 known."
            ),
            (n, 0) => format!(" None of {n} attempts of other processes got there either."),
            (n, m) => format!(
                " Other processes got there in {m} of {n} attempts, so look at what is special \
                 about this one."
            ),
        });
        // That nothing listens is all that this reason says, and what refused means.
        let told = |reason: &str| *worst == Outcome::Refused && reason == "NO_SOCKET";
        text.push_str(&self.dropped(told));
        text
    }

    fn without_failure(&self, got: u64, sent: u64) -> String {
        let total = self.own.total;
        let waiting = count(&self.own, Outcome::InProgress);
        let mut text = match (waiting, sent) {
            (0, 0) if got > 0 => {
                format!("It gets there: {got} of {total} attempts were established, none failed.")
            }
            (0, 0) => format!(
                "Of {total} attempts none failed and none is known to have got there: a socket \
                 that is only associated has sent nothing."
            ),
            (0, n) => format!(
                "{n} of {total} attempts have sent, {got} were established, and no error came \
                 back: what answers to datagrams is not seen, so whether they got there is not \
                 known."
            ),
            (n, _) => {
                format!("{n} of {total} attempts have no answer yet, {got} were established.")
            }
        };
        text.push_str(&self.dropped(|_| false));
        text
    }

    /// Drops that tell more than the outcome does.
    fn dropped(&self, is_told: impl Fn(&str) -> bool) -> String {
        let telling = || self.drops.iter().filter(|(reason, _)| !is_told(reason));
        let packets = telling().fold(0, |sum: u64, (_, n)| sum.saturating_add(*n));
        let most = telling().max_by_key(|(_, n)| **n);
        most.map_or_else(String::new, |(reason, _)| {
            format!(
                " This host's kernel dropped {packets} packets of these attempts, most for {}.",
                short(reason, 60)
            )
        })
    }
}

fn count(summary: &Summary, outcome: Outcome) -> u64 {
    summary.by_outcome.get(&outcome).copied().unwrap_or(0)
}

fn meaning(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Refused => {
            "the address answers, and nothing listens on the port (or a firewall rejects)."
        }
        Outcome::TimedOut => {
            "nothing came back; a firewall that drops silently, a host that is down, or the way \
             back is broken."
        }
        Outcome::Unreachable => "there is no route, or a router said that it cannot be reached.",
        Outcome::Denied => {
            "this host forbids it: a security module, a cgroup program or netfilter."
        }
        Outcome::Aborted => {
            "the program gave up, or ended, before an answer came; see whether it waits long \
             enough, and what drops its packets or the answers."
        }
        Outcome::Reset => "the other side took the connection and reset it.",
        _ => "see the errors.",
    }
}
