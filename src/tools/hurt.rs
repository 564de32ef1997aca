//! Whom dropped packets hurt: the attempts that they belong to, by reason.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::parts;
use super::table::Table;
use crate::event::{DropRecord, Endpoint};
use crate::query::drops::{DropFilter, DropList};
use crate::query::{Page, QueryError, Source};
use crate::text;

/// Attempts that are told apart: memory is bounded whatever was dropped.
const MOST: usize = 20_000;
/// Records that are asked for at a time.
const AT_A_TIME: usize = 2_000;
/// Rows of an answer, and their bytes.
const SHOWN: usize = 16;
const BYTES: usize = 1_400;

/// Whose attempt was hit, and where it went.
type Whom = (Arc<str>, Option<Endpoint>);

/// A reason, its packets, and whom they belong to.
type Reason = (u64, Arc<str>, Vec<(Whom, u64)>);

/// Packets by reason and by whom they belong to.
#[derive(Debug)]
pub(super) struct Hurt {
    by_reason: HashMap<Arc<str>, HashMap<Whom, u64>>,
    groups: usize,
    room: usize,
    packets: u64,
    /// Packets that no attempt is known of.
    of_nobody: u64,
    /// Packets of attempts that there was no room to tell apart.
    no_room: u64,
}

impl Default for Hurt {
    fn default() -> Self {
        Hurt::with_room(MOST)
    }
}

impl Hurt {
    fn with_room(room: usize) -> Self {
        let by_reason = HashMap::new();
        Hurt { by_reason, groups: 0, room, packets: 0, of_nobody: 0, no_room: 0 }
    }

    /// Of all drops that match, with the totals of them.
    pub(super) async fn of(
        source: &dyn Source,
        filter: &DropFilter,
    ) -> Result<(Hurt, DropList), QueryError> {
        let mut page = Page { limit: Some(AT_A_TIME), ..Page::default() };
        let mut hurt = Hurt::default();
        let mut list = source.drops(filter, &page).await?;
        hurt.add(&list.drops);
        page.cursor = list.next_cursor.take();
        while page.cursor.is_some() {
            let more = source.drops(filter, &page).await?;
            hurt.add(&more.drops);
            page.cursor = more.next_cursor;
        }
        Ok((hurt, list))
    }

    fn add(&mut self, drops: &[DropRecord]) {
        for drop in drops {
            self.packets = self.packets.saturating_add(drop.count);
            let Some(process) = &drop.process else {
                self.of_nobody = self.of_nobody.saturating_add(drop.count);
                continue;
            };
            let whom = (Arc::clone(&process.comm), drop.destination);
            let known = self.by_reason.get_mut(&drop.reason).and_then(|all| all.get_mut(&whom));
            if let Some(packets) = known {
                *packets = packets.saturating_add(drop.count);
            } else if self.groups < self.room {
                self.groups += 1;
                let reason = self.by_reason.entry(Arc::clone(&drop.reason)).or_default();
                reason.insert(whom, drop.count);
            } else {
                self.no_room = self.no_room.saturating_add(drop.count);
            }
        }
    }

    /// The worst of each reason, then the second of each, and so on: one reason with many victims
    /// does not push out those of another.
    fn spread(self) -> Vec<(Arc<str>, Whom, u64)> {
        let mut reasons: Vec<Reason> = Vec::new();
        for (reason, all) in self.by_reason {
            let mut all: Vec<_> = all.into_iter().collect();
            all.sort_unstable_by(|(a, n), (b, m)| {
                (Reverse(n), named(a)).cmp(&(Reverse(m), named(b)))
            });
            let packets = all.iter().fold(0_u64, |sum, (_, n)| sum.saturating_add(*n));
            reasons.push((packets, reason, all));
        }
        reasons.sort_unstable_by(|(n, a, _), (m, b, _)| (Reverse(n), a).cmp(&(Reverse(m), b)));
        let mut ranked = Vec::new();
        for (place, (_, reason, all)) in reasons.into_iter().enumerate() {
            for (rank, (whom, packets)) in all.into_iter().enumerate() {
                ranked.push(((rank, place), (Arc::clone(&reason), whom, packets)));
            }
        }
        ranked.sort_unstable_by_key(|(at, _)| *at);
        ranked.into_iter().map(|(_, row)| row).collect()
    }

    /// The same in words, so many lines of it.
    pub(super) fn lines(self, most: usize) -> String {
        let (groups, of_nobody, no_room) = (self.groups, self.of_nobody, self.no_room);
        let mut said = String::new();
        for (reason, (process, remote), packets) in self.spread().iter().take(most) {
            let to = remote.map(|end| format!(" -> {}", parts::address(end.ip, Some(end.port))));
            let (process, to) = (text::short(process, 48), to.unwrap_or_default());
            let _ = write!(said, "\n- {process}{to}: {packets}, {}", text::short(reason, 48));
        }
        if of_nobody > 0 {
            let _ = write!(said, "\n- of no attempt that was seen: {of_nobody}");
        }
        if no_room > 0 {
            let _ = write!(said, "\n- of attempts that were too many to tell apart: {no_room}");
        }
        if groups > most {
            let more = groups - most;
            let _ =
                write!(said, "\n… and {more} more: 'netspy drops' (list_packet_drops over MCP).");
        }
        said
    }

