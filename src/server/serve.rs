//! Serving HTTP on the listeners until told to stop.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::patience::WriteTimeout;
use crate::api::{Api, Transport};
use crate::store::LocalSource;

/// Connections that are open at a time; others wait to be accepted.
const MAX_CONNECTIONS: usize = 512;
/// From the first byte, or from the answer before, to the end of the head of a request.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// The largest head of a request.
const HEADER_BYTES: usize = 64 * 1024;
/// How long a client may leave what it is sent unread.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// How long answers under way may take once the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Where requests come in.
#[derive(Debug, Default)]
pub struct Listeners {
    /// TCP, on a loopback address.
    pub tcp: Option<TcpListener>,
    /// The UNIX socket.
    pub unix: Option<UnixListener>,
}

/// Answers requests from the source until `shutdown` is ready; then streams end, and answers
/// under way get a few seconds.
pub async fn serve(
    source: LocalSource,
    listeners: Listeners,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (stop, stopping) = watch::channel(false);
    let api = Api::new(source.clone(), stopping.clone());
    let mut tasks = JoinSet::new();
    if let Some(listener) = listeners.tcp {
        tasks.spawn(accept_all(listener, api.router(Transport::Loopback), stopping.clone()));
    }
    if let Some(listener) = listeners.unix {
        tasks.spawn(accept_all(listener, api.router(Transport::Unix), stopping));
    }
    tokio::select! {
        () = source.keep_books() => {}
        () = shutdown => {}
    }
    stop.send_replace(true);
    while tasks.join_next().await.is_some() {}
}

/// TCP or UNIX.
trait Listener: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        // Events of a stream are small, and waiting for more would delay them.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

async fn accept_all(listener: impl Listener, router: Router, mut stopping: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                connections.spawn(connection(stream, slot, router.clone(), stopping.clone()));
            }
            Err(error) => {
                // Out of file descriptors, mostly: trying again at once would only burn time.
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!("some answers took too long to finish and were cut off");
    }
}

async fn accept<L: Listener>(
    listener: &L,
    slots: &Arc<Semaphore>,
) -> io::Result<(L::Stream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.next().await?, slot))
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    _slot: OwnedSemaphorePermit,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let io = TokioIo::new(WriteTimeout::new(stream, WRITE_TIME));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(io, TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let mut told = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!("a connection ended early: {error}");
                }
                return;
            }
            _ = stopping.wait_for(|stopping| *stopping), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
