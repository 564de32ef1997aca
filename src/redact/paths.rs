//! URLs whose path is the secret: whoever knows the address of a web hook may post to it.

use std::borrow::Cow;

use super::HIDDEN;

/// Hosts (or ends of them), and what of the path before the secret is no secret.
const PLACES: [(&str, &str); 12] = [
    ("hooks.slack.com", "/services/"),
    ("hooks.slack.com", "/workflows/"),
    ("discord.com", "/api/webhooks/"),
    ("discordapp.com", "/api/webhooks/"),
    ("webhook.office.com", "/webhookb2/"),
    ("outlook.office.com", "/webhook/"),
    ("api.telegram.org", "/bot"),
    ("hooks.zapier.com", "/hooks/"),
    ("maker.ifttt.com", "/trigger/"),
    ("hc-ping.com", "/"),
    ("events.pagerduty.com", "/integration/"),
    ("chat.googleapis.com", "/v1/spaces/"),
];

/// `word` without the secret path of the first URL in it.
pub(super) fn hide(word: &str) -> Cow<'_, str> {
    let Some(at) = word.find("://") else { return Cow::Borrowed(word) };
    let authority = &word[at + 3..];
    let Some(slash) = authority.find('/') else { return Cow::Borrowed(word) };
    let host = authority[..slash].rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let path = &authority[slash..];
    let known = PLACES.iter().find(|(end, start)| {
        let is_host = host.strip_suffix(end).is_some_and(|b| b.is_empty() || b.ends_with('.'));
        is_host && path.starts_with(start)
    });
    let is_hook = |label: &str| ["hook", "hooks", "webhook", "webhooks"].contains(&label);
    let start = match known {
        Some((_, start)) => start.len(),
        // Such a name says what it is for.
        None if host.split('.').next().is_some_and(is_hook) => 1,
        None => return Cow::Borrowed(word),
    };
    let rest = &path[start..];
    let end = rest.find(['?', '#', '\'', '"', ')', ',', ';']).unwrap_or(rest.len());
    if !rest[..end].bytes().any(|b| b.is_ascii_digit()) {
        return Cow::Borrowed(word);
    }
    let (before, behind) = (&word[..at + 3 + slash + start], &rest[end..]);
    Cow::Owned(format!("{before}{HIDDEN}{behind}"))
}
