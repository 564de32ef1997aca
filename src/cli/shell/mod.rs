//! The interactive shell. It reads a pipe just as well: then it shows neither prompt nor greeting,
//! and its exit code is that of the first command that failed.

mod complete;
mod lines;
mod words;

use std::sync::{Arc, PoisonError};

use clap::Parser;
use tokio::runtime::Runtime;

use self::complete::{Completion, Known};
use self::lines::{Input, Line};
#[cfg(not(feature = "ai"))]
use self::words::MissingCommand;
use self::words::{ShellCommand, ShellLine};
#[cfg(feature = "ai")]
use super::ask::Words;
use super::failure::{Failure, note};
use super::filters::{Page, When};
use super::legacy::{self, drops};
use super::locate::{Capture, Named, Origin, locate, read_address};
use super::questions::Question;
use super::render::answers::Printer;
use super::signals::Signals;
use super::{argv, commands, top, watch};

const GREETING: &str = "\
netspy: which process connects where, and how it ended
Type 'help' for the commands, 'quit' or Ctrl-D to leave.
";

/// Runs commands until the input ends or says so.
pub fn run(runtime: &Runtime, server: Named<'_>, printer: &mut Printer<'_>) -> Result<(), Failure> {
    if let Some(text) = server.server.filter(|text| !text.is_empty()) {
        read_address(text)?;
    }
    let known = Known::default();
    let completion = Completion::new(runtime.handle().clone(), Known::clone(&known));
    let mut input = Input::open(completion)?;
    let mut shell = Shell { server, origin: None, known, interactive: input.is_interactive() };
    if input.is_interactive() {
        printer.out.write_all(GREETING.as_bytes())?;
        printer.out.flush()?;
        // What is captured from here on is there when the first question comes.
        if let Err(failure) = runtime.block_on(shell.origin()) {
            failure.report();
        }
    }
    let mut first_failure = None;
    loop {
        let line = match input.next()? {
            Line::Text(line) => line,
            Line::Cancelled => continue,
            Line::End => break,
        };
        match shell.execute(runtime, &line, printer) {
            Ok(Next::Read) => {}
            Ok(Next::Quit) => {
                if input.is_interactive() {
                    writeln!(printer.out, "Goodbye!")?;
                }
                break;
            }
            Err(failure @ Failure::Output(_)) => return Err(failure),
            Err(failure) => {
                failure.report();
                first_failure.get_or_insert(failure);
            }
        }
        printer.out.flush()?;
    }
    match first_failure {
        // Said already; only the code is left to give.
        Some(failure) if !input.is_interactive() => Err(failure.said()),
        _ => Ok(()),
    }
}

enum Next {
    Read,
    Quit,
}

struct Shell<'a> {
    server: Named<'a>,
    origin: Option<Origin>,
    /// The same for the completion of names.
    known: Known,
    interactive: bool,
}

