//! Look-ups of names: what `list_connections` and `get_network_summary` answer where
//! `protocol=dns` asks for them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::args::{Args, named};
use super::beside::Beside;
use super::parts::{self, Clock};
use super::table::Table;
use super::{Answer, ToolError};
use crate::event::DnsRecord;
use crate::query::dns::DnsList;
use crate::query::{Page, Source};

/// Rows unless asked otherwise, and the most.
const USUAL: usize = 20;
const MOST: usize = 500;
/// Bytes of rows.
const CONCISE: usize = 2_200;
const DETAILED: usize = 12_000;
/// The newest look-ups, of which the summary is told by name.
const LOOKED_AT: usize = 1_000;
/// Of the addresses of an answer, so many are shown.
const ADDRESSES: usize = 2;

/// Whether look-ups are asked for, rather than connections.
pub(super) fn are_asked_for(args: &Args) -> bool {
    args.text("protocol").is_some_and(|word| word.trim().eq_ignore_ascii_case("dns"))
}

pub(super) async fn list(source: &dyn Source, args: &Args) -> Result<Answer, ToolError> {
    let filter = args.dns_filter()?;
    let budget = if args.detailed() { DETAILED } else { CONCISE };
    let mut page = args.page(args.limit(USUAL, MOST))?;
    loop {
        let list = source.dns(&filter, &page).await.map_err(named)?;
        let mut table = rows(&list, args.detailed());
        table.fit(budget);
        // A cursor leads on from the last record of its page: one that is cut short has none.
        if table.len() < list.questions.len() && page.limit != Some(table.len()) {
            page.limit = Some(table.len());
            continue;
        }
        let mut content = Map::new();
        content.insert("shown".to_owned(), table.len().into());
        table.put(&mut content, "columns", "rows");
        let mut hints = Vec::new();
        if let Some(cursor) = &list.next_cursor {
            content.insert("next_cursor".to_owned(), cursor.as_str().into());
            hints.push(
                "More: narrow, count with get_network_summary, or pass next_cursor as cursor."
                    .to_owned(),
            );
        }
        end(&mut content, &list, args, hints);
        return Ok(Answer::of(content));
    }
}

pub(super) async fn summary(source: &dyn Source, args: &Args) -> Result<Answer, ToolError> {
    let filter = args.dns_filter()?;
    let page = Page { limit: Some(LOOKED_AT), ..Page::default() };
    let list = source.dns(&filter, &page).await.map_err(named)?;
    let mut content = Map::new();
    if let Some(times) = list.answer_times {
        let times = json!({
            "p50": parts::ms(times.p50_us), "p95": parts::ms(times.p95_us),
            "p99": parts::ms(times.p99_us), "measured": times.count,
        });
        content.insert("answer_ms".to_owned(), times);
    }
    let mut table = by_name(&list.questions, args.limit(USUAL, MOST), Clock::of(list.window));
    table.fit(if args.detailed() { DETAILED } else { CONCISE });
    let mut hints = Vec::new();
    let told = list.questions.len() as u64;
    if told < list.total {
        hints.push(format!("rows: of the newest {told} look-ups."));
    }
    content.insert("shown".to_owned(), table.len().into());
    table.put(&mut content, "columns", "rows");
    end(&mut content, &list, args, hints);
    Ok(Answer::of(content))
}

/// What is known of the look-ups of one name by one process.
#[derive(Default)]
struct Name<'a> {
    count: u64,
    failed: u64,
    by_outcome: BTreeMap<&'static str, u64>,
    newest: Option<&'a DnsRecord>,
}

