//! The live view: one line per outcome, as it happens.

mod control;
mod groups;
mod keys;
mod lines;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::signal::unix::{SignalKind, signal};

use self::control::{Control, KEYS, Wish};
use self::groups::Groups;
use self::keys::{Key, Keys};
use self::lines::Lines;
use super::args;
use super::failure::{Failure, note};
use super::locate::Origin;
use super::render::answers::{Printer, incomplete};
use super::render::record;
use super::render::screen::{DIM, Screen};
use super::render::table::{Cell, Layout, Steps};
use super::render::text::{clean, width};
use super::render::units::Clock;
use super::render::{units, write_json};
use super::signals::Signals;
use super::typed;
use crate::event::{Connection, Outcome};
use crate::query::{Filter, Follow, sees_sent};

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
        let sees_sent = sees_sent(&*origin.source).await;
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
                                    view.control.error = Some(error.to_string());
                                    continue;
                                }
                            }
                            match origin.source.follow(&filter, None).await {
                                Ok(others) => changes = others,
                                Err(error) => end = Some(Err(error.into())),
                            }
                            view.filtered(line)?;
                        }
                        _ => {}
                    }
                }
                view.flush()?;
                if let Some(result) = end {
                    break result;
                }
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

/// Lines of connections, and what was shown of them.
pub struct View<'a, 'b> {
    printer: &'a mut Printer<'b>,
    json: bool,
    layout: Layout,
    lines: Lines,
    groups: Groups,
    left: Option<u64>,
    outcomes: BTreeMap<Outcome, u64>,
    control: Control,
    /// The line at the bottom of the terminal that is no connection.
    status: Option<String>,
}

impl<'a, 'b> View<'a, 'b> {
    /// Shows lines, or every change as JSON; as many as `limit` says.
    pub fn new(printer: &'a mut Printer<'b>, json: bool, limit: Option<u64>) -> Self {
        View {
            layout: layout(&printer.screen),
            printer,
            json,
            lines: Lines::new(Timestamp::now()),
            groups: Groups::default(),
            left: limit,
            outcomes: BTreeMap::new(),
            control: Control::default(),
            status: None,
        }
    }

    /// Shows the titles.
    pub fn begin(&mut self) -> io::Result<()> {
        if !self.json {
            let header = self.layout.header(&record::TITLES[..7], &self.printer.screen);
            writeln!(self.printer.out, "{header}")?;
        }
        self.flush()
    }

    fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Shows a change, unless it waits for the end of the period.
    pub fn take(&mut self, item: Follow) -> io::Result<()> {
        let connection = match item {
            Follow::Change(change) => change.connection,
            Follow::Skipped { changes } => {
                let changes = units::count(changes);
                self.clear_status()?;
                note(&format!("{changes} changes came faster than they could be shown"));
                return Ok(());
            }
        };
        let new = self.lines.is_new(&connection);
        if new {
            *self.outcomes.entry(connection.outcome).or_default() += 1;
        }
        if self.json {
            self.count_down();
            return write_json(self.printer.out, &connection, false);
        }
        if !new {
            return Ok(());
        }
        self.count_down();
        match self.control.hold(connection) {
            Some(connection) => self.group(connection),
            None => Ok(()),
        }
    }

    /// Shows a connection, by itself or as one of many.
    fn group(&mut self, connection: Connection) -> io::Result<()> {
        match self.groups.take(connection) {
            Some(connection) => self.single(&connection),
            None if self.groups.is_full() => self.show_groups(),
            None => Ok(()),
        }
    }

    /// Does what a key asks for, as far as that is about what is shown.
    fn key(&mut self, key: Key) -> io::Result<Wish> {
        let wish = self.control.key(key);
        match wish {
            Wish::GoOn => self.go_on()?,
            Wish::Keys => self.remark(KEYS)?,
            Wish::Mark => self.remark("")?,
            Wish::Nothing | Wish::Filter(_) | Wish::Quit => {}
        }
        Ok(wish)
    }

