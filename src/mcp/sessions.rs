//! Sessions of the older era over HTTP: how many there are, and which makes room for another.
//!
//! Few clients say when they leave. Where all places are taken, the session that was idle for the
//! longest goes; its client, if there still is one, is told that by 404 and begins another.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::WorkerTransport;
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError, LocalSessionWorker,
};
use rmcp::transport::streamable_http_server::session::{
    RestoreOutcome, ServerSseMessage, SessionId, SessionManager,
};
use tokio::time::Instant;

/// Sessions that are open at a time.
const MOST: usize = 256;
/// Used within so long, a session is not idle: others cannot drive out one that is at work.
const SPARED: Duration = Duration::from_secs(60);
/// A session without a word for so long has ended.
const SILENCE: Duration = Duration::from_secs(3_600);

/// A session cannot be begun or used.
#[derive(Debug, thiserror::Error)]
pub enum SessionsError {
    /// All places are taken by sessions that are in use.
    #[error("{MOST} sessions are open and in use")]
    Full,
    /// The session itself.
    #[error(transparent)]
    Session(#[from] LocalSessionManagerError),
}

/// The sessions of one service.
#[derive(Debug)]
pub struct Sessions {
    inner: Arc<LocalSessionManager>,
    places: Arc<Mutex<Places>>,
}

impl Default for Sessions {
    fn default() -> Self {
        let mut inner = LocalSessionManager::default();
        inner.session_config.keep_alive = Some(SILENCE);
        Sessions { inner: Arc::new(inner), places: Arc::default() }
    }
}

/// When each was used last, and by how many answers and streams it is now.
#[derive(Debug, Default)]
struct Places(HashMap<SessionId, Place>);

#[derive(Debug)]
struct Place {
    streams: usize,
    used: Instant,
}

impl Places {
    /// Takes a place; tells which session has to go for that. `None`: there is no room.
    fn take(&mut self, id: SessionId, most: usize) -> Option<Option<SessionId>> {
        let now = Instant::now();
        let mut gone = None;
        if self.0.len() >= most {
            let idle = self.0.iter().filter(|(_, place)| {
                place.streams == 0 && now.saturating_duration_since(place.used) >= SPARED
            });
            gone = Some(idle.min_by_key(|(_, place)| place.used)?.0.clone());
        }
        if let Some(gone) = &gone {
            self.0.remove(gone);
        }
        self.0.insert(id, Place { streams: 0, used: now });
        Some(gone)
    }

    fn used(&mut self, id: &SessionId, change: impl Fn(usize) -> usize) {
        if let Some(place) = self.0.get_mut(id) {
            (place.streams, place.used) = (change(place.streams), Instant::now());
        }
    }
}

fn with<T>(places: &Mutex<Places>, act: impl FnOnce(&mut Places) -> T) -> T {
    act(&mut places.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Sessions {
    /// Counts a use of the session until it is dropped.
    fn begin(&self, id: &SessionId) -> Use {
        with(&self.places, |places| places.used(id, |streams| streams + 1));
        Use { places: Arc::clone(&self.places), id: id.clone() }
    }
}

/// An answer or a stream that is under way.
struct Use {
    places: Arc<Mutex<Places>>,
    id: SessionId,
}

impl Drop for Use {
    fn drop(&mut self) {
        with(&self.places, |places| places.used(&self.id, |streams| streams.saturating_sub(1)));
    }
}

/// A stream that its session is in use by.
struct Counted<S> {
    inner: Pin<Box<S>>,
    _use: Use,
}

impl<S: Stream> Stream for Counted<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.inner.as_mut().poll_next(cx)
    }
}

impl SessionManager for Sessions {
    type Error = SessionsError;
    type Transport = WorkerTransport<LocalSessionWorker>;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), SessionsError> {
        let (id, transport) = self.inner.create_session().await?;
        let gone = match with(&self.places, |places| places.take(id.clone(), MOST)) {
            Some(gone) => gone,
            None => {
                self.inner.close_session(&id).await?;
                return Err(SessionsError::Full);
            }
        };
        if let Some(gone) = gone {
            let inner = Arc::clone(&self.inner);
            // Whoever begins need not wait for the end of the other.
            tokio::spawn(async move {
                if let Err(error) = inner.close_session(&gone).await {
                    tracing::debug!(%error, "a session that was idle did not end in order");
                }
            });
        }
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, SessionsError> {
        let _use = self.begin(id);
        Ok(self.inner.initialize_session(id, message).await?)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, SessionsError> {
        Ok(self.inner.has_session(id).await?)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), SessionsError> {
        with(&self.places, |places| places.0.remove(id));
        Ok(self.inner.close_session(id).await?)
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionsError> {
        let _use = self.begin(id);
        let inner = Box::pin(self.inner.create_stream(id, message).await?);
        Ok(Counted { inner, _use })
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), SessionsError> {
        let _use = self.begin(id);
        Ok(self.inner.accept_message(id, message).await?)
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionsError> {
        let _use = self.begin(id);
        let inner = Box::pin(self.inner.create_standalone_stream(id).await?);
        Ok(Counted { inner, _use })
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionsError> {
        let _use = self.begin(id);
        let inner = Box::pin(self.inner.resume(id, last_event_id).await?);
        Ok(Counted { inner, _use })
    }

    /// Sessions are of this process alone.
    async fn restore_session(
        &self,
        _id: SessionId,
    ) -> Result<RestoreOutcome<Self::Transport>, SessionsError> {
        Ok(RestoreOutcome::NotSupported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> SessionId {
        name.into()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_was_idle_for_the_longest_makes_room() {
        let mut places = Places::default();
        for name in ["a", "b", "c"] {
            assert_eq!(places.take(id(name), 3), Some(None));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(places.take(id("d"), 3), None, "all of them were used lately");
        tokio::time::advance(SPARED).await;
        // One is in use, however long ago it was begun; another was used again.
        places.used(&id("a"), |streams| streams + 1);
        places.used(&id("b"), |streams| streams);
        assert_eq!(places.take(id("d"), 3), Some(Some(id("c"))));
        assert_eq!(places.take(id("e"), 3), None);
        places.used(&id("a"), |streams| streams - 1);
        tokio::time::advance(SPARED).await;
        assert!(places.take(id("e"), 3).is_some_and(|gone| gone.is_some()));
        assert_eq!(places.0.len(), 3);
    }
}
