//! The life of the daemon: bind, capture, serve, stop.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::{TokenError, Tokens};
use crate::capture::allocator;
use crate::capture::error::CaptureError;
use crate::capture::privileges::{GiveUp, PrivilegeReport};
use crate::capture::report::AttachReport;
use crate::containers::ContainerNames;
use crate::query::CaptureHandle;
use crate::record::{Header, Reader, RecordError, ReplayCapture, Writer, replay};
use crate::server::check::{self, PlaceError};
use crate::server::clients::Limits;
use crate::server::config::Configuration;
use crate::server::descriptors;
use crate::server::geo::{Geo, GeoError, Places};
use crate::server::listen::{self, DEFAULT_UNIX, ListenError, SocketFile};
use crate::server::lists::Listed;
use crate::server::logging::Level;
use crate::server::notify;
use crate::server::options::Options;
use crate::server::reload::Reloader;
use crate::server::serve::{Listeners, Terms, serve_on};
use crate::server::tls::{Tls, TlsError};
use crate::store::{HistoryError, HistoryReport, LocalSource, Store, store_dns, store_drops};
use crate::stream::{Builder, ConnectionStream, StreamHandle};

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
    /// The tokens cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A database of countries or networks cannot be used.
    #[error(transparent)]
    Geo(#[from] GeoError),
    /// The model cannot be asked.
    #[cfg(feature = "ai")]
    #[error(transparent)]
    Model(#[from] super::ModelConfigError),
    /// The user of `--user` could not be taken on.
    #[error("cannot run as user {uid}: {why}; this takes root")]
    User {
        /// Which user.
        uid: u32,
        /// What was refused.
        why: String,
    },
    /// A recording could not be read or begun.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// There can be no history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// What is to be made could not be; only `--check` tells it so.
    #[error(transparent)]
    Place(#[from] PlaceError),
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
            ServerError::Capture(CaptureError::InvalidOption { .. })
            | ServerError::Token(_)
            | ServerError::Geo(_)
            | ServerError::Tls(_) => 2,
            #[cfg(feature = "ai")]
            ServerError::Model(_) => 2,
            _ => 1,
        }
    }
}

/// Where records come from, until [`Feed::stop`].
enum Feed {
    Capture(Capturing),
    Replay(Arc<ReplayCapture>),
}

struct Capturing {
    handle: StreamHandle,
    ingest: thread::JoinHandle<()>,
    /// What they store comes beside attempts.
    beside: [thread::JoinHandle<()>; 2],
    asked: Arc<AtomicBool>,
}

impl Feed {
    fn handle(&self) -> Arc<dyn CaptureHandle> {
        match self {
            Feed::Capture(capturing) => Arc::new(capturing.handle.clone()),
            Feed::Replay(capture) => Arc::clone(capture) as Arc<dyn CaptureHandle>,
        }
    }

    /// Ends capture and stores what was captured until then.
    fn stop(self) {
        if let Feed::Capture(Capturing { handle, ingest, beside, asked }) = self {
            asked.store(true, Ordering::SeqCst);
            handle.stop();
            let [drops, dns] = beside;
            if [ingest.join(), drops.join(), dns.join()].iter().any(Result::is_err) {
                tracing::error!("a thread that stores records had failed");
            }
        }
    }
}

/// What the process is told from outside.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Never read: because it is caught, a write that goes beyond the limit on file sizes is refused,
    /// as by a full disk, and ends nothing.
    _file_size: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _file_size: signal(SignalKind::from_raw(libc::SIGXFSZ))?,
        })
    }

    /// Until the process is to end; what it is to read again, is read on the way.
    async fn end(mut self, reloader: Reloader, status: &str) {
        let mut reloader = Some(reloader);
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    notify::reloading();
                    // It reads files.
                    if let Some(mut reading) = reloader.take() {
                        let read = tokio::task::spawn_blocking(move || {
                            reading.reload();
                            reading
                        });
                        reloader = read.await.ok();
                    }
                    notify::ready(status);
                }
            }
        }
    }
}

