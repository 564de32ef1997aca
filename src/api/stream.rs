//! Server-Sent Events: new and changed records as they come.
//!
//! The id of an event is the number of the change, so that a client that reconnects with
//! `Last-Event-ID` goes on where it was. A client that does not read loses its connection after
//! a while; it never holds up anybody else.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::problem::Problem;
use super::{Api, Transport, v1, withhold};
use crate::query::{Change, Follow};
use crate::store::Follower;

/// Why it is not known how many changes were skipped.
const BEFORE_RESTART: &str = "they are of before the server was restarted, which does not know how \
                              many there were; /api/v1/connections has those that it kept";
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn stream(
    State(api): State<Api>,
    Extension(transport): Extension<Transport>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let mut pairs = v1::pairs(query.as_deref());
    let mut after = None;
    // Taken out one by one: what is given twice is refused with the other parameters.
    if let Some(at) = pairs.iter().position(|(name, _)| name == "after") {
        let (name, value) = pairs.remove(at);
        after = Some(change_number(&name, &value)?);
    }
    let filter = v1::filter_of(pairs, &["after"])?;
    // A browser that reconnects asks with the same URL: its header is the newer word.
    if let Some(value) = headers.get("last-event-id") {
        after = Some(change_number("Last-Event-ID", value.to_str().unwrap_or("?"))?);
    }
    let permit = api.streams.clone().try_acquire_owned().map_err(|_| {
        let detail = format!("{} streams are open, which is the most", api.max_streams);
        Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
    })?;
    let open = Open {
        follower: api.source.follower(filter.into(), after),
        stopping: api.stopping.clone(),
        transport,
        _permit: permit,
    };
    let events = stream::unfold(open, |mut open| async move {
        let events = open.next().await?;
        Some((stream::iter(events.into_iter().map(Ok)), open))
    });
    Ok(Sse::new(events.flatten()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("alive")))
}

fn change_number(parameter: &str, value: &str) -> Result<u64, Problem> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or_else(|| {
        let problem = format!("'{}' is not the id of an event", crate::query::filter::clip(value));
        let accepted = "the id of an event of this stream, or 0 for all that the server still has";
        Problem::parameter(StatusCode::BAD_REQUEST, parameter, &problem, accepted)
    })
}

struct Open {
    follower: Follower,
    stopping: watch::Receiver<bool>,
    transport: Transport,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    async fn next(&mut self) -> Option<Vec<Event>> {
        let follow = tokio::select! {
            _ = self.stopping.wait_for(|stopping| *stopping) => return None,
            follow = self.follower.next() => follow?,
        };
        Some(follow.into_iter().filter_map(|follow| event(follow, self.transport)).collect())
    }
}

fn event(follow: Follow, transport: Transport) -> Option<Event> {
    match follow {
        Follow::Change(change) => {
            let Change { seq, mut connection } = *change;
            withhold(std::slice::from_mut(&mut connection), transport);
            let event = Event::default().id(seq.to_string()).event("connection");
            event.json_data(&connection).ok()
        }
        Follow::Skipped { changes } => {
            let data = match changes {
                Some(changes) => serde_json::json!({ "changes": changes }),
                None => serde_json::json!({ "changes": null, "why": BEFORE_RESTART }),
            };
            Event::default().event("skipped").json_data(data).ok()
        }
    }
}
