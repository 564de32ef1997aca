//! Filters on compact rows: what they say about strings and processes is worked out once per
//! segment, on its dictionaries, so that a row is compared by numbers.

use super::dictionary::{NONE, Place, SAME};
use super::row::{Row, nanos};
use super::segment::Body;
use crate::event::{Connection, Scope};
use crate::query::Filter;
use crate::query::filter::{Texts, any_of_addresses, has_name, host_name_matches, info_matches};

/// Which records a question is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The filter.
    pub filter: Filter,
    /// Name of the process or of the thread, exactly (the original server's `command`).
    pub command: Option<String>,
    /// Only attempts that capture saw, not what existed before, nor what listens.
    pub attempts_only: bool,
}

impl From<Filter> for Selection {
    fn from(filter: Filter) -> Self {
        Selection { filter, ..Selection::default() }
    }
}

impl Selection {
    /// Whether a record is meant.
    pub fn matches(&self, c: &Connection) -> bool {
        let named = |name: &String| {
            c.process.as_ref().is_some_and(|p| *p.comm == **name || *p.thread == **name)
        };
        self.filter.matches(c)
            && self.command.as_ref().is_none_or(named)
            && (!self.attempts_only || c.is_attempt())
    }
}

/// Whether a place is in one of the countries and one of the networks.
fn is_in(f: &Filter, place: &Place) -> bool {
    let country = place.country.as_deref();
    (f.country.is_empty() || f.country.iter().any(|wanted| Some(wanted.as_str()) == country))
        && (f.asn.is_empty() || place.asn.is_some_and(|asn| f.asn.contains(&asn)))
}

/// A selection, prepared for one segment.
pub(super) struct Matcher<'a> {
    selection: &'a Selection,
    body: &'a Body,
    since: i64,
    until: Option<i64>,
    /// Whether nothing but the time has to be looked at.
    only_time: bool,
    needs_process: bool,
    /// By number of the process: whether all conditions on it hold.
    processes: Vec<bool>,
    /// By number of the process: whether its name is one of those asked for.
    process_names: Vec<bool>,
    commands: Vec<bool>,
    /// By number of the string: whether it is the name of a thread, or a command, asked for.
    threads: Vec<bool>,
    thread_commands: Vec<bool>,
    host_names: Vec<bool>,
    /// By number of the place: whether it is in a country and a network asked for.
    places: Vec<bool>,
    texts: Option<Texts>,
    /// By number of the process, and of the string: whether a text asked for is in it.
    text_processes: Vec<bool>,
    text_strings: Vec<bool>,
}

impl<'a> Matcher<'a> {
    /// `None` if no row of the segment can match.
    pub(super) fn new(selection: &'a Selection, body: &'a Body) -> Option<Self> {
        let f = &selection.filter;
        let times = body.times?;
        let since = f.since.map_or(i64::MIN, nanos);
        let until = f.until.map(nanos);
        if times.max < since || until.is_some_and(|until| times.min >= until) {
            return None;
        }
        let inside = since <= times.min && until.is_none_or(|until| times.max < until);
        let of_container = [f.container.len(), f.pod.len(), f.namespace.len()] != [0; 3];
        let needs_process = of_container || [f.pid.len(), f.uid.len(), f.unit.len()] != [0; 3];
        let columns = [
            f.process.len(),
            f.remote.len(),
            f.cidr.len(),
            f.scope.len(),
            f.country.len(),
            f.asn.len(),
            f.host_name.len(),
            f.port.len(),
            f.protocol.len(),
            f.direction.len(),
            f.state.len(),
            f.outcome.len(),
            f.text.len(),
        ];
        let only_time = !needs_process
            && columns == [0; 13]
            && f.preexisting.is_none()
            && selection.command.is_none()
            && !selection.attempts_only;
        let infos = body.tables.processes.list();
        let strings = body.tables.strings.list();
        // The time has been looked at already where the segment lies inside the window.
        let (since, until) = if inside { (i64::MIN, None) } else { (since, until) };
        let per_info = |wanted: bool, test: &dyn Fn(&crate::event::ProcessInfo) -> bool| {
            if wanted { infos.iter().map(|info| test(info)).collect() } else { Vec::new() }
        };
        let per_text = |wanted: bool, test: &dyn Fn(&str) -> bool| {
            if wanted { strings.iter().map(|text| test(text)).collect() } else { Vec::new() }
        };
        let by_name = !f.process.is_empty();
        let command = selection.command.as_deref();
        let texts = Texts::of(f);
        let has_text = |text: &str| texts.as_ref().is_some_and(|texts| texts.found_in(text));
        let matcher = Matcher {
            selection,
            body,
            since,
            until,
            only_time,
            needs_process,
            processes: per_info(needs_process, &|info| info_matches(f, Some(info))),
            process_names: per_info(by_name, &|info| f.process.iter().any(|n| has_name(info, n))),
            commands: per_info(command.is_some(), &|info| Some(&*info.comm) == command),
            threads: per_text(by_name, &|text| f.process.iter().any(|name| name == text)),
            thread_commands: per_text(command.is_some(), &|text| Some(text) == command),
            host_names: per_text(!f.host_name.is_empty(), &|text| {
                f.host_name.iter().any(|wanted| host_name_matches(wanted, text))
            }),
            places: match f.country.is_empty() && f.asn.is_empty() {
                true => Vec::new(),
                false => body.tables.places.list().iter().map(|place| is_in(f, place)).collect(),
            },
            text_processes: per_info(texts.is_some(), &|info| {
                texts.as_ref().is_some_and(|texts| texts.found_in_process(info))
            }),
            text_strings: per_text(texts.is_some(), &has_text),
            texts,
        };
        // No process of the segment is meant: its rows need not be looked at, unless one of them
        // lies outside the dictionary.
        let no_process = needs_process && !matcher.processes.contains(&true);
        (!no_process || body.tables.has_whole()).then_some(matcher)
    }

