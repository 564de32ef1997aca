//! `insights` and `ask`: answers in words, by a model where one is named, else by fixed rules.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::commands::gather_into;
use super::failure::{Failure, note};
use super::filters::{Page, What, When, Which, last};
use super::locate::Origin;
use super::render::answers::Printer;
use super::render::screen::{DIM, ODD};
use super::render::text::clean;
use super::render::{units, write_json};
use crate::ai::{Assistant, Listener, Reply, Settings};
use crate::query::Filter;
use crate::tools::advisor::Means;
use crate::tools::{By, QueryTools, Scope, Silent, ToolError};

/// Seconds that an answer looks back unless asked otherwise.
const LOOK_BACK: u32 = 3600;

/// The form of an answer in words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people, as it comes.
    #[default]
    #[value(alias = "table")]
    Text,
    /// One JSON document: the answer, who gave it, figures that no tool returned, tokens.
    Json,
    /// The same on one line.
    Jsonl,
}

/// How a model is asked.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "The model (OPENAI_API_KEY, OPENAI_API_BASE)")]
pub struct Model {
    /// Ask this model [NETSPY_MODEL; without either, fixed rules answer]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Show what would be sent, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// At most this many rounds of tool calls [6]; then it has to answer
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=50))]
    pub max_rounds: Option<u32>,
    /// For how many seconds it may be silent [90]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub timeout: Option<u32>,
    /// Send stand-ins for private addresses, as for names of users
    #[arg(long)]
    pub hide_addresses: bool,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Form,
}

/// Arguments of `insights`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
What stands out, what it may mean, and what to do next. The model sees the answers of
get_network_summary and analyze_patterns, without secrets and names of users; --dry-run shows it.
Exit code 0 also where the model fails and fixed rules answer: --output json tells which.

Examples:
  netspy insights --since 15m
  netspy insights --process curl 'curl made 5 connections in 60 seconds'
  NETSPY_MODEL=qwen3 OPENAI_API_BASE=http://localhost:11434/v1 netspy insights --dry-run")]
pub struct Insights {
    /// What you know already, such as the line of a summary
    #[arg(value_name = "SUMMARY-TEXT")]
    pub text: Vec<String>,
    /// Only these processes, by name
    #[arg(long, value_name = "NAME")]
    pub process: Vec<String>,
    /// Only this process, by id
    #[arg(long, value_name = "PID")]
    pub pid: Vec<String>,
    #[command(flatten)]
    pub when: When,
    #[command(flatten)]
    pub model: Model,
}

/// Arguments of `ask`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
The model calls netspy's tools for what it needs to know; each call is shown. Figures of its answer
that no tool returned are named below it. What is sent has neither secrets nor names of users.
Exit code 0 also where the model fails and fixed rules answer: --output json tells which.

Examples:
  netspy ask --model gpt-5-mini 'why can curl not reach 192.0.2.1?'
  netspy ask --since 10m who talks to port 5432
  netspy ask --dry-run --model qwen3 'what fails, and since when?'")]
pub struct Ask {
    /// The question
    #[arg(required = true, value_name = "QUESTION")]
    pub question: Vec<String>,
    #[command(flatten)]
    pub when: When,
    #[command(flatten)]
    pub model: Model,
}

