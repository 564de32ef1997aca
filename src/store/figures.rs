//! Figures over time, and between two times.

use std::net::IpAddr;

use super::Store;
use super::groups::{MAX_GROUPS, Outcomes};
use super::matcher::Selection;
use super::row::nanos;
use super::table::{KeyRef, Table};
use super::view::{Columns, View, for_each_in_memory};
use crate::event::Outcome;
use crate::query::diff::{Difference, Differences, Seen};
use crate::query::series::{self, Point};
use crate::query::{Filter, Window};

/// What differs between two windows, without their books.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differing {
    /// By name of the process.
    pub processes: Differences,
    /// By remote address.
    pub remotes: Differences,
    /// By process, remote address and port.
    pub flows: Differences,
    /// Attempts in the first window, and in the second.
    pub totals: [u64; 2],
}

/// The same things in both windows.
type Both = [Outcomes; 2];

#[derive(Debug, Default)]
struct Process {
    number: u32,
    seen: Both,
}

impl Store {
    /// Attempts by step of time: every step of the window, also those in which nothing happened.
    pub fn series(&self, selection: &Selection, window: Window, step_ms: u64) -> Vec<Point> {
        let first = series::start_of(window.since.as_millisecond(), step_ms);
        // The end itself is no part of the window.
        let end = nanos(window.until).saturating_sub(1).div_euclid(1_000_000);
        let last = series::start_of(end, step_ms).max(first);
        let step = i64::try_from(step_ms.max(1)).unwrap_or(i64::MAX);
        let length = usize::try_from((last - first) / step + 1).unwrap_or(0);
        let mut steps = vec![Outcomes::default(); length];
        let selection = attempts(selection, window);
        let mut count = |time_ns: i64, outcome, attempts| {
            let at = time_ns.div_euclid(1_000_000).saturating_sub(first) / step;
            if let Some(outcomes) = usize::try_from(at).ok().and_then(|at| steps.get_mut(at)) {
                outcomes.add_many(outcome, attempts);
            }
        };
        let memory = self.memory();
        for_each_in_memory(&memory, &selection, &mut |view| {
            count(view.time_ns(), view.outcome(), 1);
        });
        for part in self.parts(&memory) {
            part.over_time(&selection, step_ms, &mut count);
        }
        let point = |(number, outcomes): (usize, &Outcomes)| Point {
            time: series::at(first.saturating_add(step.saturating_mul(number as i64))),
            count: outcomes.total(),
            unsuccessful: outcomes.unsuccessful(),
            by_outcome: outcomes.by_outcome(),
        };
        steps.iter().enumerate().map(point).collect()
    }

    /// What differs between the attempts of two windows.
    pub fn diff(&self, selection: &Selection, windows: [Window; 2], limit: usize) -> Differing {
        self.diff_within(MAX_GROUPS, selection, windows, limit)
    }

    pub(super) fn diff_within(
        &self,
        room: usize,
        selection: &Selection,
        windows: [Window; 2],
        limit: usize,
    ) -> Differing {
        let mut tables = Tables {
            processes: Table::new(room),
            remotes: Table::new(room),
            flows: Table::new(room),
            left_out: [0; 3],
        };
        let columns = Columns::PROCESS_NAME | Columns::REMOTE_IP | Columns::PORTS;
        let mut totals = [0; 2];
        for (side, window) in windows.into_iter().enumerate() {
            let selection = attempts(selection, window);
            self.for_each(&selection, columns, &mut |view| {
                if let Some(total) = totals.get_mut(side) {
                    *total += 1;
                }
                tables.add(view, side);
            });
        }
        tables.answer(windows, limit, totals)
    }
}

fn attempts(selection: &Selection, window: Window) -> Selection {
    let (since, until) = (Some(window.since), Some(window.until));
    let filter = Filter { since, until, ..selection.filter.clone() };
    Selection { filter, attempts_only: true, ..selection.clone() }
}

struct Tables {
    processes: Table<Process>,
    remotes: Table<Both>,
    flows: Table<Both>,
    /// Of each of these: attempts for which there was no room.
    left_out: [u64; 3],
}

fn add(both: &mut Both, side: usize, outcome: Outcome) {
    if let Some(outcomes) = both.get_mut(side) {
        outcomes.add(outcome);
    }
}

impl Tables {
    fn add(&mut self, view: View<'_>, side: usize) {
        let outcome = view.outcome();
        let [no_process, no_remote, no_flow] = &mut self.left_out;
        let number = self.processes.len() as u32;
        let number = view.process().and_then(|who| {
            let name = KeyRef::Text(who.name());
            let made = || Process { number, ..Process::default() };
            let Some(process) = self.processes.figures(name, made) else {
                *no_process += 1;
                return None;
            };
            add(&mut process.seen, side, outcome);
            Some(process.number)
        });
        let Some(ip) = view.remote_ip() else { return };
        match self.remotes.figures(KeyRef::Ip(ip), Both::default) {
            Some(both) => add(both, side, outcome),
            None => *no_remote += 1,
        }
        let flow = number.and_then(|number| {
            let key = KeyRef::Flow(number, ip, view.port().unwrap_or(0));
            self.flows.figures(key, Both::default)
        });
        match flow {
            Some(both) => add(both, side, outcome),
            None => *no_flow += 1,
        }
    }

