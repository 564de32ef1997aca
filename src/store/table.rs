//! Figures by key, of so many keys at most.

use std::net::IpAddr;

use foldhash::{HashMap, HashMapExt};

/// What a record is grouped by, where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyRef<'a> {
    Number(u64),
    Ip(IpAddr),
    Text(&'a str),
    /// Number of the process (0 where it is of all), remote address and port.
    Flow(u32, IpAddr, u16),
}

/// Figures by key. Those of a key stay at their place, so that a key need not be looked up again.
#[derive(Debug)]
pub(super) struct Table<T> {
    numbers: HashMap<u64, u32>,
    ips: HashMap<IpAddr, u32>,
    texts: HashMap<Box<str>, u32>,
    flows: HashMap<(u32, IpAddr, u16), u32>,
    list: Vec<T>,
    room: usize,
}

impl<T> Table<T> {
    pub(super) fn new(room: usize) -> Self {
        Table {
            numbers: HashMap::new(),
            ips: HashMap::new(),
            texts: HashMap::new(),
            flows: HashMap::new(),
            list: Vec::new(),
            room,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Where the figures of this key are, made if it is new; `None` if there is no room for it.
    pub(super) fn place(&mut self, key: KeyRef<'_>, make: impl FnOnce() -> T) -> Option<u32> {
        if let Some(place) = self.find(key) {
            return Some(place);
        }
        if self.list.len() >= self.room {
            return None;
        }
        let place = self.list.len() as u32;
        self.list.push(make());
        match key {
            KeyRef::Number(number) => self.numbers.insert(number, place),
            KeyRef::Ip(ip) => self.ips.insert(ip, place),
            KeyRef::Text(text) => self.texts.insert(text.into(), place),
            KeyRef::Flow(process, ip, port) => self.flows.insert((process, ip, port), place),
        };
        Some(place)
    }

    fn find(&self, key: KeyRef<'_>) -> Option<u32> {
        match key {
            KeyRef::Number(number) => self.numbers.get(&number),
            KeyRef::Ip(ip) => self.ips.get(&ip),
            KeyRef::Text(text) => self.texts.get(text),
            KeyRef::Flow(process, ip, port) => self.flows.get(&(process, ip, port)),
        }
        .copied()
    }

    pub(super) fn at(&mut self, place: u32) -> Option<&mut T> {
        self.list.get_mut(place as usize)
    }

    /// The figures of this key, made if it is new; `None` if there is no room for it.
    pub(super) fn figures(&mut self, key: KeyRef<'_>, make: impl FnOnce() -> T) -> Option<&mut T> {
        let place = self.place(key, make)?;
        self.at(place)
    }

    pub(super) fn get(&mut self, key: KeyRef<'_>) -> Option<&mut T> {
        let place = self.find(key)?;
        self.at(place)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (KeyRef<'_>, &T)> {
        let numbers = self.numbers.iter().map(|(number, at)| (KeyRef::Number(*number), at));
        let ips = self.ips.iter().map(|(ip, at)| (KeyRef::Ip(*ip), at));
        let texts = self.texts.iter().map(|(text, at)| (KeyRef::Text(text), at));
        let flows = self.flows.iter().map(|((p, ip, port), at)| (KeyRef::Flow(*p, *ip, *port), at));
        let all = numbers.chain(ips).chain(texts).chain(flows);
        all.filter_map(|(key, at)| Some((key, self.list.get(*at as usize)?)))
    }
}

impl<T: Copy> Table<T> {
    /// Keeps some keys, whose places change.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        let before = std::mem::take(&mut self.list);
        let kept = &mut self.list;
        let mut keep = |place: &mut u32| {
            let figures = before.get(*place as usize).copied();
            let figures = figures.and_then(|mut figures| keep(&mut figures).then_some(figures));
            *place = kept.len() as u32;
            kept.extend(figures);
            figures.is_some()
        };
        self.numbers.retain(|_, place| keep(place));
        self.ips.retain(|_, place| keep(place));
        self.texts.retain(|_, place| keep(place));
        self.flows.retain(|_, place| keep(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_no_more_than_it_has_room_for() {
        let mut table = Table::new(3);
        for number in 0..10 {
            let figures = table.figures(KeyRef::Number(number % 5), || 0_u64);
            assert_eq!(figures.map(|n| *n += 1).is_some(), number % 5 < 3);
        }
        assert!(table.figures(KeyRef::Text("x"), || 0).is_none());
        assert_eq!((table.len(), table.get(KeyRef::Number(2)).copied()), (3, Some(2)));
    }

    #[test]
    fn what_a_table_keeps_is_what_it_was() {
        let mut table = Table::new(10);
        for number in 0..6_u64 {
            table.figures(KeyRef::Number(number), || number * 10);
        }
        table.figures(KeyRef::Text("x"), || 7);
        table.retain(|figure| {
            *figure += 1;
            *figure % 20 != 1
        });
        let mut kept: Vec<u64> = table.iter().map(|(_, figure)| *figure).collect();
        kept.sort_unstable();
        assert_eq!(kept, [8, 11, 31, 51]);
        assert_eq!(table.get(KeyRef::Number(3)).copied(), Some(31));
        assert_eq!((table.get(KeyRef::Number(2)).copied(), table.len()), (None, 4));
    }
}
