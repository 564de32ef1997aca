//! `run`: a command under observation, with all that descends from it, and nothing else.

mod child;
mod ports;
mod report;
mod shown;
mod table;
mod unresolved;
mod user;

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::task::LocalSet;

use self::child::{Exit, NOT_RUN, Running, Signals, in_words};
use self::report::{Groups, Report};
use self::shown::Shown;
use self::unresolved::{Names, Unresolved};
use super::failure::{Failure, note};
use super::filters::{Page, What, When};
use super::locate::Origin;
use super::own::OwnCapture;
use super::render::answers::Printer;
use super::render::screen::Screen;
use super::render::units::{self, Clock};
use super::render::{Output, record, write_json};
use super::watch::View;
use crate::query::dns::DnsFilter;
use crate::query::{self, Filter, Follow, Sort};
use crate::stream::{Builder, ConnectionStream};

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Captures in its own process, which takes root or the capabilities that netspy --help names; no server \
is asked. Followed are all processes that the command starts, and that these start: threads, scripts, \
daemons that leave their parent and session. What another process does for them (docker run, \
systemd-run, a resolver on this host) is its own doing, and is not shown.

Standard input and output are the command's alone, as is Ctrl-C; netspy writes to standard error, or \
to the file of --report. Tables and JSON have the connections by remote and outcome, JSON lines and \
CSV each by itself.

With sudo, the command still runs as the user who typed it, with their groups, HOME and no privileges; \
--user root runs it as root. sudo replaces PATH: keep your own with \
sudo env \"PATH=$PATH\" netspy run -- COMMAND.

Exit codes: the command's own, 128 + N if signal N ended it, 127 if there is no such command, 126 if \
it cannot be executed, 125 if netspy could not watch it, in which case it was not run.

Examples:
  sudo netspy run -- npm test
  sudo netspy run --live -- ./deploy.sh --to staging
  sudo netspy run --output jsonl --report calls.jsonl -- make check
  sudo netspy run --user www-data -- php cron.php")]
pub struct Run {
    /// Show each connection on standard error as it ends, too
    #[arg(long)]
    pub live: bool,
    /// Write the report to this file, which only its owner may then read, rather than to standard
    /// error
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The form of the report
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    /// Run the command as this user: a name or number of /etc/passwd, or UID:GID
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Once the command has ended, wait for descendants that it left behind, until Ctrl-C
    #[arg(long)]
    pub wait_descendants: bool,
    /// UNIX sockets that were reached, of which only failures are shown otherwise, and datagram sockets
    /// that sent nothing, too
    #[arg(long)]
    pub all: bool,
    /// The command and its arguments
    #[arg(
        trailing_var_arg = true,
        required = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub command: Vec<OsString>,
}

/// How often it is looked whether descendants are left.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the command, and reports; ends with the exit code of the command.
pub async fn run(args: &Run) -> Result<(), Failure> {
    match watched(args).await {
        Ok(Exit { code: 0, .. }) => Ok(()),
        Ok(Exit { code, .. }) => Err(Failure::Said(code)),
        Err((code, why)) => {
            note(&why);
            Err(Failure::Said(code))
        }
    }
}

/// With what netspy is to end where something is in the way.
type Stopped = (u8, String);

fn not_run(why: impl ToString) -> Stopped {
    (NOT_RUN, why.to_string())
}

