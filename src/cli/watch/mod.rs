//! The live view: one line per outcome, as it happens.

mod columns;
mod control;
mod groups;
mod hidden;
mod keys;
mod lines;
mod view;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::signal::unix::{SignalKind, signal};

pub use self::columns::{fit, layout};
use self::control::{KEYS, Wish};
use self::hidden::Hidden;
use self::keys::{Key, Keys};
use self::lines::Lines;
pub use self::view::View;
use super::args;
use super::failure::{Failure, note};
use super::locate::Origin;
use super::render::answers::{Printer, incomplete};
use super::render::units::Clock;
use super::signals::Signals;
use super::typed;
use crate::event::Connection;
use crate::query::{Filter, sees_sent};

/// Lines are counted anew, and groups shown, this often.
pub const PERIOD: Duration = Duration::from_millis(250);

/// How long the end may be held up by the question whether anything was lost.
const LAST_QUESTION: Duration = Duration::from_secs(1);

/// Changes taken before the output is flushed and the signals are looked at.
const BATCH: usize = 1000;

/// Shows connections until Ctrl-C, SIGTERM, the given time or number, or the end of the stream.
pub async fn run(
    args: &args::Watch,
    origin: &Origin,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let begin = async {
        let sees_sent = sees_sent(&*origin.source).await?;
        let filter = args.what.narrowed(&[], sees_sent)?;
        let changes = origin.source.follow(&filter, None).await?;
        Ok::<_, Failure>((sees_sent, filter, changes))
    };
    let (sees_sent, mut filter, mut changes) = tokio::select! {
        () = signals.wait() => {
            note("cancelled");
            return Ok(());
        }
        begun = begin => begun?,
    };
    let mut resized = signal(SignalKind::window_change())?;
    let mut view = View::new(printer, args.json, args.limit);
    let mut keys = if args.json { None } else { Keys::open() };
    if keys.is_some() {
        note(KEYS);
    }
    view.begin()?;
    let mut hidden = Hidden::new(origin, view.lines.since());
    // A program that reads the lines waits for nothing else.
    let is_looked_at = !args.json && view.printer.screen.width.is_some();
    let begin = Instant::now();
    let end = async {
        match args.duration {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds.into())).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let result = loop {
        tokio::select! {
            biased;
            () = signals.wait() => {
                end_line();
                break Ok(());
            }
            () = &mut end => break Ok(()),
            pressed = next_keys(&mut keys) => {
                let mut end = None;
                for key in pressed {
                    match view.key(key)? {
                        Wish::Quit => end = Some(Ok(())),
                        Wish::Filter(line) => {
                            let read = typed::read(&line);
                            match read.and_then(|typed| args.what.narrowed(&typed, sees_sent)) {
                                Ok(narrowed) => filter = narrowed,
                                Err(error) => {
                                    view.refused(&error.to_string())?;
                                    continue;
                                }
                            }
                            match origin.source.follow(&filter, None).await {
                                Ok(others) => changes = others,
                                Err(error) => end = Some(Err(error.into())),
                            }
                            view.filtered(line, &filter)?;
                            hidden.restart();
                        }
                        _ => {}
                    }
                }
                view.flush()?;
                if let Some(result) = end {
                    break result;
                }
            }
            lines = hidden.told(&filter), if is_looked_at && view.is_empty() => {
                lines.iter().try_for_each(|line| view.remark(line))?;
                view.flush()?;
            }
            _ = resized.recv() => view.resize()?,
            _ = tick.tick() => {
                view.period()?;
                reader_is_there()?;
                if let Some(why) = origin.own.as_ref().and_then(|own| own.stopped()) {
                    break Err(Failure::Unreachable(format!("capture stopped: {why}")));
                }
            }
            change = changes.next() => {
                let mut change = change;
                let mut taken = 0;
                let ended = loop {
                    let Some(item) = change else {
                        let server = origin.source.describe();
                        break Some(Failure::Unreachable(format!("{server} ended the stream")));
                    };
                    match item {
                        Ok(item) => view.take(item)?,
                        Err(error) => {
                            let server = origin.source.describe();
                            break Some(Failure::of_stream(&server, error));
                        }
                    }
                    taken += 1;
                    if view.is_done() || taken >= BATCH {
                        break None;
                    }
                    match changes.next().now_or_never() {
                        Some(next) => change = next,
                        None => break None,
                    }
                };
                view.flush()?;
                if let Some(failure) = ended {
                    break Err(failure);
                }
                if view.is_done() {
                    break Ok(());
                }
            }
        }
    };
    view.go_on()?;
    view.period()?;
    view.clear_status()?;
    drop(keys);
    note(&view.totals(begin.elapsed()));
    if result.is_ok() {
        if view.is_empty() {
            let lines = hidden.at_the_end(&filter).await;
            lines.iter().for_each(|line| note(line));
        }
        tell_losses(filter, view.lines.since(), origin, &view.printer.clock).await;
    }
    result
}

/// The next keys, from where there are any.
async fn next_keys(keys: &mut Option<Keys>) -> Vec<Key> {
    match keys {
        Some(keys) => keys.next().await,
        None => std::future::pending().await,
    }
}

/// Says so if something may be missing from what was shown.
async fn tell_losses(filter: Filter, since: Timestamp, origin: &Origin, clock: &Clock) {
    let filter = Filter { since: Some(since), ..filter };
    let summary = tokio::time::timeout(LAST_QUESTION, origin.source.summary(&filter)).await;
    if let Ok(Ok(summary)) = summary
        && let Some(warning) = incomplete(&summary.accounting, clock)
    {
        note(&warning);
    }
}

/// Shows a recording as [`run`] would have shown it, without grouping.
pub fn replay(
    records: impl Iterator<Item = Result<Connection, Failure>>,
    printer: &mut Printer<'_>,
) -> Result<u64, Failure> {
    let mut view = View::new(printer, false, None);
    view.lines = Lines::new(Timestamp::MIN);
    view.begin()?;
    let mut shown = 0;
    for connection in records {
        let connection = connection?;
        if view.lines.is_new(&connection) {
            view.single(&connection)?;
            shown += 1;
        }
    }
    view.flush()?;
    Ok(shown)
}

/// A terminal shows `^C` where the cursor stands.
fn end_line() {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let _ = io::Write::write_all(&mut stderr, b"\n");
    }
}

/// A pipe whose reader has gone is otherwise noticed with the next line only, which may be never.
fn reader_is_there() -> io::Result<()> {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let ready = poll(&mut fds, Some(&now)).unwrap_or(0);
    match ready > 0 && fds[0].revents().intersects(PollFlags::ERR) {
        true => Err(io::ErrorKind::BrokenPipe.into()),
        false => Ok(()),
    }
}