/// What listens before there are threads.
struct Bound {
    tcp: std::net::TcpListener,
    address: SocketAddr,
    unix: Option<(std::os::unix::net::UnixListener, SocketFile)>,
}

impl Bound {
    async fn new(options: &Options) -> Result<Self, ServerError> {
        let gone = system("the listener is gone");
        let tcp = listen::tcp(options.tcp_address()).await?;
        let address = tcp.local_addr().map_err(&gone)?;
        let unix = match unix(options)? {
            Some((listener, file)) => Some((listener.into_std().map_err(&gone)?, file)),
            None => None,
        };
        Ok(Bound { tcp: tcp.into_std().map_err(&gone)?, address, unix })
    }
}

/// Runs the server until a signal ends it. `arguments` are read again at SIGHUP.
///
/// Privileges belong to threads: what needs them comes first, on this thread and on the one that
/// captures; then both give them up, and only then the other threads are started.
pub fn run(
    configuration: Configuration,
    arguments: Vec<OsString>,
    log: Option<Level>,
) -> Result<(), ServerError> {
    allocator::give_back_freed_memory();
    let options = configuration.options.clone();
    let no_runtime = system("cannot start the runtime");
    let first = runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)?;
    // Before anything is attached: a signal from here on ends the server in order. First, so that a
    // port in use fails before the kernel is touched.
    let (signals, bound) = first.block_on(async {
        let signals = Signals::new().map_err(system("cannot handle signals"))?;
        Ok::<_, ServerError>((signals, Bound::new(&options).await?))
    })?;
    let terms = terms(&options)?;
    #[cfg(feature = "ai")]
    let (terms, model) = {
        let model = Arc::new(options.model.read()?.advisor());
        (Terms { advisor: Some(model.clone()), ..terms }, model)
    };
    let geo = Arc::new(Geo::read(Listed::all(&options.geoip))?);
    let terms = Terms { geoip_failures: Some(geo.failures()), ..terms };
    let reloader = Reloader {
        geo: Arc::clone(&geo),
        #[cfg(feature = "ai")]
        model,
        arguments,
        current: configuration,
        log,
        limits: Arc::clone(&terms.limits),
        tokens: terms.tokens.clone(),
        tls: terms.tls.clone(),
    };
    descriptors::raise_limit();
    let (store, feed) = start(&options, geo)?;
    descriptors::bound(&terms.limits, options.max_connections);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("netspy-server")
        .enable_all()
        .build()
        .map_err(system("cannot start the runtime"))?;
    // The handlers of signals are the process's, whichever runtime set them up.
    drop(first);
    let server = Server { store, feed, bound, terms, signals, reloader };
    server.serve(&runtime)
}

struct Server {
    store: Arc<Store>,
    feed: Feed,
    bound: Bound,
    terms: Terms,
    signals: Signals,
    reloader: Reloader,
}

