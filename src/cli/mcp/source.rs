//! A source that is looked for when it is asked: an assistant's program lives for days, servers
//! come and go meanwhile.

use std::path::PathBuf;
use std::sync::{Mutex as StdMutex, PoisonError};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::sync::Mutex;

use crate::cli::failure::Failure;
use crate::cli::locate::{Capture, Named, Origin, locate, read_address};
use crate::event::{Connection, ConnectionId};
use crate::query::diff::{Compare, Diff};
use crate::query::dns::{DnsFilter, DnsList};
use crate::query::drops::{DropFilter, DropList};
use crate::query::findings::Findings;
use crate::query::series::{Series, Step};
use crate::query::top::{Top, TopBy};
use crate::query::{Count, Filter, Follow, List, Page, QueryError, Source, Status, Summary};

/// Whatever can answer at the moment.
#[derive(Debug)]
pub struct Lazy {
    server: Option<String>,
    token_file: Option<PathBuf>,
    ca_cert: Option<PathBuf>,
    found: Mutex<Option<Origin>>,
    /// What was found last, for messages.
    described: StdMutex<Option<String>>,
}

impl Lazy {
    /// Where `named` says, or where a server usually is, or capture in this process. An address
    /// that is none is refused at once.
    pub fn new(named: Named<'_>) -> Result<Self, Failure> {
        if let Some(text) = named.server.filter(|text| !text.is_empty()) {
            read_address(text)?;
        }
        Ok(Lazy {
            server: named.server.map(str::to_owned),
            token_file: named.token_file.map(Into::into),
            ca_cert: named.ca_cert.map(Into::into),
            found: Mutex::default(),
            described: StdMutex::default(),
        })
    }

    /// Finds what can answer, if that is not known yet.
    pub async fn look(&self) {
        if let Err(error) = self.origin().await {
            tracing::debug!("nobody answers yet: {error}");
        }
    }

    async fn origin(&self) -> Result<Origin, QueryError> {
        let mut found = self.found.lock().await;
        if let Some(origin) = &*found {
            return Ok(origin.clone());
        }
        let named = Named {
            server: self.server.as_deref(),
            token_file: self.token_file.as_deref(),
            ca_cert: self.ca_cert.as_deref(),
        };
        let origin = locate(named, Capture::Allowed { no_unix: false }).await;
        let origin = origin.map_err(|failure| QueryError::Unreachable {
            server: self.server.clone().unwrap_or_else(|| "any server".to_owned()),
            why: failure.to_string(),
        })?;
        let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
        *described = Some(origin.source.describe());
        *found = Some(origin.clone());
        Ok(origin)
    }

    /// Looks again next time where this one was not there any more.
    async fn noted<T>(&self, answer: Result<T, QueryError>) -> Result<T, QueryError> {
        if let Err(QueryError::Unreachable { .. }) = &answer {
            *self.found.lock().await = None;
        }
        answer
    }
}

#[async_trait]
impl Source for Lazy {
    async fn list(&self, filter: &Filter, page: &Page) -> Result<List, QueryError> {
        let source = self.origin().await?.source;
        self.noted(source.list(filter, page).await).await
    }

    async fn get(&self, id: ConnectionId) -> Result<Option<Connection>, QueryError> {
        let source = self.origin().await?.source;
        self.noted(source.get(id).await).await
    }

    async fn count(&self, filter: &Filter) -> Result<Count, QueryError> {
        let source = self.origin().await?.source;
        self.noted(source.count(filter).await).await
    }

    async fn summary(&self, filter: &Filter) -> Result<Summary, QueryError> {
        let source = self.origin().await?.source;
        self.noted(source.summary(filter).await).await
    }

    async fn top(
        &self,
        filter: &Filter,
        by: TopBy,
        limit: Option<usize>,
    ) -> Result<Top, QueryError> {
        let source = self.origin().await?.source;
        self.noted(source.top(filter, by, limit).await).await
    }

    async fn series(&self, filter: &Filter, step: Step) -> Result<Series, QueryError> {
        let source = self.origin().await?.source;
        self.noted(source.series(filter, step).await).await
    }

    async fn diff(
        &self,
        filter: &Filter,
        compare: Compare,
        limit: Option<usize>,
    ) -> Result<Diff, QueryError> {
        let source = self.origin().await?.source;
        self.noted(source.diff(filter, compare, limit).await).await
    }

    async fn drops(&self, filter: &DropFilter, page: &Page) -> Result<DropList, QueryError> {
        let source = self.origin().await?.source;
        self.noted(source.drops(filter, page).await).await
    }

    async fn dns(&self, filter: &DnsFilter, page: &Page) -> Result<DnsList, QueryError> {
        let source = self.origin().await?.source;
        self.noted(source.dns(filter, page).await).await
    }

    async fn findings(
        &self,
        filter: &Filter,
        limit: Option<usize>,
    ) -> Result<Findings, QueryError> {
        let source = self.origin().await?.source;
        self.noted(source.findings(filter, limit).await).await
    }

    async fn status(&self) -> Result<Status, QueryError> {
        let source = self.origin().await?.source;
        self.noted(source.status().await).await
    }

    async fn follow(
        &self,
        filter: &Filter,
        after: Option<u64>,
    ) -> Result<BoxStream<'static, Result<Follow, QueryError>>, QueryError> {
        let source = self.origin().await?.source;
        self.noted(source.follow(filter, after).await).await
    }

    fn describe(&self) -> String {
        let described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
        let named = || match &self.server {
            Some(server) => format!("server {server}"),
            None => "whatever can answer here".to_owned(),
        };
        described.clone().unwrap_or_else(named)
    }
}
