//! The life of the daemon: bind, capture, serve, stop.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::capture::error::CaptureError;
use crate::capture::report::AttachReport;
use crate::query::CaptureHandle;
use crate::record::{Header, Reader, RecordError, ReplayCapture, Writer, replay};
use crate::server::listen::{self, DEFAULT_UNIX, ListenError, SocketFile};
use crate::server::options::Options;
use crate::server::serve::{Listeners, serve};
use crate::store::{HistoryError, LocalSource, Store, store_drops};
use crate::stream::{ConnectionStream, StreamHandle};

/// Why the server could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A listener could not be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Capture could not start.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A recording could not be read or begun.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// There can be no history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// There is nothing in the recording that could be shown.
    #[error("{}: no line of the recording could be read; the first problem: {error}", path.display())]
    NothingReplayed {
        /// Which file.
        path: PathBuf,
        /// The first problem.
        error: RecordError,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

impl ServerError {
    /// The exit code that tells it: 2 wrong options, 4 no privileges, 1 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServerError::Capture(CaptureError::NoPrivilege { .. }) => 4,
            ServerError::Capture(CaptureError::InvalidOption { .. }) => 2,
            _ => 1,
        }
    }
}

/// Where records come from, until [`Feed::stop`].
enum Feed {
    Capture {
        handle: StreamHandle,
        ingest: thread::JoinHandle<()>,
        drops: thread::JoinHandle<()>,
        asked: Arc<AtomicBool>,
    },
    Replay(Arc<ReplayCapture>),
}

impl Feed {
    fn handle(&self) -> Arc<dyn CaptureHandle> {
        match self {
            Feed::Capture { handle, .. } => Arc::new(handle.clone()),
            Feed::Replay(capture) => Arc::clone(capture) as Arc<dyn CaptureHandle>,
        }
    }

    /// Ends capture and stores what was captured until then.
    fn stop(self) {
        if let Feed::Capture { handle, ingest, drops, asked } = self {
            asked.store(true, Ordering::SeqCst);
            handle.stop();
            if [ingest.join(), drops.join()].iter().any(Result::is_err) {
                tracing::error!("a thread that stores records had failed");
            }
        }
    }
}

