//! Requests and the pieces of answers, with the types of openai-api-rs where they fit.
//!
//! They do not for tools: its schemas know neither `integer` nor `enum`, so that those are put in
//! as they are. Pieces of a stream have no type there at all.

use openai_api_rs::v1::chat_completion::chat_completion_stream::ChatCompletionStreamRequest;
use openai_api_rs::v1::chat_completion::{
    ChatCompletionMessage, Content, MessageRole, ToolCall, ToolCallFunction,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::tools::Spec;

/// A message with text alone.
pub(super) fn message(role: MessageRole, text: String) -> ChatCompletionMessage {
    ChatCompletionMessage {
        role,
        content: Content::Text(text),
        name: None,
        tool_calls: None,
        tool_call_id: None,
    }
}

/// What the model said, for it to read in the next round.
pub(super) fn said(text: String, calls: &[Call]) -> ChatCompletionMessage {
    let calls = calls.iter().map(|call| ToolCall {
        id: call.id.clone(),
        r#type: "function".to_owned(),
        function: ToolCallFunction {
            name: Some(call.name.clone()),
            // Some servers parse them again, and fail where they are no JSON.
            arguments: Some(call.args.as_ref().map_or_else(|_| "{}".to_owned(), Value::to_string)),
        },
    });
    let tool_calls = Some(calls.collect::<Vec<_>>()).filter(|calls| !calls.is_empty());
    ChatCompletionMessage { tool_calls, ..message(MessageRole::assistant, text) }
}

/// What a tool answered.
pub(super) fn answered(call: &Call, text: String) -> ChatCompletionMessage {
    let tool_call_id = Some(call.id.clone());
    ChatCompletionMessage { tool_call_id, ..message(MessageRole::tool, text) }
}

/// The body of a request.
pub(super) fn request(
    model: &str,
    messages: &[ChatCompletionMessage],
    tools: &[Spec],
    may_call: bool,
) -> Value {
    let request = ChatCompletionStreamRequest::new(model.to_owned(), messages.to_vec());
    // Plain structs: nothing in them can fail.
    let mut request = serde_json::to_value(&request).unwrap_or_default();
    request["stream"] = true.into();
    request["stream_options"] = json!({"include_usage": true});
    if !tools.is_empty() {
        let tools = tools.iter().map(|tool| {
            json!({"type": "function", "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.input_schema,
            }})
        });
        request["tools"] = tools.collect();
        request["tool_choice"] = if may_call { "auto" } else { "none" }.into();
    }
    request
}

/// A call that the model wants made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    /// Its arguments, or what it wrote instead of a JSON object.
    pub(super) args: Result<Value, String>,
}

/// A piece of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct Chunk {
    #[serde(default)]
    pub(super) choices: Vec<Choice>,
    pub(super) usage: Option<Tokens>,
    pub(super) error: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Choice {
    #[serde(default)]
    pub(super) delta: Delta,
    /// The whole, of servers that do not stream.
    pub(super) message: Option<Delta>,
    pub(super) finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Delta {
    pub(super) content: Option<String>,
    pub(super) refusal: Option<String>,
    pub(super) tool_calls: Option<Vec<Piece>>,
}

/// A piece of a tool call. Its first has the id and the name, the others more arguments.
#[derive(Debug, Deserialize)]
pub(super) struct Piece {
    pub(super) index: Option<usize>,
    pub(super) id: Option<String>,
    pub(super) function: Option<ToolCallFunction>,
}

/// Tokens of a request and its answer.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Tokens {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) completion_tokens: u64,
}
