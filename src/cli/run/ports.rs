//! Many ports of one remote as one line of the report for people: a scan is one thing, not a page.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::report::{Group, Key, Latency};

/// From so many ports on they are one line.
const MANY: usize = 5;

/// The groups; those that differ in nothing but the port are one where there are many. Each stands
/// where the first of its members stood.
pub fn gathered<'a>(groups: &[&'a Group]) -> Vec<Cow<'a, Group>> {
    let alike = |group: &Group| {
        let place: SocketAddr = group.key.place.parse().ok()?;
        let key = Key { place: place.ip().to_string(), ..group.key.clone() };
        Some((place.ip(), place.port(), (key, group.reached)))
    };
    let mut ports: BTreeMap<(Key, bool), BTreeSet<u16>> = BTreeMap::new();
    for (_, port, key) in groups.iter().filter_map(|group| alike(group)) {
        ports.entry(key).or_default().insert(port);
    }
    ports.retain(|_, ports| ports.len() >= MANY);
    let mut shown: Vec<Cow<'a, Group>> = Vec::new();
    let mut begun: BTreeMap<(Key, bool), usize> = BTreeMap::new();
    for group in groups {
        let many = alike(group).and_then(|(ip, _, key)| Some((ip, ports.get(&key)?, key)));
        let Some((ip, ports, key)) = many else {
            shown.push(Cow::Borrowed(group));
            continue;
        };
        match begun.get(&key).and_then(|n| shown.get_mut(*n)) {
            Some(all) => all.to_mut().join(group),
            None => {
                begun.insert(key, shown.len());
                let mut all = (*group).clone();
                all.key.place = place(ip, ports);
                shown.push(Cow::Owned(all));
            }
        }
    }
    for all in shown.iter_mut().filter(|group| matches!(group, Cow::Owned(_))) {
        let all = all.to_mut();
        all.latencies.sort_unstable();
        all.latency = Latency::of(&all.latencies);
        all.processes = all.pids.len() as u64;
    }
    shown
}

/// `192.0.2.1, 60 ports from 1 to 1024`
fn place(ip: IpAddr, ports: &BTreeSet<u16>) -> String {
    let (first, last) = (ports.first().unwrap_or(&0), ports.last().unwrap_or(&0));
    format!("{ip}, {} ports from {first} to {last}", ports.len())
}

impl Group {
    fn join(&mut self, other: &Group) {
        self.count += other.count;
        self.pids.extend(&other.pids);
        for (why, n) in &other.drops {
            *self.drops.entry(why.clone()).or_default() += n;
        }
        self.latencies.extend(&other.latencies);
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Groups;
    use super::*;
    use crate::event::{Connection, Direction, Outcome, Remote};
    use crate::test_records::{established, info};

    fn refused(host: u8, port: u16) -> Connection {
        Connection {
            remote: Some(Remote::new([192, 0, 2, host].into(), port)),
            direction: Direction::Outbound,
            outcome: Outcome::Refused,
            latency_us: Some(port.into()),
            ..established(0, &info(1, "scanner"))
        }
    }

    #[test]
    fn many_ports_of_one_remote_are_one_line() {
        let mut groups = Groups::default();
        (1..=60).for_each(|port| groups.add(&refused(1, port)));
        (1..=2).for_each(|port| groups.add(&refused(2, port)));
        let summary = groups.summary();
        assert_eq!(summary.groups.len(), 62, "others count them all");
        let shown = gathered(&summary.groups.iter().collect::<Vec<_>>());
        let places: Vec<&str> = shown.iter().map(|group| &*group.key.place).collect();
        assert_eq!(places, ["192.0.2.1, 60 ports from 1 to 60", "192.0.2.2:1", "192.0.2.2:2"]);
        assert_eq!((shown[0].count, shown[0].processes), (60, 1));
        assert_eq!(shown[0].latency, Some(Latency { min_us: 1, median_us: 31, max_us: 60 }));
    }
}