    /// From here on other connections come.
    fn filtered(&mut self, line: String) -> io::Result<()> {
        let text = match line.trim() {
            "" => "-- no filter --".to_owned(),
            line => format!("-- filter: {} --", clean(line)),
        };
        // What was held matched the filter before.
        if self.control.typed(Some(line)) == Wish::GoOn {
            self.go_on()?;
        }
        self.remark(&text)
    }

    /// Shows what was held back.
    fn go_on(&mut self) -> io::Result<()> {
        let (dropped, held) = self.control.release();
        if dropped > 0 {
            let lines = units::counted(dropped, "line", "lines");
            self.remark(&format!("-- {lines} more than could be held --"))?;
        }
        held.into_iter().try_for_each(|connection| self.group(connection))
    }

    /// A line that is no connection.
    fn remark(&mut self, text: &str) -> io::Result<()> {
        self.clear_status()?;
        writeln!(self.printer.out, "{}", self.printer.screen.paint(text, DIM))
    }

    fn clear_status(&mut self) -> io::Result<()> {
        match self.status.take() {
            Some(_) => {
                self.printer.out.write_all(b"\r\x1b[K")?;
                self.printer.out.flush()
            }
            None => Ok(()),
        }
    }

    fn show_status(&mut self) -> io::Result<()> {
        let status = self.control.status(self.printer.screen.width.unwrap_or(80));
        if status == self.status {
            return Ok(());
        }
        self.clear_status()?;
        if let Some(status) = &status {
            self.printer.out.write_all(status.as_bytes())?;
        }
        self.status = status;
        Ok(())
    }

    /// Fits the columns to a terminal that has another size now.
    fn resize(&mut self) -> io::Result<()> {
        if self.printer.screen.width.is_none() {
            return Ok(());
        }
        self.printer.screen = Screen::of_stdout();
        let layout = layout(&self.printer.screen);
        if layout != self.layout {
            self.layout = layout;
            self.clear_status()?;
            self.begin()?;
        }
        Ok(())
    }

    fn count_down(&mut self) {
        self.left = self.left.map(|n| n.saturating_sub(1));
    }

    fn single(&mut self, connection: &Connection) -> io::Result<()> {
        let cells = record::cells(connection, &self.printer.clock, &self.printer.screen);
        self.line(cells)
    }

    fn line(&mut self, mut cells: Vec<Cell>) -> io::Result<()> {
        fit(&mut cells, &self.printer.screen);
        self.clear_status()?;
        writeln!(self.printer.out, "{}", self.layout.line(&cells, &self.printer.screen))
    }

    fn show_groups(&mut self) -> io::Result<()> {
        for cells in self.groups.lines(&self.printer.clock, &self.printer.screen) {
            self.line(cells)?;
        }
        Ok(())
    }

    /// The end of a period: what was grouped is shown.
    pub fn period(&mut self) -> io::Result<()> {
        self.groups.begin_period();
        if !self.groups.is_empty() {
            self.show_groups()?;
            self.flush()?;
        }
        if self.control.status(0).is_some() {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.show_status()?;
        self.printer.out.flush()
    }

    fn totals(&self, elapsed: Duration) -> String {
        let ended: u64 = self.outcomes.values().sum();
        let words: Vec<String> = self
            .outcomes
            .iter()
            .map(|(outcome, n)| format!("{} {outcome}", units::count(*n)))
            .collect();
        let words =
            if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) };
        format!("{} lines in {}{words}", units::count(ended), units::seconds(elapsed.as_secs()))
    }
}

/// The live view cannot measure what is still to come: columns have the widths of usual contents.
/// A name has at most 15 bytes and a pid 7 digits.
pub fn layout(screen: &Screen) -> Layout {
    let time = if screen.is_wide() { 12 } else { 8 };
    let (remote, latency) = if screen.width.is_some() { (64, 15) } else { (24, 8) };
    let (outcome, error) = if is_narrow(screen) { (JOINED, 0) } else { (11, 12) };
    Layout::new(vec![time, 24, 5, remote, outcome, error, latency], STEPS, screen)
}

