//! What the full-screen view asks its source, and what it was answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{OptionFuture, try_join_all};
use jiff::{SignedDuration, Timestamp};

use super::tabs::{RowId, Tab};
use crate::event::{Connection, ConnectionId};
use crate::query::series::{Series, Step};
use crate::query::top::{Key, Top, TopBy};
use crate::query::{Filter, LeftOut, List, Page, QueryError, Source, Summary};

/// The time over which the present rate is taken.
pub const NOW: Duration = Duration::from_secs(10);

/// Rows that one list holds at most; a reader does not scroll through more.
const MOST_ROWS: usize = 500;

/// What is listed beside a selected group, of each kind.
const BESIDE: usize = 20;

/// Everything that is on the screen comes from one of these.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Which connections, at any time.
    pub filter: Filter,
    /// How far back.
    pub window: Duration,
    /// Up to when; `None` for now.
    pub until: Option<Timestamp>,
    /// What is listed.
    pub tab: Tab,
    /// Minutes of which each is a bar.
    pub minutes: u32,
    /// The group that is told of beside the list.
    pub about: Option<Key>,
    /// The connection that is shown in full.
    pub detail: Option<ConnectionId>,
}

/// The rows of a list.
#[derive(Debug)]
pub enum Rows {
    /// Groups of connections.
    Groups(Top),
    /// Connections.
    Connections(List),
}

/// The answers to one [`Question`].
#[derive(Debug)]
pub struct Answers {
    /// What was asked.
    pub question: Question,
    /// The end of the time that they are about.
    pub until: Timestamp,
    /// How long they took.
    pub took: Duration,
    /// Totals.
    pub summary: Summary,
    /// Attempts by minute.
    pub series: Series,
    /// What the tab lists.
    pub rows: Rows,
    /// How many connections of the last [`NOW`] each group has.
    pub now: HashMap<Key, u64>,
    /// How many there are in all of the last [`NOW`].
    pub now_total: u64,
    /// What of containers there is, if that was asked.
    pub inside: Option<Inside>,
    /// What is left out unless asked for, if there is nothing else and that was asked.
    pub left_out: Option<LeftOut>,
    /// What was asked about one group.
    pub about: Option<About>,
    /// What was asked about one connection, if it is still known.
    pub detail: Option<Connection>,
}

/// What is not asked with every question.
#[derive(Debug, Clone, Copy)]
pub struct More {
    /// Whether there are containers.
    pub inside: bool,
    /// What is left out, where nothing else is there.
    pub left_out: bool,
}

/// Whether anything runs in containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inside {
    /// In containers of any kind.
    pub containers: bool,
    /// In pods.
    pub pods: bool,
}

impl Inside {
    /// Both together.
    pub fn or(self, other: Inside) -> Inside {
        Inside { containers: self.containers || other.containers, pods: self.pods || other.pods }
    }

    async fn ask(source: &dyn Source, filter: &Filter) -> Result<Inside, QueryError> {
        let any = async |by| {
            let top = source.top(filter, by, Some(1)).await?;
            Ok::<_, QueryError>(top.total > top.without)
        };
        let containers = any(TopBy::Container).await?;
        Ok(Inside { containers, pods: containers && any(TopBy::Pod).await? })
    }
}

/// More about one group.
#[derive(Debug)]
pub struct About {
    /// Which.
    pub id: RowId,
    /// Attempts by minute.
    pub series: Series,
    /// What it is made of.
    pub parts: Vec<Top>,
    /// Its latest connections.
    pub latest: List,
}

