//! The rules, each over what was counted.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::finding::{Finding, Kind, Severity, Subject};
use super::tally::{Flow, Marks, STEP_NS, STUCK_NS, Tally};
use crate::event::Outcome;

/// Failures at one remote and port from which they are a finding.
pub(super) const FAILURES: u64 = 5;
/// Ports of one remote from which trying them is a scan.
pub(super) const SCANNED_PORTS: u64 = 20;
/// Remotes at one port from which trying them is a scan.
pub(super) const SCANNED_HOSTS: u64 = 50;
/// Attempts of one process within a step from which they are a storm.
pub(super) const STORM: u64 = 1_000;

/// TCP and UDP ports whose registered service is not encrypted, though one that is exists. What is
/// spoken there may differ, which the finding says.
const CLEAR_TEXT: [(u16, &str); 9] = [
    (21, "FTP"),
    (23, "Telnet"),
    (25, "SMTP"),
    (80, "HTTP"),
    (110, "POP3"),
    (143, "IMAP"),
    (389, "LDAP"),
    (513, "rlogin"),
    (514, "rsh or syslog"),
];

/// Ports of services that are asked at equal intervals by their nature: DNS, NTP, DNS over TLS.
pub(super) const PERIODIC: [u16; 3] = [53, 123, 853];

/// Programs that serve one purpose, by the names of their processes; their ports; what they speak.
const PURPOSES: [(&[&str], &[u16], &str); 6] = [
    (&["ssh", "scp", "sftp", "autossh"], &[22], "SSH"),
    (&["chronyd", "ntpd", "ntpdate", "systemd-timesyn"], &[123, 4460], "NTP"),
    (&["systemd-resolve", "unbound", "named", "dnsmasq"], &[53, 443, 853], "DNS"),
    (&["smtp", "sendmail", "msmtp"], &[25, 465, 587], "SMTP"),
    (&["rsync"], &[873], "rsync"),
    (&["telnet"], &[23], "Telnet"),
];

/// Whether an address is one of the internet's, rather than of this host or its networks.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            // RFC 6598: addresses of a provider's own network.
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            let own = ip.is_loopback() || ip.is_private() || ip.is_link_local() || shared;
            !(own || ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified())
        }
        IpAddr::V6(ip) => {
            let own = ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local();
            !(own || ip.is_multicast() || ip.is_unspecified())
        }
    }
}

/// What matters most first, then by kind, then by subject.
pub fn in_order(found: &mut [Finding]) {
    found.sort_by(|a, b| {
        let order = |f: &Finding| (std::cmp::Reverse(f.severity), f.kind);
        order(a).cmp(&order(b)).then_with(|| a.subject.cmp(&b.subject))
    });
}

/// A finding's figures.
pub(super) fn figures<const N: usize>(pairs: [(&str, u64); N]) -> BTreeMap<String, u64> {
    pairs.map(|(name, figure)| (name.to_owned(), figure)).into()
}

impl Tally {
    /// What stands out: what matters most first, then by kind, then by subject.
    pub fn findings(&self) -> Vec<Finding> {
        let names = self.names();
        let name = |number: Option<u32>| number.and_then(|number| names.get(&number).cloned());
        let mut found = Vec::new();
        for ((process, remote, port), flow) in &self.flows {
            let (process, remote) = (name(*process), Some(*remote));
            let subject = Subject { process, remote, port: *port, name: None };
            found.extend(repeated_failures(&subject, flow));
            found.extend(stuck(&subject, flow));
            found.extend(drop_reason(&subject, flow));
            found.extend(beaconing(&subject, flow));
            found.extend(unusual_port(&subject, flow));
            found.extend(clear_text(&subject, flow));
        }
        self.scans(&name, &mut found);
        self.storms(&name, &mut found);
        self.names_that_fail(&name, &mut found);
        self.names_for_nothing(&name, &mut found);
        in_order(&mut found);
        found
    }

