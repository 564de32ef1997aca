//! Completion of what prompts and resource templates take: processes and remotes that are in the
//! records.

use jiff::{SignedDuration, Timestamp};
use rmcp::ErrorData;
use rmcp::model::{CompleteRequestParams, CompleteResult, CompletionInfo, Reference};

use super::prompts;
use crate::query::top::{Key, TopBy};
use crate::query::{Filter, Source};
use crate::text;

/// How far back names are looked for.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(24);
/// Names that are looked at.
const LOOKED_AT: usize = 1_000;

pub(super) async fn complete(
    source: &dyn Source,
    request: &CompleteRequestParams,
) -> Result<CompleteResult, ErrorData> {
    // Of a prompt that there is not, nothing is known: a completion is only a help, and no error.
    let is_known = match &request.r#ref {
        Reference::Prompt(prompt) => prompts::known(&prompt.name).is_ok(),
        _ => true,
    };
    let begun = &request.argument.value;
    let all = match request.argument.name.as_str() {
        _ if !is_known => Vec::new(),
        "process" | "name" => names(source, TopBy::Process).await,
        "remote" | "address" => names(source, TopBy::Remote).await,
        "since" => ["15m", "1h", "6h", "1d", "7d"].map(str::to_owned).to_vec(),
        _ => Vec::new(),
    };
    let begun = begun.to_lowercase();
    let mut fitting: Vec<String> =
        all.into_iter().filter(|name| name.to_lowercase().starts_with(&begun)).collect();
    let total = u32::try_from(fitting.len()).unwrap_or(u32::MAX);
    let more = fitting.len() > CompletionInfo::MAX_VALUES;
    fitting.truncate(CompletionInfo::MAX_VALUES);
    let info = CompletionInfo::with_pagination(fitting, Some(total), more);
    info.map(CompleteResult::new).map_err(|error| ErrorData::internal_error(error, None))
}

/// Those with the most records first; none where nobody answers, since a completion is only a help.
async fn names(source: &dyn Source, by: TopBy) -> Vec<String> {
    let since = Timestamp::now().checked_sub(LOOK_BACK).ok();
    let mut filter = Filter { since, ..Filter::default() };
    filter.hide_unix();
    let Ok(top) = source.top(&filter, by, Some(LOOKED_AT)).await else { return Vec::new() };
    let text = |key| match key {
        Key::Text(text) => text,
        Key::Number(n) => n.to_string(),
    };
    // A name that would not come back as it is would match nothing.
    top.groups.into_iter().map(|g| text(g.key)).filter(|name| text::clean(name) == *name).collect()
}
