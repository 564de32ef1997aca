//! The command-line tool: arguments, where the answers come from, and how they are shown.
//!
//! Every command asks a [`Source`](crate::query::Source), be it a server or capture in this
//! process, and every string from telemetry goes through [`render::text::clean`] on its way to
//! the terminal.

mod analyze;
mod args;
mod argv;
#[cfg(feature = "ai")]
mod ask;
mod commands;
mod completions;
mod doctor;
mod failure;
mod filters;
mod legacy;
mod locate;
mod mcp;
mod own;
mod patience;
mod questions;
mod quiet;
mod recording;
pub mod render;
mod run;
mod shell;
mod signals;
mod suggest;
mod top;
mod typed;
mod watch;

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use tracing_subscriber::filter::LevelFilter;

use self::analyze::Analyze;
use self::args::{Cli, Command};
use self::failure::Failure;
use self::filters::{Narrow, Page, What, When};
use self::legacy::{Tool, drops};
use self::locate::{Capture, Named, locate};
use self::questions::Question;
use self::render::answers::Printer;
use self::render::screen::Screen;
use self::render::units::Clock;

/// Does what the command line says; the result is the exit code of the process.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    log_to_stderr(cli.common.verbose);
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Usage(error)) => usage(&error),
        Err(Stop::Failure(failure)) => failure.report(),
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(argv::normalise(args))?;
    let typed = |matches: &clap::ArgMatches, name: &str| {
        matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
    };
    // A server in the environment is for the other commands; one that was typed is a mistake.
    let named = |matches: &clap::ArgMatches| typed(matches, "server");
    let alone = |name| match name {
        "replay" => Some("replay reads a file and asks no server: leave out --server"),
        "run" => Some("run captures by itself and asks no server: leave out --server"),
        _ => None,
    };
    if let Some((name, sub)) = matches.subcommand()
        && let Some(text) = alone(name)
        && (named(&matches) || named(sub))
    {
        return Err(command.error(clap::error::ErrorKind::ArgumentConflict, text));
    }
    let mut cli = Cli::from_arg_matches(&matches)?;
    let is_named = cli.common.server.as_ref().is_some_and(|server| !server.is_empty());
    let sub = matches.subcommand().map(|(_, sub)| sub);
    // The configuration of a client may be for a host that has its own variables.
    let is_for_others = matches!(cli.command, Some(Command::Mcp(_)));
    for name in ["token_file", "ca_cert"] {
        // A server that was only found is shown no token, and is asked without TLS.
        if !is_named
            && !is_for_others
            && (typed(&matches, name) || sub.is_some_and(|sub| typed(sub, name)))
        {
            let flag = name.replace('_', "-");
            let text = format!("--{flag} is for the server that --server names: add it");
            return Err(command.error(clap::error::ErrorKind::MissingRequiredArgument, text));
        }
    }
    if matches!(&cli.command, Some(Command::Mcp(args)) if args.is_for_another_host()) {
        cli.common.keep(|name| typed(&matches, name));
    }
    Ok(cli)
}

enum Stop {
    Usage(clap::Error),
    Failure(Failure),
}

impl<F: Into<Failure>> From<F> for Stop {
    fn from(failure: F) -> Self {
        Stop::Failure(failure.into())
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    match error.print() {
        // A closed pipe (`--help | head`) is no failure of the program.
        Err(failed) if failed.kind() != io::ErrorKind::BrokenPipe => {
            Failure::Output(failed).report()
        }
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
    }
}

fn log_to_stderr(verbose: bool) {
    let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::WARN };
    let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Another subscriber is there already when a test runs commands in its own process.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| quiet::Stderr)
        .with_ansi(color)
        // A standard error that nobody reads any more ends no task: told of, it would panic.
        .log_internal_errors(false)
        .try_init();
}

