//! `ai_insights` and `contextual_analysis`: the tools that ask the advisor.

use serde_json::Map;

use super::advisor::{Advice, Advisor, By, Means, Scope};
use super::args::{Args, invalid, named};
use super::parts;
use super::spec::{Member, Tool, text};
use super::{Answer, ToolError, shared};
use crate::text::is_unsafe;

const ANSWERS: &[Member] = &[("text", "string"), parts::COMPLETE];

/// The longest text of a caller that is looked at, in characters.
const LONGEST: usize = 8_000;
/// The longest advice, in characters.
const ADVICE: usize = 4_000;

pub(super) const INSIGHTS: Tool = Tool {
    name: "ai_insights",
    description: "What the records mean and what to do next, by a model if configured, else by \
                  rules.",
    params: &[text("summary_text"), shared::PROCESS, shared::PID, shared::DURATION],
    answers: ANSWERS,
};

pub(super) const CONTEXTUAL: Tool = Tool {
    name: "contextual_analysis",
    description: "Answers a question about connections in words, as ai_insights does.",
    params: &[text("query").required(), shared::DURATION],
    answers: ANSWERS,
};

pub(super) async fn insights(
    advisor: &dyn Advisor,
    means: Means<'_>,
    args: &Args,
) -> Result<Answer, ToolError> {
    let summary = bounded("summary_text", args.text("summary_text").unwrap_or_default())?;
    let scope = scope(means, args).await?;
    let advice = advisor.insights(summary, &scope, means).await?;
    answer(advice, &scope, means, args).await
}

pub(super) async fn contextual(
    advisor: &dyn Advisor,
    means: Means<'_>,
    args: &Args,
) -> Result<Answer, ToolError> {
    let Some(query) = args.text("query") else {
        return Err(invalid("query", "is missing", "a question in plain words"));
    };
    let scope = scope(means, args).await?;
    let advice = advisor.answer(bounded("query", query)?, &scope, means).await?;
    answer(advice, &scope, means, args).await
}

fn bounded<'a>(name: &str, text: &'a str) -> Result<&'a str, ToolError> {
    match text.chars().nth(LONGEST) {
        None => Ok(text),
        Some(_) => Err(invalid(name, "is too long", &format!("at most {LONGEST} characters"))),
    }
}

async fn scope(means: Means<'_>, args: &Args) -> Result<Scope, ToolError> {
    let mut filter = args.filter()?;
    shared::hide(&mut filter, means.source).await?;
    Ok(Scope { filter })
}

async fn answer(
    advice: Advice,
    scope: &Scope,
    means: Means<'_>,
    args: &Args,
) -> Result<Answer, ToolError> {
    let mut content = Map::new();
    // A model's words can carry what it read of telemetry; lines stay lines.
    let harmless = |c: char| if is_unsafe(c) && c != '\n' { '\u{fffd}' } else { c };
    let mut text: String = advice.text.chars().take(ADVICE).map(harmless).collect();
    if advice.text.chars().nth(ADVICE).is_some() {
        text.push('…');
    }
    content.insert("text".to_owned(), text.into());
    let by = match &advice.by {
        By::Rules => "rules".into(),
        By::Model(model) => parts::name(&format!("model {model}")),
    };
    content.insert("by".to_owned(), by);
    if let Some(note) = &advice.note {
        content.insert("note".to_owned(), crate::text::short(note, 300).into());
    }
    if !advice.unsupported.is_empty() {
        let figures = advice.unsupported.iter().take(20).map(|figure| parts::name(figure));
        content.insert("unsupported_figures".to_owned(), figures.collect());
    }
    if advice.tool_calls > 0 {
        content.insert("tool_calls".to_owned(), advice.tool_calls.into());
    }
    if let Some(tokens) = advice.tokens {
        content.insert("tokens".to_owned(), tokens.into());
    }
    let count = means.source.count(&scope.filter).await.map_err(named)?;
    parts::close(&mut content, count.window, &count.accounting, args.now());
    Ok(Answer::of(content))
}
