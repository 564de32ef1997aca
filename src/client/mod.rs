//! [`HttpSource`]: answers from a server, over TCP or a UNIX socket.

mod access;
mod address;
mod params;
mod problem;
pub(crate) mod sse;
mod transport;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

pub use access::{Access, AccessError};
pub use address::{Address, InvalidAddress};

use transport::Idle;

use crate::event::{Connection, ConnectionId};
use crate::query::diff::{self, Compare, Diff};
use crate::query::dns::{DnsFilter, DnsList};
use crate::query::drops::{DropFilter, DropList};
use crate::query::findings::{self, Findings};
use crate::query::series::{self, Series, Step};
use crate::query::top::{self, Top, TopBy};
use crate::query::{
    Change, Count, Filter, Follow, List, Page, QueryError, Source, Status, Summary,
};

/// Asks a server's `/api/v1`.
#[derive(Debug, Clone)]
pub struct HttpSource {
    address: Address,
    access: Access,
    /// Shared by those that ask the same server in the same way.
    idle: Arc<Idle>,
}

/// A stream on which nothing came for this long, not even a keep-alive comment, is dead.
const SILENCE: Duration = Duration::from_secs(120);

impl HttpSource {
    /// A source that asks the server at `address`; nothing is sent yet.
    pub fn new(address: Address) -> Self {
        HttpSource { address, access: Access::default(), idle: Arc::default() }
    }

    /// What to show to the server, and what to know it by.
    pub fn with_access(mut self, access: Access) -> Self {
        // Connections were made with what was there before.
        (self.access, self.idle) = (access, Arc::default());
        self
    }

    /// The server's place.
    pub fn address(&self) -> &Address {
        &self.address
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, QueryError> {
        let answer = transport::get(&self.address, &self.access, &self.idle, path).await?;
        self.decode(&answer)
    }

    fn decode<T: DeserializeOwned>(&self, answer: &transport::Answer) -> Result<T, QueryError> {
        if !answer.status.is_success() {
            return Err(problem::error(&self.address, answer));
        }
        serde_json::from_slice(&answer.body).map_err(|e| {
            transport::server(&self.address, &format!("something that netspy cannot read: {e}"))
        })
    }
}

#[async_trait]
impl Source for HttpSource {
    async fn list(&self, filter: &Filter, page: &Page) -> Result<List, QueryError> {
        self.ask(&params::with_query("/api/v1/connections", filter, Some(page))).await
    }

    async fn get(&self, id: ConnectionId) -> Result<Option<Connection>, QueryError> {
        let path = format!("/api/v1/connections/{id}");
        let answer = transport::get(&self.address, &self.access, &self.idle, &path).await?;
        // A 404 that is no problem document comes from something that does not know the path.
        if answer.status == StatusCode::NOT_FOUND && problem::is_problem(&answer) {
            return Ok(None);
        }
        self.decode(&answer).map(Some)
    }

    async fn count(&self, filter: &Filter) -> Result<Count, QueryError> {
        // A list says how many match; of its records one is the fewest that it can hold.
        let page = Page { limit: Some(1), ..Page::default() };
        let list = self.list(filter, &page).await?;
        Ok(Count {
            total: list.total,
            window: list.window,
            accounting: list.accounting,
            newest_outside_window: list.newest_outside_window,
        })
    }

    async fn top(
        &self,
        filter: &Filter,
        by: TopBy,
        limit: Option<usize>,
    ) -> Result<Top, QueryError> {
        let pairs = top::to_pairs(filter, by, limit);
        self.ask(&params::with_pairs("/api/v1/top", pairs.into_iter())).await
    }

    async fn series(&self, filter: &Filter, step: Step) -> Result<Series, QueryError> {
        let pairs = series::to_pairs(filter, step);
        self.ask(&params::with_pairs("/api/v1/series", pairs.into_iter())).await
    }

    async fn diff(
        &self,
        filter: &Filter,
        compare: Compare,
        limit: Option<usize>,
    ) -> Result<Diff, QueryError> {
        let pairs = diff::to_pairs(filter, compare, limit);
        self.ask(&params::with_pairs("/api/v1/diff", pairs.into_iter())).await
    }

    async fn summary(&self, filter: &Filter) -> Result<Summary, QueryError> {
        self.ask(&params::with_query("/api/v1/summary", filter, None)).await
    }