    /// Puts rows into an answer, with how many there are, and says what is not among them.
    pub(super) fn put(self, content: &mut Map<String, Value>, hints: &mut Vec<String>) {
        let (groups, no_room, of_nobody) = (self.groups, self.no_room, self.of_nobody);
        let all = self.packets;
        let rows = self.spread();
        let mut table = Table::new(&["process", "remote", "reason", "packets"]);
        for (reason, (process, remote), packets) in rows.iter().take(SHOWN) {
            table.push(vec![
                parts::name(process),
                remote.map_or(Value::Null, |end| parts::address(end.ip, Some(end.port)).into()),
                parts::name(reason),
                (*packets).into(),
            ]);
        }
        table.fit(BYTES);
        let shown = table.len();
        let told = rows.iter().take(shown).fold(0_u64, |sum, (_, _, n)| sum.saturating_add(*n));
        table.put(content, "columns", "rows");
        content.insert("total".to_owned(), groups.into());
        content.insert("shown".to_owned(), shown.into());
        if of_nobody > 0 && groups > 0 {
            hints.push(format!("{of_nobody} packets belong to no attempt that was seen."));
        }
        if groups > shown {
            let rest = all.saturating_sub(told).saturating_sub(of_nobody).saturating_sub(no_room);
            hints.push(format!(
                "rows: the worst hit of each reason; {} more were hit by {rest} packets: narrow \
                 with process_name, remote, port or reason.",
                groups - shown
            ));
        }
        if no_room > 0 {
            hints.push(format!("Too many were hit to tell those of {no_room} packets apart."));
        }
    }
}

/// What puts those with as many packets into an order that does not change.
fn named((process, remote): &Whom) -> (&str, Option<(IpAddr, u16)>) {
    (&**process, remote.map(|end| (end.ip, end.port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Process;
    use crate::test_records::{dropped, info};

    /// The n-th drop, of one packet of this process.
    fn of(n: u64, comm: &str, reason: &str, port: u16) -> DropRecord {
        let process = Some(Process { tid: 7, thread: comm.into(), info: info(7, comm) });
        let destination = dropped(0).destination.map(|end| Endpoint { port, ..end });
        DropRecord { reason: reason.into(), process, destination, count: 1, ..dropped(n) }
    }

    fn answer(hurt: Hurt) -> (Map<String, Value>, String) {
        let (mut content, mut hints) = (Map::new(), Vec::new());
        hurt.put(&mut content, &mut hints);
        (content, hints.join(" "))
    }

    #[test]
    fn every_drop_counts_and_no_reason_hides_the_victims_of_another() {
        let mut hurt = Hurt::default();
        let firewall: Vec<_> = (0..18).map(|n| of(n, "curl", "NETFILTER_DROP", 443)).collect();
        let refused: Vec<_> =
            (18..618).map(|n| of(n, "noisy", "NO_SOCKET", 1_000 + (n % 50) as u16)).collect();
        hurt.add(&refused[300..]);
        hurt.add(&refused[..300]);
        hurt.add(&firewall);
        hurt.add(&[DropRecord { process: None, count: 28, ..dropped(700) }]);
        let (content, hint) = answer(hurt);
        assert_eq!((&content["total"], &content["shown"]), (&51.into(), &16.into()));
        let rows = content["rows"].as_array().unwrap();
        let firewall = Value::from(vec![
            Value::from("curl"),
            "192.0.2.0:443".into(),
            "NETFILTER_DROP".into(),
            18.into(),
        ]);
        assert_eq!(rows[1], firewall, "{content:?}");
        assert!(rows.iter().filter(|row| row[0] == "noisy").all(|row| row[3] == 12), "{rows:?}");
        assert!(hint.contains("28 packets belong to no attempt"), "{hint}");
        assert!(hint.contains("35 more were hit by 420 packets"), "{hint}");
    }

    #[test]
    fn in_words_each_reason_has_its_worst_victim_and_the_rest_is_counted() {
        let mut hurt = Hurt::with_room(4);
        let drops: Vec<_> = (0..9).map(|n| of(n, "noisy", "NO_SOCKET", n as u16 % 3 + 1)).collect();
        hurt.add(&drops);
        hurt.add(&[of(9, "curl", "NETFILTER_DROP", 443), dropped(10), of(11, "x", "XDP", 9)]);
        let of_nobody = dropped(10).count;
        let expected = format!(
            "\n- noisy -> 192.0.2.0:1: 3, NO_SOCKET\n- curl -> 192.0.2.0:443: 1, NETFILTER_DROP\
             \n- of no attempt that was seen: {of_nobody}\
             \n- of attempts that were too many to tell apart: 1\
             \n… and 2 more: 'netspy drops' (list_packet_drops over MCP)."
        );
        assert_eq!(hurt.lines(2), expected);
    }

    #[test]
    fn what_there_is_no_room_to_tell_apart_is_counted() {
        let mut hurt = Hurt::with_room(2);
        let drops: Vec<_> = (0..10).map(|n| of(n, "x", "XDP", n as u16 % 5 + 1)).collect();
        hurt.add(&drops);
        let (content, hint) = answer(hurt);
        assert_eq!(content["total"], 2);
        assert!(content["rows"].as_array().unwrap().iter().all(|row| row[3] == 2));
        assert!(hint.ends_with("tell those of 6 packets apart."), "{hint}");
    }

    #[test]
    fn where_nobody_was_hurt_there_are_no_rows() {
        let mut hurt = Hurt::default();
        hurt.add(&[dropped(1)]);
        let (content, hint) = answer(hurt);
        assert_eq!((&content["total"], &content["rows"]), (&0.into(), &Value::Array(vec![])));
        assert_eq!(hint, "");
    }
}
