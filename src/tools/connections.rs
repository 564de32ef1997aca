//! `list_connections` and `watch_connections`.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep_until};

use super::args::{Args, named};
use super::parts::{self, Clock};
use super::spec::{Member, Tool, number, text, words};
use super::table::Table;
use super::{Answer, Progress, ToolError, lookups, shared};
use crate::event::{Connection, ConnectionId, Outcome};
use crate::query::{Filter, Follow, List, Page, Source, Window};
use crate::text;

const ANSWERS: &[Member] = &[("total", "integer"), parts::COMPLETE];

/// Rows unless asked otherwise.
const USUAL: usize = 20;
/// The most rows that are asked for.
const MOST: usize = 500;
/// Bytes of rows: what a default answer costs a model is bounded whatever the host does.
const CONCISE: usize = 2_200;
const DETAILED: usize = 12_000;

pub(super) const LIST: Tool = Tool {
    name: "list_connections",
    description: "Connection attempts, newest first, and their true outcome: what X connected to, \
                  who talks to Z, what is open. protocol=dns: look-ups of names.",
    params: &[
        shared::PROCESS,
        shared::PID,
        shared::REMOTE,
        shared::PORT,
        text("protocol"),
        shared::UNIT,
        shared::CONTAINER,
        shared::DIRECTION,
        text("state").says("e.g. open, listening"),
        text("outcome").says("e.g. refused; unsuccessful = any failure"),
        shared::DURATION,
        shared::SINCE,
        shared::UNTIL,
        words("sort", &["newest", "oldest"]).unlisted(),
        number("max_events", MOST as u64),
        text("cursor"),
        shared::FORMAT,
    ],
    answers: ANSWERS,
};

pub(super) async fn list(source: &dyn Source, args: &Args) -> Result<Answer, ToolError> {
    if lookups::are_asked_for(args) {
        return lookups::list(source, args).await;
    }
    let mut filter = args.filter()?;
    shared::hide(&mut filter, source).await?;
    let budget = if args.detailed() { DETAILED } else { CONCISE };
    let mut page = args.page(args.limit(USUAL, MOST))?;
    loop {
        let list = source.list(&filter, &page).await.map_err(named)?;
        let mut table = table(&list.connections, args.detailed(), Clock::of(list.window));
        table.fit(budget);
        // A cursor leads on from the last record of its page: one that is cut short has none.
        if table.len() < list.connections.len() && page.limit != Some(table.len()) {
            page.limit = Some(table.len());
            continue;
        }
        let mut hints = Vec::new();
        if list.total == 0 {
            let newest = list.newest_outside_window;
            hints.push(shared::nothing(source, &filter, newest).await.map_err(named)?);
            hints.extend(shared::unknown_name(&filter));
        }
        return Ok(answer(table, &list, hints, args));
    }
}

fn answer(table: Table, list: &List, mut hints: Vec<String>, args: &Args) -> Answer {
    let mut content = Map::new();
    let shown = table.len();
    table.put(&mut content, "columns", "rows");
    content.insert("total".to_owned(), list.total.into());
    content.insert("shown".to_owned(), shown.into());
    if let Some(cursor) = &list.next_cursor {
        content.insert("next_cursor".to_owned(), cursor.as_str().into());
        hints.push(
            "More: narrow with process_name, remote, port or outcome, count with \
             get_network_summary, or pass next_cursor as cursor."
                .to_owned(),
        );
    }
    parts::put_hints(&mut content, &hints);
    parts::close(&mut content, list.window, &list.accounting, args.now());
    Answer::of(content)
}

/// Records as rows.
pub(super) fn table(connections: &[Connection], detailed: bool, clock: Clock) -> Table {
    let concise = ["utc", "process", "pid", "remote", "served_at", "protocol", "outcome", "ms"];
    if !detailed {
        let mut table = Table::new(&concise);
        connections.iter().for_each(|c| table.push(concise_row(c, clock)));
        return table;
    }
    let more = [
        "state",
        "direction",
        "error",
        "evidence",
        "unit",
        "container",
        "image",
        "pod",
        "namespace",
        "exe",
        "cwd",
        "user",
        "parent",
        "ancestry",
        "service",
        "scope",
        "country",
        "as_name",
        "actual",
        "syn_retransmits",
        "drop",
        "sent",
        "received",
        "retransmits",
        "srtt_ms",
        "closed",
        "open_ms",
        "id",
    ];
    let mut table = Table::new(&[&concise[..], &more[..]].concat());
    for c in connections {
        let mut row = concise_row(c, clock);
        row.extend(more_of(c));
        table.push(row);
    }
    table
}

