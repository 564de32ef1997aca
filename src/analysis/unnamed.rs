//! Connections to addresses that no name led to.
//!
//! That nobody asked for a name is known only where all questions were seen, from the start of the
//! process on. What a [`Tally`] has are candidates; who knows the questions and the capture leaves
//! of them what is certain.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::finding::{Finding, Kind, Severity, Subject};
use super::rules::{FAILURES, PERIODIC, figures, in_order, is_public};
use super::tally::Tally;
use crate::event::DnsRecord;

/// Name servers of the public that are reached by HTTPS at well-known addresses, too: whoever talks
/// to them may ask them for names in a way that nobody sees.
const PUBLIC_RESOLVERS: [&str; 12] = [
    "1.1.1.1",
    "1.0.0.1",
    "2606:4700:4700::1111",
    "2606:4700:4700::1001",
    "8.8.8.8",
    "8.8.4.4",
    "2001:4860:4860::8888",
    "2001:4860:4860::8844",
    "9.9.9.9",
    "149.112.112.112",
    "2620:fe::fe",
    "2620:fe::9",
];

/// The port of DNS over TLS.
const DNS_OVER_TLS: u16 = 853;

impl Tally {
    /// Flows that made connections to a public address without a name, as findings.
    pub fn unnamed(&self) -> Vec<Finding> {
        let names = self.names();
        let is_resolver = |remote: &IpAddr| {
            let remote = remote.to_string();
            PUBLIC_RESOLVERS.contains(&remote.as_str())
        };
        let flows = self.flows.keys();
        let may_ask_unseen: HashSet<Option<u32>> = flows
            .filter(|(_, remote, port)| *port == Some(DNS_OVER_TLS) || is_resolver(remote))
            .map(|(process, ..)| *process)
            .collect();
        let mut found = Vec::new();
        for ((process, remote, port), flow) in &self.flows {
            let periodic = port.is_none_or(|port| PERIODIC.contains(&port));
            if flow.named > 0 || flow.established.count < FAILURES || periodic {
                continue;
            }
            if !is_public(*remote) || may_ask_unseen.contains(process) {
                continue;
            }
            let process = process.and_then(|number| names.get(&number).cloned());
            let established = flow.established.count;
            found.push(Finding {
                kind: Kind::ConnectionWithoutDns,
                severity: Severity::Info,
                subject: Subject { process, remote: Some(*remote), port: *port, name: None },
                evidence: flow.established.evidence(figures([("established", established)])),
                why: format!(
                    "{established} connections, and since the process began no question for a name \
                     on this host had this address as its answer"
                ),
                next:
                    "See where the program has the address from: an address in a configuration is \
                       common, and so is one in a program that is not to be traced by names"
                        .to_owned(),
            });
        }
        in_order(&mut found);
        found
    }
}

/// Who asked for names, and what the answers were: all questions of the host, whatever the findings
/// are about.
#[derive(Debug, Default)]
pub struct Askers {
    answers: HashSet<IpAddr>,
    /// Names of processes that asked.
    askers: HashSet<Arc<str>>,
    /// Of those, the ones that asked for a name server: they may go on where nobody sees it.
    of_servers: HashSet<Arc<str>>,
}

impl Askers {
    /// Takes in one question for a name.
    pub fn add(&mut self, record: &DnsRecord) {
        self.answers.extend(&record.addresses);
        let Some(process) = &record.process else { return };
        if !self.askers.contains(&process.comm) {
            self.askers.insert(Arc::clone(&process.comm));
        }
        // dns.google, mozilla.cloudflare-dns.com, doh.opendns.com, ...
        let is_server = record.name.split('.').any(|label| label.contains("dns") || label == "doh");
        if is_server && !self.of_servers.contains(&process.comm) {
            self.of_servers.insert(Arc::clone(&process.comm));
        }
    }

    /// Whether such a process asks for names in a way that is seen.
    pub fn has(&self, process: Option<&str>) -> bool {
        process.is_some_and(|process| self.askers.contains(process))
    }

    /// Whether a question explains the address of a finding, or one may that cannot be seen.
    pub fn may_explain(&self, subject: &Subject) -> bool {
        subject.remote.is_some_and(|remote| self.answers.contains(&remote))
            || subject.process.as_deref().is_none_or(|process| self.of_servers.contains(process))
    }
}