    /// Whether every row of the segment matches.
    pub(super) fn takes_all(&self) -> bool {
        let all_here = self.body.carried_after == u64::MAX;
        self.only_time
            && self.since == i64::MIN
            && self.until.is_none()
            && !self.has_whole()
            && all_here
    }

    fn has_whole(&self) -> bool {
        self.body.tables.has_whole()
    }

    pub(super) fn matches(&self, row: &Row) -> bool {
        if row.seq > self.body.carried_after {
            return false;
        }
        if row.is_whole() {
            let whole = self.body.tables.whole(row);
            return whole.is_some_and(|c| self.selection.matches(c));
        }
        if row.time < self.since || self.until.is_some_and(|until| row.time >= until) {
            return false;
        }
        self.only_time
            || (self.columns(row) && self.process(row) && self.remote(row) && self.text(row))
    }

    fn columns(&self, row: &Row) -> bool {
        let f = &self.selection.filter;
        let port = |row: &Row| row.port().is_some_and(|port| f.port.contains(&port));
        (f.protocol.is_empty() || f.protocol.contains(&row.protocol))
            && (f.direction.is_empty() || f.direction.contains(&row.direction))
            && (f.state.is_empty() || f.state.contains(&row.state))
            && (f.outcome.is_empty() || f.outcome.contains(&row.outcome))
            && (f.port.is_empty() || port(row))
            && f.preexisting.is_none_or(|wanted| row.preexisting() == wanted)
            && (!self.selection.attempts_only || row.is_attempt())
    }

    fn process(&self, row: &Row) -> bool {
        let f = &self.selection.filter;
        let is = |list: &[bool], number: u16| list.get(usize::from(number)) == Some(&true);
        let named = |processes: &[bool], threads: &[bool]| {
            row.process != NONE
                && (is(processes, row.process) || (row.thread != SAME && is(threads, row.thread)))
        };
        (!self.needs_process || is(&self.processes, row.process))
            && (f.process.is_empty() || named(&self.process_names, &self.threads))
            && (self.selection.command.is_none() || named(&self.commands, &self.thread_commands))
    }

    fn text(&self, row: &Row) -> bool {
        let Some(texts) = &self.texts else { return true };
        let is = |list: &[bool], number: u16| list.get(usize::from(number)) == Some(&true);
        let reason = || self.body.tables.dropped(row).map(|(reason, _)| reason);
        is(&self.text_processes, row.process)
            || [row.thread, row.name, row.service, row.error]
                .iter()
                .any(|string| is(&self.text_strings, *string))
            || self.body.tables.path(row).or_else(reason).is_some_and(|t| texts.found_in(t))
            || [self.body.tables.remote_ip(row), self.body.tables.actual(row).map(|a| a.ip)]
                .into_iter()
                .flatten()
                .any(|ip| texts.found_in(&ip.to_string()))
    }

    fn remote(&self, row: &Row) -> bool {
        let f = &self.selection.filter;
        if !f.host_name.is_empty() && self.host_names.get(usize::from(row.name)) != Some(&true) {
            return false;
        }
        let by_place = !f.country.is_empty() || !f.asn.is_empty();
        if by_place && self.places.get(usize::from(row.place)) != Some(&true) {
            return false;
        }
        if f.remote.is_empty() && f.cidr.is_empty() && f.scope.is_empty() {
            return true;
        }
        let ip = self.body.tables.remote_ip(row);
        any_of_addresses(f, ip, self.body.tables.actual(row).map(|actual| actual.ip))
            && (f.scope.is_empty() || ip.is_some_and(|ip| f.scope.contains(&Scope::of(ip))))
    }
}
