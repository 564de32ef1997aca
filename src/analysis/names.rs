//! Rules about questions for names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::finding::{Finding, Kind, Severity, Subject};
use super::questions::{Asked, evidence};
use super::rules::{FAILURES, figures};
use super::tally::Tally;
use crate::event::DnsOutcome;

#[cfg(test)]
mod tests;

/// Questions without a useful answer from which a name server is a finding, and for how many names.
pub(super) const UNANSWERED: usize = 10;
pub(super) const NAMES_OF_SERVER: usize = 3;
/// Questions of one process for one name within this time are one look-up: of both families.
const LOOK_UP_NS: i64 = 1_000_000_000;
/// For so long a resolver goes through the domains that it is to search.
const SEARCH_NS: i64 = 5_000_000_000;
/// Names below one domain that nobody connected to, and how long their longest labels are on average,
/// from which they are a finding. A label has 63 bytes at most; what is carried out in names fills
/// them, and what people call hosts is far shorter.
pub(super) const UNUSED_NAMES: usize = 50;
pub(super) const LONG_LABEL: usize = 30;

/// Names that programs ask for to find out that there is none: proxies, tunnels, and whether
/// encrypted DNS is wanted.
const PROBES: [&str; 3] = ["wpad", "isatap", "use-application-dns"];

/// The name of a process by its number.
type NameOf<'a> = &'a dyn Fn(Option<u32>) -> Option<Arc<str>>;

impl Tally {
    /// Name servers and names that fail; a name that does because of its server is no finding beside
    /// that one.
    pub(super) fn names_that_fail(&self, name_of: NameOf<'_>, found: &mut Vec<Finding>) {
        let mut all: Vec<&Asked> = self
            .questions
            .iter()
            .filter(|asked| asked.is_for_address && !asked.is_of_resolver)
            .filter(|asked| !asked.is_about_address())
            .collect();
        all.sort_by_key(|asked| (asked.time_ns, asked.id));
        let failing = self.failing_servers(&all, found);
        found.extend(self.failing_names(&all, &failing, name_of));
    }

    fn has_failed(&self, asked: &Asked) -> bool {
        let is_silent = asked.outcome == DnsOutcome::TimedOut;
        asked.outcome.is_failure() && !(is_silent && self.answers_may_be_lost)
    }

    /// Loopback is another's in each network namespace.
    fn failing_servers(&self, all: &[&Asked], found: &mut Vec<Finding>) -> HashSet<(u32, IpAddr)> {
        let mut servers: HashMap<(u32, IpAddr), (usize, Vec<&Asked>)> = HashMap::new();
        for asked in all {
            let (count, failed) = servers.entry((asked.netns, asked.server)).or_default();
            *count += 1;
            // That there is no such name is a good answer of a server.
            if self.has_failed(asked) && asked.outcome != DnsOutcome::Nxdomain {
                failed.push(asked);
            }
        }
        let mut failing = HashSet::new();
        for (key, (count, failed)) in servers {
            let names: HashSet<&str> = failed.iter().map(|asked| &*asked.name).collect();
            let few = failed.len() < UNANSWERED || names.len() < NAMES_OF_SERVER;
            if few || failed.len() * 2 < count {
                continue;
            }
            failing.insert(key);
            let mut figures = figures([
                ("questions", count as u64),
                ("unsuccessful", failed.len() as u64),
                ("names", names.len() as u64),
            ]);
            figures.extend(by_outcome(&failed));
            let all = failed.len() == count;
            found.push(Finding {
                kind: Kind::FailingNameServer,
                severity: if all { Severity::Critical } else { Severity::Warning },
                subject: Subject { remote: Some(key.1), port: Some(53), ..Subject::default() },
                evidence: evidence(figures, &failed),
                why: format!(
                    "{} of {count} questions for addresses were left without a useful answer",
                    failed.len()
                ),
                next:
                    "timed_out: see whether the server runs and whether a firewall drops what is \
                       asked or answered; servfail: whether it reaches those that it asks itself; \
                       refused: whether it serves this host"
                        .to_owned(),
            });
        }
        failing
    }

    fn failing_names(
        &self,
        all: &[&Asked],
        failing: &HashSet<(u32, IpAddr)>,
        name_of: NameOf<'_>,
    ) -> Vec<Finding> {
        let search = Search::of(all);
        let mut names: BTreeMap<(Option<u32>, &str), LookUps<'_>> = BTreeMap::new();
        for asked in all {
            let is_probe = PROBES.contains(&asked.first_label());
            if is_probe || asked.outcome == DnsOutcome::Nxdomain && search.went_on_from(asked) {
                continue;
            }
            let failed = self.has_failed(asked);
            // Whether it was answered is not known.
            if failed || !asked.outcome.is_failure() {
                names.entry((asked.process, &asked.name)).or_default().add(asked, failed);
            }
        }
        let mut found = Vec::new();
        for ((process, name), look_ups) in &names {
            let (count, failed) = (look_ups.count, look_ups.failed());
            let by_server =
                look_ups.questions.iter().all(|a| failing.contains(&(a.netns, a.server)));
            if failed < FAILURES || failed * 2 <= count || by_server {
                continue;
            }
            // The domains that are searched are put behind the name that is meant.
            let fails_before = |(at, _): (usize, &str)| {
                let base = names.get(&(*process, &name[..at]));
                base.is_some_and(|base| base.failed() >= FAILURES)
            };
            if name.match_indices('.').any(fails_before) {
                continue;
            }
            let mut figures = figures([("look_ups", count), ("unsuccessful", failed)]);
            figures.extend(by_outcome(&look_ups.questions));
            found.push(Finding {
                kind: Kind::FailingName,
                severity: Severity::Warning,
                subject: Subject {
                    process: name_of(*process),
                    name: Some((*name).into()),
                    ..Subject::default()
                },
                evidence: evidence(figures, &look_ups.questions),
                why: format!("{failed} of {count} look-ups of this name failed"),
                next: "nxdomain: there is no such name, so look at how it is written where the \
                       program is configured; servfail or timed_out: see whether other names of \
                       its domain can be looked up"
                    .to_owned(),
            });
        }
        found
    }

