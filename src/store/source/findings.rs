//! What stands out, and what of it only the source can be certain of.

use jiff::{SignedDuration, Timestamp};

use super::Inner;
use crate::analysis::{self, Askers, Finding, Tally};
use crate::event::{Connection, ConnectionId};
use crate::query::Filter;
use crate::query::findings::Findings;
use crate::store::Selection;

/// What a resolver has in its cache nobody asks for again, and programs may reach it in ways that
/// carry no DNS, such as the socket of nscd: those of glibc and systemd keep names for at most two hours.
const CACHED: SignedDuration = SignedDuration::from_hours(2);

impl Inner {
    pub(super) fn findings(&self, filter: Filter, limit: usize) -> Findings {
        let (since, until) = (filter.since, filter.until);
        let selection = Selection::from(filter);
        // What has no outcome when a recording ends has not waited since.
        let now = self.capture.recorded_until().map_or_else(Timestamp::now, |end| end.time);
        let mut tally = Tally::of(&self.store, &selection, now);
        if self.dns_books(since, until).messages_lost > 0 {
            tally.answers_may_be_lost();
        }
        let mut findings = tally.findings();
        findings.extend(self.without_dns(&tally));
        analysis::in_order(&mut findings);
        let total = findings.len() as u64;
        findings.truncate(limit);
        // Records without anything that stands out are an answer, too.
        let matching = if total == 0 { self.store.count(&selection) } else { total };
        Findings {
            findings,
            total,
            exact: tally.is_exact(),
            window: self.window(since, until),
            accounting: self.books(since, until),
            newest_outside_window: self.newest_if_none(matching, &selection),
        }
    }

    /// Connections without a name, of processes whose every question would have been seen.
    fn without_dns(&self, tally: &Tally) -> Vec<Finding> {
        let mut found = tally.unnamed();
        if found.is_empty() || self.not_seen("dns_names", "questions for names").is_some() {
            return Vec::new();
        }
        let mut askers = Askers::default();
        self.store.for_each_question(&mut |record| askers.add(record));
        found.retain(|finding| {
            !askers.may_explain(&finding.subject) && self.would_have_seen(finding, &askers)
        });
        found
    }

    /// Whether what the finding rests on was watched from the start of its processes on, and nothing of
    /// it was lost.
    fn would_have_seen(&self, finding: &Finding, askers: &Askers) -> bool {
        let began = |id: &ConnectionId| self.store.get(*id).as_ref().and_then(began);
        let began: Option<Vec<_>> = finding.evidence.records.iter().map(began).collect();
        let Some(began) = began.and_then(|times| times.into_iter().min()) else { return false };
        let watched_for = began.duration_since(self.capture.since());
        // Who asks in a way that is seen has no other.
        let first = match askers.has(finding.subject.process.as_deref()) {
            true => SignedDuration::ZERO,
            false => CACHED,
        };
        watched_for > first && self.dns_books(Some(began), None).complete
    }
}

/// When the process of a connection without a name began.
fn began(connection: &Connection) -> Option<Timestamp> {
    let is_named = connection.remote.as_ref().is_none_or(|remote| remote.name.is_some());
    connection.process.as_ref().filter(|_| !is_named)?.start_time
}
