//! Records by what they have in common: a bounded number of groups, however many there are.
//!
//! Where there are more groups than may be held, the largest are found in two more looks: one that
//! keeps every group that is larger than a known error, and one that counts those again.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use strum::VariantArray;

use super::Store;
use super::matcher::Selection;
use super::row::wide;
use super::table::{KeyRef, Table};
use super::view::{Columns, View};
use crate::event::{Outcome, Scope};
use crate::query::top::{Group, Key, TopBy};

/// Groups that a question holds at most: some megabytes.
pub(super) const MAX_GROUPS: usize = 1 << 15;

/// The groups with the most records, without window and books.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// The groups.
    pub groups: Vec<Group>,
    /// How many records match.
    pub total: u64,
    /// How many groups there are, where they could all be held.
    pub distinct: Option<u64>,
    /// Records in other groups.
    pub others: u64,
    /// Records in no group.
    pub without: u64,
    /// Whether no other group can be larger than one of these.
    pub exact: bool,
}

/// Counts by outcome.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcomes([u64; Outcome::VARIANTS.len()]);

impl Outcomes {
    pub(super) fn add(&mut self, outcome: Outcome) {
        self.add_many(outcome, 1);
    }

    pub(super) fn add_many(&mut self, outcome: Outcome, attempts: u64) {
        if let Some(count) = self.0.get_mut(outcome as usize) {
            *count += attempts;
        }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::VARIANTS.iter().copied().zip(self.0)
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(super) fn unsuccessful(&self) -> u64 {
        self.each().filter(|(outcome, _)| outcome.is_unsuccessful()).map(|(_, n)| n).sum()
    }

    pub(super) fn by_outcome(&self) -> BTreeMap<Outcome, u64> {
        self.each().filter(|(_, count)| *count > 0).collect()
    }
}

/// In place of the number of a process.
const ANY: u32 = 0;

/// What is known of a group.
#[derive(Debug)]
struct Figures {
    outcomes: Outcomes,
    first: i64,
    last: i64,
    label: Option<Box<str>>,
}

impl Figures {
    fn new(time: i64) -> Self {
        Figures { outcomes: Outcomes::default(), first: time, last: time, label: None }
    }

