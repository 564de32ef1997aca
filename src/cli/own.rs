//! Capture in this process, for a host on which no server runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::accounting::Accounting;
use crate::capture::error::CaptureError;
use crate::capture::privileges::GiveUp;
use crate::containers::{ContainerNames, ContainerSources};
use crate::query::Source;
use crate::store::{LocalSource, Store, store_dns, store_drops};
use crate::stream::{Builder, ConnectionStream, StreamHandle};

/// What a command line that runs for minutes or hours keeps of the past.
const STORE_BYTES: u64 = 128 << 20;

/// A running capture and the store that it fills. Dropping it detaches everything.
#[derive(Debug)]
pub struct OwnCapture {
    handle: StreamHandle,
    source: Arc<LocalSource>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    books: tokio::task::JoinHandle<()>,
    no_unix: bool,
}

impl OwnCapture {
    /// Loads and attaches. Runs inside a tokio runtime.
    pub fn start(no_unix: bool) -> Result<Self, CaptureError> {
        OwnCapture::start_with(Builder { no_unix, ..ConnectionStream::builder() })
    }

    /// The same with further options.
    pub fn start_with(mut builder: Builder) -> Result<Self, CaptureError> {
        if builder.containers.is_none() {
            let names = ContainerNames::start(ContainerSources::usual(), GiveUp::default());
            builder.containers = Some(names.map_err(|source| CaptureError::Io {
                what: "starting the thread that asks about containers".to_owned(),
                source,
            })?);
        }
        // It gives nothing up, and so may look there.
        builder.nat_namespaces = builder.give_up.is_none();
        let no_unix = builder.no_unix;
        let mut stream = builder.start()?;
        let handle = stream.handle();
        let store = Arc::new(Store::new(STORE_BYTES));
        let source = Arc::new(LocalSource::new(Arc::clone(&store), Arc::new(handle.clone())));
        let no_thread = |source| CaptureError::Io {
            what: "starting a thread for the store".to_owned(),
            source,
        };
        let drops = store_drops(stream.drops(), &store).map_err(no_thread)?;
        let dns = store_dns(stream.dns(), &store).map_err(no_thread)?;
        let thread = std::thread::Builder::new().name("netspy-store".to_owned());
        let reader = thread.spawn(move || {
            while let Some(batch) = stream.next_batch_blocking() {
                store.apply(batch);
            }
            store.close();
        });
        let readers = Mutex::new(vec![reader.map_err(no_thread)?, drops, dns]);
        let keeper = Arc::clone(&source);
        let books = tokio::spawn(async move { keeper.keep_books().await });
        Ok(OwnCapture { handle, source, readers, books, no_unix })
    }

    /// Answers from what was captured.
    pub fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.source) as Arc<dyn Source>
    }

    /// Whether UNIX sockets are among what is captured.
    pub fn watches_unix(&self) -> bool {
        !self.no_unix
    }

    /// Ends capture once everything captured so far is in the store.
    pub fn finish(&self) {
        self.handle.stop();
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        for reader in readers.drain(..) {
            // It can end in no other way than by the end of its stream.
            let _ = reader.join();
        }
    }

    /// The books since the start of capture.
    pub fn accounting(&self) -> Accounting {
        self.handle.accounting()
    }

    /// Processes that are followed now, where only descendants are.
    pub fn descendants(&self) -> usize {
        self.handle.descendants()
    }

    /// Why capture stopped by itself, if it did.
    pub fn stopped(&self) -> Option<String> {
        self.handle.stopped()
    }
}

impl Drop for OwnCapture {
    fn drop(&mut self) {
        self.books.abort();
        self.finish();
    }
}