/// Runs the server until `shutdown` is ready.
pub async fn run(
    options: &Options,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServerError> {
    // First, so that a port in use fails before the kernel is touched.
    let tcp = listen::tcp(options.tcp_address()).await?;
    let (unix, file) = unix(options)?.unzip();
    let address = tcp.local_addr();
    let address =
        address.map_err(|source| ServerError::System { what: "the listener is gone", source })?;
    let store = Arc::new(match options.history() {
        Some(history) => Store::open(options.memory_limit, &history)?,
        None => Store::new(options.memory_limit),
    });
    let feed = {
        let (options, store) = (options.clone(), Arc::clone(&store));
        // Loading programs, or reading a large file, takes its time.
        let start = tokio::task::spawn_blocking(move || start(&options, &store)).await;
        start.map_err(|error| ServerError::System {
            what: "starting was cut off",
            source: error.into(),
        })??
    };
    let source = LocalSource::new(Arc::clone(&store), feed.handle());
    ready(&feed.handle().report(), &address, file.as_ref());
    serve(source, Listeners { tcp: Some(tcp), unix }, shutdown).await;
    tracing::info!("stopping");
    let stopped = tokio::task::spawn_blocking(move || feed.stop()).await;
    if let Err(error) = stopped {
        tracing::error!("capture could not be stopped in order: {error}");
    }
    store.close();
    let status = store.status();
    tracing::info!(
        "stopped; {} records were held, {} had aged out",
        status.records,
        status.evicted
    );
    Ok(())
}

/// What `--check` reports: what capture can see here, or what a recording holds.
pub fn check(options: &Options) -> Result<AttachReport, ServerError> {
    match &options.replay {
        None => Ok(options.capture().start()?.capabilities()),
        Some(path) => {
            let store = Store::new(options.memory_limit);
            Ok(replayed(path, &store)?.report())
        }
    }
}

fn unix(options: &Options) -> Result<Option<(tokio::net::UnixListener, SocketFile)>, ServerError> {
    if options.no_unix {
        return Ok(None);
    }
    if let Some(path) = &options.unix {
        return Ok(Some(listen::unix(path)?));
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    match listen::unix(Path::new(DEFAULT_UNIX)) {
        Ok(listening) => Ok(Some(listening)),
        Err(error) => {
            tracing::warn!("going on without a UNIX socket: {error}");
            Ok(None)
        }
    }
}

fn start(options: &Options, store: &Arc<Store>) -> Result<Feed, ServerError> {
    if let Some(path) = &options.replay {
        return Ok(Feed::Replay(Arc::new(replayed(path, store)?)));
    }
    let stream = options.capture().start()?;
    let handle = stream.handle();
    let recorder = match &options.record {
        None => None,
        Some(path) => {
            let writer = Writer::create(path, &Header::new(host_name(), handle.since()))?;
            Some((writer, path.clone()))
        }
    };
    let no_thread = |source| ServerError::System { what: "cannot start a thread", source };
    let drops = store_drops(stream.drops(), store).map_err(no_thread)?;
    let store = Arc::clone(store);
    let asked = Arc::new(AtomicBool::new(false));
    let asked_here = Arc::clone(&asked);
    let ingest = thread::Builder::new()
        .name("netspy-ingest".to_owned())
        .spawn(move || ingest(stream, &store, recorder, &asked_here))
        .map_err(no_thread)?;
    Ok(Feed::Capture { handle, ingest, drops, asked })
}

/// Stores what is captured, until capture ends, as it does when that is `asked` for.
fn ingest(
    mut stream: ConnectionStream,
    store: &Store,
    mut recorder: Option<(Writer<std::fs::File>, PathBuf)>,
    asked: &AtomicBool,
) {
    while let Some(batch) = stream.next_batch_blocking() {
        if let Some((writer, path)) = &mut recorder
            && let Err(error) = writer.write(&batch)
        {
            let path = path.display();
            tracing::error!("{path}: recording ends here, capture goes on: {error}");
            recorder = None;
        }
        store.apply(batch);
    }
    let handle = stream.handle();
    if let Some((writer, path)) = recorder
        && let Err(error) = writer.finish(&handle.accounting())
    {
        tracing::error!("{}: the recording has no end: {error}", path.display());
    }
    if !asked.load(Ordering::SeqCst)
        && let Some(why) = handle.stopped()
    {
        tracing::error!("capture has stopped: {why}");
    }
}

fn replayed(path: &Path, store: &Store) -> Result<ReplayCapture, ServerError> {
    let mut reader = Reader::open(path)?;
    let capture = ReplayCapture::new(reader.header(), path.display().to_string());
    let replayed = replay(&mut reader, store, &capture);
    for error in &replayed.errors {
        tracing::warn!("{}: {error}", path.display());
    }
    if replayed.records == 0
        && let Some(error) = replayed.errors.into_iter().next()
    {
        return Err(ServerError::NothingReplayed { path: path.to_owned(), error });
    }
    if !replayed.finished {
        tracing::warn!("{}: the recording was not finished in order", path.display());
    }
    Ok(capture)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn ready(report: &AttachReport, address: &std::net::SocketAddr, file: Option<&SocketFile>) {
    let backend = report.backend.map_or_else(|| "replay".to_owned(), |b| b.to_string());
    let unix = file.map_or_else(String::new, |file| format!(" and {}", file.path().display()));
    tracing::info!("ready: listening on http://{address}{unix}, backend {backend}");
    let missing: Vec<_> = report.features.iter().filter(|(_, feature)| !feature.ok).collect();
    if !missing.is_empty() {
        let names: Vec<_> = missing.into_iter().map(|(name, _)| name.as_str()).collect();
        tracing::info!("not seen here: {}; /api/v1/status says why", names.join(", "));
    }
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!("the service manager could not be told: {error}");
    }
}
