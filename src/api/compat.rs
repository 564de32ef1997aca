//! The endpoints of the original server, for its clients: same paths, parameters and members.
//!
//! What it dropped in silence (a number that is none, a body that is no JSON) is an error here;
//! parameters that it did not know are let pass, as it did.

pub(super) mod drops;
mod request;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;

use super::Api;
use super::event::Event;
use super::problem::Problem;
use crate::event::Direction;
use crate::query::{Filter, Page, QueryError, Sort};
use crate::store::{Selected, Selection};
use request::Asked;

/// How the server and its capture are.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct Health {
    /// `healthy`, or `degraded` where capture is down, or history not as it should be.
    status: &'static str,
    component: &'static str,
    /// How long it has run, such as `1h2m3s`.
    uptime: String,
    version: &'static str,
    /// The family of hooks in use, or `replay`.
    backend: String,
    /// Why it is degraded.
    reason: Option<String>,
}

pub(super) async fn health(State(api): State<Api>) -> Response {
    let stopped = api.source.capture().stopped();
    let report = api.source.capture().report();
    let history = api.source.store().history_trouble();
    let code = if stopped.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let health = Health {
        status: if stopped.is_some() || history.is_some() { "degraded" } else { "healthy" },
        component: "eBPF Monitor API",
        uptime: uptime(api.source.uptime()),
        version: env!("CARGO_PKG_VERSION"),
        backend: report.backend.map_or_else(|| "replay".to_owned(), |b| b.to_string()),
        reason: stopped.or(history),
    };
    (code, Json(health)).into_response()
}

/// As Go writes a duration: `1h2m3s`.
fn uptime(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct Count {
    count: u64,
    pid: u32,
    command: String,
    duration_seconds: u64,
    query_time: String,
}

pub(super) async fn summary(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<Count>, Problem> {
    let asked = Asked::read(request).await?;
    let duration_seconds = asked.duration_or(60);
    let since = Some(ago(duration_seconds));
    let count = api.source.count(selection(&asked, since, None)).await?;
    Ok(Json(Count {
        count,
        pid: asked.pid,
        command: asked.command,
        duration_seconds,
        query_time: query_time(),
    }))
}

#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct ByPid<E> {
    total_pids: usize,
    total_events: usize,
    events_by_pid: BTreeMap<u32, Vec<E>>,
    query_time: String,
    /// Added by this project: how many match, shown or not.
    total_count: u64,
    /// Added by this project: the most that are shown.
    limit: usize,
}

pub(super) async fn list(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<ByPid<Event>>, Problem> {
    let asked = Asked::read(request).await?;
    let since = Some(ago(asked.duration_or(3600)));
    let selected = select(&api, &asked, since, None).await?;
    let events = selected.connections.iter().map(Event::from).map(|event| (event.pid, event));
    Ok(Json(by_pid(events, selected.total, &asked)))
}

fn by_pid<E>(events: impl Iterator<Item = (u32, E)>, total_count: u64, asked: &Asked) -> ByPid<E> {
    let mut events_by_pid: BTreeMap<u32, Vec<E>> = BTreeMap::new();
    let mut total_events = 0;
    for (pid, event) in events {
        events_by_pid.entry(pid).or_default().push(event);
        total_events += 1;
    }
    ByPid {
        total_pids: events_by_pid.len(),
        total_events,
        events_by_pid,
        query_time: query_time(),
        total_count,
        limit: asked.limit_or_default(),
    }
}

/// The newest events.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct Events {
    events: Shown,
    /// How many are shown.
    count: usize,
    /// How many match.
    total_count: u64,
    query_time: String,
    filters: Filters,
}

#[derive(Serialize, schemars::JsonSchema)]
#[serde(untagged)]
enum Shown {
    Connections(Vec<Event>),
    Drops(Vec<drops::DropEvent>),
}

/// What was asked, as it was understood.
#[derive(Serialize, schemars::JsonSchema)]
struct Filters {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    limit: usize,
}

pub(super) async fn events(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<Events>, Problem> {
    let mut asked = Asked::default();
    asked.read_query(query.as_deref())?;
    let (events, count, total_count) = match asked.kind.as_deref() {
        Some("packet_drop") => {
            let (events, total) = drops::events(&api, &asked).await?;
            let count = events.len();
            (Shown::Drops(events), count, total)
        }
        _ => {
            let selected = select(&api, &asked, asked.since, asked.until).await?;
            let events: Vec<_> = selected.connections.iter().map(Event::from).collect();
            let count = events.len();
            (Shown::Connections(events), count, selected.total)
        }
    };
    let limit = asked.limit_or_default();
    Ok(Json(Events {
        events,
        count,
        total_count,
        query_time: query_time(),
        filters: Filters {
            r#type: asked.kind,
            pid: (asked.pid != 0).then_some(asked.pid),
            command: Some(asked.command).filter(|command| !command.is_empty()),
            since: asked.since,
            until: asked.until,
            limit,
        },
    }))
}

/// The BPF programs that are loaded.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct Programs {
    programs: Vec<Program>,
    total_count: usize,
    query_time: String,
}

#[derive(Serialize, schemars::JsonSchema)]
struct Program {
    name: String,
    r#type: String,
    /// `active` where it is attached, `loaded` where it is not.
    status: &'static str,
    id: u32,
    /// Where it is attached.
    hook: String,
}

pub(super) async fn programs(State(api): State<Api>) -> Json<Programs> {
    let programs = api.source.capture().report().programs;
    let shown = programs.into_iter().map(|program| Program {
        name: program.name,
        r#type: program.kind,
        status: if program.attached { "active" } else { "loaded" },
        id: program.id,
        hook: program.hook,
    });
    let programs: Vec<_> = shown.collect();
    Json(Programs { total_count: programs.len(), programs, query_time: query_time() })
}

fn query_time() -> String {
    Timestamp::now().to_string()
}

/// So many seconds ago; the beginning of time where that is before it.
fn ago(seconds: u64) -> Timestamp {
    let span = Duration::from_secs(seconds);
    Timestamp::now().checked_sub(span).unwrap_or(Timestamp::MIN)
}

/// The original counted attempts of this host: what came in from outside, and what existed
/// before, are none.
fn selection(asked: &Asked, since: Option<Timestamp>, until: Option<Timestamp>) -> Selection {
    let pid = if asked.pid == 0 { Vec::new() } else { vec![asked.pid] };
    let direction = vec![Direction::Outbound];
    Selection {
        filter: Filter { pid, direction, since, until, ..Filter::default() },
        command: (!asked.command.is_empty()).then(|| asked.command.clone()),
        attempts_only: true,
    }
}

async fn select(
    api: &Api,
    asked: &Asked,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<Selected, QueryError> {
    let limit = Some(asked.limit_or_default());
    let page = Page { limit, cursor: None, sort: Sort::Newest };
    api.source.select(selection(asked, since, until), page).await
}
