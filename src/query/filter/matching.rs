//! Whether a record is meant by a filter.
//!
//! The store answers the same question on its compact rows; a test holds both to each other.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::event::{
    Connection, Container, Direction, DnsRecord, Outcome, Process, ProcessInfo, Remote, Scope,
};
use crate::query::Filter;

/// No values: everything is meant. Otherwise one of them has to hold.
pub(crate) fn any<T>(values: &[T], holds: impl Fn(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(holds)
}

pub(super) fn matches(filter: &Filter, c: &Connection) -> bool {
    let port = match c.direction {
        Direction::Inbound => c.local.map(|local| local.port),
        Direction::Outbound => c.remote.as_ref().map(|remote| remote.port),
    };
    filter.since.is_none_or(|since| nanos(c.time) >= nanos(since))
        && filter.until.is_none_or(|until| nanos(c.time) < nanos(until))
        && any(&filter.protocol, |p| *p == c.protocol)
        && any(&filter.direction, |d| *d == c.direction)
        && any(&filter.state, |s| *s == c.state)
        && any(&filter.outcome, |o| *o == c.outcome)
        && any(&filter.port, |p| Some(*p) == port)
        && filter.preexisting.is_none_or(|wanted| c.preexisting == wanted)
        && any_of_addresses(filter, c.remote.as_ref().map(|r| r.ip), c.remote_actual.map(|a| a.ip))
        && remote_matches(filter, c.remote.as_ref())
        && process_matches(filter, c.process.as_ref())
        && Texts::of(filter).is_none_or(|texts| texts.are_in(c))
}

/// Whether a question for a name is meant: it is an outbound attempt of its process at the name
/// server, and what it asks for is a remote, too. Outcomes are those of what carried it: a datagram
/// that was sent, or a connection. Which is all over, and has no state.
pub(super) fn matches_question(filter: &Filter, asked: &DnsRecord) -> bool {
    let carried = [Outcome::Sent, Outcome::Established];
    let ips = || [asked.server.ip].into_iter().chain(asked.addresses.iter().copied());
    filter.since.is_none_or(|since| nanos(asked.time) >= nanos(since))
        && filter.until.is_none_or(|until| nanos(asked.time) < nanos(until))
        && any(&filter.protocol, |p| *p == asked.protocol)
        && any(&filter.direction, |d| *d == Direction::Outbound)
        && filter.state.is_empty()
        && any(&filter.outcome, |o| carried.contains(o))
        && any(&filter.port, |p| *p == asked.server.port)
        && filter.preexisting != Some(true)
        && any(&filter.remote, |wanted| ips().any(|ip| ip == *wanted))
        && any(&filter.cidr, |net| ips().any(|ip| net.contains(&ip)))
        && any(&filter.scope, |scope| ips().any(|ip| Scope::of(ip) == *scope))
        // Nobody looks up where a name server is.
        && filter.country.is_empty()
        && filter.asn.is_empty()
        && any(&filter.host_name, |wanted| host_name_matches(wanted, &asked.name))
        && process_matches(filter, asked.process.as_ref())
        && Texts::of(filter).is_none_or(|texts| {
            let process = asked.process.as_ref();
            texts.found_in(&asked.name)
                || process.is_some_and(|process| texts.found_in_process(&process.info))
        })
}

/// Nanoseconds since 1970, or the nearest that there are. That is what the store keeps of times: those
/// before 1677 or after 2262, which only a hostile record has, are equal to each other everywhere.
pub(crate) fn nanos(time: Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// Parts of text that are looked for, in any letter case.
#[derive(Debug)]
pub(crate) struct Texts(Vec<String>);

impl Texts {
    /// `None` if the filter asks for none.
    pub(crate) fn of(filter: &Filter) -> Option<Self> {
        let texts = filter.text.iter().map(|text| text.to_lowercase());
        (!filter.text.is_empty()).then(|| Texts(texts.collect()))
    }

    /// Whether one of them is in this text.
    pub(crate) fn found_in(&self, text: &str) -> bool {
        let lower = text.to_lowercase();
        self.0.iter().any(|wanted| lower.contains(wanted.as_str()))
    }

    /// Whether one of them is in what the threads of a process share.
    pub(crate) fn found_in_process(&self, info: &ProcessInfo) -> bool {
        let container = info.container.as_deref();
        let names = [Some(&*info.comm), info.exe.as_deref(), info.unit.as_deref()];
        let of_container = container.map(|c| {
            let more = [&c.name, &c.image, &c.pod, &c.namespace].map(Option::as_deref);
            [Some(c.id.as_str())].into_iter().chain(more)
        });
        let more = of_container.into_iter().flatten().chain([info.user.as_deref()]);
        names.into_iter().chain(more).flatten().any(|name| self.found_in(name))
    }

    fn are_in(&self, c: &Connection) -> bool {
        let remote = c.remote.as_ref();
        let texts = [
            c.path.as_deref(),
            c.error.as_deref(),
            c.drop.as_ref().map(|drop| drop.reason.as_str()),
            c.process.as_ref().map(|process| &*process.thread),
            remote.and_then(|remote| remote.name.as_deref()),
            remote.and_then(|remote| remote.service.as_deref()),
        ];
        texts.into_iter().flatten().any(|text| self.found_in(text))
            || c.process.as_ref().is_some_and(|process| self.found_in_process(&process.info))
            || remote.is_some_and(|remote| self.found_in(&remote.ip.to_string()))
            || c.remote_actual.is_some_and(|actual| self.found_in(&actual.ip.to_string()))
    }
}

/// Whether one of these addresses is meant: the remote, or where address translation sends the
/// connection.
pub(crate) fn any_of_addresses(
    filter: &Filter,
    remote: Option<IpAddr>,
    actual: Option<IpAddr>,
) -> bool {
    let is_meant = |ip: IpAddr| {
        any(&filter.remote, |wanted| *wanted == ip) && any(&filter.cidr, |net| net.contains(&ip))
    };
    (filter.remote.is_empty() && filter.cidr.is_empty())
        || [remote, actual].into_iter().flatten().any(is_meant)
}

fn remote_matches(filter: &Filter, remote: Option<&Remote>) -> bool {
    any(&filter.scope, |scope| remote.is_some_and(|r| r.scope == *scope))
        && any(&filter.country, |wanted| {
            remote.and_then(|r| r.country.as_deref()) == Some(wanted.as_str())
        })
        && any(&filter.asn, |asn| remote.and_then(|r| r.asn) == Some(*asn))
        && any(&filter.host_name, |wanted| {
            let name = remote.and_then(|r| r.name.as_deref());
            name.is_some_and(|name| host_name_matches(wanted, name))
        })
}

fn process_matches(filter: &Filter, process: Option<&Process>) -> bool {
    any(&filter.process, |wanted| {
        process.is_some_and(|p| *p.thread == **wanted || has_name(&p.info, wanted))
    }) && info_matches(filter, process.map(|p| &*p.info))
}

/// Whether this is the name of the process, or the base name of its executable.
pub(crate) fn has_name(info: &ProcessInfo, wanted: &str) -> bool {
    *info.comm == *wanted || exe_base_name(info) == Some(wanted)
}

/// All of the filter that depends on nothing but what the threads of a process share.
pub(crate) fn info_matches(filter: &Filter, info: Option<&ProcessInfo>) -> bool {
    any(&filter.pid, |pid| info.is_some_and(|i| i.pid == *pid))
        && any(&filter.uid, |uid| info.is_some_and(|i| i.uid == *uid))
        && any(&filter.unit, |unit| {
            info.and_then(|i| i.unit.as_deref()).is_some_and(|u| u == *unit)
        })
        && container_matches(
            [&filter.container, &filter.pod, &filter.namespace],
            info.and_then(|i| i.container.as_deref()),
        )
}

/// Whether this is the id of a container, or six digits or more of its beginning.
pub(crate) fn container_id_matches(wanted: &str, id: &str) -> bool {
    id == wanted || wanted.len() >= 6 && id.starts_with(wanted)
}

/// Whether what a process runs in is one of these containers, and one of these pods, in one of these
/// namespaces of Kubernetes.
pub(crate) fn container_matches(
    [containers, pods, namespaces]: [&[String]; 3],
    container: Option<&Container>,
) -> bool {
    any(containers, |wanted| {
        container.is_some_and(|container| {
            container_id_matches(wanted, &container.id) || container.name.as_ref() == Some(wanted)
        })
    }) && any(pods, |pod| container.is_some_and(|c| c.pod.as_ref() == Some(pod)))
        && any(namespaces, |namespace| {
            container.is_some_and(|c| c.namespace.as_ref() == Some(namespace))
        })
}

/// The last part of the path of the executable.
pub fn exe_base_name(info: &ProcessInfo) -> Option<&str> {
    info.exe.as_deref().and_then(|exe| exe.rsplit('/').next()).filter(|name| !name.is_empty())
}

/// Whether a host name is the wanted one, or for `.example.com` is that domain or below it. Case
/// and a final dot do not count.
pub fn host_name_matches(wanted: &str, name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
    let wanted = wanted.strip_suffix('.').filter(|rest| !rest.is_empty()).unwrap_or(wanted);
    match wanted.strip_prefix('.') {
        None => name.eq_ignore_ascii_case(wanted.as_bytes()),
        Some(domain) => {
            let domain = domain.as_bytes();
            let Some(at) = name.len().checked_sub(domain.len()) else { return false };
            let (below, end) = name.split_at(at);
            end.eq_ignore_ascii_case(domain) && (below.is_empty() || below.ends_with(b"."))
        }
    }
}