/// One of both.
#[derive(Debug, Clone, Copy)]
pub enum Words<'a> {
    Insights(&'a Insights),
    Ask(&'a Ask),
}

impl Words<'_> {
    fn parts(&self) -> (String, &When, &Model) {
        match self {
            Words::Insights(args) => (args.text.join(" "), &args.when, &args.model),
            Words::Ask(args) => (args.question.join(" "), &args.when, &args.model),
        }
    }

    fn what(&self) -> What {
        match self {
            Words::Insights(args) => {
                let (process, pid) = (args.process.clone(), args.pid.clone());
                What { which: Which { process, pid, ..Which::default() }, ..What::default() }
            }
            Words::Ask(_) => What::default(),
        }
    }

    fn read(&self) -> Result<Filter, Failure> {
        let (text, when, _) = self.parts();
        if matches!(self, Words::Ask(_)) && text.trim().is_empty() {
            return Err(Failure::Usage("ask needs a question".to_owned()));
        }
        let (mut filter, _) = self.what().read(when, &Page::default())?;
        if filter.since.is_none() {
            filter.since = last(LOOK_BACK);
        }
        Ok(filter)
    }

    /// Refuses wrong values before anything is asked or captured.
    pub fn check(&self) -> Result<(), Failure> {
        self.read().map(drop)
    }

    /// Asks. Where there is no server, captures for a while first.
    pub async fn ask(&self, origin: &Origin, printer: &mut Printer<'_>) -> Result<(), Failure> {
        let mut filter = self.read()?;
        gather_into(&mut filter, self.parts().1, origin).await?;
        self.answer(filter, origin, printer).await
    }

    /// Asks about what is known at this moment.
    pub async fn ask_now(&self, origin: &Origin, printer: &mut Printer<'_>) -> Result<(), Failure> {
        self.answer(self.read()?, origin, printer).await
    }

    async fn answer(
        &self,
        mut filter: Filter,
        origin: &Origin,
        printer: &mut Printer<'_>,
    ) -> Result<(), Failure> {
        filter.hide_associated(&*origin.source).await?;
        let (text, _, model) = self.parts();
        let assistant = model.assistant();
        let tools = QueryTools::new(origin.source.clone());
        let means = Means { source: &*origin.source, tools: &tools, progress: &Silent };
        let scope = Scope { filter };
        if model.dry_run {
            let preview = match self {
                Words::Insights(_) => assistant.preview_insights(&text, &scope, means).await,
                Words::Ask(_) => assistant.preview_answer(&text, &scope, means).await,
            };
            return Ok(dry_run(preview?, model.output, printer)?);
        }
        if let (Some(settings), Form::Text) = (assistant.settings(), model.output) {
            announce(settings);
        }
        let heard = Heard::default();
        let asking = async {
            match self {
                Words::Insights(_) => assistant.insights_to(&text, &scope, means, &heard).await,
                Words::Ask(_) => assistant.answer_to(&text, &scope, means, &heard).await,
            }
        };
        tokio::pin!(asking);
        let mut streamed = Streamed::default();
        let reply = loop {
            tokio::select! {
                biased;
                reply = &mut asking => break reply?,
                () = heard.more.notified() => streamed.show(&heard, model.output, printer)?,
            }
        };
        streamed.show(&heard, model.output, printer)?;
        match model.output {
            Form::Text => told(&reply, &streamed, printer)?,
            form => write_json(printer.out, &as_json(&reply), form == Form::Json)?,
        }
        Ok(())
    }
}

impl Model {
    /// With the settings of the environment. Where they lead to no model, rules answer all the
    /// same.
    fn assistant(&self) -> Assistant {
        let settings = Settings::from_environment(self.model.as_deref()).unwrap_or_else(|error| {
            note(&format!("no model can be asked: {error}"));
            None
        });
        Assistant::new(settings.map(|mut settings| {
            settings.max_rounds = self.max_rounds.unwrap_or(settings.max_rounds);
            let silence = self.timeout.map(|s| Duration::from_secs(s.into()));
            settings.silence = silence.unwrap_or(settings.silence);
            settings.privacy.addresses = self.hide_addresses;
            settings
        }))
    }
}

fn announce(settings: &Settings) {
    let (model, endpoint) = (&settings.model, &settings.endpoint);
    let leaves = match endpoint.is_local() {
        true => "",
        false => "; what it is told leaves this host (--dry-run shows it)",
    };
    note(&format!("asking {model} at {endpoint}{leaves}"));
    if endpoint.is_readable_by_others() {
        note("http:// to another host: whoever is on the way can read the key and what is sent");
    }
}

fn dry_run(preview: Option<Value>, form: Form, printer: &mut Printer<'_>) -> io::Result<()> {
    match preview {
        Some(preview) => write_json(printer.out, &preview, form != Form::Jsonl),
        None if form == Form::Text => writeln!(
            printer.out,
            "Nothing would be sent: no model is named (NETSPY_MODEL or --model), and fixed rules \
             answer."
        ),
        None => write_json(printer.out, &Value::Null, true),
    }
}

/// What came so far: bounded by what a conversation takes in.
#[derive(Default)]
struct Heard {
    events: Mutex<Vec<Event>>,
    more: Notify,
}

enum Event {
    Words(String),
    Paragraph,
    Note(String),
}

impl Heard {
    fn add(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.more.notify_one();
    }
}

impl Listener for Heard {
    fn words(&self, text: &str) {
        self.add(Event::Words(text.to_owned()));
    }
    fn paragraph(&self) {
        self.add(Event::Paragraph);
    }
    fn calling(&self, tool: &str, args: &str) {
        let args = if args == "{}" { "" } else { args };
        self.add(Event::Note(format!("{tool} {args}")));
    }
    fn trouble(&self, what: &str) {
        self.add(Event::Note(what.to_owned()));
    }
}