    fn add(&mut self, by: TopBy, view: View<'_>) {
        let time = view.time_ns();
        self.outcomes.add(view.outcome());
        self.first = self.first.min(time);
        if time >= self.last || self.label.is_none() {
            self.last = self.last.max(time);
            let label = label(by, view);
            if label.is_some() && label != self.label.as_deref() {
                self.label = label.map(Into::into);
            }
        }
    }
}

/// The columns that grouping reads.
fn columns(by: TopBy) -> Columns {
    match by {
        TopBy::Process => Columns::PROCESS_NAME,
        TopBy::Pid => Columns::PID | Columns::PROCESS_NAME,
        TopBy::Remote => Columns::REMOTE_IP | Columns::REMOTE_NAME,
        TopBy::Scope => Columns::REMOTE_IP,
        TopBy::Country | TopBy::Asn => Columns::PLACE,
        TopBy::Endpoint => Columns::REMOTE_IP | Columns::PORTS | Columns::REMOTE_NAME,
        TopBy::HostName => Columns::REMOTE_NAME,
        TopBy::Port => Columns::PORTS,
        TopBy::Container => Columns::CONTAINER,
        TopBy::Pod | TopBy::Namespace | TopBy::Image => Columns::POD,
        TopBy::Unit => Columns::UNIT,
        TopBy::Uid => Columns::USER,
        TopBy::Outcome | TopBy::Protocol | TopBy::Direction | TopBy::State => Columns::NONE,
        TopBy::Error => Columns::ERROR,
        TopBy::DropReason => Columns::DROP,
        TopBy::Host => Columns::HOST,
    }
}

/// What a record is grouped by.
fn key(by: TopBy, view: View<'_>) -> Option<KeyRef<'_>> {
    let who = || view.process();
    Some(match by {
        TopBy::Process => KeyRef::Text(who()?.name()),
        TopBy::Pid => KeyRef::Number(who()?.pid().into()),
        TopBy::Remote => KeyRef::Ip(view.remote_ip()?),
        TopBy::Endpoint => KeyRef::Flow(ANY, view.remote_ip()?, view.port()?),
        TopBy::Scope => KeyRef::Text(Scope::of(view.remote_ip()?).as_str()),
        TopBy::Country => KeyRef::Text(view.country()?),
        TopBy::Asn => KeyRef::Number(view.asn()?.into()),
        TopBy::HostName => KeyRef::Text(view.remote_name()?),
        TopBy::Port => KeyRef::Number(view.port()?.into()),
        TopBy::Container => KeyRef::Text(who()?.container_id()?),
        TopBy::Pod => KeyRef::Text(who()?.pod()?),
        TopBy::Namespace => KeyRef::Text(who()?.pod_namespace()?),
        TopBy::Image => KeyRef::Text(who()?.container_image()?),
        TopBy::Unit => KeyRef::Text(who()?.unit()?),
        TopBy::Uid => KeyRef::Number(who()?.uid().into()),
        TopBy::Outcome => KeyRef::Text(view.outcome().as_str()),
        TopBy::Protocol => KeyRef::Text(view.protocol().as_str()),
        TopBy::Direction => KeyRef::Text(view.direction().as_str()),
        TopBy::State => KeyRef::Text(view.state().as_str()),
        TopBy::Error => KeyRef::Text(view.error()?),
        TopBy::DropReason => KeyRef::Text(view.dropped()?.0),
        TopBy::Host => KeyRef::Text(view.host()),
    })
}

fn label(by: TopBy, view: View<'_>) -> Option<&str> {
    match by {
        TopBy::Pid => Some(view.process()?.name()),
        TopBy::Remote | TopBy::Endpoint => view.remote_name(),
        TopBy::Container => view.process()?.container_name(),
        TopBy::Pod => view.process()?.pod_namespace(),
        TopBy::Uid => view.process()?.user(),
        TopBy::Asn => view.as_name(),
        _ => None,
    }
}

/// Where the figures of a group are, by the code of its records: history has their keys as numbers
/// already, so that most need not be looked up.
#[derive(Default)]
struct Places {
    /// That of the codes.
    part: usize,
    known: Vec<Option<u32>>,
}

impl Places {
    fn get(&mut self, part: usize, by: TopBy, view: View<'_>) -> Option<u32> {
        if self.part != part {
            self.part = part;
            self.known.clear();
        }
        self.known.get(view.code(by)?).copied().flatten()
    }

    fn note(&mut self, by: TopBy, view: View<'_>, place: u32) {
        let Some(code) = view.code(by).filter(|code| *code < MAX_GROUPS) else { return };
        if self.known.len() <= code {
            self.known.resize(code + 1, None);
        }
        if let Some(known) = self.known.get_mut(code) {
            *known = Some(place);
        }
    }
}

impl Store {
    /// The groups with the most records.
    pub fn top(&self, selection: &Selection, by: TopBy, limit: usize) -> Groups {
        self.top_within(MAX_GROUPS, selection, by, limit)
    }

    pub(super) fn top_within(
        &self,
        room: usize,
        selection: &Selection,
        by: TopBy,
        limit: usize,
    ) -> Groups {
        let mut table = Table::<Figures>::new(room);
        let (mut overflow, mut total, mut without) = (false, 0, 0);
        let (part, mut places) = (Cell::new(0), Places::default());
        self.for_each_by_part(selection, columns(by), &part, &mut |view| {
            total += 1;
            let known = places.get(part.get(), by, view);
            if let Some(figures) = known.and_then(|place| table.at(place)) {
                return figures.add(by, view);
            }
            let Some(key) = key(by, view) else { return without += 1 };
            if overflow {
                return;
            }
            match table.place(key, || Figures::new(view.time_ns())) {
                Some(place) => {
                    places.note(by, view, place);
                    table.at(place).into_iter().for_each(|figures| figures.add(by, view));
                }
                None => overflow = true,
            }
        });
        if !overflow {
            return answer(table.iter(), limit, total, without, 0);
        }
        let (mut table, error) = self.candidates(room, selection, by);
        (total, without) = (0, 0);
        self.for_each(selection, columns(by), &mut |view| {
            total += 1;
            match key(by, view) {
                None => without += 1,
                Some(key) => {
                    if let Some(figures) = table.get(key) {
                        let figures = figures.get_or_insert_with(|| Figures::new(view.time_ns()));
                        figures.add(by, view);
                    }
                }
            }
        });
        let counted = table.iter().filter_map(|(key, figures)| Some((key, figures.as_ref()?)));
        answer(counted, limit, total, without, error)
    }

    /// All groups with more records than the error that comes with them, and some others (Misra and
    /// Gries: Finding repeated elements, 1982).
    fn candidates(
        &self,
        room: usize,
        selection: &Selection,
        by: TopBy,
    ) -> (Table<Option<Figures>>, u64) {
        let mut counts = Table::<u64>::new(room);
        let mut error = 0;
        self.for_each(selection, columns(by), &mut |view| {
            let Some(key) = key(by, view) else { return };
            if let Some(count) = counts.figures(key, || 0) {
                *count += 1;
                return;
            }
            let mut all: Vec<u64> = counts.iter().map(|(_, count)| *count).collect();
            if all.is_empty() {
                return;
            }
            let middle = all.len() / 2;
            let taken = *all.select_nth_unstable(middle).1;
            error += taken;
            counts.retain(|count| {
                *count = count.saturating_sub(taken);
                *count > 0
            });
            if let Some(count) = counts.figures(key, || 0) {
                *count += 1;
            }
        });
        let mut table = Table::new(room);
        for (key, _) in counts.iter() {
            table.figures(key, || None);
        }
        (table, error)
    }
}

/// The largest of these groups. Others, if there are any, have `error` records at most.
fn answer<'a>(
    groups: impl Iterator<Item = (KeyRef<'a>, &'a Figures)>,
    limit: usize,
    total: u64,
    without: u64,
    error: u64,
) -> Groups {
    let mut groups: Vec<_> = groups
        .map(|(key, figures)| {
            let key = match key {
                KeyRef::Number(number) => Key::Number(number),
                KeyRef::Ip(ip) => Key::Text(ip.to_string()),
                KeyRef::Text(text) => Key::Text(text.to_owned()),
                KeyRef::Flow(_, ip, port) => Key::Text(SocketAddr::new(ip, port).to_string()),
            };
            (figures.outcomes.total(), key, figures)
        })
        .collect();
    groups.sort_unstable_by(|(a, a_key, _), (b, b_key, _)| b.cmp(a).then(a_key.cmp(b_key)));
    let distinct = groups.len() as u64;
    groups.truncate(limit);
    let smallest = groups.last().map_or(0, |(count, ..)| *count);
    let is_full = groups.len() == limit;
    let shown: u64 = groups.iter().map(|(count, ..)| count).sum();
    Groups {
        groups: groups
            .into_iter()
            .map(|(count, key, figures)| Group {
                key,
                label: figures.label.as_deref().map(str::to_owned),
                count,
                unsuccessful: figures.outcomes.unsuccessful(),
                by_outcome: figures.outcomes.by_outcome(),
                first: wide(figures.first),
                last: wide(figures.last),
            })
            .collect(),
        total,
        distinct: (error == 0).then_some(distinct),
        others: total.saturating_sub(shown + without),
        without,
        exact: error == 0 || (is_full && smallest >= error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use foldhash::{HashMap, HashMapExt};

    use super::*;
    use crate::event::{Connection, Remote};
    use crate::test_records::{Random, info, refused};

    /// Many remotes, of which the lower ones come far more often.
    fn store(seed: u64) -> (Store, HashMap<IpAddr, u64>) {
        let (store, curl) = (Store::new(4 << 20), info(7, "curl"));
        let (mut random, mut counts) = (Random(seed), HashMap::new());
        let records = (0..4_000).map(|n| {
            let most = [3, 30, 300][random.next(3) as usize];
            let number = random.next(most) as u16;
            let [high, low] = number.to_be_bytes();
            let ip = IpAddr::from([10, 0, high, low]);
            *counts.entry(ip).or_insert(0) += 1;
            let record = refused(n, &curl);
            Connection { remote: Some(Remote::new(ip, 443)), ..record }
        });
        store.apply(records.collect());
        (store, counts)
    }

    #[test]
    fn with_little_room_the_largest_are_found_with_true_counts_or_it_is_said() {
        for (seed, room) in [(1, 8), (2, 20), (3, 50), (4, 1_000)] {
            let (store, counts) = store(seed);
            let mut expected: Vec<u64> = counts.values().copied().collect();
            expected.sort_unstable_by(|a, b| b.cmp(a));
            for limit in [1, 3, 10] {
                let top = store.top_within(room, &Selection::default(), TopBy::Remote, limit);
                assert_eq!((top.total, top.without), (4_000, 0));
                let shown: u64 = top.groups.iter().map(|group| group.count).sum();
                assert_eq!(shown + top.others, 4_000);
                for group in &top.groups {
                    let Key::Text(ip) = &group.key else { panic!("{group:?}") };
                    assert_eq!(group.count, counts[&ip.parse().unwrap()]);
                    assert_eq!(group.unsuccessful, group.count);
                }
                if top.exact {
                    let found: Vec<_> = top.groups.iter().map(|group| group.count).collect();
                    assert_eq!(found, expected[..limit], "{room} {limit}");
                }
                let known = (counts.len() <= room).then_some(counts.len() as u64);
                assert_eq!(top.distinct, known);
            }
            let three = store.top_within(room, &Selection::default(), TopBy::Remote, 3);
            assert!(three.exact || room < 20, "{room}");
        }
    }
}