    async fn drops(&self, filter: &DropFilter, page: &Page) -> Result<DropList, QueryError> {
        let pairs = filter.to_pairs().into_iter().chain(page.to_pairs());
        self.ask(&params::with_pairs("/api/v1/drops", pairs)).await
    }

    async fn dns(&self, filter: &DnsFilter, page: &Page) -> Result<DnsList, QueryError> {
        let pairs = filter.to_pairs().into_iter().chain(page.to_pairs());
        self.ask(&params::with_pairs("/api/v1/dns", pairs)).await
    }

    async fn findings(
        &self,
        filter: &Filter,
        limit: Option<usize>,
    ) -> Result<Findings, QueryError> {
        let pairs = findings::to_pairs(filter, limit);
        self.ask(&params::with_pairs("/api/v1/findings", pairs.into_iter())).await
    }

    async fn status(&self) -> Result<Status, QueryError> {
        self.ask("/api/v1/status").await
    }

    async fn follow(
        &self,
        filter: &Filter,
        after: Option<u64>,
    ) -> Result<BoxStream<'static, Result<Follow, QueryError>>, QueryError> {
        let path = params::with_query("/api/v1/stream", filter, None);
        let resume = after.map(|seq| ("last-event-id", seq.to_string()));
        let headers = resume.as_slice();
        let response = transport::open_in_time(&self.address, &self.access, &path, headers).await?;
        let content_type = response.headers().get(CONTENT_TYPE);
        let events = content_type.is_some_and(|v| v.as_bytes().starts_with(b"text/event-stream"));
        if !response.status().is_success() || !events {
            let answer = transport::read(&self.address, response).await?;
            return Err(problem::error(&self.address, &answer));
        }
        let follower = Follower {
            address: self.address.clone(),
            body: response.into_body(),
            parser: sse::Parser::default(),
            ready: VecDeque::new(),
            ended: false,
        };
        Ok(stream::unfold(follower, |mut f| async { f.next().await.map(|item| (item, f)) }).boxed())
    }

    fn describe(&self) -> String {
        format!("server {}", self.address)
    }
}

struct Follower {
    address: Address,
    body: Incoming,
    parser: sse::Parser,
    ready: VecDeque<sse::Event>,
    ended: bool,
}

#[derive(Deserialize)]
struct Skipped {
    changes: Option<u64>,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Follow, QueryError>> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if let Some(item) = self.decode(event).transpose() {
                    self.ended |= item.is_err();
                    return Some(item);
                }
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.read().await? {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    /// Reads one piece; `None` at the end of the stream.
    async fn read(&mut self) -> Option<Result<(), QueryError>> {
        let frame = match timeout(SILENCE, self.body.frame()).await {
            Ok(frame) => frame?,
            Err(_) => {
                let why = format!("nothing came for {} s", SILENCE.as_secs());
                return Some(Err(transport::unreachable(&self.address, why)));
            }
        };
        let piece = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) => {
                // Its words are about the body of an answer, which is nothing to a reader.
                tracing::debug!(%error, "the stream broke off");
                let why = "the connection broke off".to_owned();
                return Some(Err(transport::unreachable(&self.address, why)));
            }
        };
        let mut events = Vec::new();
        let parsed = self.parser.push(&piece, &mut events);
        self.ready.extend(events);
        Some(parsed.map_err(|e| transport::server(&self.address, &e.to_string())))
    }

    fn decode(&self, event: sse::Event) -> Result<Option<Follow>, QueryError> {
        let unreadable = |e: &dyn std::fmt::Display| {
            transport::server(&self.address, &format!("an event that netspy cannot read: {e}"))
        };
        match event.name.as_deref() {
            Some("connection") => {
                let seq = event.id.as_deref().unwrap_or_default();
                let seq = seq.parse().map_err(|e| unreadable(&e))?;
                let connection = serde_json::from_str(&event.data).map_err(|e| unreadable(&e))?;
                Ok(Some(Follow::Change(Box::new(Change { seq, connection }))))
            }
            Some("skipped") => {
                let skipped: Skipped =
                    serde_json::from_str(&event.data).map_err(|e| unreadable(&e))?;
                Ok(Some(Follow::Skipped { changes: skipped.changes }))
            }
            // Kinds of a later version.
            _ => Ok(None),
        }
    }
}
