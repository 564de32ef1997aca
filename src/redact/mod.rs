//! Secrets in command lines, and in whatever else was typed or configured by somebody.
//!
//! One pass over the words of a text. What a secret is, is told by the name in front of it
//! (`--password`, `AWS_SECRET_ACCESS_KEY=`, `X-Api-Key:`), by the program whose option it is
//! (`mysql -p…`), by its place in a URL, or by a shape that only tokens have (`ghp_…`). A long word
//! alone is none: hashes and ids are what people look for.

mod names;
mod paths;
mod programs;
mod prose;
mod shapes;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use names::{Named, is_secret};
use programs::{Programs, Takes};

/// Stands for a secret.
pub const HIDDEN: &str = "***";

/// `text` with every secret replaced by [`HIDDEN`].
pub fn secrets(text: &str) -> Cow<'_, str> {
    let mut out = String::with_capacity(text.len());
    let mut next = Next::Anything;
    let mut programs = Programs::default();
    let mut rest = text;
    // The last two words.
    let mut before = ["", ""];
    while !rest.is_empty() {
        let gap = rest.len() - rest.trim_start().len();
        let (space, after) = rest.split_at(gap);
        out.push_str(space);
        // Between two spaces is an argument that is empty.
        if gap > 1 && matches!(next, Next::Secret(_)) {
            next = Next::Anything;
        }
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (word, behind) = after.split_at(end);
        rest = behind;
        if word.is_empty() {
            continue;
        }
        if word.contains("-----BEGIN") && after.contains("PRIVATE KEY") {
            // Its lines are words without a name.
            out.push_str(HIDDEN);
            let end = after.find("-----END").map_or(after.len(), |at| at);
            rest = &after[end..];
            let tail = rest.find("KEY-----").map_or(rest.len(), |at| at + "KEY-----".len());
            rest = &rest[tail..];
            next = Next::Anything;
            continue;
        }
        let (shown, mut follows) = one(word, next, &mut programs);
        if follows == Next::Anything && shown == word {
            follows = prose::follows(before, word, next, behind, programs.take_p());
        }
        before = [before[1], word];
        out.push_str(&shown);
        next = follows;
    }
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

/// What the next word is, as far as the one before tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Anything,
    /// A secret, or the option after one that was left out.
    Secret(Named),
    /// A secret behind what comes first: the user of `user:password`.
    Behind(char),
    /// The value of a header: a scheme and a secret, or a secret.
    Credentials,
    /// More of a cookie.
    Cookie,
    /// The name of a setting, and then its value.
    Setting,
    /// The value of what was named in a sentence.
    Told,
    /// A URL that may be without its scheme.
    Url,
    /// A cookie, or the file that holds some.
    CookieOrFile,
    /// What OpenSSL takes for a password: `pass:SECRET`, or where it is.
    Pass,
}