    fn answer(&self, windows: [Window; 2], limit: usize, totals: [u64; 2]) -> Differing {
        let lengths = windows.map(|w| w.until.duration_since(w.since).as_secs_f64());
        let [no_process, no_remote, no_flow] = self.left_out;
        let mut names = vec![""; self.processes.len()];
        for (key, process) in self.processes.iter() {
            if let (KeyRef::Text(name), Some(place)) = (key, names.get_mut(process.number as usize))
            {
                *place = name;
            }
        }
        let name = |number: u32| names.get(number as usize).copied();
        let processes = self.processes.iter().map(|(key, process)| {
            let name = if let KeyRef::Text(name) = key { Some(name) } else { None };
            (Subject { process: name, ..Subject::default() }, &process.seen)
        });
        let remotes = self.remotes.iter().map(|(key, seen)| {
            let remote = if let KeyRef::Ip(ip) = key { Some(ip) } else { None };
            (Subject { remote, ..Subject::default() }, seen)
        });
        let flows = self.flows.iter().map(|(key, seen)| match key {
            KeyRef::Flow(number, ip, port) => {
                (Subject { process: name(number), remote: Some(ip), port: Some(port) }, seen)
            }
            _ => (Subject::default(), seen),
        });
        Differing {
            processes: differences(processes, lengths, limit, no_process),
            remotes: differences(remotes, lengths, limit, no_remote),
            flows: differences(flows, lengths, limit, no_flow),
            totals,
        }
    }
}

/// What was seen; less comes first among what was seen as often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Subject<'a> {
    process: Option<&'a str>,
    remote: Option<IpAddr>,
    port: Option<u16>,
}

/// Something that differs, with how much that weighs.
type Weighed<'a> = (u64, Subject<'a>, &'a Both);

fn differences<'a>(
    seen: impl Iterator<Item = (Subject<'a>, &'a Both)>,
    lengths: [f64; 2],
    limit: usize,
    left_out: u64,
) -> Differences {
    let (mut new, mut gone, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    let mut same = 0;
    for (subject, both) in seen {
        let [before, after] = both.each_ref().map(Outcomes::total);
        match (before, after) {
            (0, _) => new.push((after, subject, both)),
            (_, 0) => gone.push((before, subject, both)),
            _ if has_changed(both, lengths) => changed.push((before.max(after), subject, both)),
            _ => same += 1,
        }
    }
    let [new_total, gone_total, changed_total] = [&new, &gone, &changed].map(|l| l.len() as u64);
    let shown = |list| shown(list, limit);
    Differences {
        new: shown(new),
        new_total,
        gone: shown(gone),
        gone_total,
        changed: shown(changed),
        changed_total,
        same,
        left_out,
    }
}

/// See [`Differences::changed`].
fn has_changed(both: &Both, [before_s, after_s]: [f64; 2]) -> bool {
    let [before, after] = both;
    let ended = |outcomes: &Outcomes| {
        let seen = outcomes.each().filter(|(o, n)| *n > 0 && *o != Outcome::InProgress);
        seen.map(|(outcome, _)| outcome).collect::<Vec<_>>()
    };
    if ended(before) != ended(after) {
        return true;
    }
    let expected = before.total() as f64 * after_s / before_s;
    let found = after.total() as f64;
    (found > 2.0 * expected || found < expected / 2.0) && (found - expected).abs() >= 10.0
}

fn shown(mut list: Vec<Weighed<'_>>, limit: usize) -> Vec<Difference> {
    list.sort_unstable_by(|(a, a_subject, _), (b, b_subject, _)| {
        b.cmp(a).then(a_subject.cmp(b_subject))
    });
    list.truncate(limit);
    let seen = |outcomes: &Outcomes| Seen {
        count: outcomes.total(),
        unsuccessful: outcomes.unsuccessful(),
        by_outcome: outcomes.by_outcome(),
    };
    let difference = |(_, subject, [before, after]): (u64, Subject<'_>, &Both)| Difference {
        process: subject.process.map(str::to_owned),
        remote: subject.remote,
        port: subject.port,
        before: seen(before),
        after: seen(after),
    };
    list.into_iter().map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::test_records::{info, micros, refused};

    #[test]
    fn what_there_is_no_room_for_is_counted_and_the_rest_is_true() {
        let store = Store::new(4 << 20);
        let curl = info(7, "curl");
        // The same ten remotes in each of two windows of ten records.
        let records = (0..20).map(|n| {
            let mut record = refused(n % 10, &curl);
            record.id.start_ns += 1_000_000 * n;
            record.time = micros(n as i64);
            record
        });
        store.apply(records.collect());
        let window = |from, to| Window { since: micros(from), until: micros(to) };
        let windows = [window(0, 10), window(10, 20)];
        let all = store.diff(&Selection::default(), windows, 100);
        assert_eq!((all.totals, all.remotes.same, all.remotes.left_out), ([10, 10], 10, 0));
        let some = store.diff_within(4, &Selection::default(), windows, 100);
        assert_eq!((some.totals, some.remotes.same, some.remotes.left_out), ([10, 10], 4, 12));
        assert_eq!((some.flows.same, some.flows.left_out), (4, 12));
        assert_eq!((some.remotes.new_total, some.remotes.gone_total), (0, 0));
    }
}
