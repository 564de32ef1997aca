//! Tokens that are known by their shape, wherever they stand.

use super::HIDDEN;

/// How they begin, and how many characters follow at least.
const SHAPES: [(&str, usize); 32] = [
    ("ghp_", 30),
    ("gho_", 30),
    ("ghu_", 30),
    ("ghs_", 30),
    ("ghr_", 30),
    ("github_pat_", 30),
    ("glpat-", 10),
    ("glrt-", 10),
    ("xoxb-", 10),
    ("xoxa-", 10),
    ("xoxp-", 10),
    ("xoxr-", 10),
    ("xoxs-", 10),
    ("xapp-", 10),
    ("sk-", 20),
    ("sk_live_", 16),
    ("sk_test_", 16),
    ("rk_live_", 16),
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 30),
    ("ya29.", 20),
    ("npm_", 30),
    ("pypi-", 30),
    ("SG.", 30),
    ("hvs.", 20),
    ("hf_", 30),
    ("dckr_pat_", 20),
    ("dop_v1_", 40),
    ("shpat_", 30),
    ("AGE-SECRET-KEY-1", 20),
    ("eyJ", 30),
];

/// `word` without them.
pub(super) fn hide(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    let mut was_word = false;
    while let Some(c) = rest.chars().next() {
        let token = if was_word { None } else { token(rest) };
        match token {
            Some(length) => {
                out.push_str(HIDDEN);
                rest = &rest[length..];
                was_word = true;
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
                was_word = c.is_alphanumeric() || c == '_' || c == '-';
            }
        }
    }
    out
}

/// Whether a word by itself looks more like a token than like a name: letters and figures among each
/// other. `ann.smith2024` is a name.
pub(super) fn is_like_a_token(word: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit();
    let name = word.trim_end_matches(is_digit);
    let year = word.len() - name.len();
    word.len() >= 16
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        && word.bytes().any(|b| b.is_ascii_alphabetic())
        && (name.contains(is_digit) || year > 4)
}

/// The length of a token that `text` begins with.
fn token(text: &str) -> Option<usize> {
    let (start, least) = SHAPES.iter().find(|(start, _)| text.starts_with(start))?;
    let behind = &text[start.len()..];
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-.+/=".contains(c);
    let length = behind.find(|c| !is_part(c)).unwrap_or(behind.len());
    let body = &behind[..length];
    // Words with dashes are long, too, but have no digits among capitals.
    let is_mixed =
        body.bytes().any(|b| b.is_ascii_digit()) && body.bytes().any(|b| b.is_ascii_alphabetic());
    let is_jwt = *start != "eyJ" || body.matches('.').count() >= 2;
    let is_aws = !matches!(*start, "AKIA" | "ASIA")
        || body.bytes().take(16).all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    (length >= *least && is_mixed && is_jwt && is_aws).then_some(start.len() + length)
}
