//! `record` and `replay`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, Fuse};
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;

use super::commands::print_list;
use super::failure::{Failure, note, of_file};
use super::filters::{Page, When};
use super::locate::Origin;
use super::render::answers::{Printer, incomplete};
use super::render::units::{self, Clock};
use super::signals::Signals;
use super::{args, watch};
use crate::event::Connection;
use crate::query::{self, Filter, Follow, QueryError};
use crate::record::{self, Header, Reader, RecordError, ReplayCapture, Writer};
use crate::store::{LocalSource, Store};

/// Records written at a time.
const BATCH: usize = 1000;

/// The most memory that a recording takes when it is listed.
const REPLAY_BYTES: u64 = 1 << 30;

type Changes = Fuse<BoxStream<'static, Result<Follow, QueryError>>>;

/// Writes new and changed records to a file until Ctrl-C, SIGTERM or the given time.
pub async fn record(args: &args::Record, origin: &Origin) -> Result<(), Failure> {
    let (filter, _) = args.what.read(&When::default(), &Page::default())?;
    let started = Timestamp::now();
    let header = Header::new(host_name(origin).await, started);
    let mut signals = Signals::new()?;
    let mut changes = origin.source.follow(&filter, None).await?.fuse();
    let writer = Writer::create(&args.file, &header).map_err(|e| unusable(&args.file, &e))?;
    let mut recorder = Recorder { writer, file: args.file.clone(), records: 0, skipped: 0 };
    let shown = args.file.display();
    note(&match args.duration {
        Some(seconds) => format!("recording into {shown} for {seconds} s"),
        None => format!("recording into {shown}; Ctrl-C ends it"),
    });
    let end = async {
        match args.duration {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds.into())).await,
            None => std::future::pending().await,
        }
    };
    let from = origin.source.describe();
    let broken = tokio::select! {
        () = signals.wait() => None,
        () = end => None,
        result = recorder.follow(&mut changes, &from) => match result {
            Ok(()) => Some(format!("{from} ended the stream")),
            Err(Failure::Unreachable(why)) => Some(why),
            Err(failure) => return Err(failure),
        }
    };
    let end = Timestamp::now();
    if let Some(own) = &origin.own {
        // What is on its way belongs to the recording; then the stream ends by itself.
        own.finish();
        recorder.follow(&mut changes, &from).await?;
    }
    let records = units::count(recorder.records);
    if let Some(why) = broken {
        // Without its last line, the file says by itself that it was cut off.
        return Err(Failure::Unreachable(format!(
            "{why}; {shown} has the {records} records until then"
        )));
    }
    recorder.finish(origin, started, end).await?;
    note(&format!("{records} records in {shown}"));
    Ok(())
}

/// The host that the records are of. Records name it; where there is none yet, it is this one.
async fn host_name(origin: &Origin) -> Arc<str> {
    let page = query::Page { limit: Some(1), ..query::Page::default() };
    match origin.source.list(&Filter::default(), &page).await {
        Ok(list) if !list.connections.is_empty() => Arc::clone(&list.connections[0].host),
        _ => rustix::system::uname().nodename().to_string_lossy().into(),
    }
}

struct Recorder {
    writer: Writer<File>,
    file: PathBuf,
    records: u64,
    skipped: u64,
}

impl Recorder {
    /// Writes whatever comes until the stream ends. May be dropped between two batches: what was
    /// taken from the stream is written before the next wait.
    async fn follow(&mut self, changes: &mut Changes, from: &str) -> Result<(), Failure> {
        let mut batch = Vec::new();
        while let Some(first) = changes.next().await {
            let mut next = Some(first);
            let mut broken = None;
            while let Some(item) = next {
                match item {
                    Ok(Follow::Change(change)) => batch.push(change.connection),
                    // Where nobody knows how many, it is one or more.
                    Ok(Follow::Skipped { changes }) => self.skipped += changes.unwrap_or(1),
                    // What came before it is written first.
                    Err(error) => {
                        broken = Some(Failure::of_stream(from, error));
                        break;
                    }
                }
                next = match batch.len() < BATCH {
                    true => changes.next().now_or_never().flatten(),
                    false => None,
                };
            }
            self.writer.write(&batch).map_err(|e| unusable(&self.file, &e))?;
            self.records += u64::try_from(batch.len()).unwrap_or(0);
            batch.clear();
            if let Some(failure) = broken {
                return Err(failure);
            }
        }
        Ok(())
    }

    async fn finish(
        self,
        origin: &Origin,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<(), Failure> {
        let until = origin.own.is_some().then_some(until);
        let filter = Filter { since: Some(since), until, ..Filter::default() };
        let mut books = origin.source.summary(&filter).await?.accounting;
        books.updates_lost += self.skipped;
        books.complete &= self.skipped == 0;
        self.writer.finish(&books).map_err(|e| unusable(&self.file, &e))?;
        if let Some(warning) = incomplete(&books, &Clock::local()) {
            note(&warning);
        }
        Ok(())
    }
}

/// Lists a recording, or shows it as the live view would have.
pub async fn replay(args: &args::Replay, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let (filter, page) = args.what.read(&When::default(), &args.page)?;
    let mut reader = Reader::open(&args.file).map_err(|e| unusable(&args.file, &e))?;
    if args.watch {
        let records = std::iter::from_fn(|| next_match(&mut reader, &args.file, &filter));
        let shown = watch::replay(records, printer)?;
        tell_unfinished(reader.accounting().is_some(), &args.file);
        return if shown == 0 { Err(Failure::Nothing) } else { Ok(()) };
    }
    let store = Arc::new(Store::new(REPLAY_BYTES));
    let capture = ReplayCapture::new(reader.header(), args.file.display().to_string());
    let replayed = record::replay(&mut reader, &store, &capture);
    for error in &replayed.errors {
        tell_error(&args.file, error);
    }
    let told = u64::try_from(replayed.errors.len()).unwrap_or(u64::MAX);
    if replayed.bad_lines > told {
        let (file, more) = (args.file.display(), units::count(replayed.bad_lines - told));
        note(&format!("{file}: {more} lines more are no records"));
    }
    tell_unfinished(replayed.finished, &args.file);
    let source = Arc::new(LocalSource::new(store, Arc::new(capture)));
    print_list(&filter, &page, args.output, &Origin { source, own: None }, printer).await
}

fn next_match(
    reader: &mut Reader<impl std::io::BufRead>,
    file: &Path,
    filter: &Filter,
) -> Option<Result<Connection, Failure>> {
    loop {
        match reader.next()? {
            Ok(connection) if filter.matches(&connection) => return Some(Ok(connection)),
            Ok(_) => {}
            Err(error @ RecordError::Read { .. }) => return Some(Err(unusable(file, &error))),
            Err(error) => tell_error(file, &error),
        }
    }
}

fn unusable(file: &Path, error: &RecordError) -> Failure {
    Failure::Usage(of_file(file, error))
}

fn tell_error(file: &Path, error: &RecordError) {
    note(&of_file(file, error));
}

fn tell_unfinished(finished: bool, file: &Path) {
    if !finished {
        note(&format!("{} was not finished: its end may be missing", file.display()));
    }
}