/// Those that fail first, then those that are asked for most.
fn by_name(records: &[DnsRecord], most: usize, clock: Clock) -> Table {
    let mut names: HashMap<(Option<&str>, &str), Name<'_>> = HashMap::new();
    for record in records {
        let process = record.process.as_ref().map(|process| &*process.comm);
        let name = names.entry((process, &record.name)).or_default();
        name.count += 1;
        name.failed += u64::from(record.outcome.is_failure());
        *name.by_outcome.entry(record.outcome.as_str()).or_default() += 1;
        name.newest.get_or_insert(record);
    }
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_by_key(|(key, name)| {
        (std::cmp::Reverse(name.failed), std::cmp::Reverse(name.count), *key)
    });
    let columns = ["process", "name", "look_ups", "unsuccessful", "outcomes", "answer", "last_utc"];
    let mut table = Table::new(&columns);
    for ((process, asked_for), name) in names.into_iter().take(most) {
        let outcomes = name.by_outcome.iter().map(|(outcome, n)| format!("{outcome} {n}"));
        table.push(vec![
            process.map_or(Value::Null, parts::name),
            parts::host(asked_for),
            name.count.into(),
            name.failed.into(),
            outcomes.collect::<Vec<_>>().join(", ").into(),
            name.newest.map_or(Value::Null, answer),
            name.newest.map_or(Value::Null, |newest| clock.show(newest.time)),
        ]);
    }
    table
}

fn rows(list: &DnsList, detailed: bool) -> Table {
    let clock = Clock::of(list.window);
    let concise = ["utc", "process", "pid", "name", "type", "outcome", "ms", "answer", "server"];
    let more = [
        "protocol",
        "sent",
        "ttl_s",
        "container",
        "pod",
        "namespace",
        "unit",
        "carried_by",
        "followed_by",
        "id",
    ];
    let mut table = match detailed {
        true => Table::new(&[&concise[..], &more[..]].concat()),
        false => Table::new(&concise),
    };
    for record in &list.questions {
        let process = record.process.as_ref();
        let mut row = vec![
            clock.show(record.time),
            process.map_or(Value::Null, |p| parts::name(&p.comm)),
            process.map_or(Value::Null, |p| p.pid.into()),
            parts::host(&record.name),
            parts::name(&record.record_type),
            record.outcome.as_str().into(),
            record.latency_us.map_or(Value::Null, parts::ms),
            answer(record),
            record.server.ip.to_string().into(),
        ];
        if detailed {
            row.extend(more_of(record));
        }
        table.push(row);
    }
    table
}

fn more_of(record: &DnsRecord) -> Vec<Value> {
    let named = |text: Option<&str>| text.map_or(Value::Null, parts::name);
    let process = record.process.as_ref();
    let container = process.and_then(|p| p.container.as_ref());
    let followed: Vec<String> = record.connections.iter().map(ToString::to_string).collect();
    vec![
        record.protocol.as_str().into(),
        if record.sent > 1 { record.sent.into() } else { Value::Null },
        record.ttl_s.map_or(Value::Null, Into::into),
        named(container.map(|c| c.name.as_deref().unwrap_or(&c.id))),
        named(container.and_then(|c| c.pod.as_deref())),
        named(container.and_then(|c| c.namespace.as_deref())),
        named(process.and_then(|p| p.unit.as_deref())),
        record.connection.map_or(Value::Null, |id| id.to_string().into()),
        if followed.is_empty() { Value::Null } else { followed.into() },
        record.id.to_string().into(),
    ]
}

/// The first addresses that a name has.
fn answer(record: &DnsRecord) -> Value {
    let shown = record.addresses.iter().take(ADDRESSES).map(ToString::to_string);
    let mut shown = shown.collect::<Vec<_>>().join(" ");
    match record.addresses.len() {
        0 => return Value::Null,
        n if n > ADDRESSES => shown.push_str(&format!(" +{}", n - ADDRESSES)),
        _ => {}
    }
    shown.into()
}

/// Totals, the window, and whether anything can be missing.
fn end(content: &mut Map<String, Value>, list: &DnsList, args: &Args, hints: Vec<String>) {
    content.insert("total".to_owned(), list.total.into());
    content.insert("outcomes".to_owned(), parts::figures(&list.by_outcome));
    let books = &list.accounting;
    let ended = Beside {
        what: "Look-ups",
        not_seen: list.not_seen.as_deref(),
        total: list.total,
        newest_outside: list.newest_outside_window,
        window: list.window,
        is_complete: books.complete,
        figures: parts::some([
            ("questions", books.questions),
            ("no_room", books.no_room),
            ("pending", books.pending),
            ("messages_lost", books.messages_lost),
            ("lost", books.lost),
            ("evicted", books.evicted),
        ]),
        gaps: &books.gaps,
    };
    ended.end(content, args.now(), hints);
}
