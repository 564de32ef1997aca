//! Rounds of asking a model and answering its calls.

use futures_util::future::join_all;
use jiff::Timestamp;
use openai_api_rs::v1::chat_completion::{ChatCompletionMessage, MessageRole};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};

use super::accounts::Accounts;
use super::error::ModelError;
use super::figures::Sources;
use super::prompt;
use super::settings::Settings;
use super::turn::{self, Turn};
use super::veil::{Veil, is_word};
use super::wire::{self, Call};
use crate::text::{is_unsafe, short};
use crate::tools::{Silent, Spec, ToolError, Toolset};

/// Calls of a round that are made; the others are told to wait.
const CALLS: usize = 8;
/// Of one tool's answer. The tools keep to less.
const ANSWER: usize = 32 << 10;
/// Of all tools' answers.
const ANSWERS: usize = 256 << 10;
/// Of one request.
const REQUEST: usize = 1 << 20;
/// Rounds without one usable call.
const BAD_ROUNDS: u32 = 3;
/// The longest that a tool may take: one of them waits for connections.
const TOOL: Duration = Duration::from_secs(150);
/// Of the same request.
const TRIES: u32 = 3;

/// Hears how a conversation goes. All texts are harmless on a terminal, but for line feeds.
pub trait Listener: Send + Sync {
    /// Words of the answer, as they come.
    fn words(&self, _text: &str) {}
    /// The words so far led to calls: what follows is a new text.
    fn paragraph(&self) {}
    /// A tool is called.
    fn calling(&self, _tool: &str, _args: &str) {}
    /// Something did not go as it should, and the conversation goes on.
    fn trouble(&self, _what: &str) {}
}

/// Nobody who wants to hear it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl Listener for Nobody {}

/// What a conversation cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests to the model.
    pub requests: u32,
    /// Calls of tools.
    pub tool_calls: u32,
    /// Tokens that it read, if it said so of each request.
    pub prompt_tokens: Option<u64>,
    /// Tokens that it wrote.
    pub completion_tokens: Option<u64>,
}

/// What it came to.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) unsupported: Vec<String>,
    pub(super) is_at_limit: bool,
}

