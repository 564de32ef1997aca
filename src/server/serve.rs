//! Serving HTTP on the listeners until told to stop.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use futures_util::FutureExt;
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::clients::{Busy, Client, Clients, Limits, Slot};
use super::patience::WriteTimeout;
use super::tls::Tls;
use crate::api::{Api, Tokens, Transport, mcp_alone};
use crate::store::LocalSource;
use crate::tools::Advisor;

/// From the first byte, or from the answer before, to the end of the head of a request.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// The largest head of a request.
const HEADER_BYTES: usize = 64 * 1024;
/// How long a client may leave what it is sent unread.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// How long a client may take to agree on TLS.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long answers under way may take once the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Where requests come in.
#[derive(Debug, Default)]
pub struct Listeners {
    /// TCP.
    pub tcp: Option<TcpListener>,
    /// The UNIX socket.
    pub unix: Option<UnixListener>,
}

/// Who is served, and how much.
#[derive(Default)]
pub struct Terms {
    /// How many connections.
    pub limits: Arc<Limits>,
    /// How many event streams; [`MAX_STREAMS`](crate::api::MAX_STREAMS) unless set.
    pub streams: Option<usize>,
    /// What those who come over TCP have to show. Without, command lines are withheld from them, and
    /// they have to ask for this host by name.
    pub tokens: Option<Arc<Tokens>>,
    /// TLS over TCP.
    pub tls: Option<Arc<Tls>>,
    /// Whom the tools of `/mcp` that interpret ask; fixed rules unless set.
    pub advisor: Option<Arc<dyn Advisor>>,
    /// Where look-ups in databases of countries and networks that fail are counted.
    pub geoip_failures: Option<Arc<AtomicU64>>,
}

impl std::fmt::Debug for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Terms { limits, streams, tokens, tls, advisor: _, geoip_failures: _ } = self;
        let mut terms = f.debug_struct("Terms");
        terms.field("limits", limits).field("streams", streams);
        terms.field("tokens", tokens).field("tls", tls).finish_non_exhaustive()
    }
}

/// Answers requests from the source until `shutdown` is ready; then streams end, and answers
/// under way get a few seconds.
pub async fn serve(
    source: LocalSource,
    listeners: Listeners,
    shutdown: impl Future<Output = ()> + Send,
) {
    serve_on(source, listeners, Terms::default(), shutdown).await;
}

/// As [`serve`], on these terms.
pub async fn serve_on(
    source: LocalSource,
    listeners: Listeners,
    terms: Terms,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (stop, stopping) = watch::channel(false);
    let mut api = Api::new(source.clone(), stopping.clone());
    if let Some(streams) = terms.streams {
        api = api.with_max_streams(streams);
    }
    if let Some(failures) = terms.geoip_failures {
        api = api.with_geoip_failures(failures);
    }
    if let Some(advisor) = terms.advisor {
        api = api.with_advisor(advisor);
    }
    let transport = match terms.tokens {
        None => Transport::Loopback,
        Some(tokens) => {
            api = api.with_tokens(tokens);
            Transport::Token
        }
    };
    // Both ways in share the limits.
    let clients = Clients::new(terms.limits, Arc::clone(api.figures()));
    let door = |transport, tls| Door {
        router: api.router(transport),
        clients: Arc::clone(&clients),
        tls,
        stopping: stopping.clone(),
    };
    let mut tasks = JoinSet::new();
    if let Some(listener) = listeners.tcp {
        tasks.spawn(door(transport, terms.tls).accept_all(listener));
    }
    if let Some(listener) = listeners.unix {
        tasks.spawn(door(Transport::Unix, None).accept_all(listener));
    }
    tokio::select! {
        () = source.keep_books() => {}
        () = shutdown => {}
    }
    stop.send_replace(true);
    while tasks.join_next().await.is_some() {}
}

/// Answers MCP alone on this listener, by what `make` makes for each session, until `shutdown` is
/// ready.
pub async fn serve_mcp<H: rmcp::ServerHandler>(
    make: impl Fn() -> io::Result<H> + Send + Sync + 'static,
    listener: TcpListener,
    tokens: Option<Arc<Tokens>>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (stop, stopping) = watch::channel(false);
    let door = Door {
        router: mcp_alone(make, tokens, stopping.clone()),
        clients: Clients::new(Arc::default(), Arc::default()),
        tls: None,
        stopping,
    };
    let task = tokio::spawn(door.accept_all(listener));
    shutdown.await;
    stop.send_replace(true);
    if let Err(error) = task.await {
        tracing::warn!("serving MCP ended badly: {error}");
    }
}

/// TCP or UNIX.
trait Listener: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Client)>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Client)> {
        let (stream, from) = self.accept().await?;
        // Events of a stream are small, and waiting for more would delay them.
        stream.set_nodelay(true)?;
        Ok((stream, Client::at(from.ip())))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Client)> {
        let (stream, _) = self.accept().await?;
        let user = stream.peer_cred()?.uid();
        Ok((stream, Client::User(user)))
    }
}

/// One way in.
#[derive(Clone)]
struct Door {
    router: Router,
    clients: Arc<Clients>,
    tls: Option<Arc<Tls>>,
    stopping: watch::Receiver<bool>,
}

impl Door {
    async fn accept_all(self, listener: impl Listener) {
        let mut connections = JoinSet::new();
        let mut stopping = self.stopping.clone();
        loop {
            let accepted = tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.next() => accepted,
            };
            match accepted {
                Ok((stream, client)) => match self.clients.admit(client) {
                    Some(slot) => {
                        connections.spawn(self.clone().connection(stream, slot));
                    }
                    None => refuse(stream, self.tls.is_some()),
                },
                Err(error) if is_of_one_client(&error) => {
                    tracing::debug!("a connection was gone before it was accepted: {error}");
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

    async fn connection(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        slot: Slot,
    ) {
        let slot = Arc::new(slot);
        let timed = WriteTimeout::new(stream, WRITE_TIME);
        let served = async {
            match &self.tls {
                None => self.http(timed, &slot).await,
                Some(tls) => {
                    let accepting = tls.acceptor().accept(timed);
                    match tokio::time::timeout(HANDSHAKE_TIME, accepting).await {
                        Ok(Ok(stream)) => self.http(stream, &slot).await,
                        Ok(Err(error)) => tracing::debug!("a client could not use TLS: {error}"),
                        Err(_) => tracing::debug!("a client took too long to agree on TLS"),
                    }
                }
            }
        };
        tokio::select! {
            () = served => {}
            () = slot.closing() => tracing::debug!("an idle connection makes room for another"),
        }
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        slot: &Arc<Slot>,
    ) {
        let service = service_fn(|request: Request<Incoming>| {
            let busy = slot.busy();
            let answer = self.router.clone().oneshot(request);
            async {
                answer.await.map(|response| response.map(|body| Watched { body, _busy: busy }))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut stopping = self.stopping.clone();
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
}

/// Whether the error is about a connection that came to nothing, not about this process
/// (accept(2), "Error handling").
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidInput};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | InvalidInput)
}

fn no_room() -> String {
    let body = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"too many connections are open"}"#;
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n\
         content-type: application/problem+json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Says that there is no room, without waiting for anything.
fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, tls: bool) {
    // There is no answer that a client would understand before TLS is agreed on.
    if !tls {
        let _ = stream.write_all(no_room().as_bytes()).now_or_never();
        let _ = stream.shutdown().now_or_never();
        // What is left unread would reset the connection, and the answer with it.
        let _ = stream.read(&mut [0; 4096]).now_or_never();
    }
}

/// The body of an answer, which keeps its connection from being taken for idle.
struct Watched {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