fn one(word: &str, next: Next, programs: &mut Programs) -> (String, Next) {
    match next {
        Next::Secret(named) if !word.starts_with("--") && !named.is_harmless(word) => {
            return (hidden(word), Next::Anything);
        }
        Next::Told => return (prose::hidden(word), Next::Anything),
        Next::Behind(separator) => {
            if let Some((user, _)) = word.split_once(separator) {
                return (format!("{user}{separator}{HIDDEN}{}", quotes(word)), Next::Anything);
            }
        }
        Next::Credentials => {
            return match is_scheme(word) {
                true => (word.to_owned(), Next::Secret(Named::Surely)),
                false => (hidden(word), Next::Anything),
            };
        }
        Next::Pass => {
            if let Some((before, _)) = word.split_once("pass:").filter(|(b, _)| bare(b).is_empty())
            {
                return (format!("{before}pass:{HIDDEN}{}", quotes(word)), Next::Anything);
            }
        }
        Next::Cookie => {
            let name = word.split_once('=').map(|(name, _)| name);
            let more = if word.ends_with(';') { Next::Cookie } else { Next::Anything };
            let shown = name.map_or(hidden(word), |n| format!("{n}={HIDDEN}{}", quotes(word)));
            return (shown, more);
        }
        Next::Url if !word.contains("://") => {
            // As if it had a scheme.
            let url = format!("://{word}");
            return (url_users(&url).trim_start_matches("://").to_owned(), Next::Anything);
        }
        Next::CookieOrFile if word.contains('=') => return one(word, Next::Cookie, programs),
        Next::Setting if is_secret(bare(word)).is_some() => {
            return (word.to_owned(), Next::Secret(Named::Surely));
        }
        _ => {}
    }
    match programs.word(word) {
        Some(Takes::Next) => return (word.to_owned(), Next::Secret(Named::Surely)),
        Some(Takes::NextUrl) => return (word.to_owned(), Next::Url),
        Some(Takes::NextCookie) => return (word.to_owned(), Next::CookieOrFile),
        Some(Takes::Whole) => return (hidden(word), Next::Anything),
        Some(Takes::NextBehind(separator)) => {
            return (word.to_owned(), Next::Behind(separator));
        }
        Some(Takes::Attached(from)) => {
            return (format!("{}{HIDDEN}{}", &word[..from], quotes(word)), Next::Anything);
        }
        Some(Takes::AttachedBehind(from, separator)) => {
            let at = word[from..].find(separator).map(|at| from + at + separator.len_utf8());
            if let Some(at) = at {
                return (format!("{}{HIDDEN}{}", &word[..at], quotes(word)), Next::Anything);
            }
        }
        None => {}
    }
    let plain = bare(word);
    if plain.eq_ignore_ascii_case("set") {
        return (word.to_owned(), Next::Setting);
    }
    if let Some(name) = plain.strip_suffix(':') {
        // `--header=Authorization:`
        let name = name.rsplit('=').next().unwrap_or(name);
        let name = header(name);
        let lower = name.to_ascii_lowercase();
        if lower == "authorization" || lower == "proxy-authorization" {
            return (word.to_owned(), Next::Credentials);
        }
        if lower == "cookie" || lower == "set-cookie" {
            return (word.to_owned(), Next::Cookie);
        }
        if let Some(named) = is_secret(name) {
            return (word.to_owned(), Next::Secret(named));
        }
    }
    // Without a space behind the colon.
    if let Some((name, value)) = plain.split_once(':')
        && ["authorization", "proxy-authorization"]
            .contains(&header(name).to_ascii_lowercase().as_str())
    {
        return match is_scheme(value) {
            true => (word.to_owned(), Next::Secret(Named::Surely)),
            false => {
                let before = word.split_once(':').map_or(word, |(before, _)| before);
                (format!("{before}:{HIDDEN}{}", quotes(word)), Next::Anything)
            }
        };
    }
    if ["-passin", "-passout"].contains(&plain) {
        return (word.to_owned(), Next::Pass);
    }
    if plain.eq_ignore_ascii_case("bearer") {
        return (word.to_owned(), Next::Secret(Named::Bearer));
    }
    let option = plain.trim_start_matches('-');
    if option.len() < plain.len()
        && !option.contains(['=', ':'])
        && !names::is_switch(option)
        && let Some(named) = is_secret(option)
    {
        return (word.to_owned(), Next::Secret(named));
    }
    (shapes::hide(&assignments(&paths::hide(&url_users(word)))), Next::Anything)
}

/// Whether a word is how credentials are given, before themselves.
fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "token", "digest", "negotiate", "apikey"]
        .contains(&bare(word).to_ascii_lowercase().as_str())
}

/// The name of a header, which may be one word with the option: `-HAuthorization`.
fn header(name: &str) -> &str {
    let header = name.strip_prefix("-H").unwrap_or(name);
    header.trim_start_matches(['\'', '"'])
}

/// A word that is a secret, with the quotes around it.
fn hidden(word: &str) -> String {
    let start = word.len() - word.trim_start_matches(['\'', '"']).len();
    format!("{}{HIDDEN}{}", &word[..start], quotes(word))
}