pub(super) struct Conversation<'a> {
    settings: &'a Settings,
    tools: Option<&'a dyn Toolset>,
    specs: Vec<Spec>,
    listener: &'a dyn Listener,
    veil: Veil,
    messages: Vec<ChatCompletionMessage>,
    sources: Sources,
    answered: usize,
    pub(super) usage: Usage,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(settings: &'a Settings, listener: &'a dyn Listener) -> Self {
        let messages = vec![wire::message(MessageRole::system, prompt::system(Timestamp::now()))];
        let (veil, sources) = (Veil::new(settings.privacy), Sources::default());
        let (specs, usage) = (Vec::new(), Usage::default());
        Conversation {
            settings,
            tools: None,
            specs,
            listener,
            veil,
            messages,
            sources,
            answered: 0,
            usage,
        }
    }

    /// Names of users that are not to be sent.
    pub(super) fn keeps(&mut self, accounts: Accounts) {
        self.veil.knows(accounts);
    }

    /// A question for whose answer `tools` may be called.
    pub(super) fn ask(&mut self, question: &str, since: Option<Timestamp>, tools: &'a dyn Toolset) {
        self.sources.add_text(question);
        let question = prompt::question(&self.veil.text(question), since);
        self.messages.push(wire::message(MessageRole::user, question));
        self.specs = tools.list();
        self.tools = Some(tools);
    }

    /// Facts of tools to interpret, and what the caller says.
    pub(super) fn interpret(&mut self, facts: &Value, summary: &str) {
        self.sources.add(facts);
        self.sources.add_text(summary);
        let facts = self.veil.value(facts).to_string();
        let text = prompt::facts(&facts, &self.veil.text(summary));
        self.messages.push(wire::message(MessageRole::user, text));
    }

    /// The body of the next request.
    pub(super) fn body(&self, may_call: bool) -> Value {
        wire::request(&self.settings.model, &self.messages, &self.specs, may_call)
    }

    /// What an answer of a tool looks like when it is sent.
    pub(super) fn veiled(&mut self, answer: &Value) -> Value {
        self.veil.value(answer)
    }

    /// Goes on until there is an answer.
    pub(super) async fn run(&mut self) -> Result<Said, ModelError> {
        let rounds = if self.specs.is_empty() { 0 } else { self.settings.max_rounds };
        let mut said = String::new();
        let mut bad = 0;
        for round in 0..=rounds {
            let may_call = round < rounds;
            let turn = self.turn(may_call).await?;
            said.push_str(&self.veil.lift(&turn.text));
            said.push('\n');
            let model = || self.settings.model.clone();
            if turn.calls.is_empty() || (!may_call && !turn.text.trim().is_empty()) {
                if turn.text.trim().is_empty() {
                    return Err(ModelError::Empty { model: model() });
                }
                // What was said on the way is on the screen as well.
                let unsupported = self.sources.unsupported(&said);
                let text = harmless(&self.veil.lift(turn.text.trim()));
                return Ok(Said { text, unsupported, is_at_limit: turn.is_at_limit });
            }
            if !may_call {
                break;
            }
            if !turn.text.trim().is_empty() {
                self.listener.paragraph();
            }
            match self.answer(turn).await {
                None => bad = 0,
                Some(why) => {
                    bad += 1;
                    if bad >= BAD_ROUNDS {
                        return Err(ModelError::BadCalls { model: model(), why });
                    }
                }
            }
        }
        let model = self.settings.model.clone();
        Err(match rounds {
            0 => ModelError::CallsInstead { model },
            rounds => ModelError::EndlessLoop { model, rounds },
        })
    }

    async fn turn(&mut self, may_call: bool) -> Result<Turn, ModelError> {
        let body = self.body(may_call).to_string().into_bytes();
        if body.len() > REQUEST {
            return Err(ModelError::TooMuch { bytes: body.len(), limit: REQUEST });
        }
        let mut tries = 1;
        let turn = loop {
            self.usage.requests += 1;
            let mut words =
                Words { held: String::new(), veil: &self.veil, listener: self.listener };
            let turn = turn::take(self.settings, body.clone(), &mut |text| words.hear(text)).await;
            words.end();
            match turn {
                Ok(turn) => break turn,
                Err(error) => {
                    // These come instead of an answer, so that no word of it was heard.
                    let wait = error.wait_before_retry().filter(|_| tries < TRIES);
                    let Some(ms) = wait else { return Err(error) };
                    tries += 1;
                    // In Rust's shortest form: 0.5 s is not told as 1 s.
                    let seconds = ms as f64 / 1000.0;
                    self.listener.trouble(&format!("{error}; asking again after {seconds} s"));
                    sleep(Duration::from_millis(ms)).await;
                }
            }
        };
        let tokens = turn.tokens;
        // Of requests that failed nobody tells any.
        let is_first = self.messages.iter().all(|m| m.role != MessageRole::assistant);
        let sum = |so_far: Option<u64>, more: Option<u64>| match (so_far, more) {
            (None, more) if is_first => more,
            (so_far, more) => Some(so_far?.saturating_add(more?)),
        };
        self.usage.prompt_tokens = sum(self.usage.prompt_tokens, tokens.map(|t| t.prompt_tokens));
        self.usage.completion_tokens =
            sum(self.usage.completion_tokens, tokens.map(|t| t.completion_tokens));
        Ok(turn)
    }

    /// Makes the calls of a turn, side by side. Says what was wrong where none could be made.
    async fn answer(&mut self, turn: Turn) -> Option<String> {
        self.messages.push(wire::said(turn.text, &turn.calls));
        let made = turn.calls.iter().enumerate().map(|(n, call)| self.call(n, call));
        let made = join_all(made).await;
        let mut fault = None;
        let mut is_any_good = false;
        for (call, made) in turn.calls.iter().zip(made) {
            let text = match made {
                Ok(answer) => {
                    is_any_good = true;
                    self.usage.tool_calls += 1;
                    self.take(&answer)
                }
                Err(problem) => {
                    let name = short(&call.name, 64);
                    self.listener.trouble(&format!("the call of {name} failed: {}", problem.why));
                    is_any_good |= !problem.is_models;
                    let text = json!({"error": self.veil.text(&problem.why)}).to_string();
                    fault = Some(problem.why);
                    text
                }
            };
            self.messages.push(wire::answered(call, text));
        }
        fault.filter(|_| !is_any_good)
    }

    async fn call(&self, n: usize, call: &Call) -> Result<Value, Problem> {
        let models = |why: String| Problem { why, is_models: true };
        let Some(tools) = self.tools else { return Err(models("there are no tools".to_owned())) };
        if !self.specs.iter().any(|spec| spec.name == call.name) {
            let known: Vec<&str> = self.specs.iter().map(|spec| spec.name).collect();
            return Err(models(format!("there is no such tool; there are {}", known.join(", "))));
        }
        let args = call.args.clone().map_err(|why| models(format!("its arguments are {why}")))?;
        if n >= CALLS {
            let why = format!("more than {CALLS} calls at once: call it again in the next round");
            return Err(Problem { why, is_models: false });
        }
        let args = self.veil.lift_value(args);
        self.listener.calling(&call.name, &short(&args.to_string(), 200));
        let answer = timeout(TOOL, tools.call_with(&call.name, args, &Silent)).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer.content),
            Ok(Err(error)) => {
                let is_models =
                    matches!(error, ToolError::Unknown { .. } | ToolError::Invalid { .. });
                Err(Problem { why: short(&error.to_string(), 500).into_owned(), is_models })
            }
            Err(_) => {
                let why = format!("no answer within {} s", TOOL.as_secs());
                Err(Problem { why, is_models: false })
            }
        }
    }

    /// An answer as it is sent, within the bounds. What is not sent supports no figure.
    fn take(&mut self, answer: &Value) -> String {
        let text = self.veil.value(answer).to_string();
        let (too_long, used_up) = (text.len() > ANSWER, self.answered + text.len() > ANSWERS);
        if too_long || used_up {
            let what = match too_long {
                true => "the answer is too large: narrow the question",
                false => "no room for more answers: say what the data so far shows",
            };
            self.listener.trouble(what);
            return json!({ "error": what }).to_string();
        }
        self.answered += text.len();
        self.sources.add(answer);
        text
    }
}

struct Problem {
    why: String,
    /// Whether the model did it.
    is_models: bool,
}

/// Words on their way to the listener. The last one waits until it is whole: it may be a stand-in.
struct Words<'a> {
    held: String,
    veil: &'a Veil,
    listener: &'a dyn Listener,
}

impl Words<'_> {
    fn hear(&mut self, text: &str) {
        self.held.push_str(text);
        let whole = self.held.char_indices().rev().find(|(_, c)| !is_word(*c));
        if let Some((at, c)) = whole {
            let rest = self.held.split_off(at + c.len_utf8());
            let whole = std::mem::replace(&mut self.held, rest);
            self.listener.words(&harmless(&self.veil.lift(&whole)));
        }
    }

    fn end(&mut self) {
        if !self.held.is_empty() {
            self.listener.words(&harmless(&self.veil.lift(&self.held)));
            self.held.clear();
        }
    }
}

/// A model repeats what it read.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) && c != '\n' { '\u{fffd}' } else { c }).collect()
}