    fn scans(&self, name: &dyn Fn(Option<u32>) -> Option<Arc<str>>, found: &mut Vec<Finding>) {
        let mut by_remote: HashMap<(Option<u32>, IpAddr), Tried> = HashMap::new();
        let mut by_port: HashMap<(Option<u32>, u16), Tried> = HashMap::new();
        for ((process, remote, port), flow) in &self.flows {
            let Some(port) = port else { continue };
            by_remote.entry((*process, *remote)).or_default().add(flow);
            by_port.entry((*process, *port)).or_default().add(flow);
        }
        for ((process, remote), tried) in by_remote {
            let (process, remote) = (name(process), Some(remote));
            let subject = Subject { process, remote, ..Subject::default() };
            found.extend(tried.finding(subject, "ports", SCANNED_PORTS));
        }
        for ((process, port), tried) in by_port {
            let (process, port) = (name(process), Some(port));
            let subject = Subject { process, port, ..Subject::default() };
            found.extend(tried.finding(subject, "remotes", SCANNED_HOSTS));
        }
    }

    /// One finding for each process, about its busiest step.
    fn storms(&self, name: &dyn Fn(Option<u32>) -> Option<Arc<str>>, found: &mut Vec<Finding>) {
        let mut busiest: HashMap<Option<u32>, (i64, &Marks)> = HashMap::new();
        for ((process, step), marks) in &self.steps {
            let best = busiest.entry(*process).or_insert((*step, marks));
            // Of equally busy steps the first, whatever order they come in.
            if (marks.count, -*step) > (best.1.count, -best.0) {
                *best = (*step, marks);
            }
        }
        let seconds = STEP_NS / 1_000_000_000;
        for (process, (_, marks)) in busiest.into_iter().filter(|(_, (_, m))| m.count >= STORM) {
            found.push(Finding {
                kind: Kind::ConnectionStorm,
                severity: Severity::Warning,
                subject: Subject { process: name(process), ..Subject::default() },
                evidence: marks
                    .evidence(figures([("attempts", marks.count), ("seconds", seconds as u64)])),
                why: format!("{} attempts within {seconds} s of the clock", marks.count),
                next: "Group this process's attempts by remote: one remote points at missing \
                       connection reuse or a retry loop without a pause"
                    .to_owned(),
            });
        }
    }
}

/// Ports of one remote, or remotes at one port, that were tried.
#[derive(Default)]
struct Tried {
    targets: u64,
    failed_targets: u64,
    failed: Marks,
}

impl Tried {
    fn add(&mut self, flow: &Flow) {
        self.targets += 1;
        // Reached now and then is reached: a scan finds most of what it tries closed.
        let failed = flow.failures();
        self.failed_targets += u64::from(failed.count > 0 && flow.established.count == 0);
        self.failed.merge(&failed);
    }

    fn finding(&self, subject: Subject, what: &str, from: u64) -> Option<Finding> {
        if self.targets < from || self.failed_targets * 2 < self.targets {
            return None;
        }
        Some(Finding {
            kind: Kind::PortScan,
            severity: Severity::Critical,
            subject,
            evidence: self.failed.evidence(figures([
                (what, self.targets),
                ("without_success", self.failed_targets),
            ])),
            why: format!(
                "{} {what} were tried and {} of them never answered with success",
                self.targets, self.failed_targets
            ),
            next: "Find out who started this process and whether it is a scanner that is meant to \
                   run here; service discovery and health checks can look alike"
                .to_owned(),
        })
    }
}

fn repeated_failures(subject: &Subject, flow: &Flow) -> Option<Finding> {
    let marks = flow.failures();
    let failed = marks.count;
    if failed < FAILURES || failed * 2 < flow.attempts {
        return None;
    }
    let mut figures = figures([("attempts", flow.attempts), ("unsuccessful", failed)]);
    // Where something got there, what was given up may have lost a race.
    let is_failure = |outcome: &Outcome| outcome.is_unsuccessful() || flow.established.count == 0;
    let by_outcome: Vec<_> = flow.by_outcome.iter().filter(|(o, _)| is_failure(o)).collect();
    let given_up = by_outcome.iter().any(|(outcome, _)| **outcome == Outcome::Aborted);
    figures.extend(by_outcome.iter().map(|(outcome, n)| (outcome.to_string(), **n)));
    let all = failed == flow.attempts;
    Some(Finding {
        kind: Kind::RepeatedFailures,
        severity: if all { Severity::Critical } else { Severity::Warning },
        subject: subject.clone(),
        evidence: marks.evidence(figures),
        why: format!(
            "{failed} of {} attempts at this remote and port failed{}",
            flow.attempts,
            if given_up { " or were given up" } else { "" }
        ),
        next: "Look at the outcome: refused means that nothing listens there, timed_out or \
               unreachable that the way is blocked, aborted that the program gave up before an \
               answer came, denied that this host forbids it"
            .to_owned(),
    })
}

