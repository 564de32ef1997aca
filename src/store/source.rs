//! Answers from the store of this process.

mod books;
mod findings;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;

use super::ledger::Ledger;
use super::{DropSelection, Follower, Selected, SelectedDrops, Selection, Store};
use crate::accounting::{Counters, Gap};
use crate::event::{Connection, ConnectionId, State};
use crate::query::diff::{Compare, Compared, Diff};
use crate::query::dns::{DnsFilter, DnsList};
use crate::query::drops::{DropFilter, DropList};
use crate::query::findings::Findings;
use crate::query::series::{Series, Step};
use crate::query::top::{Top, TopBy};
use crate::query::{
    CaptureHandle, Count, Filter, Follow, List, Page, QueryError, Source, Status, Summary, Window,
};

/// Answers from a [`Store`] and the capture that feeds it. Clones answer from the same.
#[derive(Clone)]
pub struct LocalSource {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<Store>,
    capture: Arc<dyn CaptureHandle>,
    ledger: Mutex<Ledger>,
    /// What the figures were a second ago.
    read: Mutex<Option<(Timestamp, Counters, super::Progress)>>,
    started: Instant,
    /// Nothing is captured: the records come from a file, and are of another time.
    replayed: bool,
}

impl std::fmt::Debug for LocalSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalSource").field("store", &self.inner.store).finish_non_exhaustive()
    }
}

impl LocalSource {
    /// Answers from this store, which this capture feeds.
    pub fn new(store: Arc<Store>, capture: Arc<dyn CaptureHandle>) -> Self {
        let ledger = Mutex::new(Ledger::after(store.past(), capture.since()));
        let replayed = capture.report().backend.is_none();
        let read = Mutex::default();
        let inner = Inner { store, capture, ledger, read, started: Instant::now(), replayed };
        LocalSource { inner: Arc::new(inner) }
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    /// The capture.
    pub fn capture(&self) -> &Arc<dyn CaptureHandle> {
        &self.inner.capture
    }

    /// How long answers have been given.
    pub fn uptime(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// Samples the figures of the capture every second, which makes the books of windows exact to
    /// a second, and has them written where records outlive the process. Runs until it is dropped.
    pub async fn keep_books(&self) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let counters = self.inner.sample();
            if self.inner.store.keeps_books() && !self.inner.replayed {
                // It fails only if it panics, and then there is the next second.
                let _ = self.look(move |inner| inner.write(counters)).await;
            }
        }
    }

    /// Has the last of the books written: capture has ended, and everything that it delivered is
    /// stored. It was whole until this time, before it was told to stop.
    pub fn close_books(&self, stopping: Timestamp) {
        if self.inner.store.keeps_books() && !self.inner.replayed {
            self.inner.close(stopping);
        }
    }

    /// Follows what is selected; see [`Source::follow`].
    pub fn follower(&self, selection: Selection, after: Option<u64>) -> Follower {
        Follower::new(Arc::clone(&self.inner.store), selection, after)
    }

    /// One page of the records that are selected, without window and books.
    pub async fn select(&self, selection: Selection, page: Page) -> Result<Selected, QueryError> {
        self.look(move |inner| inner.store.list(&selection, &page)).await?
    }

    /// How many records are selected.
    pub async fn count(&self, selection: Selection) -> Result<u64, QueryError> {
        self.look(move |inner| inner.store.count(&selection)).await
    }

    /// One page of the drops that are selected, without window and books.
    pub async fn select_drops(
        &self,
        selection: DropSelection,
        page: Page,
    ) -> Result<SelectedDrops, QueryError> {
        self.look(move |inner| inner.store.drops(&selection, &page)).await?
    }

    /// Runs what may look through many rows where it holds up nobody else.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T, QueryError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || look(&inner)).await.map_err(|error| {
            QueryError::Server { server: "the local store".to_owned(), why: error.to_string() }
        })
    }
}

