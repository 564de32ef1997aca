//! Secrets in sentences, such as questions to a model: `my password is …`, `api_key "…"`.

use super::names::{Named, is_secret};
use super::{HIDDEN, Next, bare};

/// Words between a name and its value.
const COPULAS: &[&str] = &["is", "was", "are", "=", ":", "being"];

/// What a sentence says of a password without telling it. Participles are known by their ends.
const SAID: &[&str] = &[
    "a",
    "about",
    "again",
    "all",
    "also",
    "always",
    "an",
    "and",
    "at",
    "by",
    "correct",
    "different",
    "empty",
    "false",
    "fine",
    "for",
    "from",
    "in",
    "incorrect",
    "invalid",
    "it",
    "longer",
    "missing",
    "never",
    "no",
    "not",
    "null",
    "of",
    "ok",
    "old",
    "on",
    "optional",
    "right",
    "same",
    "secret",
    "set",
    "still",
    "that",
    "the",
    "to",
    "too",
    "valid",
    "weak",
    "wrong",
];
/// Participles without such an end.
const SAID_TOO: &[&str] = &[
    "bad", "being", "gone", "kept", "known", "lost", "new", "now", "sent", "shown", "true", "unset",
];

/// Words before the name of a secret that is told at once: `the token abc123`.
const OWNERS: &[&str] = &["the", "my", "our", "your", "this", "with", "use", "using"];

/// What the word behind `word` is, where `before` stand before it and `next` was expected in its
/// place; `behind` begins with it. `takes_p` if a program was named that has passwords behind `-p`.
pub(super) fn follows(
    before: [&str; 2],
    word: &str,
    next: Next,
    behind: &str,
    takes_p: bool,
) -> Next {
    let value = behind.split_whitespace().next().unwrap_or_default();
    if next != Next::Anything {
        return Next::Anything;
    }
    let is_told = match COPULAS.contains(&bare(word).to_ascii_lowercase().as_str()) || word == "=" {
        true => is_named(before) && !is_said(value),
        false => {
            (name(word).is_some() && is_quoted_secret(value))
                || is_told_at_once(before, word, value)
        }
    };
    // `mysql -p secret` names a database; many believe that it is the password.
    let is_option = takes_p && word == "-p" && is_mixed(value);
    if is_told || is_option { Next::Told } else { Next::Anything }
}

/// The value without what ends a sentence.
pub(super) fn hidden(word: &str) -> String {
    let start = word.len() - word.trim_start_matches(['\'', '"', '`', '(']).len();
    let ends = |c: char| "'\"`);,.!?".contains(c);
    let end = word.trim_end_matches(ends).len().max(start);
    format!("{}{HIDDEN}{}", &word[..start], &word[end..])
}

/// Whether a secret has such a name in a sentence: "a key" is one of many things.
fn name(word: &str) -> Option<Named> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let word = bare(word).trim_end_matches([':', '=']);
    let is_plain = !word.starts_with('-') && word.chars().all(is_name);
    is_plain.then(|| is_secret(word)).flatten()
}

/// The same where the name is two words: `api key`.
fn is_named([first, second]: [&str; 2]) -> bool {
    name(second).is_some() || name(&two(first, second)).is_some()
}

fn two(first: &str, second: &str) -> String {
    format!("{}_{}", bare(first), bare(second))
}

/// Without a word between the name and a value that is like no other word.
fn is_told_at_once(before: [&str; 2], word: &str, value: &str) -> bool {
    let is_owner = |word: &str| OWNERS.contains(&word.to_ascii_lowercase().as_str());
    let is_one = is_owner(before[1]) && name(word).is_some();
    let is_two = is_owner(before[0]) && name(&two(before[1], word)).is_some();
    let plain = value.trim_matches(|c: char| "'\"`(),;.!?".contains(c));
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (is_one || is_two)
        && plain.len() >= 8
        && plain.bytes().all(is_part)
        && plain.bytes().any(|b| b.is_ascii_digit())
        && plain.bytes().any(|b| b.is_ascii_alphabetic())
}

fn is_said(value: &str) -> bool {
    let plain = value.trim_matches(|c: char| !c.is_alphanumeric());
    let is_word = plain.chars().all(|c| c.is_ascii_lowercase() || c == '\'');
    let is_quoted = value.starts_with(['\'', '"', '`']);
    value == HIDDEN
        || plain.is_empty()
        || is_path(value)
        || Named::Surely.is_harmless(value)
        || (is_word
            && !is_quoted
            && (SAID.contains(&plain)
                || SAID_TOO.contains(&plain)
                || plain.ends_with("ed")
                || plain.ends_with("ing")))
}

/// In quotes, and more than a word or a file.
fn is_quoted_secret(value: &str) -> bool {
    let Some(quote) = value.chars().next().filter(|c| "'\"`".contains(*c)) else { return false };
    let plain = value.trim_matches(|c: char| c == quote || ".,;?!)".contains(c));
    plain.bytes().any(|b| b.is_ascii_digit()) && !is_path(plain) && !plain.contains('.')
}

fn is_path(value: &str) -> bool {
    value.trim_start_matches(['\'', '"', '`']).starts_with(['/', '~']) || value.starts_with("./")
}

/// Letters and figures, as neither ports nor names of directories mostly are.
fn is_mixed(value: &str) -> bool {
    value.len() >= 6
        && value.bytes().all(|b| b.is_ascii_alphanumeric())
        && value.bytes().any(|b| b.is_ascii_digit())
        && value.bytes().any(|b| b.is_ascii_alphabetic())
}