fn stuck(subject: &Subject, flow: &Flow) -> Option<Finding> {
    let count = flow.stuck.count;
    let seconds = STUCK_NS / 1_000_000_000;
    (count > 0).then(|| Finding {
        kind: Kind::StuckAttempts,
        severity: Severity::Warning,
        subject: subject.clone(),
        evidence: flow
            .stuck
            .evidence(figures([("stuck", count), ("longer_than_seconds", seconds as u64)])),
        why: format!("attempts without any outcome for more than {seconds} s: {count}"),
        next: "Check for a firewall that drops packets silently between here and the remote"
            .to_owned(),
    })
}

fn drop_reason(subject: &Subject, flow: &Flow) -> Option<Finding> {
    let count = flow.dropped.count;
    let packets = flow.reasons.values().fold(0, |sum: u64, n| sum.saturating_add(*n));
    (count > 0).then(|| {
        let mut figures = figures([("attempts", count), ("packets", packets)]);
        let reasons = flow.reasons.iter().map(|(reason, n)| (format!("reason:{reason}"), *n));
        figures.extend(reasons);
        Finding {
            kind: Kind::DropReason,
            severity: Severity::Critical,
            subject: subject.clone(),
            evidence: flow.dropped.evidence(figures),
            why: format!(
                "packets of attempts that failed or were given up were dropped by this kernel: \
                 {packets}"
            ),
            next: "The reasons in the evidence say which part of this host dropped them; ask the \
                   drops of this remote for the rest"
                .to_owned(),
        }
    })
}

fn beaconing(subject: &Subject, flow: &Flow) -> Option<Finding> {
    if !subject.remote.is_some_and(is_public) || PERIODIC.contains(&subject.port?) {
        return None;
    }
    let rhythm = flow.beats.rhythm()?;
    let (beats, percent) = (rhythm.beats, rhythm.regular_percent);
    let seconds = rhythm.interval_ns as f64 / 1e9;
    let milliseconds = u64::try_from(rhythm.interval_ns / 1_000_000).unwrap_or(0);
    Some(Finding {
        kind: Kind::Beaconing,
        severity: Severity::Warning,
        subject: subject.clone(),
        evidence: flow.beats.marks().evidence(figures([
            ("beats", beats),
            ("interval_ms", milliseconds),
            ("regular_percent", percent),
        ])),
        why: format!(
            "{beats} attempts in a row, {seconds:.1} s apart: {percent} % of the intervals are within \
             a tenth of that"
        ),
        next: "Find out what the program is and who runs it: update checks, monitoring agents and \
               timers do this, and so does what waits for orders from outside"
            .to_owned(),
    })
}

fn unusual_port(subject: &Subject, flow: &Flow) -> Option<Finding> {
    let (port, process) = (subject.port?, subject.process.as_deref()?);
    let remote = subject.remote.filter(|ip| !ip.is_loopback())?;
    let (_, usual, what) = PURPOSES.iter().find(|(names, ..)| names.contains(&process))?;
    if usual.contains(&port) || flow.established.count == 0 {
        return None;
    }
    let usual: Vec<_> = usual.iter().map(u16::to_string).collect();
    let usual = usual.join(" or ");
    Some(Finding {
        kind: Kind::UnusualPort,
        severity: Severity::Info,
        subject: Subject { remote: Some(remote), ..subject.clone() },
        evidence: flow.established.evidence(figures([("established", flow.established.count)])),
        why: format!("{process} speaks {what}, whose port is {usual}"),
        next:
            "See whether the service was moved to this port on purpose, and whether the program is \
               what its name says: the executable of its records tells"
                .to_owned(),
    })
}

fn clear_text(subject: &Subject, flow: &Flow) -> Option<Finding> {
    let remote = subject.remote.filter(|ip| !ip.is_loopback())?;
    let (_, service) = CLEAR_TEXT.iter().find(|(port, _)| Some(*port) == subject.port)?;
    (flow.established.count > 0).then(|| Finding {
        kind: Kind::ClearTextService,
        severity: Severity::Info,
        subject: Subject { remote: Some(remote), ..subject.clone() },
        evidence: flow.established.evidence(figures([("established", flow.established.count)])),
        why: format!("the port is registered for {service}, which is not encrypted"),
        next: "See whether the encrypted form of the service can be used; the port does not tell \
               what is spoken on it, so look at the program's settings first"
            .to_owned(),
    })
}
