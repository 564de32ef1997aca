//! A word to whoever waits at a terminal for an answer that takes its time.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::quiet::{self, Stderr};
use super::render::text::clean;
use crate::event::{Connection, ConnectionId};
use crate::query::diff::{Compare, Diff};
use crate::query::dns::{DnsFilter, DnsList};
use crate::query::drops::{DropFilter, DropList};
use crate::query::findings::Findings;
use crate::query::series::{Series, Step};
use crate::query::top::{Top, TopBy};
use crate::query::{Count, Filter, Follow, List, Page, QueryError, Source, Status, Summary};

/// How long nobody wonders, and how often the word is brought up to date.
const SECOND: Duration = Duration::from_secs(1);

/// Asks another source, and says so for as long as there is no answer.
pub struct Patient(Arc<dyn Source>);

impl Patient {
    /// `source`, with words where somebody is there to read them.
    pub fn over(source: Arc<dyn Source>) -> Arc<dyn Source> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        match io::stderr().is_terminal() && !dumb {
            true => Arc::new(Patient(source)),
            false => source,
        }
    }

    async fn wait<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut word = Word(false);
        tokio::pin!(answer);
        for seconds in 1_u64.. {
            match tokio::time::timeout(SECOND, &mut answer).await {
                Ok(answer) => return answer,
                Err(_) => word.say(&format!(
                    "netspy: waiting for {} for {seconds} s; Ctrl-C ends it",
                    clean(&self.0.describe())
                )),
            }
        }
        answer.await
    }
}

/// The line that is there while somebody waits. It goes with the wait, however that ends.
struct Word(bool);

impl Word {
    fn say(&mut self, text: &str) {
        if !quiet::is_held() {
            self.0 = true;
            // Nothing is done about a standard error that is closed.
            let _ = write!(Stderr, "\r{text}\x1b[K");
        }
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        if self.0 {
            let _ = Stderr.write_all(b"\r\x1b[K");
        }
    }
}

#[async_trait]
impl Source for Patient {
    async fn list(&self, filter: &Filter, page: &Page) -> Result<List, QueryError> {
        self.wait(self.0.list(filter, page)).await
    }
    async fn get(&self, id: ConnectionId) -> Result<Option<Connection>, QueryError> {
        self.wait(self.0.get(id)).await
    }
    async fn count(&self, filter: &Filter) -> Result<Count, QueryError> {
        self.wait(self.0.count(filter)).await
    }
    async fn summary(&self, filter: &Filter) -> Result<Summary, QueryError> {
        self.wait(self.0.summary(filter)).await
    }
    async fn top(
        &self,
        filter: &Filter,
        by: TopBy,
        limit: Option<usize>,
    ) -> Result<Top, QueryError> {
        self.wait(self.0.top(filter, by, limit)).await
    }
    async fn series(&self, filter: &Filter, step: Step) -> Result<Series, QueryError> {
        self.wait(self.0.series(filter, step)).await
    }
    async fn diff(
        &self,
        filter: &Filter,
        compare: Compare,
        limit: Option<usize>,
    ) -> Result<Diff, QueryError> {
        self.wait(self.0.diff(filter, compare, limit)).await
    }
    async fn drops(&self, filter: &DropFilter, page: &Page) -> Result<DropList, QueryError> {
        self.wait(self.0.drops(filter, page)).await
    }
    async fn dns(&self, filter: &DnsFilter, page: &Page) -> Result<DnsList, QueryError> {
        self.wait(self.0.dns(filter, page)).await
    }
    async fn findings(
        &self,
        filter: &Filter,
        limit: Option<usize>,
    ) -> Result<Findings, QueryError> {
        self.wait(self.0.findings(filter, limit)).await
    }
    async fn status(&self) -> Result<Status, QueryError> {
        self.wait(self.0.status()).await
    }
    async fn follow(
        &self,
        filter: &Filter,
        after: Option<u64>,
    ) -> Result<BoxStream<'static, Result<Follow, QueryError>>, QueryError> {
        self.wait(self.0.follow(filter, after)).await
    }
    fn describe(&self) -> String {
        self.0.describe()
    }
}
