//! Names behind which a secret stands.

/// How sure a name makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// Whatever the value is.
    Surely,
    /// Unless the value is plainly something else: a number of passes, a definition.
    Word,
    /// Unless it names a file: keys lie in files.
    Key,
    /// A parameter of a URL that means many things: if it looks like a token.
    Query,
    /// After the word "Bearer", which is a word like others: if it looks like a token.
    Bearer,
}

impl Named {
    /// Whether such a value is no secret.
    pub(super) fn is_harmless(self, value: &str) -> bool {
        let value = value.trim_matches(['\'', '"']);
        let is_reference = value.starts_with("${") || value.starts_with("$(") || {
            let name = value.strip_prefix('$').unwrap_or_default();
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if value.is_empty() || is_reference || value == super::HIDDEN {
            return true;
        }
        let is_file = value.starts_with(['/', '~']) || value.starts_with("./") || {
            let end = value.rsplit_once('.').map(|(_, end)| end);
            end.is_some_and(|end| ["pem", "key", "json", "crt", "der", "p12", "pub"].contains(&end))
        };
        match self {
            Named::Surely => false,
            Named::Word => {
                SWITCHES.contains(&value)
                    || value.contains(",type=")
                    || value.contains(",target=")
                    || (value.len() <= 2 && value.bytes().all(|b| b.is_ascii_digit()))
                    || value.starts_with("id=")
                    || ["file:", "env:", "fd:", "stdin"].iter().any(|s| value.starts_with(s))
            }
            Named::Key => is_file || SWITCHES.contains(&value),
            Named::Query => {
                let end = value.find(['&', '#']).unwrap_or(value.len());
                let value = value.get(..end).unwrap_or_default();
                value.len() < 8
                    || !value.bytes().any(|b| b.is_ascii_digit())
                    || !value.bytes().any(|b| b.is_ascii_alphabetic())
            }
            Named::Bearer => value.len() < 8 || !value.bytes().any(|b| b.is_ascii_digit()),
        }
    }
}

/// What turns something on or off.
const SWITCHES: [&str; 6] = ["true", "false", "yes", "no", "on", "off"];

/// Last words of names.
const SURE: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "token",
    "apikey",
    "psk",
    "authtoken",
    "signature",
];
const UNSURE: [&str; 4] = ["secret", "pass", "pwd", "sig"];
/// What keys are secret; a key alone may be that of a map.
const KEYS: [&str; 12] = [
    "api",
    "access",
    "secret",
    "private",
    "account",
    "encryption",
    "signing",
    "master",
    "shared",
    "auth",
    "service",
    "subscription",
];
/// Ends of names that are written as one word.
const ENDS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "secretkey",
    "accesskey",
    "authtoken",
    "accesstoken",
    "clientsecret",
    "requirepass",
    "storepass",
    "keypass",
    "sshpass",
];

/// Whether a secret stands behind such a name.
pub(super) fn is_secret(name: &str) -> Option<Named> {
    if name.is_empty() || name.len() > 80 {
        return None;
    }
    let words = words(name);
    let last = words.last()?.as_str();
    let before = words.len().checked_sub(2).and_then(|n| words.get(n)).map(String::as_str);
    if SURE.contains(&last) || ENDS.iter().any(|end| last.ends_with(end)) {
        return Some(Named::Surely);
    }
    if UNSURE.contains(&last) {
        // The shell's own variable is a directory.
        let is_directory = ["PWD", "OLDPWD"].contains(&name);
        return (!is_directory).then_some(Named::Word);
    }
    let is_key = last == "key" && before.is_some_and(|before| KEYS.contains(&before));
    if is_key && words.iter().any(|word| word == "secret") {
        return Some(Named::Surely);
    }
    (is_key || last == "credentials" || last == "credential").then_some(Named::Key)
}

/// Whether an option is one that says how a secret is asked for, or that there is none: no value
/// stands behind it.
pub(super) fn is_switch(option: &str) -> bool {
    ["no-", "without-", "skip-", "ask-"].iter().any(|start| option.starts_with(start))
}

/// Whether a token may stand behind such a name in the query of a URL.
pub(super) fn in_query(name: &str) -> Option<Named> {
    const NAMES: [&str; 8] =
        ["key", "code", "auth", "sid", "session", "sessionid", "jwt", "ticket"];
    NAMES.contains(&name.to_ascii_lowercase().as_str()).then_some(Named::Query)
}

/// The words of a name in snake_case, kebab-case, camelCase or with dots, in small letters.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for c in name.chars() {
        let is_new = !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && was_small);
        if is_new {
            words.push(String::new());
        }
        if c.is_ascii_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.push(c.to_ascii_lowercase());
        }
        was_small = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    words.retain(|word| !word.is_empty());
    words
}