/// The quotes and the like at the end of a word.
fn quotes(word: &str) -> &str {
    &word[word.trim_end_matches(['\'', '"', ';']).len()..]
}

fn bare(word: &str) -> &str {
    word.trim_matches(['\'', '"', ',', ';', '(', ')'])
}

/// `scheme://user:secret@host`.
fn url_users(word: &str) -> Cow<'_, str> {
    let Some(at) = word.find("://") else { return Cow::Borrowed(word) };
    let start = at + 3;
    let authority = &word[start..];
    let end = authority.find(['/', '?', '#', '\'', '"']).unwrap_or(authority.len());
    // A password may hold an '@'; a host may not. One with a '/' in it is no URL, and yet written.
    let Some(host) = authority[..end].rfind('@').or_else(|| {
        let (_, port) = authority[..end].split_once(':')?;
        let is_host = authority.starts_with('[') || port.bytes().all(|b| b.is_ascii_digit());
        (!is_host).then(|| authority.rfind('@'))?
    }) else {
        return Cow::Borrowed(word);
    };
    let user = &authority[..host];
    let shown = match user.split_once(':') {
        Some((user, _)) => format!("{user}:{HIDDEN}"),
        // A user's name is short; a token in its place is not.
        None if user.len() >= 20 || shapes::is_like_a_token(user) => HIDDEN.to_owned(),
        None => return Cow::Borrowed(word),
    };
    let (before, behind) = (&word[..start], url_users(&authority[host..]));
    Cow::Owned(format!("{before}{shown}{behind}"))
}

/// `name=secret` and `"name":"secret"`, at the start of a word and within.
fn assignments(word: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut done = 0;
    let mut from = 0;
    while let Some(at) = word[from..].find(['=', ':']).map(|at| from + at) {
        from = at + 1;
        if at < done {
            continue;
        }
        let before = &word[done..at];
        let name = before.trim_end_matches(['"', '\'', '\\']);
        let is_quoted = name.len() < before.len();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let start = name
            .rfind(|c| !is_name(c))
            .map_or(0, |at| at + name[at..].chars().next().map_or(1, char::len_utf8));
        let (name, lead) = (&name[start..], &before[..start]);
        let is_query = lead.ends_with(['?', '&']);
        let named = is_secret(name.trim_start_matches('-'));
        let named = named.or_else(|| is_query.then(|| names::in_query(name)).flatten());
        let Some(named) = named else { continue };
        let is_equals = word.as_bytes().get(at) == Some(&b'=');
        // "my-secret:latest" is an image, "host:port" is a host.
        if !is_equals
            && !is_quoted
            && ((!lead.is_empty() && lead != "/" && !(name == "pass" && lead.ends_with('=')))
                || done > 0
                // `-passin=pass:…`, `/pass:…`.
                || named == Named::Word && (name != "pass" || lead.is_empty()))
        {
            continue;
        }
        let behind = &word[at + 1..];
        let value = behind.trim_start_matches(['"', '\'', '\\']);
        let value_at = at + 1 + behind.len() - value.len();
        let is_first = done == 0 && lead.chars().all(|c| "'\"-".contains(c));
        let end = match value_at > at + 1 {
            true => value.find(['"', '\'', '\\']),
            // Of an option the value is all the rest, of a list of them what is before the next.
            false if is_first => Some(value.trim_end_matches(['"', '\'']).len()),
            false => value.find(['&', ';', ',', '"', '\'', '}', ')', '#']),
        };
        let end = end.unwrap_or(value.len());
        if value[..end].is_empty() || named.is_harmless(&value[..end]) {
            continue;
        }
        out.push_str(&word[done..value_at]);
        out.push_str(HIDDEN);
        done = value_at + end;
    }
    if done == 0 {
        return Cow::Borrowed(word);
    }
    out.push_str(&word[done..]);
    Cow::Owned(out)
}