    /// Names that carry something out, by all that can be seen of them.
    pub(super) fn names_for_nothing(&self, name_of: NameOf<'_>, found: &mut Vec<Finding>) {
        let mut domains: HashMap<(Option<u32>, &str), Vec<&Asked>> = HashMap::new();
        for asked in &self.questions {
            let Some(domain) = domain(&asked.name) else { continue };
            if !asked.is_of_resolver && !asked.is_about_address() {
                domains.entry((asked.process, domain)).or_default().push(asked);
            }
        }
        for ((process, domain), mut asked) in domains {
            let names: HashSet<&str> = asked.iter().map(|asked| &*asked.name).collect();
            let longest = |name: &&str| {
                let own = name.len().saturating_sub(domain.len());
                let labels = name.get(..own).unwrap_or_default().split('.');
                labels.map(str::len).max().unwrap_or(0)
            };
            let bytes: usize = names.iter().map(longest).sum();
            let is_used = asked.iter().any(|asked| asked.is_followed);
            if names.len() < UNUSED_NAMES || bytes < names.len() * LONG_LABEL || is_used {
                continue;
            }
            asked.sort_by_key(|asked| (asked.time_ns, asked.id));
            let mean = (bytes / names.len()) as u64;
            found.push(Finding {
                kind: Kind::DnsWithoutConnection,
                severity: Severity::Warning,
                subject: Subject {
                    process: name_of(process),
                    name: Some(domain.into()),
                    ..Subject::default()
                },
                evidence: evidence(
                    figures([
                        ("questions", asked.len() as u64),
                        ("names", names.len() as u64),
                        ("longest_label_bytes", mean),
                    ]),
                    &asked,
                ),
                why: format!(
                    "{} names below this domain, their longest labels of {mean} bytes on average, \
                     and no connection followed",
                    names.len()
                ),
                next: "Look at the names: data can leave a host in them (a DNS tunnel); virus \
                       scanners and lists of hashes ask like this, too"
                    .to_owned(),
            });
        }
    }
}

fn by_outcome(questions: &[&Asked]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for asked in questions {
        *counts.entry(asked.outcome.to_string()).or_default() += 1;
    }
    counts
}

/// The part of a name that somebody has registered, as far as it can be told without a list of all
/// registries: two labels, or three where the second is such as the `co` of `co.uk`. `None` if
/// nothing stands before it.
fn domain(name: &str) -> Option<&str> {
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
    let (last, second) = (dots.next()?, dots.next()?);
    let is_registry = name.len() - last == 3 && last - second <= 4;
    let at = if is_registry { dots.next()? } else { second };
    name.get(at + 1..)
}

/// The look-ups of one name by one process.
#[derive(Debug, Default)]
struct LookUps<'a> {
    count: u64,
    answered: u64,
    /// Process and time of the last, and whether it was answered.
    last: Option<(u32, i64, bool)>,
    /// Those that failed.
    questions: Vec<&'a Asked>,
}

impl<'a> LookUps<'a> {
    /// In the order of their times.
    fn add(&mut self, asked: &'a Asked, failed: bool) {
        if failed {
            self.questions.push(asked);
        }
        match &mut self.last {
            Some((pid, at, answered))
                if *pid == asked.pid && asked.time_ns.saturating_sub(*at) <= LOOK_UP_NS =>
            {
                self.answered += u64::from(!failed && !*answered);
                *answered |= !failed;
            }
            last => {
                self.count += 1;
                self.answered += u64::from(!failed);
                *last = Some((asked.pid, asked.time_ns, !failed));
            }
        }
    }

    fn failed(&self) -> u64 {
        self.count - self.answered
    }
}

/// Names that were answered, by process and first label: resolvers put one domain after the other
/// behind a name until there is an answer.
struct Search<'a>(HashMap<(u32, &'a str), Vec<&'a Asked>>);

impl<'a> Search<'a> {
    fn of(all: &[&'a Asked]) -> Self {
        let mut answered: HashMap<_, Vec<_>> = HashMap::new();
        for asked in all.iter().filter(|asked| !asked.outcome.is_failure()) {
            answered.entry((asked.pid, asked.first_label())).or_default().push(*asked);
        }
        Search(answered)
    }

    /// Whether another name that begins like this one was answered to the same process right after.
    fn went_on_from(&self, asked: &Asked) -> bool {
        let Some(answered) = self.0.get(&(asked.pid, asked.first_label())) else { return false };
        let from = answered.partition_point(|other| other.time_ns < asked.time_ns);
        let until = asked.time_ns.saturating_add(SEARCH_NS);
        let mut after = answered[from..].iter().take_while(|other| other.time_ns <= until);
        after.any(|other| other.name != asked.name)
    }
}