/// What is on the screen already.
#[derive(Default)]
struct Streamed {
    any: bool,
    mid_line: bool,
}

impl Streamed {
    fn show(&mut self, heard: &Heard, form: Form, printer: &mut Printer<'_>) -> io::Result<()> {
        let events =
            std::mem::take(&mut *heard.events.lock().unwrap_or_else(PoisonError::into_inner));
        for event in events {
            match event {
                Event::Words(text) if form == Form::Text && !text.is_empty() => {
                    self.any = true;
                    self.mid_line = !text.ends_with('\n');
                    printer.out.write_all(text.as_bytes())?;
                }
                Event::Paragraph if form == Form::Text => self.end_line(printer)?,
                Event::Note(text) if form == Form::Text => {
                    self.end_line(printer)?;
                    printer.out.flush()?;
                    note(text.trim_end());
                }
                _ => {}
            }
        }
        printer.out.flush()
    }

    fn end_line(&mut self, printer: &mut Printer<'_>) -> io::Result<()> {
        if std::mem::take(&mut self.mid_line) { writeln!(printer.out) } else { Ok(()) }
    }
}

/// What follows the streamed answer, or the answer of the rules.
fn told(reply: &Reply, streamed: &Streamed, printer: &mut Printer<'_>) -> io::Result<()> {
    if streamed.mid_line {
        writeln!(printer.out)?;
    }
    let advice = &reply.advice;
    if let Some(failure) = &reply.failure {
        printer.out.flush()?;
        note(&failure.to_string());
        if streamed.any {
            writeln!(printer.out)?;
        }
    }
    if advice.by == By::Rules {
        let label = match &reply.failure {
            Some(_) => "By fixed rules, since the model failed:".to_owned(),
            None => "By fixed rules; --model or NETSPY_MODEL names a model to ask.".to_owned(),
        };
        writeln!(printer.out, "{}", printer.screen.paint(&label, DIM))?;
        advice.text.lines().try_for_each(|line| writeln!(printer.out, "{}", clean(line)))?;
    }
    if reply.is_at_limit {
        let text = "The answer ends where the model may write no more.";
        writeln!(printer.out, "{}", printer.screen.paint(text, ODD))?;
    }
    if !advice.unsupported.is_empty() {
        let figures: Vec<_> = advice.unsupported.iter().map(|figure| clean(figure)).collect();
        let text = format!(
            "No tool returned these figures; check them before you rely on them: {}",
            figures.join(", ")
        );
        writeln!(printer.out, "{}", printer.screen.paint(&text, ODD))?;
    }
    if reply.usage.requests > 0 {
        let text = cost(reply);
        writeln!(printer.out, "{}", printer.screen.paint(&text, DIM))?;
    }
    Ok(())
}

fn cost(reply: &Reply) -> String {
    let usage = &reply.usage;
    let tokens = match (usage.prompt_tokens, usage.completion_tokens) {
        (Some(prompt), Some(completion)) => {
            format!(
                "{} prompt and {} completion tokens",
                units::count(prompt),
                units::count(completion)
            )
        }
        _ => "not told".to_owned(),
    };
    let s = |n: u32| if n == 1 { "" } else { "s" };
    let (requests, calls) = (usage.requests, usage.tool_calls);
    format!("Cost: {tokens}; {requests} request{}, {calls} tool call{}", s(requests), s(calls))
}

fn as_json(reply: &Reply) -> Value {
    let (advice, usage) = (&reply.advice, &reply.usage);
    let (by, model) = match &advice.by {
        By::Rules => ("rules", Value::Null),
        By::Model(model) => ("model", model.as_str().into()),
    };
    json!({
        "answer": advice.text,
        "by": by,
        "model": model,
        "note": advice.note,
        "error": reply.failure.as_ref().map(ToString::to_string),
        "unsupported_figures": advice.unsupported,
        "usage": {
            "requests": usage.requests,
            "tool_calls": usage.tool_calls,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
        },
    })
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        match error {
            ToolError::Invalid { parameter, problem, accepted } => {
                Failure::of_flag(&parameter, &problem, &accepted)
            }
            // What to start is in it; the rest is for assistants.
            ToolError::Unreachable { why, .. } => Failure::Unreachable(why),
            error => Failure::Unreachable(error.to_string()),
        }
    }
}