async fn watched(args: &Run) -> Result<Exit, Stopped> {
    let user = user::chosen(args.user.as_deref()).map_err(not_run)?;
    // Before anything happens that it should be about.
    let mut out = Out::open(args)?;
    // What the command does first must not be missed: everything is attached before it is started,
    // and it is a descendant of this process, which does nothing else that could be taken for it.
    let builder = Builder {
        only_descendants_of: vec![std::process::id()],
        no_preexisting: true,
        ..ConnectionStream::builder()
    };
    let own = OwnCapture::start_with(builder).map_err(not_run)?;
    let origin = Origin { source: own.source(), own: Some(own.into()) };
    let what = What { all: args.all, ..What::default() };
    let read = what.read(&When::default(), &Page::default());
    let (mut filter, _) = read.map_err(not_run)?;
    what.hide_associated(&mut filter, &*origin.source).await.map_err(not_run)?;
    if !args.all {
        // A daemon that is not there is seen by its socket alone: see `Shown`.
        filter.protocol.clear();
    }
    let local = LocalSet::new();
    let lines = match args.live {
        true => {
            Some(local.spawn_local(live(origin.clone(), filter.clone(), args.all, args.output)))
        }
        false => None,
    };
    let ended = local.run_until(attend(args, user, &origin)).await?;
    if let Some(own) = &origin.own {
        if let Some(why) = own.stopped() {
            note(&format!(
                "capture stopped before the command did, so the report ends there: {why}"
            ));
        }
        own.finish();
    }
    let exit = ended.exit;
    if let Some(lines) = lines {
        // The stream has ended with capture. Nobody may be there to read; the command matters more.
        let _ = local.run_until(lines).await;
    }
    if let Err(failure) = out.report(args, ended, &origin, &filter).await {
        note(&format!("no report: {failure}"));
        if exit.code == 0 {
            return Err(not_run("the command itself succeeded"));
        }
    }
    Ok(exit)
}

/// What is known of the command once it has ended.
struct Ended {
    pid: u32,
    user: Option<String>,
    exit: Exit,
    started: Timestamp,
    took: Duration,
    living: usize,
}

/// The names that all of the command's questions led nowhere with.
async fn unresolved(origin: &Origin) -> Result<Vec<Unresolved>, Failure> {
    let mut names = Names::default();
    let mut page = query::Page { limit: Some(query::Page::MAX_LIMIT), ..<_>::default() };
    loop {
        let list = origin.source.dns(&DnsFilter::default(), &page).await?;
        list.questions.iter().for_each(|question| names.add(question));
        page.cursor = list.next_cursor;
        if page.cursor.is_none() {
            return Ok(names.unresolved());
        }
    }
}

/// Starts the command, and waits for its end.
async fn attend(
    args: &Run,
    user: Option<user::Account>,
    origin: &Origin,
) -> Result<Ended, Stopped> {
    let (started, begin) = (Timestamp::now(), Instant::now());
    let running = Running::start(&args.command, user.as_ref());
    let running = running.map_err(|error| (error.code(), error.to_string()))?;
    let pid = running.pid();
    let (exit, signals) = running.wait().await.map_err(not_run)?;
    let took = begin.elapsed();
    let mut living = origin.own.as_ref().map_or(0, |own| own.descendants());
    if args.wait_descendants && living > 0 {
        note(&format!("{} ended; {}", in_words(&args.command), waits_for(living)));
        living = wait_for_descendants(origin, signals).await;
    }
    let user = user.map(|user| user.describe());
    Ok(Ended { pid, user, exit, started, took, living })
}

fn waits_for(living: usize) -> String {
    let living = u64::try_from(living).unwrap_or(u64::MAX);
    let processes = units::counted(living, "process", "processes");
    format!("waiting for {processes} that it left behind (Ctrl-C ends this)")
}

/// Returns how many there still are.
async fn wait_for_descendants(origin: &Origin, mut signals: Signals) -> usize {
    let count = || origin.own.as_ref().map_or(0, |own| own.descendants());
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = signals.any() => return count(),
            _ = looks.tick() => if count() == 0 { return 0 },
        }
    }
}

/// Shows connections as they end, until capture does.
async fn live(origin: Origin, filter: Filter, all: bool, output: Output) -> Result<(), Failure> {
    let mut changes = origin.source.follow(&filter, None).await?;
    // A line at a time: the command writes to the same terminal.
    let mut out = io::stderr();
    let mut printer = printer(&mut out, Screen::of_stderr());
    let mut view = View::new(&mut printer, output == Output::Jsonl, None);
    view.begin()?;
    let mut tick = tokio::time::interval(super::watch::PERIOD);
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(Follow::Change(change)))
                    if Shown::of(&change.connection, all) != Shown::Yes => {}
                Some(Ok(change)) => view.take(change)?,
                Some(Err(_)) | None => break,
            },
            _ = tick.tick() => view.period()?,
        }
    }
    Ok(view.period()?)
}

fn printer(out: &mut dyn Write, screen: Screen) -> Printer<'_> {
    Printer { out, screen, clock: Clock::local() }
}

