//! `get_packet_drop_summary` and `list_packet_drops`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::args::{Args, named};
use super::beside::Beside;
use super::hurt::Hurt;
use super::parts::{self, Clock};
use super::spec::{Member, Param, Tool, number, text};
use super::table::Table;
use super::{Answer, ToolError, shared};
use crate::query::Source;
use crate::query::drops::DropList;

/// Rows unless asked otherwise, and the most.
const USUAL: usize = 20;
const MOST: usize = 500;
/// Bytes of rows.
const CONCISE: usize = 2_200;
const DETAILED: usize = 12_000;

const ANSWERS: &[Member] = &[parts::COMPLETE];

/// Name of a reason, such as `NETFILTER_DROP`, in any letter case.
const REASON: Param = text("reason");

pub(super) const SUMMARY: Tool = Tool {
    name: "get_packet_drop_summary",
    description: "Packets this kernel dropped, by reason, and whom it hurt.",
    params: &[
        shared::PROCESS,
        shared::PID,
        shared::END,
        shared::PORT,
        REASON,
        shared::DURATION,
        shared::SINCE,
        shared::UNTIL,
    ],
    answers: ANSWERS,
};

pub(super) const LIST: Tool = Tool {
    name: "list_packet_drops",
    description: "Dropped packets by flow and reason, newest first.",
    params: &[
        shared::PROCESS,
        shared::PID,
        shared::END,
        shared::PORT,
        REASON,
        shared::DURATION,
        shared::SINCE,
        shared::UNTIL,
        number("max_events", MOST as u64),
        text("cursor"),
        shared::FORMAT.unlisted(),
    ],
    answers: ANSWERS,
};

/// Reasons that are named.
const REASONS: usize = 12;

pub(super) async fn summary(source: &dyn Source, args: &Args) -> Result<Answer, ToolError> {
    let filter = args.drop_filter()?;
    let (hurt, list) = Hurt::of(source, &filter).await.map_err(named)?;
    let mut content = Map::new();
    put_totals(&mut content, &list);
    let mut hints = Vec::new();
    hurt.put(&mut content, &mut hints);
    end(&mut content, &list, args, hints);
    Ok(Answer::of(content))
}

pub(super) async fn list(source: &dyn Source, args: &Args) -> Result<Answer, ToolError> {
    let filter = args.drop_filter()?;
    let mut page = args.page(args.limit(USUAL, MOST))?;
    loop {
        let list = source.drops(&filter, &page).await.map_err(named)?;
        let mut table = table(&list, args.detailed());
        table.fit(if args.detailed() { DETAILED } else { CONCISE });
        if table.len() < list.drops.len() && page.limit != Some(table.len()) {
            page.limit = Some(table.len());
            continue;
        }
        let mut content = Map::new();
        put_totals(&mut content, &list);
        content.insert("shown".to_owned(), table.len().into());
        table.put(&mut content, "columns", "rows");
        let mut hints = Vec::new();
        if let Some(cursor) = &list.next_cursor {
            content.insert("next_cursor".to_owned(), cursor.as_str().into());
            hints.push("More: narrow, or pass next_cursor as cursor.".to_owned());
        }
        end(&mut content, &list, args, hints);
        return Ok(Answer::of(content));
    }
}

/// The reasons with the most packets; kernels know more than a hundred.
fn by_reason(packets: &BTreeMap<String, u64>) -> Value {
    let mut all: Vec<_> = packets.iter().collect();
    all.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let rest = all.split_off(all.len().min(REASONS));
    let mut shown: BTreeMap<String, u64> = all.into_iter().map(|(r, n)| (r.clone(), *n)).collect();
    if !rest.is_empty() {
        let packets = rest.iter().fold(0, |sum: u64, (_, n)| sum.saturating_add(**n));
        shown.insert(format!("({} other reasons)", rest.len()), packets);
    }
    parts::figures(&shown)
}

fn put_totals(content: &mut Map<String, Value>, list: &DropList) {
    content.insert("packets".to_owned(), list.packets.into());
    content.insert("records".to_owned(), list.total.into());
    content.insert("by_reason".to_owned(), by_reason(&list.by_reason));
}

fn end(content: &mut Map<String, Value>, list: &DropList, args: &Args, hints: Vec<String>) {
    let books = &list.accounting;
    let ended = Beside {
        what: "Drops",
        not_seen: list.not_seen.as_deref(),
        total: list.total,
        newest_outside: list.newest_outside_window,
        window: list.window,
        is_complete: books.complete,
        figures: parts::some([
            ("packets", books.packets),
            ("no_room", books.no_room),
            ("no_address", books.no_address),
            ("pending", books.pending),
            ("missed", books.missed),
            ("lost", books.lost),
            ("evicted", books.evicted),
        ]),
        gaps: &books.gaps,
    };
    ended.end(content, args.now(), hints);
}

fn table(list: &DropList, detailed: bool) -> Table {
    let clock = Clock::of(list.window);
    let concise =
        ["utc", "reason", "packets", "protocol", "source", "destination", "process", "pid"];
    let more: &[&str] = if detailed { &["last_utc", "bytes", "connection", "id"] } else { &[] };
    let mut table = Table::new(&[&concise[..], more].concat());
    let end = |end: Option<crate::event::Endpoint>| {
        end.map_or(Value::Null, |end| parts::address(end.ip, Some(end.port)).into())
    };
    for drop in &list.drops {
        let process = drop.process.as_ref();
        let mut row = vec![
            clock.show(drop.time),
            parts::name(&drop.reason),
            drop.count.into(),
            drop.protocol.map_or(Value::Null, |p| p.as_str().into()),
            end(drop.source),
            end(drop.destination),
            process.map_or(Value::Null, |p| parts::name(&p.comm)),
            process.map_or(Value::Null, |p| p.pid.into()),
        ];
        if detailed {
            row.extend([
                clock.show(drop.last),
                drop.bytes.into(),
                drop.connection.map_or(Value::Null, |id| id.to_string().into()),
                drop.id.to_string().into(),
            ]);
        }
        table.push(row);
    }
    table
}