impl Shell<'_> {
    /// Where answers come from; found once, and looked for again until it is found.
    async fn origin(&mut self) -> Result<Origin, Failure> {
        if let Some(origin) = &self.origin {
            return Ok(origin.clone());
        }
        let origin = locate(self.server, Capture::Allowed { no_unix: false }).await?;
        self.origin = Some(origin.clone());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(Arc::clone(&origin.source));
        drop(known);
        Ok(origin)
    }

    /// The same for a command that looks at the signals itself from then on.
    async fn origin_unless_cancelled(&mut self) -> Result<Option<Origin>, Failure> {
        let mut signals = Signals::new()?;
        tokio::select! {
            () = signals.wait() => {
                note("cancelled");
                Ok(None)
            }
            origin = self.origin() => origin.map(Some),
        }
    }

    fn execute(
        &mut self,
        runtime: &Runtime,
        line: &str,
        printer: &mut Printer<'_>,
    ) -> Result<Next, Failure> {
        let Some(words) = shlex::split(line) else {
            return Err(Failure::Usage("a quote is not closed".to_owned()));
        };
        if words.is_empty() || line.trim_start().starts_with('#') {
            return Ok(Next::Read);
        }
        #[cfg(not(feature = "ai"))]
        if let Some(missing) = MissingCommand::named(&words[0]) {
            return Err(Failure::Usage(missing.to_string()));
        }
        // The flags of Go's flag package begin at the second word.
        let words = argv::normalise(words.into_iter().map(Into::into));
        let command = match ShellLine::try_parse_from(words) {
            Ok(line) => line.command,
            Err(error) => return parse_failure(&error, printer).map(|()| Next::Read),
        };
        match command {
            ShellCommand::Quit => return Ok(Next::Quit),
            ShellCommand::Help => printer.out.write_all(words::HELP.as_bytes())?,
            ShellCommand::Tools => printer.out.write_all(words::TOOLS.as_bytes())?,
            ShellCommand::Watch(args) if !self.interactive && args.is_endless() => {
                return Err(Failure::Usage(
                    "watch does not end by itself, and no line after it would be reached: give it \
                     --duration or --limit, or use 'netspy watch'"
                        .to_owned(),
                ));
            }
            ShellCommand::Watch(args) => runtime.block_on(async {
                args.what.read(&When::default(), &Page::default())?;
                match self.origin_unless_cancelled().await? {
                    Some(origin) => watch::run(&args, &origin, printer).await,
                    None => Ok(()),
                }
            })?,
            ShellCommand::Top(args)
                if self.interactive && args.is_view() && top::is_possible(&printer.screen) =>
            {
                runtime.block_on(async {
                    match self.origin_unless_cancelled().await? {
                        Some(origin) => top::run(&args.what, &origin).await,
                        None => Ok(()),
                    }
                })?
            }
            query => runtime.block_on(async {
                let mut signals = Signals::new()?;
                tokio::select! {
                    () = signals.wait() => { note("cancelled"); Ok(()) }
                    result = self.query(&query, printer) => result,
                }
            })?,
        }
        Ok(Next::Read)
    }

    async fn query(
        &mut self,
        command: &ShellCommand,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        let origin = self.origin().await?;
        let source = &*origin.source;
        match command {
            ShellCommand::Summary(q) => {
                legacy::summary(&q.question, &q.narrow, None, source, printer).await
            }
            ShellCommand::List(q) => {
                legacy::list(&q.question, &q.narrow, None, source, printer).await
            }
            ShellCommand::Dropsummary(q) => drops::summary(q, None, source, printer).await,
            ShellCommand::Droplist(q) => drops::list(q, None, source, printer).await,
            ShellCommand::Drops(args) => commands::drops_now(args, &origin, printer).await,
            ShellCommand::Dns(args) => commands::dns_now(args, &origin, printer).await,
            ShellCommand::Connections(args) => commands::list_now(args, &origin, printer).await,
            ShellCommand::Count(args) => Question::Count(args).ask_now(&origin, printer).await,
            ShellCommand::Top(args) => Question::Top(args).ask_now(&origin, printer).await,
            ShellCommand::Series(args) => Question::Series(args).ask_now(&origin, printer).await,
            ShellCommand::Diff(args) => Question::Diff(args).ask_now(&origin, printer).await,
            ShellCommand::Findings(args) => {
                Question::Findings(args).ask_now(&origin, printer).await
            }
            ShellCommand::Analyze(args) => args.ask_now(&origin, printer).await,
            #[cfg(feature = "ai")]
            ShellCommand::Insights(args) => Words::Insights(args).ask_now(&origin, printer).await,
            #[cfg(feature = "ai")]
            ShellCommand::Contextual(args) => Words::Ask(args).ask_now(&origin, printer).await,
            ShellCommand::Show(args) => commands::show(args, &origin, printer).await,
            ShellCommand::Status(args) => commands::status(args, &origin, printer).await,
            _ => Ok(()),
        }
    }
}

/// Help is an answer; anything else that the parser says is an error.
fn parse_failure(error: &clap::Error, printer: &mut Printer<'_>) -> Result<(), Failure> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    match error.kind() {
        ErrorKind::DisplayHelp => Ok(write!(printer.out, "{}", error.render())?),
        ErrorKind::InvalidSubcommand => {
            let word = match error.get(ContextKind::InvalidSubcommand) {
                Some(ContextValue::String(word)) => word.as_str(),
                _ => "",
            };
            Err(Failure::Usage(format!(
                "unknown command: {word} (type 'help' for available commands)"
            )))
        }
        _ => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let first = text.lines().next().unwrap_or_default();
            Err(Failure::Usage(first.to_owned()))
        }
    }
}