/// Brings the fields of a connection to the columns of [`layout`].
pub fn fit(cells: &mut Vec<Cell>, screen: &Screen) {
    cells.truncate(7);
    if is_narrow(screen)
        && let [_, _, _, _, outcome, error, _] = cells.as_mut_slice()
    {
        join_error(outcome, &std::mem::take(&mut error.text));
    }
}

/// What gives way in the live view. In 80 columns, a name of 15 bytes with a pid of 5 digits and
/// an IPv4 address with its port still stand whole.
const STEPS: Steps = &[
    (3, 40),
    (6, 7),
    (3, 21),
    (2, 4),
    (1, 22),
    (3, 19),
    (1, 17),
    (3, 15),
    (1, 13),
    (4, 11),
    (0, 8),
    (6, 0),
    (1, 6),
    (3, 9),
    (2, 0),
];

/// The width of an outcome that has its error beside it: `denied EACCES`.
const JOINED: usize = 13;

/// Whether a column for errors, which most lines leave empty, would cost the process its name.
fn is_narrow(screen: &Screen) -> bool {
    screen.width.is_some_and(|width| width < 94)
}

/// Shows an error with its outcome where that says more: `refused` and `timed_out` have one error
/// each, `failed` says nothing without it.
fn join_error(outcome: &mut Cell, error: &str) {
    if error.is_empty() {
        return;
    }
    let joined = format!("{} {error}", outcome.text);
    if width(&joined) <= JOINED {
        outcome.text = joined;
    } else if outcome.text == Outcome::Failed.as_str() {
        outcome.text = error.to_owned();
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(columns: usize, process: &str, outcome: &str, error: &str) -> String {
        let screen = Screen { width: Some(columns), color: false };
        let mut out = Vec::new();
        let clock = Clock::local();
        let mut printer = Printer { out: &mut out, screen, clock };
        let mut view = View::new(&mut printer, false, None);
        let remote = "203.0.113.17:65535 (a.example.com)";
        let cells = ["12:34:56", process, "tcp", remote, outcome, error, "412 ms", "id"];
        view.line(cells.map(Cell::plain).to_vec()).unwrap();
        String::from_utf8(out).unwrap().trim_end().to_owned()
    }

    #[test]
    fn a_process_has_its_whole_name_in_80_columns() {
        for (outcome, error, shown) in [
            ("established", "", "established"),
            ("refused", "ECONNREFUSED", "refused"),
            ("timed_out", "ETIMEDOUT", "timed_out"),
            ("unreachable", "EHOSTUNREACH", "unreachable"),
            ("denied", "EACCES", "denied EACCES"),
            ("failed", "EINVAL", "failed EINVAL"),
            ("failed", "EADDRNOTAVAIL", "EADDRNOTAVAIL"),
        ] {
            let line = line(80, "systemd-resolve[12345]", outcome, error);
            assert!(width(&line) <= 80, "{line}");
            assert!(line.starts_with("12:34:56 systemd-resolve[12345] tcp  203.0"), "{line}");
            assert!(line.ends_with(" 412 ms") && line.contains(&format!(" {shown} ")), "{line}");
        }
    }

    #[test]
    fn where_there_is_room_every_column_stands_whole() {
        for columns in [94, 99, 100, 120, 200] {
            let line = line(columns, "systemd-resolve[12345]", "refused", "ECONNREFUSED");
            assert!(width(&line) <= columns, "{line}");
            for part in ["systemd-resolve[12345]", "refused", "ECONNREFUSED", "203.0.", "412 ms"] {
                assert!(line.contains(part), "{part} in {line}");
            }
        }
    }

    #[test]
    fn no_line_is_wider_than_a_small_terminal() {
        for columns in 40..94 {
            let line = line(columns, "systemd-resolve[1234567]", "unreachable", "EHOSTUNREACH");
            assert!(width(&line) <= columns, "{columns}: {line}");
        }
    }
}
