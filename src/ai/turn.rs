//! One turn of a model: its words as they come, and the calls that it wants made.

use serde_json::Value;

use super::error::ModelError;
use super::settings::Settings;
use super::transport::{self, Answer};
use super::wire::{Call, Chunk, Delta, Piece, Tokens};
use crate::client::sse;

/// Words of one answer; more is no answer to a question about connections.
const TEXT_LIMIT: usize = 64 << 10;
/// Arguments of one call.
const ARGS_LIMIT: usize = 32 << 10;
/// Calls of one turn.
const CALLS_LIMIT: usize = 32;

/// What a model said.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
    pub(super) tokens: Option<Tokens>,
    /// It came to the end of what it may write.
    pub(super) is_at_limit: bool,
}

#[derive(Debug, Default)]
struct Partial {
    text: String,
    calls: Vec<PartialCall>,
    tokens: Option<Tokens>,
    finish: Option<String>,
    is_done: bool,
}

#[derive(Debug, Default)]
struct PartialCall {
    index: Option<usize>,
    id: String,
    name: String,
    args: String,
}

/// Sends `body` and takes the answer in; `hear` gets its words as they come.
pub(super) async fn take(
    settings: &Settings,
    body: Vec<u8>,
    hear: &mut (dyn FnMut(&str) + Send),
) -> Result<Turn, ModelError> {
    let mut answer = transport::post(settings, body).await?;
    let mut partial = Partial::default();
    match answer.is_stream {
        true => stream(settings, &mut answer, &mut partial, hear).await?,
        false => whole(settings, &mut answer, &mut partial, hear).await?,
    }
    partial.end(settings)
}

async fn stream(
    settings: &Settings,
    answer: &mut Answer,
    partial: &mut Partial,
    hear: &mut (dyn FnMut(&str) + Send),
) -> Result<(), ModelError> {
    let mut parser = sse::Parser::default();
    let mut events = Vec::new();
    while let Some(bytes) = answer.next().await? {
        let pushed = parser.push(&bytes, &mut events);
        // Comments, which keep connections open, are no words of the model.
        if !events.is_empty() {
            answer.heard();
        }
        for event in events.drain(..) {
            if event.data.trim() == "[DONE]" {
                partial.is_done = true;
                return Ok(());
            }
            let chunk = serde_json::from_str(&event.data);
            let chunk: Chunk = chunk.map_err(|error| malformed(settings, &error.to_string()))?;
            partial.add(settings, chunk, hear)?;
        }
        pushed.map_err(|_| too_large(settings, sse::Parser::LIMIT))?;
    }
    Ok(())
}

/// Some servers answer at once whatever they are asked for.
async fn whole(
    settings: &Settings,
    answer: &mut Answer,
    partial: &mut Partial,
    hear: &mut (dyn FnMut(&str) + Send),
) -> Result<(), ModelError> {
    let mut body = Vec::new();
    while let Some(bytes) = answer.next().await? {
        answer.heard();
        body.extend_from_slice(&bytes);
    }
    let chunk: Chunk =
        serde_json::from_slice(&body).map_err(|error| malformed(settings, &error.to_string()))?;
    if chunk.choices.is_empty() && chunk.error.is_none() {
        return Err(malformed(settings, "no choices in it"));
    }
    partial.is_done = true;
    partial.add(settings, chunk, hear)
}

impl Partial {
    fn add(
        &mut self,
        settings: &Settings,
        chunk: Chunk,
        hear: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), ModelError> {
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            let message = error.get("message").unwrap_or(&error);
            let message = message.as_str().map_or_else(|| message.to_string(), ToOwned::to_owned);
            let (endpoint, said) =
                (settings.endpoint.to_string(), transport::words(settings, &message));
            return Err(ModelError::Server { endpoint, status: None, said });
        }
        // Each piece of some servers has the sum so far: the last counts.
        self.tokens = chunk.usage.or(self.tokens);
        // Only one was asked for.
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(()) };
        self.finish = choice.finish_reason.or(self.finish.take());
        let Delta { content, refusal, tool_calls } = choice.message.unwrap_or(choice.delta);
        for text in [content, refusal].into_iter().flatten() {
            if self.text.len().saturating_add(text.len()) > TEXT_LIMIT {
                return Err(too_large(settings, TEXT_LIMIT));
            }
            self.text.push_str(&text);
            hear(&text);
        }
        tool_calls.into_iter().flatten().try_for_each(|piece| self.piece(settings, piece))
    }

    fn piece(&mut self, settings: &Settings, piece: Piece) -> Result<(), ModelError> {
        let Piece { index, id, function } = piece;
        let id = id.filter(|id| !id.is_empty());
        // By index, as OpenAI counts them; others send each call whole, with an id or without.
        let known = self.calls.iter().position(|call| match (index, &id) {
            (Some(index), Some(id)) => call.index == Some(index) && call.id == *id,
            (Some(index), None) => call.index == Some(index),
            (None, Some(id)) => call.id == *id,
            (None, None) => false,
        });
        let known = match known {
            Some(known) => known,
            None if self.calls.len() >= CALLS_LIMIT => {
                return Err(malformed(settings, "too many calls in one answer"));
            }
            None => {
                let id = id.unwrap_or_else(|| format!("call_{}", self.calls.len()));
                self.calls.push(PartialCall { index, id, ..PartialCall::default() });
                self.calls.len() - 1
            }
        };
        let (Some(call), Some(function)) = (self.calls.get_mut(known), function) else {
            return Ok(());
        };
        let args = function.arguments.unwrap_or_default();
        if call.args.len().saturating_add(args.len()) > ARGS_LIMIT {
            return Err(too_large(settings, ARGS_LIMIT));
        }
        call.args.push_str(&args);
        if let Some(name) = function.name
            && call.name.is_empty()
        {
            call.name = name;
        }
        Ok(())
    }

    fn end(self, settings: &Settings) -> Result<Turn, ModelError> {
        let endpoint = settings.endpoint.to_string();
        match self.finish.as_deref() {
            Some("content_filter") => return Err(ModelError::Filtered { endpoint }),
            None if !self.is_done => return Err(ModelError::Cut { endpoint, why: String::new() }),
            _ => {}
        }
        let calls = self.calls.into_iter().map(|call| Call {
            args: arguments(&call.args),
            id: call.id,
            name: call.name,
        });
        Ok(Turn {
            text: self.text,
            calls: calls.collect(),
            tokens: self.tokens,
            is_at_limit: self.finish.as_deref() == Some("length"),
        })
    }
}

/// Arguments have to be a JSON object. Nothing at all stands for none.
fn arguments(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    match serde_json::from_str(text) {
        Ok(Value::Null) => Ok(Value::Object(serde_json::Map::new())),
        Ok(args @ Value::Object(_)) => Ok(args),
        Ok(_) => Err("not a JSON object".to_owned()),
        Err(error) => Err(format!("no JSON: {error}")),
    }
}

fn malformed(settings: &Settings, why: &str) -> ModelError {
    ModelError::Malformed { endpoint: settings.endpoint.to_string(), why: why.to_owned() }
}

fn too_large(settings: &Settings, limit: usize) -> ModelError {
    ModelError::TooLarge { endpoint: settings.endpoint.to_string(), limit }
}