impl Inner {
    fn window(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> Window {
        // What is to come was not watched.
        let now = Timestamp::now();
        let until = until.unwrap_or(now).min(now);
        Window { since: since.unwrap_or_else(|| self.begun()).min(until), until }
    }

    /// The start of what there is to ask about.
    fn begun(&self) -> Timestamp {
        let start = self.capture.since();
        let oldest = || self.store.oldest().unwrap_or(start);
        match self.replayed {
            true => oldest(),
            // Of a server that ran before this one. What is older than all captures existed before
            // them, and nobody watched then; unless that cannot be known.
            false if self.store.holds_earlier() => {
                let past = self.store.past();
                let kept = match past.begin().filter(|_| past.was_set_back(start)) {
                    Some(begin) => begin,
                    None => oldest().max(past.whole_since().unwrap_or(Timestamp::MIN)),
                };
                // What somebody took away was to be kept.
                let lost = past.damage.iter().map(|gap| gap.since).min();
                kept.min(lost.unwrap_or(kept)).min(start)
            }
            false => start,
        }
    }

    /// Where nothing matches: the newest record that does but for the window.
    fn newest_outside(&self, selection: &Selection) -> Option<Timestamp> {
        let f = &selection.filter;
        if f.since.is_none() && f.until.is_none() {
            return None;
        }
        let mut anytime = selection.clone();
        (anytime.filter.since, anytime.filter.until) = (None, None);
        self.store.newest(&anytime)
    }

    fn list(&self, filter: Filter, page: &Page) -> Result<List, QueryError> {
        let (since, until) = (filter.since, filter.until);
        let selection = Selection::from(filter);
        let mut selected = self.store.list(&selection, page)?;
        self.add_traffic(&mut selected.connections);
        let newest_outside_window = self.newest_if_none(selected.total, &selection);
        Ok(List {
            connections: selected.connections,
            total: selected.total,
            next_cursor: selected.next_cursor,
            window: self.window(since, until),
            accounting: self.books(since, until),
            newest_outside_window,
        })
    }

    /// Says of what is open what it has carried so far.
    fn add_traffic(&self, connections: &mut [Connection]) {
        let mut open = connections.iter_mut().filter(|c| c.state == State::Open).peekable();
        if self.replayed || open.peek().is_none() {
            return;
        }
        let traffic = self.capture.traffic();
        open.for_each(|c| c.traffic = traffic.get(&c.id).copied());
    }

    /// Where nothing matches: the newest record that does but for the window.
    fn newest_if_none(&self, total: u64, selection: &Selection) -> Option<Timestamp> {
        if total == 0 { self.newest_outside(selection) } else { None }
    }

    fn count(&self, filter: Filter) -> Count {
        let (since, until) = (filter.since, filter.until);
        let selection = Selection::from(filter);
        let total = self.store.count(&selection);
        Count {
            total,
            window: self.window(since, until),
            accounting: self.books(since, until),
            newest_outside_window: self.newest_if_none(total, &selection),
        }
    }

    fn top(&self, filter: Filter, by: TopBy, limit: usize) -> Top {
        let (since, until) = (filter.since, filter.until);
        let selection = Selection::from(filter);
        let found = self.store.top(&selection, by, limit);
        Top {
            by,
            groups: found.groups,
            total: found.total,
            distinct: found.distinct,
            others: found.others,
            without: found.without,
            exact: found.exact,
            window: self.window(since, until),
            accounting: self.books(since, until),
            newest_outside_window: self.newest_if_none(found.total, &selection),
        }
    }

    fn series(&self, filter: Filter, step: Step) -> Result<Series, QueryError> {
        let (since, until) = (filter.since, filter.until);
        let window = self.window(since, until);
        let step_ms = step.millis_in(window)?;
        let selection = Selection { attempts_only: true, ..Selection::from(filter) };
        let points = self.store.series(&selection, window, step_ms);
        let total = points.iter().map(|point| point.count).sum();
        Ok(Series {
            step_ms,
            points,
            total,
            window,
            accounting: self.books(since, until),
            newest_outside_window: self.newest_if_none(total, &selection),
        })
    }

    fn diff(&self, filter: Filter, compare: Compare, limit: usize) -> Result<Diff, QueryError> {
        let (before, after) = compare.windows(&filter, Timestamp::now())?;
        let books = |window: Window| self.books(Some(window.since), Some(window.until));
        let found = self.store.diff(&Selection::from(filter), [before, after], limit);
        let [total_before, total] = found.totals;
        Ok(Diff {
            processes: found.processes,
            remotes: found.remotes,
            flows: found.flows,
            total,
            window: after,
            accounting: books(after),
            compared_with: Compared {
                window: before,
                accounting: books(before),
                total: total_before,
                cut: compare.is_cut(after),
            },
        })
    }

    fn summary(&self, filter: Filter) -> Summary {
        let (since, until) = (filter.since, filter.until);
        let selection = Selection::from(filter);
        let totals = self.store.totals(&selection);
        let window = self.window(since, until);
        // What capture did not watch is no part of the time that a rate is over.
        let from = if self.replayed { window.since } else { window.since.max(self.begun()) };
        let accounting = self.books(since, until);
        let watched = |gap: &Gap| {
            let (since, until) = (gap.since.max(from), gap.until.min(window.until));
            until.duration_since(since).as_secs_f64().max(0.0)
        };
        let unwatched: f64 = match self.replayed {
            true => 0.0,
            false => accounting.gaps.iter().map(watched).sum(),
        };
        let seconds = window.until.duration_since(from).as_secs_f64() - unwatched;
        let rate_per_second = if seconds > 0.0 { totals.attempts as f64 / seconds } else { 0.0 };
        let newest_outside_window = self.newest_if_none(totals.total, &selection);
        Summary {
            total: totals.total,
            by_outcome: totals.by_outcome,
            by_protocol: totals.by_protocol,
            by_direction: totals.by_direction,
            processes: totals.processes,
            remotes: totals.remotes,
            watched_seconds: seconds.max(0.0),
            rate_per_second,
            handshake: totals.handshake,
            window,
            accounting,
            newest_outside_window,
        }
    }

    fn drops(&self, filter: DropFilter, page: &Page) -> Result<DropList, QueryError> {
        let (since, until) = (filter.since, filter.until);
        let selection = DropSelection::from(filter);
        let selected = self.store.drops(&selection, page)?;
        let newest_outside_window = match selected.total {
            0 if since.is_some() || until.is_some() => {
                let mut anytime = selection;
                (anytime.filter.since, anytime.filter.until) = (None, None);
                self.store.newest_drop(&anytime)
            }
            _ => None,
        };
        let not_seen = self.drops_not_seen();
        // Drops are kept in memory alone: there are none of before.
        let watched = since.or_else(|| (!self.replayed).then(|| self.capture.since()));
        let mut accounting = self.drop_books(since, until);
        accounting.complete &= not_seen.is_none();
        Ok(DropList {
            drops: selected.drops,
            total: selected.total,
            packets: selected.packets,
            by_reason: selected.by_reason,
            next_cursor: selected.next_cursor,
            window: self.window(watched, until),
            accounting,
            not_seen,
            newest_outside_window,
        })
    }

    fn dns(&self, filter: &DnsFilter, page: &Page) -> Result<DnsList, QueryError> {
        let (since, until) = (filter.since, filter.until);
        let selected = self.store.dns(filter, page)?;
        let newest_outside_window = match selected.total {
            0 if since.is_some() || until.is_some() => {
                let anytime = DnsFilter { since: None, until: None, ..filter.clone() };
                self.store.newest_dns(&anytime)
            }
            _ => None,
        };
        let not_seen = self.not_seen("dns_names", "questions for names");
        // They are kept in memory alone: there are none of before.
        let watched = since.or_else(|| (!self.replayed).then(|| self.capture.since()));
        let mut accounting = self.dns_books(since, until);
        accounting.complete &= not_seen.is_none();
        Ok(DnsList {
            questions: selected.questions,
            total: selected.total,
            by_outcome: selected.by_outcome,
            answer_times: selected.answer_times,
            next_cursor: selected.next_cursor,
            window: self.window(watched, until),
            accounting,
            not_seen,
            newest_outside_window,
        })
    }

    /// Why drops are not seen, if they are not.
    fn drops_not_seen(&self) -> Option<String> {
        match self.replayed {
            true => Some("a recording holds no drops".to_owned()),
            false => self.not_seen("drops", "dropped packets"),
        }
    }

    /// Why what is beside attempts is not seen, if it is not.
    fn not_seen(&self, feature: &str, what: &str) -> Option<String> {
        if self.replayed {
            return Some(format!("a recording holds no {what}"));
        }
        match self.capture.report().features.remove(feature) {
            Some(feature) if feature.ok => None,
            Some(feature) => Some(feature.note.unwrap_or_default()),
            None => Some(format!("this capture does not see {what}")),
        }
    }

    /// Has the capture hand over what it holds, and gives the reader of the stream a moment to
    /// take it. What is pending then waits for its outcome.
    fn drain(&self) {
        self.capture.drain();
        let taken = |_: &u32| self.capture.counters().pending() == 0;
        let pauses = (0..10).take_while(|round| !taken(round));
        pauses.for_each(|_| std::thread::sleep(Duration::from_millis(2)));
    }

    fn status(&self) -> Status {
        self.drain();
        let report = self.capture.report();
        let stopped = self.capture.stopped().is_some();
        let backend = report.backend.map_or_else(|| "replay".to_owned(), |b| b.to_string());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            health: if stopped || self.store.history_trouble().is_some() {
                "degraded"
            } else {
                "healthy"
            }
            .to_owned(),
            backend,
            features: report.features,
            store: self.store.status(),
            accounting: self.books_of_capture(),
            details: self.capture.counters().into(),
            privileges: self.capture.privileges(),
            containers: self.capture.containers(),
        }
    }
}

