//! Names that the command asked for and that led to no address: what it could not even try to reach.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::cli::render::record;
use crate::event::{DnsOutcome, DnsRecord};

/// A name for which no server had an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unresolved {
    /// The name.
    pub name: Arc<str>,
    /// Name of a process that asked.
    pub process: Option<Arc<str>>,
    /// What came of the questions, the one that says most.
    pub outcome: DnsOutcome,
    /// The server that said so, or did not.
    pub server: String,
    /// How many questions there were.
    pub questions: u64,
    /// How many processes asked.
    pub processes: u64,
}

/// Gathers questions for addresses by name.
#[derive(Debug, Default)]
pub struct Names {
    resolved: BTreeSet<Arc<str>>,
    failed: BTreeMap<Arc<str>, (Unresolved, BTreeSet<u32>)>,
}

impl Names {
    pub fn add(&mut self, question: &DnsRecord) {
        if !matches!(&*question.record_type, "A" | "AAAA") {
            return;
        }
        let name = &question.name;
        if !question.addresses.is_empty() {
            self.resolved.insert(Arc::clone(name));
            return;
        }
        // The server wants to be asked again, over TCP.
        if question.outcome == DnsOutcome::Truncated {
            return;
        }
        let server = record::address(question.server.ip, question.server.port);
        let process = question.process.as_ref();
        let (all, pids) = self.failed.entry(Arc::clone(name)).or_insert_with(|| {
            let unresolved = Unresolved {
                name: Arc::clone(name),
                process: process.map(|p| Arc::clone(&p.comm)),
                outcome: question.outcome,
                server: server.clone(),
                questions: 0,
                processes: 0,
            };
            (unresolved, BTreeSet::new())
        });
        all.questions += 1;
        pids.extend(process.map(|p| p.pid));
        if weight(question.outcome) > weight(all.outcome) {
            (all.outcome, all.server) = (question.outcome, server);
        }
    }

    /// The names that led nowhere. One that a domain to search was put behind (`search` of
    /// resolv.conf(5)) does not count where the name without it was found.
    pub fn unresolved(self) -> Vec<Unresolved> {
        let Names { resolved, failed } = self;
        let is_found = |name: &str| {
            let dots = name.match_indices('.').map(|(at, _)| at);
            let mut begins = dots.chain([name.len()]).filter_map(|end| name.get(..end));
            begins.any(|begin| resolved.contains(begin))
        };
        let unresolved = failed.into_values().filter(|(all, _)| !is_found(&all.name));
        let mut all: Vec<_> = unresolved
            .map(|(all, pids)| {
                let processes = u64::try_from(pids.len()).unwrap_or(u64::MAX);
                Unresolved { processes, ..all }
            })
            .collect();
        all.sort_by(|a, b| (b.questions, &a.name).cmp(&(a.questions, &b.name)));
        all
    }
}

/// Which outcome says more of why there was no address.
fn weight(outcome: DnsOutcome) -> u8 {
    match outcome {
        DnsOutcome::Answered | DnsOutcome::Truncated => 0,
        DnsOutcome::NoData => 1,
        DnsOutcome::TimedOut => 2,
        DnsOutcome::Failed | DnsOutcome::Refused | DnsOutcome::Servfail => 3,
        DnsOutcome::Nxdomain => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_records::asked;

    fn question(name: &str, record_type: &'static str, outcome: DnsOutcome) -> DnsRecord {
        let addresses = match outcome {
            DnsOutcome::Answered => vec![[192, 0, 2, 1].into()],
            _ => Vec::new(),
        };
        let (name, record_type) = (name.into(), record_type.into());
        DnsRecord { name, record_type, outcome, addresses, ..asked(1) }
    }

    fn unresolved(questions: &[DnsRecord]) -> Vec<(String, DnsOutcome, u64)> {
        let mut names = Names::default();
        questions.iter().for_each(|question| names.add(question));
        let all = names.unresolved().into_iter();
        all.map(|one| (one.name.to_string(), one.outcome, one.questions)).collect()
    }

    #[test]
    fn a_name_without_any_address_is_unresolved_by_the_outcome_that_says_most() {
        use DnsOutcome::*;
        let all = [
            question("gone.example", "A", TimedOut),
            question("gone.example", "AAAA", Nxdomain),
            question("old.example", "A", Answered),
            question("old.example", "AAAA", NoData),
            question("large.example", "A", Truncated),
            question("gone.example", "TXT", Servfail),
        ];
        assert_eq!(unresolved(&all), [("gone.example".to_owned(), Nxdomain, 2)]);
    }

    #[test]
    fn a_domain_that_is_searched_in_vain_does_not_count_where_the_name_alone_is_found() {
        use DnsOutcome::*;
        let all = [
            question("api.example.corp.test", "A", Nxdomain),
            question("api.example", "A", Answered),
            question("www.gone.example", "A", Nxdomain),
            question("www.there.example", "A", Answered),
        ];
        assert_eq!(unresolved(&all), [("www.gone.example".to_owned(), Nxdomain, 1)]);
    }
}
