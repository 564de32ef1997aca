//! `get_status`: whether the answers can be trusted.

use serde_json::{Map, Value, json};

use super::args::{Args, named};
use super::parts;
use super::spec::Tool;
use super::{Answer, ToolError, shared};
use crate::query::Source;
use crate::text;

pub(super) const STATUS: Tool = Tool {
    name: "get_status",
    description: "Can answers be trusted? Health, what is observed, what was lost, since when.",
    params: &[shared::FORMAT.unlisted()],
    answers: &[("health", "string"), parts::COMPLETE],
};

pub(super) async fn status(source: &dyn Source, args: &Args) -> Result<Answer, ToolError> {
    let status = source.status().await.map_err(named)?;
    let mut content = Map::new();
    content.insert("health".to_owned(), status.health.as_str().into());
    content.insert("source".to_owned(), text::short(&source.describe(), 120).into());
    content.insert("version".to_owned(), status.version.as_str().into());
    content.insert("uptime_s".to_owned(), status.uptime_s.into());
    content.insert("backend".to_owned(), status.backend.as_str().into());
    let observed: Vec<&str> =
        status.features.iter().filter(|(_, f)| f.ok).map(|(name, _)| name.as_str()).collect();
    content.insert("observed".to_owned(), observed.into());
    let missing = status.features.iter().filter(|(_, f)| !f.ok);
    let missing: Map<String, Value> = missing
        .map(|(name, f)| {
            let note = f.note.as_deref().unwrap_or("not observed");
            (name.clone(), text::short(note, 160).into())
        })
        .collect();
    if !missing.is_empty() {
        content.insert("not_observed".to_owned(), missing.into());
    }
    if args.detailed() {
        let hooks = status.features.iter().filter_map(|(name, f)| {
            let note = f.note.as_deref().map(|note| format!(" ({})", text::short(note, 160)));
            let hook = format!("{}{}", f.hook.as_deref()?, note.unwrap_or_default());
            Some((name.clone(), Value::from(hook)))
        });
        content.insert("hooks".to_owned(), Value::Object(hooks.collect()));
    }
    let store = &status.store;
    let mut held = json!({
        "kind": store.kind, "records": store.records, "evicted": store.evicted,
        "bytes": store.bytes, "limit_bytes": store.limit_bytes,
    });
    if let Some(oldest) = store.oldest {
        held["oldest"] = parts::day_and_time(oldest).into();
    }
    if let Some(history) = &store.history {
        held["on_disk"] = history.records.into();
        if let Some(why) = &history.stopped {
            held["history_stopped"] = text::short(why, 160).into();
        }
    }
    content.insert("store".to_owned(), held);
    let books = &status.accounting;
    let window = crate::query::Window { since: books.since, until: books.until };
    parts::close(&mut content, window, books, args.now());
    content.entry("accounting").or_insert_with(|| {
        json!({
            "attempts": books.attempts, "delivered": books.delivered, "filtered": books.filtered,
            "lost": books.lost.total(), "pending": books.pending,
        })
    });
    Ok(Answer::of(content))
}