impl Server {
    fn serve(self, runtime: &Runtime) -> Result<(), ServerError> {
        let Server { store, feed, bound, terms, signals, reloader } = self;
        let Bound { tcp, address, unix } = bound;
        let (unix, file) = unix.unzip();
        let scheme = if terms.tls.is_some() { "https" } else { "http" };
        let capture = feed.handle();
        let source = LocalSource::new(Arc::clone(&store), Arc::clone(&capture));
        runtime.block_on(async {
            let gone = system("the listener is gone");
            let listeners = Listeners {
                tcp: Some(tokio::net::TcpListener::from_std(tcp).map_err(&gone)?),
                unix: match unix {
                    Some(unix) => Some(tokio::net::UnixListener::from_std(unix).map_err(&gone)?),
                    None => None,
                },
            };
            let status = ready(capture.as_ref(), scheme, &address, file.as_ref());
            let end = signals.end(reloader, &status);
            let source = source.clone();
            tokio::select! {
                () = notify::watch(capture.as_ref()) => {}
                () = serve_on(source, listeners, terms, async {
                    end.await;
                    notify::stopping();
                    tracing::info!("stopping");
                }) => {}
            }
            Ok::<_, ServerError>(())
        })?;
        // From here on something may be missed.
        let stopping = jiff::Timestamp::now();
        feed.stop();
        store.close();
        source.close_books(stopping);
        let status = store.status();
        tracing::info!(
            "stopped; {} records were held, {} had aged out",
            status.records,
            status.evicted
        );
        Ok(())
    }
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> ServerError {
    move |source| ServerError::System { what, source }
}

fn terms(options: &Options) -> Result<Terms, ServerError> {
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let of_one = options.connections_per_client();
    let limits = Limits::new(count(options.max_connections), count(of_one));
    let tokens = match &options.token_file {
        Some(path) => Some(Arc::new(Tokens::read(path)?)),
        None => None,
    };
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => Some(Arc::new(Tls::read(cert, key)?)),
        _ => None,
    };
    let address = options.tcp_address();
    if tls.is_none() && !address.ip().to_canonical().is_loopback() {
        tracing::warn!("{address}: tokens and answers travel in the clear without --tls-cert");
    }
    let streams = Some(count(options.max_streams));
    Ok(Terms { limits: Arc::new(limits), streams, tokens, tls, ..Terms::default() })
}

/// What `--check` found.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckReport {
    /// What capture can see here, or what a recording holds.
    pub attach: AttachReport,
    /// What lies where history is to be kept.
    pub history: Option<HistoryReport>,
    /// Which model is asked, if any; nothing where this was built without the feature `ai`.
    pub model: Option<String>,
}

/// What `--check` reports.
pub fn check(options: &Options) -> Result<CheckReport, ServerError> {
    terms(options)?;
    Geo::read(Listed::all(&options.geoip))?;
    check::files(options)?;
    #[cfg(feature = "ai")]
    let model = Some(options.model.read()?.to_string());
    #[cfg(not(feature = "ai"))]
    let model = None;
    let history = match options.history() {
        Some(history) => {
            let report = history.check(runs_as(options))?;
            check::history(&report)?;
            Some(report)
        }
        None => None,
    };
    let attach = match &options.replay {
        None => builder(options)?.start()?.capabilities(),
        Some(path) => {
            let store = Store::new(options.memory_limit);
            replayed(path, &store)?.report()
        }
    };
    Ok(CheckReport { attach, history, model })
}