fn concise_row(c: &Connection, clock: Clock) -> Vec<Value> {
    let process = c.process.as_ref();
    // What listens has no outcome, and its state says all.
    let outcome = match c.outcome {
        Outcome::Listening => c.state.as_str(),
        outcome => outcome.as_str(),
    };
    vec![
        clock.show(c.time),
        process.map_or(Value::Null, |p| parts::name(&p.comm)),
        process.map_or(Value::Null, |p| p.pid.into()),
        parts::remote(c),
        parts::local_if_served(c),
        c.protocol.as_str().into(),
        outcome.into(),
        c.latency_us.map_or(Value::Null, parts::ms),
    ]
}

fn more_of(c: &Connection) -> Vec<Value> {
    fn of<T>(value: Option<T>) -> Value
    where
        T: Into<Value>,
    {
        value.map_or(Value::Null, Into::into)
    }
    let named = |text: Option<&str>| text.map_or(Value::Null, parts::name);
    let path = |path: Option<&str>| path.map_or(Value::Null, |path| text::short(path, 120).into());
    let process = c.process.as_ref();
    let container = process.and_then(|p| p.container.as_ref());
    let called = container.map(|c| c.name.as_deref().unwrap_or(&c.id));
    let carried = c.carried();
    let drop = c.drop.as_ref().map(|d| format!("{} x{}", text::short(&d.reason, 60), d.count));
    vec![
        c.state.as_str().into(),
        c.direction.as_str().into(),
        named(c.error.as_deref()),
        of(c.evidence.map(|e| e.as_str())),
        named(process.and_then(|p| p.unit.as_deref())),
        named(called),
        named(container.and_then(|c| c.image.as_deref())),
        named(container.and_then(|c| c.pod.as_deref())),
        named(container.and_then(|c| c.namespace.as_deref())),
        path(process.and_then(|p| p.exe.as_deref())),
        path(process.and_then(|p| p.cwd.as_deref())),
        named(process.and_then(|p| p.user.as_deref())),
        named(process.and_then(|p| p.parent.as_deref())),
        process.map_or(Value::Null, |p| text::short(&p.ancestry.join(" < "), 120).into()),
        named(c.remote.as_ref().and_then(|r| r.service.as_deref())),
        of(c.remote.as_ref().map(|r| r.scope.as_str())),
        named(c.remote.as_ref().and_then(|r| r.country.as_deref())),
        named(c.remote.as_ref().and_then(|r| r.as_name.as_deref())),
        of(c.remote_actual.map(|actual| parts::address(actual.ip, Some(actual.port)))),
        of(c.syn_retransmits.filter(|n| *n > 0)),
        of(drop),
        of(carried.and_then(|t| t.bytes_sent)),
        of(carried.and_then(|t| t.bytes_received)),
        of(carried.and_then(|t| t.retransmits).filter(|n| *n > 0)),
        carried.and_then(|t| t.srtt_us).map_or(Value::Null, |us| parts::ms(us.into())),
        of(c.close.map(|close| close.reason.as_str())),
        c.close.and_then(|close| close.duration_us).map_or(Value::Null, parts::ms),
        c.id.to_string().into(),
    ]
}

pub(super) const WATCH: Tool = Tool {
    name: "watch_connections",
    description: "Waits for what connects from now on, until duration (10 s) or max_events (20).",
    params: &[
        shared::PROCESS,
        shared::PID,
        shared::REMOTE,
        shared::PORT,
        shared::UNIT,
        shared::DIRECTION.unlisted(),
        text("outcome"),
        number("duration", LONGEST_WAIT),
        number("max_events", MOST as u64),
        shared::FORMAT.unlisted(),
    ],
    answers: ANSWERS,
};

/// Seconds that are waited unless said.
const WAIT: u64 = 10;
/// The longest wait: hosts of models give up on a call that takes longer.
const LONGEST_WAIT: u64 = 120;
/// Between two words about how far it is.
const BEAT: Duration = Duration::from_secs(1);