#[async_trait]
impl Source for LocalSource {
    async fn list(&self, filter: &Filter, page: &Page) -> Result<List, QueryError> {
        let (filter, page) = (filter.clone(), page.clone());
        self.look(move |inner| inner.list(filter, &page)).await?
    }

    async fn get(&self, id: ConnectionId) -> Result<Option<Connection>, QueryError> {
        self.look(move |inner| {
            let mut found = inner.store.get(id);
            inner.add_traffic(found.as_mut_slice());
            found
        })
        .await
    }

    async fn count(&self, filter: &Filter) -> Result<Count, QueryError> {
        let filter = filter.clone();
        self.look(move |inner| inner.count(filter)).await
    }

    async fn top(
        &self,
        filter: &Filter,
        by: TopBy,
        limit: Option<usize>,
    ) -> Result<Top, QueryError> {
        let filter = filter.clone();
        let limit = limit.unwrap_or(Top::DEFAULT_LIMIT).clamp(1, Top::MAX_LIMIT);
        self.look(move |inner| inner.top(filter, by, limit)).await
    }

    async fn series(&self, filter: &Filter, step: Step) -> Result<Series, QueryError> {
        let filter = filter.clone();
        self.look(move |inner| inner.series(filter, step)).await?
    }

    async fn diff(
        &self,
        filter: &Filter,
        compare: Compare,
        limit: Option<usize>,
    ) -> Result<Diff, QueryError> {
        let filter = filter.clone();
        let limit = limit.unwrap_or(Diff::DEFAULT_LIMIT).clamp(1, Diff::MAX_LIMIT);
        self.look(move |inner| inner.diff(filter, compare, limit)).await?
    }