/// User and group once privileges are given up.
fn runs_as(options: &Options) -> (u32, u32) {
    use rustix::process::{getegid, geteuid};
    let own = || (geteuid().as_raw(), getegid().as_raw());
    options.user.map_or_else(own, |user| (user.uid, user.gid))
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

/// What to capture, with somebody to ask about containers, if anybody.
fn builder(options: &Options) -> Result<Builder, ServerError> {
    let sources = options.containers.sources();
    let mut builder = options.capture();
    if !sources.is_empty() {
        let names = ContainerNames::start(sources, GiveUp { user: options.user });
        let names = names.map_err(|error| match options.user {
            Some(user) => ServerError::User { uid: user.uid, why: error.to_string() },
            None => system("cannot start the thread that asks about containers")(error),
        })?;
        builder.containers = Some(names);
    }
    Ok(builder)
}

fn start(options: &Options, geo: Arc<Geo>) -> Result<(Arc<Store>, Feed), ServerError> {
    if let Some(path) = &options.replay {
        let store = Arc::new(Store::new(options.memory_limit));
        let replayed = Arc::new(replayed(path, &store)?);
        return Ok((store, Feed::Replay(replayed)));
    }
    let history = options.history();
    if let Some(history) = &history {
        history.make_directory(options.user.map(|user| (user.uid, user.gid)))?;
    }
    let stream = builder(options)?.start()?;
    let handle = stream.handle();
    let recorder = match &options.record {
        None => None,
        Some(path) => {
            let writer = Writer::create(path, &Header::new(host_name(), handle.since()))?;
            Some((writer, path.clone()))
        }
    };
    give_up_privileges(options, &handle)?;
    // Only now, since it starts the threads that write.
    let store = Arc::new(match &history {
        Some(history) => Store::open(options.memory_limit, history)?,
        None => Store::new(options.memory_limit),
    });
    let no_thread = system("cannot start a thread");
    let drops = store_drops(stream.drops(), &store).map_err(&no_thread)?;
    let dns = store_dns(stream.dns(), &store).map_err(&no_thread)?;
    let asked = Arc::new(AtomicBool::new(false));
    let (stored, asked_here) = (Arc::clone(&store), Arc::clone(&asked));
    let ingest = thread::Builder::new()
        .name("netspy-ingest".to_owned())
        .spawn(move || ingest(stream, &stored, recorder, &geo, &asked_here))
        .map_err(no_thread)?;
    let report = handle.wait_for_privileges();
    tell_privileges(options, report.as_ref())?;
    Ok((store, Feed::Capture(Capturing { handle, ingest, beside: [drops, dns], asked })))
}

/// Of this thread, before it starts others.
fn give_up_privileges(options: &Options, handle: &StreamHandle) -> Result<(), ServerError> {
    match (handle.give_up_privileges(GiveUp { user: options.user }), options.user) {
        (Ok(_), _) => Ok(()),
        (Err(error), Some(user)) => {
            Err(ServerError::User { uid: user.uid, why: error.to_string() })
        }
        (Err(error), None) => {
            tracing::warn!("privileges that are not needed could not be given up: {error}");
            Ok(())
        }
    }
}

/// What the thread that captures gave up.
fn tell_privileges(options: &Options, report: Option<&PrivilegeReport>) -> Result<(), ServerError> {
    let note = report.map_or(Some("the capture thread did not come to it"), |r| r.note.as_deref());
    if let Some(note) = note {
        tracing::warn!("privileges: {note}");
    }
    match (report.filter(|report| report.dropped), options.user) {
        (Some(report), _) => {
            let kept = report.kept.iter().map(|(name, why)| format!("{name} {why}"));
            let kept: Vec<_> = kept.collect();
            let kept = if kept.is_empty() { "none".to_owned() } else { kept.join("; ") };
            tracing::info!("runs as user {}; capabilities kept: {kept}", report.uid);
            Ok(())
        }
        (None, Some(user)) => {
            let why = note.unwrap_or("capture could not give its privileges up").to_owned();
            Err(ServerError::User { uid: user.uid, why })
        }
        (None, None) => Ok(()),
    }
}

/// Stores what is captured, until capture ends, as it does when that is `asked` for.
fn ingest(
    mut stream: ConnectionStream,
    store: &Store,
    mut recorder: Option<(Writer<std::fs::File>, PathBuf)>,
    geo: &Geo,
    asked: &AtomicBool,
) {
    let mut places = Places::default();
    while let Some(mut batch) = stream.next_batch_blocking() {
        geo.describe(&mut batch, &mut places);
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

/// Says that the server is ready; the line for the service manager.
fn ready(
    capture: &dyn CaptureHandle,
    scheme: &str,
    address: &SocketAddr,
    file: Option<&SocketFile>,
) -> String {
    let report = capture.report();
    let backend = report.backend.map_or_else(|| "replay".to_owned(), |b| b.to_string());
    let unix = file.map_or_else(String::new, |file| format!(" and {}", file.path().display()));
    let status = format!("listening on {scheme}://{address}{unix}, backend {backend}");
    tracing::info!("ready: {status}");
    let missing: Vec<_> = report.features.iter().filter(|(_, feature)| !feature.ok).collect();
    if !missing.is_empty() {
        let names: Vec<_> = missing.into_iter().map(|(name, _)| name.as_str()).collect();
        tracing::info!("not seen here: {}; /api/v1/status says why", names.join(", "));
    }
    notify::ready(&status);
    status
}
