//! [`Assistant`]: a model where one is named, and rules always.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::accounts::Accounts;
use super::conversation::{Conversation, Listener, Nobody, Usage};
use super::error::ModelError;
use super::settings::Settings;
use crate::query::filter::escape;
use crate::tools::advisor::Means;
use crate::tools::{Advice, Advisor, By, RuleBased, Scope, ToolError};

/// Tools whose answers are interpreted.
const FACTS: [&str; 2] = ["get_network_summary", "analyze_patterns"];

/// Asks the model, if one is named, and falls back to rules where it fails.
#[derive(Debug, Clone, Default)]
pub struct Assistant {
    settings: Option<Settings>,
}

/// An answer and what it took.
#[derive(Debug)]
pub struct Reply {
    /// The answer.
    pub advice: Advice,
    /// What asking the model cost, be it that it failed.
    pub usage: Usage,
    /// Why the model gave no answer, if it did not.
    pub failure: Option<ModelError>,
    /// Whether the answer ends where the model may write no more.
    pub is_at_limit: bool,
}

impl Assistant {
    /// Asks this model; none: rules alone.
    pub fn new(settings: Option<Settings>) -> Self {
        Assistant { settings }
    }

    /// How a model is asked, if one is.
    pub fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// As [`Advisor::insights`], heard while it goes on.
    pub async fn insights_to(
        &self,
        summary: &str,
        scope: &Scope,
        means: Means<'_>,
        listener: &dyn Listener,
    ) -> Result<Reply, ToolError> {
        let asked = match &self.settings {
            None => None,
            Some(settings) => {
                let facts = facts(scope, means).await?;
                let mut conversation = begun(settings, listener, scope, means).await?;
                conversation.interpret(&facts, summary);
                Some((settings, conversation))
            }
        };
        let rules = RuleBased.insights(summary, scope, means);
        reply(asked, rules).await
    }

    /// As [`Advisor::answer`], heard while it goes on.
    pub async fn answer_to(
        &self,
        question: &str,
        scope: &Scope,
        means: Means<'_>,
        listener: &dyn Listener,
    ) -> Result<Reply, ToolError> {
        let asked = match &self.settings {
            None => None,
            Some(settings) => {
                let mut conversation = begun(settings, listener, scope, means).await?;
                conversation.ask(question, scope.filter.since, means.tools);
                Some((settings, conversation))
            }
        };
        reply(asked, RuleBased.answer(question, scope, means)).await
    }

    /// What would be sent for insights; `None` where no model is named.
    pub async fn preview_insights(
        &self,
        summary: &str,
        scope: &Scope,
        means: Means<'_>,
    ) -> Result<Option<Value>, ToolError> {
        let Some(settings) = &self.settings else { return Ok(None) };
        let mut conversation = begun(settings, &Nobody, scope, means).await?;
        conversation.interpret(&facts(scope, means).await?, summary);
        Ok(Some(json!({
            "endpoint": settings.endpoint.to_string(),
            "first_request": conversation.body(true),
        })))
    }

    /// What would be sent for an answer, first, and an example of what calls would add.
    pub async fn preview_answer(
        &self,
        question: &str,
        scope: &Scope,
        means: Means<'_>,
    ) -> Result<Option<Value>, ToolError> {
        let Some(settings) = &self.settings else { return Ok(None) };
        let mut conversation = begun(settings, &Nobody, scope, means).await?;
        conversation.ask(question, scope.filter.since, means.tools);
        let (tool, args) = (FACTS[0], arguments(scope));
        let answer = means.tools.call(tool, args.clone()).await?;
        Ok(Some(json!({
            "endpoint": settings.endpoint.to_string(),
            "first_request": conversation.body(settings.max_rounds > 0),
            "answers_of_tools_would_follow_such_as": {
                "tool": tool, "arguments": args, "answer": conversation.veiled(&answer.content),
            },
        })))
    }
}

/// A conversation in which names of users are known, so that none is sent. Without records there is
/// nothing to ask a model about.
async fn begun<'a>(
    settings: &'a Settings,
    listener: &'a dyn Listener,
    scope: &Scope,
    means: Means<'_>,
) -> Result<Conversation<'a>, ToolError> {
    let mut conversation = Conversation::new(settings, listener);
    let accounts = Accounts::of_host().with_records(&scope.filter, means.source).await?;
    conversation.keeps(accounts);
    Ok(conversation)
}

/// Rules read the records in any case: where that fails, a model has nothing to go by either.
async fn reply(
    asked: Option<(&Settings, Conversation<'_>)>,
    rules: impl Future<Output = Result<Advice, ToolError>>,
) -> Result<Reply, ToolError> {
    let (usage, is_at_limit) = (Usage::default(), false);
    let Some((settings, mut conversation)) = asked else {
        return Ok(Reply { advice: rules.await?, usage, failure: None, is_at_limit });
    };
    let said = conversation.run().await;
    let usage = conversation.usage;
    match said {
        Ok(said) => {
            let tokens = usage.prompt_tokens.zip(usage.completion_tokens);
            let advice = Advice {
                text: said.text,
                by: By::Model(settings.model.clone()),
                note: said.is_at_limit.then(|| "the answer ends at the model's limit".to_owned()),
                unsupported: said.unsupported,
                tool_calls: usage.tool_calls,
                tokens: tokens.map(|(prompt, completion)| prompt.saturating_add(completion)),
            };
            Ok(Reply { advice, usage, failure: None, is_at_limit: said.is_at_limit })
        }
        Err(failure) => {
            let mut advice = rules.await?;
            advice.note = Some(format!("by rules, since the model failed: {failure}"));
            Ok(Reply { advice, usage, failure: Some(failure), is_at_limit })
        }
    }
}

async fn facts(scope: &Scope, means: Means<'_>) -> Result<Value, ToolError> {
    let mut facts = Map::new();
    for tool in FACTS {
        let answer = means.tools.call(tool, arguments(scope)).await?;
        facts.insert(tool.to_owned(), answer.content);
    }
    Ok(Value::Object(facts))
}

/// The scope as the tools take it.
fn arguments(scope: &Scope) -> Value {
    let filter = &scope.filter;
    let mut args = Map::new();
    if !filter.process.is_empty() {
        let names: Vec<String> = filter.process.iter().map(|name| escape(name)).collect();
        args.insert("process_name".to_owned(), names.join(",").into());
    }
    if let Some(pid) = filter.pid.first() {
        args.insert("pid".to_owned(), (*pid).into());
    }
    let times = [("since", filter.since), ("until", filter.until)];
    for (name, time) in times {
        args.extend(time.map(|time| (name.to_owned(), Value::from(time.to_string()))));
    }
    Value::Object(args)
}

#[async_trait]
impl Advisor for Assistant {
    fn calls_out(&self) -> bool {
        self.settings.as_ref().is_some_and(|settings| !settings.endpoint.is_local())
    }

    async fn insights(
        &self,
        summary: &str,
        scope: &Scope,
        means: Means<'_>,
    ) -> Result<Advice, ToolError> {
        Ok(self.insights_to(summary, scope, means, &Nobody).await?.advice)
    }

    async fn answer(
        &self,
        question: &str,
        scope: &Scope,
        means: Means<'_>,
    ) -> Result<Advice, ToolError> {
        Ok(self.answer_to(question, scope, means, &Nobody).await?.advice)
    }
}