    async fn summary(&self, filter: &Filter) -> Result<Summary, QueryError> {
        let filter = filter.clone();
        self.look(move |inner| inner.summary(filter)).await
    }

    async fn drops(&self, filter: &DropFilter, page: &Page) -> Result<DropList, QueryError> {
        let (filter, page) = (filter.clone(), page.clone());
        self.look(move |inner| inner.drops(filter, &page)).await?
    }

    async fn dns(&self, filter: &DnsFilter, page: &Page) -> Result<DnsList, QueryError> {
        let (filter, page) = (filter.clone(), page.clone());
        self.look(move |inner| inner.dns(&filter, &page)).await?
    }

    async fn findings(
        &self,
        filter: &Filter,
        limit: Option<usize>,
    ) -> Result<Findings, QueryError> {
        let filter = filter.clone();
        let limit = limit.unwrap_or(Findings::DEFAULT_LIMIT).clamp(1, Findings::MAX_LIMIT);
        self.look(move |inner| inner.findings(filter, limit)).await
    }

    async fn status(&self) -> Result<Status, QueryError> {
        self.look(Inner::status).await
    }

    async fn follow(
        &self,
        filter: &Filter,
        after: Option<u64>,
    ) -> Result<BoxStream<'static, Result<Follow, QueryError>>, QueryError> {
        let follower = self.follower(filter.clone().into(), after);
        let batches = stream::unfold(follower, |mut follower| async move {
            let batch = follower.next().await?;
            Some((stream::iter(batch.into_iter().map(Ok)), follower))
        });
        Ok(batches.flatten().boxed())
    }

    fn describe(&self) -> String {
        match self.inner.replayed {
            true => "a recorded file".to_owned(),
            false => "capture in this process".to_owned(),
        }
    }
}