impl Question {
    /// Asks.
    pub async fn ask(self, source: Arc<dyn Source>, more: More) -> Result<Answers, QueryError> {
        let begin = Instant::now();
        let source = &*source;
        let until = self.until.unwrap_or_else(Timestamp::now);
        // Without an end the answer has what came while it was asked for.
        let back = |filter: &Filter, length: Duration| Filter {
            since: before(until, length),
            until: self.until,
            ..filter.clone()
        };
        let filter = back(&self.filter, self.window);
        let by_minute = back(&self.filter, Duration::from_secs(60 * u64::from(self.minutes)));
        let recent = back(&self.filter, NOW);
        let minute = Step::of_millis(60_000);
        let by = self.tab.by().unwrap_or(TopBy::Protocol);
        let rows = async {
            match self.tab {
                Tab::Groups(by) => source.top(&filter, by, Some(MOST_ROWS)).await.map(Rows::Groups),
                Tab::Connections => {
                    source.list(&filter, &page(MOST_ROWS)).await.map(Rows::Connections)
                }
            }
        };
        let main = async {
            tokio::try_join!(
                source.summary(&filter),
                source.series(&by_minute, minute),
                rows,
                source.top(&recent, by, Some(MOST_ROWS)),
            )
        };
        let about = OptionFuture::from(self.about.as_ref().map(|key| {
            let narrow = |filter: &Filter| narrowed(filter, by, key);
            about(source, narrow(&filter), narrow(&by_minute), self.tab, key)
        }));
        let detail = OptionFuture::from(self.detail.map(|id| source.get(id)));
        let inside = OptionFuture::from(more.inside.then(|| Inside::ask(source, &filter)));
        let (main, about, detail, inside) = tokio::join!(main, about, detail, inside);
        let (summary, series, rows, now) = main?;
        let left_out = match more.left_out && summary.total == 0 {
            true => Some(LeftOut::of(source, &filter).await?),
            false => None,
        };
        let window = match &rows {
            Rows::Groups(top) => top.window,
            Rows::Connections(list) => list.window,
        };
        Ok(Answers {
            question: self,
            // The source's own time: a pause then has everything that was shown.
            until: window.until.max(summary.window.until),
            summary,
            series,
            rows,
            now_total: now.total,
            now: now.groups.into_iter().map(|group| (group.key, group.count)).collect(),
            about: about.transpose()?.flatten(),
            detail: detail.transpose()?.flatten(),
            inside: inside.transpose()?,
            left_out,
            took: begin.elapsed(),
        })
    }
}

async fn about(
    source: &dyn Source,
    filter: Option<Filter>,
    by_minute: Option<Filter>,
    tab: Tab,
    key: &Key,
) -> Result<Option<About>, QueryError> {
    let (Some(filter), Some(by_minute)) = (filter, by_minute) else { return Ok(None) };
    let parts = tab.others().map(|by| source.top(&filter, by, Some(BESIDE)));
    let page = page(BESIDE);
    let (series, parts, latest) = tokio::try_join!(
        source.series(&by_minute, Step::of_millis(60_000)),
        try_join_all(parts),
        source.list(&filter, &page),
    )?;
    Ok(Some(About { id: RowId::Group(key.clone()), series, parts, latest }))
}

fn page(limit: usize) -> Page {
    Page { limit: Some(limit), ..Page::default() }
}

fn before(time: Timestamp, length: Duration) -> Option<Timestamp> {
    let length = SignedDuration::try_from(length).ok()?;
    time.checked_sub(length).ok()
}

/// The filter for one group; `None` where the filter has no word for it.
fn narrowed(filter: &Filter, by: TopBy, key: &Key) -> Option<Filter> {
    let mut filter = filter.clone();
    let number = |key: &Key| match key {
        Key::Number(number) => Some(*number),
        Key::Text(text) => text.parse().ok(),
    };
    let text = match key {
        Key::Number(number) => number.to_string(),
        Key::Text(text) => text.clone(),
    };
    match by {
        TopBy::Process => filter.process = vec![text],
        TopBy::Remote => filter.remote = vec![text.parse().ok()?],
        TopBy::Port => filter.port = vec![number(key)?.try_into().ok()?],
        TopBy::Unit => filter.unit = vec![text],
        TopBy::Container => filter.container = vec![text],
        TopBy::Pod => filter.pod = vec![text],
        TopBy::Outcome => filter.outcome = vec![text.parse().ok()?],
        _ => return None,
    }
    Some(filter)
}
