//! Subscriptions to resources: a word to the client when one has changed, at most one a second.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rmcp::model::ResourceUpdatedNotificationParam;
use rmcp::service::{Peer, SubscriptionContext};
use rmcp::{ErrorData, RoleServer};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::resources::{self, What};
use crate::query::Source;
use crate::tools::AllTools;

/// The most resources that one client can be subscribed to.
pub(super) const MOST: usize = 32;
/// The shortest time between two words about one resource.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at the status, and before a source that broke off is tried again.
const LOOK: Duration = Duration::from_secs(5);

/// The subscriptions of one session of the older era.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    running: Mutex<HashMap<String, AbortHandle>>,
}

impl Subscriptions {
    pub(super) fn add(
        &self,
        uri: &str,
        what: What,
        tools: Arc<AllTools>,
        peer: Peer<RoleServer>,
    ) -> Result<(), ErrorData> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(uri) {
            return Ok(());
        }
        if running.len() >= MOST {
            let message = format!("there are {MOST} subscriptions, which is the most: end one");
            return Err(ErrorData::invalid_request(message, None));
        }
        let name = uri.to_owned();
        let task = tokio::spawn(async move {
            changes(tools.source(), &what, async || {
                let param = ResourceUpdatedNotificationParam::new(name.clone());
                peer.notify_resource_updated(param).await.is_ok()
            })
            .await;
        });
        running.insert(uri.to_owned(), task.abort_handle());
        Ok(())
    }

    pub(super) fn remove(&self, uri: &str) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = running.remove(uri) {
            task.abort();
        }
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        running.values().for_each(AbortHandle::abort);
    }
}

/// Serves a subscription of the newer era until it is cancelled.
pub(super) async fn listen(tools: &AllTools, context: &SubscriptionContext) {
    let uris = context.accepted().resource_subscriptions.clone().unwrap_or_default();
    let sink = context.sink();
    let mut all: FuturesUnordered<_> = uris
        .iter()
        .filter_map(|uri| Some((uri, resources::parse(uri).ok()?)))
        .map(|(uri, what)| async move {
            changes(tools.source(), &what, async || {
                sink.notify_resource_updated(uri.clone()).await.is_ok()
            })
            .await;
        })
        .collect();
    tokio::select! {
        () = context.cancelled() => {}
        () = async { while all.next().await.is_some() {} }, if !all.is_empty() => {}
    }
}

/// Calls `tell` after each change, until it says that nobody listens.
async fn changes<F: Future<Output = bool>>(source: &dyn Source, what: &What, tell: impl Fn() -> F) {
    match what.filter() {
        Ok(Some(filter)) => loop {
            let Ok(mut stream) = source.follow(&filter, None).await else {
                sleep(LOOK).await;
                continue;
            };
            while let Some(Ok(_)) = stream.next().await {
                if !tell().await {
                    return;
                }
                // What changes meanwhile is told once.
                sleep(PAUSE).await;
                while let Some(Some(Ok(_))) = futures_util::FutureExt::now_or_never(stream.next()) {
                }
            }
            sleep(LOOK).await;
        },
        Ok(None) => {
            let mut before = standing(source).await;
            loop {
                sleep(LOOK).await;
                let now = standing(source).await;
                if now != before && !tell().await {
                    return;
                }
                before = now;
            }
        }
        Err(_) => {}
    }
}

/// What of the status is worth a word when it changes.
async fn standing(source: &dyn Source) -> Option<(String, bool)> {
    let status = source.status().await.ok()?;
    Some((status.health, status.accounting.complete))
}
