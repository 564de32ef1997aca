//! The commands that ask once and print the answer.

use std::time::Duration;

use jiff::Timestamp;

use super::args;
use super::failure::{Failure, note};
use super::filters::{Page, When};
use super::locate::Origin;
use super::render::Output;
use super::render::answers::Printer;
use super::signals::Signals;
use crate::event::{ConnectionId, InvalidId};
use crate::query::dns::DnsFilter;
use crate::query::drops::DropFilter;
use crate::query::{self, Filter, LeftOut, Source};

/// Seconds of capture where no server runs and the command line names no time.
const OWN_CAPTURE: u32 = 10;

/// Without a server there is nothing to ask yet: captures for a while first. Gives the window that
/// was captured, if it was.
pub async fn gather(origin: &Origin, seconds: Option<u32>) -> Result<Option<Timestamp>, Failure> {
    let Some(own) = &origin.own else { return Ok(None) };
    let seconds = seconds.unwrap_or(OWN_CAPTURE);
    note(&format!("the answer comes in {seconds} s; Ctrl-C for it now"));
    let mut signals = Signals::new()?;
    tokio::select! {
        () = signals.wait() => {}
        () = tokio::time::sleep(Duration::from_secs(seconds.into())) => {}
    }
    // The time after it was not captured, and is no part of the answer.
    let end = Timestamp::now();
    own.finish();
    Ok(Some(end))
}

/// The same for the window of a filter.
pub async fn gather_into(filter: &mut Filter, when: &When, origin: &Origin) -> Result<(), Failure> {
    gather_window(&mut filter.since, &mut filter.until, when, origin).await
}

async fn gather_window(
    since: &mut Option<Timestamp>,
    until: &mut Option<Timestamp>,
    when: &When,
    origin: &Origin,
) -> Result<(), Failure> {
    if let Some(end) = gather(origin, when.duration).await? {
        until.get_or_insert(end);
        if when.duration.is_some() {
            // The capture is the window.
            *since = None;
        }
    }
    Ok(())
}

/// `list`.
pub async fn list(
    args: &args::List,
    origin: &Origin,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let (mut filter, page) = args.what.read(&args.when, &args.page)?;
    gather_into(&mut filter, &args.when, origin).await?;
    args.what.hide_associated(&mut filter, &*origin.source).await?;
    print_list(&filter, &page, args.output, origin, printer).await
}

/// `list` of what is known at this moment, be it from a server or from a capture that goes on.
pub async fn list_now(
    args: &args::List,
    origin: &Origin,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let (mut filter, page) = args.what.read(&args.when, &args.page)?;
    args.what.hide_associated(&mut filter, &*origin.source).await?;
    print_list(&filter, &page, args.output, origin, printer).await
}

/// Asks for a list and prints it.
pub async fn print_list(
    filter: &Filter,
    page: &query::Page,
    output: Output,
    origin: &Origin,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let list = origin.source.list(filter, page).await?;
    printer.list(&list, output)?;
    if list.total == 0 {
        tell_left_out(filter, output, origin, printer).await?;
    }
    if list.connections.is_empty() { Err(Failure::Nothing) } else { Ok(()) }
}

/// Below an empty answer: what is not in it only because nobody asked for it.
pub async fn tell_left_out(
    filter: &Filter,
    output: Output,
    origin: &Origin,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let is_unwatched = origin.own.as_ref().is_some_and(|own| !own.watches_unix());
    // The question itself is answered: that a further one is not is no failure.
    let left_out = LeftOut::of(&*origin.source, filter).await.unwrap_or_default();
    Ok(printer.left_out(&left_out, is_unwatched, output)?)
}

/// `summary`.
pub async fn summary(
    args: &args::Summary,
    origin: &Origin,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let (mut filter, _) = args.what.read(&args.when, &Page::default())?;
    gather_into(&mut filter, &args.when, origin).await?;
    args.what.hide_associated(&mut filter, &*origin.source).await?;
    let summary = origin.source.summary(&filter).await?;
    printer.summary(&summary, args.output)?;
    if summary.total > 0 {
        return Ok(());
    }
    tell_left_out(&filter, args.output, origin, printer).await?;
    Err(Failure::Nothing)
}

/// `drops`.
pub async fn drops(
    args: &args::Drops,
    origin: &Origin,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let (mut filter, page) = args.what.read(&args.when, &args.page)?;
    gather_window(&mut filter.since, &mut filter.until, &args.when, origin).await?;
    print_drops(&filter, &page, args.output, &*origin.source, printer).await
}

/// `drops` as far as they are known at this moment.
pub async fn drops_now(
    args: &args::Drops,
    origin: &Origin,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let (filter, page) = args.what.read(&args.when, &args.page)?;
    print_drops(&filter, &page, args.output, &*origin.source, printer).await
}

/// `dns`.
pub async fn dns(
    args: &args::Dns,
    origin: &Origin,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let (mut filter, page) = args.what.read(&args.when, &args.page)?;
    gather_window(&mut filter.since, &mut filter.until, &args.when, origin).await?;
    print_dns(&filter, &page, args.output, &*origin.source, printer).await
}

/// `dns` as far as it is known at this moment.
pub async fn dns_now(
    args: &args::Dns,
    origin: &Origin,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let (filter, page) = args.what.read(&args.when, &args.page)?;
    print_dns(&filter, &page, args.output, &*origin.source, printer).await
}

async fn print_dns(
    filter: &DnsFilter,
    page: &query::Page,
    output: Output,
    source: &dyn Source,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let list = source.dns(filter, page).await?;
    printer.dns(&list, output)?;
    if list.questions.is_empty() { Err(Failure::Nothing) } else { Ok(()) }
}

async fn print_drops(
    filter: &DropFilter,
    page: &query::Page,
    output: Output,
    source: &dyn Source,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let list = source.drops(filter, page).await?;
    printer.drops(&list, output)?;
    if list.drops.is_empty() { Err(Failure::Nothing) } else { Ok(()) }
}

/// `show`.
pub async fn show(
    args: &args::Show,
    origin: &Origin,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let id = read_id(&args.id)?;
    match origin.source.get(id).await? {
        Some(connection) => Ok(printer.show(&connection, args.output)?),
        None => {
            note(&format!("no connection {id}: it has aged out, or was on another host"));
            Err(Failure::Nothing)
        }
    }
}

/// The id of a connection, as a user gave it.
pub fn read_id(text: &str) -> Result<ConnectionId, Failure> {
    text.parse()
        .map_err(|error: InvalidId| Failure::Usage(format!("{error}; netspy list shows ids")))
}

/// `status`.
pub async fn status(
    args: &args::Status,
    origin: &Origin,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let status = origin.source.status().await?;
    Ok(printer.status(&status, &origin.source.describe(), args.output)?)
}