fn dispatch(cli: Cli) -> Result<(), Stop> {
    if let Some(flag) = cli.tool.stray() {
        let text = format!(
            "{flag} before a command belongs to --tool: write it after the command, as in \
             'netspy watch {flag} ...'"
        );
        let kind = clap::error::ErrorKind::MissingRequiredArgument;
        return Err(Stop::Usage(Cli::command().error(kind, text)));
    }
    if cli.tool.tool.is_some() && cli.command.is_some() {
        let kind = clap::error::ErrorKind::ArgumentConflict;
        let text = "--tool asks one question by itself: it takes no command";
        return Err(Stop::Usage(Cli::command().error(kind, text)));
    }
    // One worker beside this thread: capture and streams go on while the shell waits for a line.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::Output)?;
    let server = Named {
        server: cli.common.server.as_deref(),
        token_file: cli.common.token_file.as_deref(),
        ca_cert: cli.common.ca_cert.as_deref(),
    };
    if let Some(Command::Mcp(args)) = &cli.command
        && args.command.is_none()
    {
        // Standard output is the client's: nobody else holds it.
        let served = runtime.block_on(mcp::serve(args, server));
        runtime.shutdown_background();
        return Ok(served?);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let mut printer = Printer { out: &mut out, screen: Screen::of_stdout(), clock: Clock::local() };
    let result = match (cli.tool.tool.as_deref(), cli.command) {
        (None, Some(Command::Complete(args))) => {
            completions::complete(&args, &runtime, server, printer.out).map_err(Failure::Output)
        }
        (Some(name), _) => {
            let tool = Tool::named(name)?;
            runtime.block_on(ask_tool(tool, &cli.tool, server, &mut printer))
        }
        (None, Some(command)) => runtime.block_on(run_command(&command, server, &mut printer)),
        (None, None) => shell::run(&runtime, server, &mut printer),
    };
    let flushed = printer.out.flush();
    // Nothing that still runs (a silent stream, a blocked reader) keeps the process.
    runtime.shutdown_background();
    result?;
    Ok(flushed?)
}

async fn ask_tool(
    tool: Tool,
    asked: &args::ToolArgs,
    server: Named<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let question = &asked.question;
    #[cfg(feature = "ai")]
    if let Some(words) = legacy::words::Words::of(tool, asked)? {
        return words.ask(server, printer).await;
    }
    if tool == Tool::Patterns {
        let analyze = Analyze::of_tool(question);
        analyze.check()?;
        let origin = locate(server, Capture::Allowed { no_unix: false }).await?;
        return analyze.ask(Some(question.seconds()), &origin, printer).await.map(drop);
    }
    let origin = locate(server, Capture::Allowed { no_unix: false }).await?;
    let until = commands::gather(&origin, Some(question.seconds())).await?;
    let (narrow, source) = (Narrow::default(), &*origin.source);
    let mut all = question.clone();
    all.max_events.get_or_insert(legacy::TOOL_EVENTS);
    match tool {
        Tool::Summary => legacy::summary(question, &narrow, until, source, printer).await,
        Tool::List => legacy::list(&all, &narrow, until, source, printer).await,
        Tool::DropSummary => drops::summary(question, until, source, printer).await,
        Tool::DropList => drops::list(&all, until, source, printer).await,
        // Asked above.
        Tool::Patterns => Ok(()),
        #[cfg(feature = "ai")]
        Tool::Insights | Tool::Contextual => Ok(()),
    }
}

async fn run_command(
    command: &Command,
    server: Named<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let capture = check(command)?;
    if let Command::Replay(args) = command {
        return recording::replay(args, printer).await;
    }
    if let Command::Doctor(args) = command {
        return doctor::run(args, printer);
    }
    if let Command::Run(args) = command {
        return run::run(args).await;
    }
    if let Command::Mcp(args) = command {
        return mcp::run_beside(args, server, printer).await;
    }
    if let Command::Completions(args) = command {
        return Ok(completions::write(args, printer.out)?);
    }
    let origin = locate(server, capture).await?;
    match command {
        Command::Watch(args) => watch::run(args, &origin, printer).await,
        Command::List(args) => commands::list(args, &origin, printer).await,
        Command::Show(args) => commands::show(args, &origin, printer).await,
        Command::Summary(args) => commands::summary(args, &origin, printer).await,
        Command::Count(args) => Question::Count(args).ask(&origin, printer).await,
        Command::Top(args) if args.is_view() && top::is_possible(&printer.screen) => {
            top::run(&args.what, &origin).await
        }
        Command::Top(args) => Question::Top(args).ask(&origin, printer).await,
        Command::Series(args) => Question::Series(args).ask(&origin, printer).await,
        Command::Diff(args) => Question::Diff(args).ask(&origin, printer).await,
        Command::Findings(args) => Question::Findings(args).ask(&origin, printer).await,
        Command::Analyze(args) => match args.ask(None, &origin, printer).await? {
            true => Ok(()),
            false => Err(Failure::Nothing),
        },
        #[cfg(feature = "ai")]
        Command::Insights(args) => ask::Words::Insights(args).ask(&origin, printer).await,
        #[cfg(feature = "ai")]
        Command::Ask(args) => ask::Words::Ask(args).ask(&origin, printer).await,
        Command::Drops(args) => commands::drops(args, &origin, printer).await,
        Command::Dns(args) => commands::dns(args, &origin, printer).await,
        Command::Status(args) => commands::status(args, &origin, printer).await,
        Command::Record(args) => recording::record(args, &origin).await,
        Command::Replay(_)
        | Command::Doctor(_)
        | Command::Run(_)
        | Command::Mcp(_)
        | Command::Completions(_)
        | Command::Complete(_) => Ok(()),
    }
}

/// Refuses wrong values before anything is asked or captured, and says what a command needs where
/// there is no server.
fn check(command: &Command) -> Result<Capture, Failure> {
    let (any_time, all) = (When::default(), Page::default());
    let allowed = |what: &What| Capture::Allowed { no_unix: what.hides_unix() };
    // Where a cursor leads to, no capture that begins now has been.
    let page = |cursor: &Option<String>, when: &When, capture| match cursor {
        Some(_) => Capture::NeverWith("cursor"),
        None => when.capture(capture),
    };
    match command {
        Command::Watch(args) => {
            args.what.read(&any_time, &all)?;
            Ok(allowed(&args.what))
        }
        Command::List(args) => {
            args.what.read(&args.when, &args.page)?;
            Ok(page(&args.page.cursor, &args.when, allowed(&args.what)))
        }
        Command::Summary(args) => {
            args.what.read(&args.when, &all)?;
            Ok(args.when.capture(allowed(&args.what)))
        }
        Command::Count(args) => Question::Count(args).check(),
        Command::Top(args) => Question::Top(args).check(),
        Command::Series(args) => Question::Series(args).check(),
        Command::Diff(args) => Question::Diff(args).check(),
        Command::Findings(args) => Question::Findings(args).check(),
        Command::Analyze(args) => {
            args.check()?;
            Ok(args.when.capture(Capture::Allowed { no_unix: false }))
        }
        #[cfg(feature = "ai")]
        Command::Insights(args) => {
            ask::Words::Insights(args).check()?;
            Ok(args.when.capture(Capture::Allowed { no_unix: true }))
        }
        #[cfg(feature = "ai")]
        Command::Ask(args) => {
            ask::Words::Ask(args).check()?;
            // Nobody knows yet what the question is about.
            Ok(args.when.capture(Capture::Allowed { no_unix: false }))
        }
        Command::Record(args) => {
            args.what.read(&any_time, &all)?;
            Ok(allowed(&args.what))
        }
        Command::Replay(args) => {
            args.what.read(&any_time, &args.page)?;
            Ok(Capture::Never)
        }
        Command::Drops(args) => {
            args.what.read(&args.when, &args.page)?;
            Ok(page(&args.page.cursor, &args.when, Capture::Allowed { no_unix: true }))
        }
        Command::Dns(args) => {
            args.what.read(&args.when, &args.page)?;
            Ok(page(&args.page.cursor, &args.when, Capture::Allowed { no_unix: true }))
        }
        Command::Status(_) => Ok(Capture::Allowed { no_unix: false }),
        Command::Doctor(_)
        | Command::Run(_)
        | Command::Mcp(_)
        | Command::Completions(_)
        | Command::Complete(_) => Ok(Capture::Never),
        Command::Show(args) => {
            commands::read_id(&args.id)?;
            Ok(Capture::Never)
        }
    }
}