/// The file is for its owner alone, be it new or not: reports hold command lines, in which there may
/// be secrets. Pipes and devices (`/dev/stdout`, `>(...)`) are left as they are.
fn create(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.set_len(0)?;
    }
    Ok(file)
}

/// Where the report goes.
enum Out {
    Stderr,
    File(File),
}

impl Out {
    fn open(args: &Run) -> Result<Self, Stopped> {
        match &args.report {
            None => Ok(Out::Stderr),
            Some(path) => match create(path) {
                Ok(file) => Ok(Out::File(file)),
                Err(error) => Err(not_run(format!("--report {}: {error}", path.display()))),
            },
        }
    }

    async fn report(
        &mut self,
        args: &Run,
        ended: Ended,
        origin: &Origin,
        filter: &Filter,
    ) -> Result<(), Failure> {
        let (screen, mut out): (_, BufWriter<Box<dyn Write>>) = match self {
            Out::Stderr => (Screen::of_stderr(), BufWriter::new(Box::new(io::stderr()))),
            Out::File(file) => (Screen::of_file(), BufWriter::new(Box::new(file.try_clone()?))),
        };
        // Live lines were the list.
        let is_said = args.live && args.output == Output::Jsonl && args.report.is_none();
        if args.output == Output::Csv {
            writeln!(out, "{}", record::CSV_TITLES)?;
        }
        let mut groups = Groups::default();
        let mut asked_first = 0;
        let mut page = query::Page {
            limit: Some(query::Page::MAX_LIMIT),
            sort: Sort::Oldest,
            ..<_>::default()
        };
        let evicted = loop {
            let list = origin.source.list(filter, &page).await?;
            for connection in &list.connections {
                match Shown::of(connection, args.all) {
                    Shown::Yes => {}
                    Shown::AskedFirst => {
                        asked_first += 1;
                        continue;
                    }
                    Shown::No => continue,
                }
                match args.output {
                    Output::Table | Output::Json => groups.add(connection),
                    Output::Jsonl if is_said => {}
                    Output::Jsonl => write_json(&mut out, connection, false)?,
                    Output::Csv => writeln!(out, "{}", record::csv(connection))?,
                }
            }
            page.cursor = list.next_cursor;
            if page.cursor.is_none() {
                break list.accounting.evicted;
            }
        };
        let unresolved = unresolved(origin).await?;
        // Of all the time that there was, not of that in which somebody may have asked something.
        let own = origin.own.as_ref().map(|own| own.accounting());
        let mut accounting = own.ok_or(Failure::Unreachable("capture is gone".to_owned()))?;
        accounting.evicted = evicted;
        accounting.complete &= evicted == 0;
        let report = Report {
            command: report::words(&args.command),
            pid: ended.pid,
            user: ended.user,
            exit: ended.exit,
            started: ended.started,
            duration_us: u64::try_from(ended.took.as_micros()).unwrap_or(u64::MAX),
            living: u64::try_from(ended.living).unwrap_or(u64::MAX),
            findings: groups.summary(),
            unresolved,
            asked_first,
            accounting,
        };
        let mut printer = printer(&mut out, screen);
        match args.output {
            Output::Table => table::write(&mut printer, &in_words(&args.command), &report)?,
            Output::Json => printer.json(&report, true)?,
            // The lines are those of the connections alone; what else is to say goes elsewhere.
            Output::Jsonl | Output::Csv => table::remarks(&report, &printer.clock, note),
        }
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_for_its_owner_alone_even_where_others_could_read_what_was_there() {
        let dir = std::env::temp_dir().join(format!("netspy-report-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (old, new) = (dir.join("old"), dir.join("new"));
        std::fs::write(&old, "a longer report than the next one").unwrap();
        std::fs::set_permissions(&old, Permissions::from_mode(0o644)).unwrap();
        for path in [&old, &new] {
            create(path).unwrap().write_all(b"x").unwrap();
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!((mode & 0o777, std::fs::read(path).unwrap()), (0o600, b"x".to_vec()));
        }
        let before = std::fs::metadata("/dev/null").unwrap().permissions();
        create(Path::new("/dev/null")).unwrap();
        assert_eq!(std::fs::metadata("/dev/null").unwrap().permissions(), before);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
