//! What the live view leaves out, told where there is nothing else to see: whoever waits for lines of a
//! program that has UNIX sockets alone would wait for ever.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::super::locate::Origin;
use super::super::render::left_out;
use super::LAST_QUESTION;
use crate::query::{Filter, LeftOut, Source};

/// How long nothing is shown before it is asked why, and between one question and the next.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is left out since the view began.
pub async fn since(source: &dyn Source, filter: &Filter, since: Timestamp) -> LeftOut {
    let filter = Filter { since: Some(since), ..filter.clone() };
    // Nothing is shown instead of an answer: that there is none is no failure.
    LeftOut::within(source, &filter).await.unwrap_or_default()
}

/// Looks for it from time to time, until there is some or something is shown.
pub struct Hidden {
    source: Arc<dyn Source>,
    since: Timestamp,
    is_unix_unwatched: bool,
    due: Option<Instant>,
    asked: Option<BoxFuture<'static, LeftOut>>,
}

impl Hidden {
    /// What is asked by whom, from `since` on.
    pub fn new(origin: &Origin, since: Timestamp) -> Self {
        Hidden {
            source: Arc::clone(&origin.source),
            since,
            is_unix_unwatched: origin.own.as_ref().is_some_and(|own| !own.watches_unix()),
            due: Some(Instant::now() + PATIENCE),
            asked: None,
        }
    }

    /// Asks anew: from here on another filter holds.
    pub fn restart(&mut self) {
        (self.due, self.asked) = (Some(Instant::now() + PATIENCE), None);
    }

    /// What there is to tell when the view ends, and still nothing was shown.
    pub async fn at_the_end(&mut self, filter: &Filter) -> Vec<String> {
        let asked = since(&*self.source, filter, self.since);
        let left_out = tokio::time::timeout(LAST_QUESTION, asked).await.unwrap_or_default();
        left_out::lines(&left_out, self.is_unix_unwatched)
    }

    /// Waits for what there is to tell. May be dropped: the next one goes on waiting for the same answer.
    pub async fn told(&mut self, filter: &Filter) -> Vec<String> {
        loop {
            let Some(asked) = &mut self.asked else {
                match self.due {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
                let (source, filter, begin) = (self.source.clone(), filter.clone(), self.since);
                self.asked = Some(Box::pin(async move { since(&*source, &filter, begin).await }));
                continue;
            };
            let left_out = asked.await;
            (self.asked, self.due) = (None, Some(Instant::now() + PATIENCE));
            let lines = left_out::lines(&left_out, self.is_unix_unwatched);
            if !lines.is_empty() {
                // Once is enough.
                self.due = None;
                return lines;
            }
        }
    }
}