pub(super) async fn watch(
    source: &dyn Source,
    args: &Args,
    progress: &dyn Progress,
) -> Result<Answer, ToolError> {
    let seconds = args.number("duration").unwrap_or(WAIT);
    let most = args.limit(USUAL, MOST);
    let mut filter = args.filter()?;
    (filter.since, filter.until) = (None, None);
    shared::hide(&mut filter, source).await?;
    // The outcome of what is still under way is not known, so that one cannot be asked for here.
    let outcomes = std::mem::take(&mut filter.outcome);
    let mut stream = source.follow(&filter, None).await.map_err(named)?;
    let begun = Instant::now();
    let mut seen = Watched { since: args.now(), most, wanted: outcomes, ..Watched::default() };
    let mut beat = 1;
    let ended = loop {
        if seen.ended.len() >= most {
            break "max_events";
        }
        let end = begun + Duration::from_secs(seconds);
        tokio::select! {
            biased;
            () = sleep_until(end) => break "duration",
            () = sleep_until(begun + BEAT * beat) => {
                beat += 1;
                let message = format!("{} so far", seen.ended.len());
                let done = begun.elapsed().as_secs_f64().min(seconds as f64);
                progress.report(done, seconds as f64, &message).await;
            }
            item = stream.next() => match item {
                Some(Ok(Follow::Change(change))) => seen.add(change.connection),
                // Where nobody knows how many, it is one or more.
                Some(Ok(Follow::Skipped { changes })) => seen.skipped += changes.unwrap_or(1),
                Some(Err(error)) => return Err(named(error)),
                None => break "the source ended",
            },
        }
    };
    drop(stream);
    let until = Timestamp::now();
    let window = Window { since: args.now(), until };
    // The books of the time that was watched.
    let within = Filter { since: Some(args.now()), until: Some(until), ..Filter::default() };
    let one = Page { limit: Some(1), ..Page::default() };
    let books = source.list(&within, &one).await.map_err(named)?.accounting;
    let mut table = seen.table(args.detailed(), Clock::of(window));
    let total = table.len();
    table.fit(if args.detailed() { DETAILED } else { CONCISE });
    let mut content = Map::new();
    let shown = table.len();
    table.put(&mut content, "columns", "rows");
    content.insert("total".to_owned(), total.into());
    content.insert("shown".to_owned(), shown.into());
    content.insert("ended_by".to_owned(), ended.into());
    let mut hints = Vec::new();
    if seen.skipped > 0 {
        hints.push(format!("{} changes came too fast to be followed.", seen.skipped));
    }
    if shown < total {
        hints.push("The rest is in list_connections.".to_owned());
    }
    parts::put_hints(&mut content, &hints);
    parts::close(&mut content, window, &books, until);
    if seen.skipped > 0 {
        content.insert("complete".to_owned(), false.into());
    }
    Ok(Answer::of(content))
}

/// What was seen while watching: each attempt once, as it was last.
#[derive(Debug, Default)]
struct Watched {
    since: Timestamp,
    most: usize,
    /// Outcomes that are asked for; all, if there are none.
    wanted: Vec<Outcome>,
    ended: Vec<Connection>,
    under_way: HashMap<ConnectionId, Connection>,
    skipped: u64,
}

impl Watched {
    fn add(&mut self, connection: Connection) {
        // That something older was closed is a change too, but nobody connected.
        if connection.time < self.since {
            return;
        }
        let id = connection.id;
        if let Some(known) = self.ended.iter_mut().find(|known| known.id == id) {
            *known = connection;
        } else if connection.outcome == Outcome::InProgress {
            if self.under_way.len() < self.most {
                self.under_way.insert(id, connection);
            }
        } else {
            self.under_way.remove(&id);
            if self.is_wanted(connection.outcome) {
                self.ended.push(connection);
            }
        }
    }

    fn is_wanted(&self, outcome: Outcome) -> bool {
        self.wanted.is_empty() || self.wanted.contains(&outcome)
    }

    fn table(&mut self, detailed: bool, clock: Clock) -> Table {
        let mut all = std::mem::take(&mut self.ended);
        if self.is_wanted(Outcome::InProgress) {
            let mut rest: Vec<_> = self.under_way.drain().map(|(_, c)| c).collect();
            rest.sort_by_key(|c| c.time);
            all.extend(rest);
        }
        all.truncate(self.most);
        table(&all, detailed, clock)
    }
}
