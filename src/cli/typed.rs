//! A filter that is typed while a view runs: `process:curl outcome:unsuccessful backup`.
//!
//! Words are separated as in a shell. `NAME:VALUE` (or `NAME=VALUE`) is what `--NAME VALUE` is on
//! the command line; everything else is looked for in the names, paths and addresses that a record
//! shows.

use crate::query::QueryError;
use crate::query::filter::{FILTER_NAMES, escape, invalid};

/// Parameters that a view has other keys for.
const NOT_TYPED: [&str; 2] = ["since", "until"];

/// The parameters that a line stands for.
pub fn read(line: &str) -> Result<Vec<(&'static str, String)>, QueryError> {
    let Some(words) = shlex::split(line) else {
        return Err(invalid("filter", "a quote is not closed", "the same quote at its end"));
    };
    let mut pairs: Vec<(&'static str, String)> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    for word in words {
        match parameter(&word) {
            // Said twice: either value.
            Some((name, value)) => match pairs.iter_mut().find(|(n, _)| *n == name) {
                Some((_, values)) => {
                    values.push(',');
                    values.push_str(value);
                }
                None => pairs.push((name, value.to_owned())),
            },
            None => texts.push(word),
        }
    }
    if !texts.is_empty() {
        let text = escape(&texts.join(" "));
        match pairs.iter_mut().find(|(name, _)| *name == "text") {
            Some((_, values)) => values.push_str(&format!(",{text}")),
            None => pairs.push(("text", text)),
        }
    }
    Ok(pairs)
}

/// `NAME:VALUE` of a name that there is. Half-typed ones (`process:`) are not taken for a text.
fn parameter(word: &str) -> Option<(&'static str, &str)> {
    let (name, value) = word.split_once([':', '='])?;
    let name = name.replace('-', "_");
    let known = FILTER_NAMES.into_iter().find(|known| *known == name && !NOT_TYPED.contains(known));
    Some((known?, value))
}

/// `line` with every word for `name` taken out, and one for this value at its end.
pub fn with(line: &str, name: &str, value: &str) -> String {
    let words = shlex::split(line).unwrap_or_default();
    let others = words.into_iter().filter(|w| parameter(w).is_none_or(|(n, _)| n != name));
    let own = format!("{name}:{}", escape(value));
    let words: Vec<String> = others.chain([own]).map(|word| quoted(&word)).collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    match shlex::try_quote(word) {
        Ok(quoted) => quoted.into_owned(),
        // Only a NUL cannot be quoted, and no name of the kernel's has one.
        Err(_) => quoted(&word.replace('\0', "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(line: &str) -> Vec<(&'static str, String)> {
        read(line).unwrap()
    }

    #[test]
    fn words_are_parameters_or_text() {
        let pair = |name, value: &str| (name, value.to_owned());
        assert_eq!(pairs("  "), []);
        assert_eq!(pairs("process:curl port=443"), [pair("process", "curl"), pair("port", "443")]);
        assert_eq!(pairs("remote:::1"), [pair("remote", "::1")]);
        assert_eq!(pairs("host-name:.a.example"), [pair("host_name", ".a.example")]);
        assert_eq!(pairs("port:1 port:2"), [pair("port", "1,2")]);
        assert_eq!(pairs("two words"), [pair("text", "two words")]);
        assert_eq!(pairs("a,b text:c"), [pair("text", "c,a\\,b")]);
        assert_eq!(pairs("'tmux: server'"), [pair("text", "tmux: server")]);
        assert_eq!(pairs("since:1h"), [pair("text", "since:1h")]);
        assert!(read("'open").is_err());
    }

    #[test]
    fn a_value_of_a_record_means_itself() {
        for name in ["curl", "tmux: server", "a,b", "it's \"x\"", "\\", " x ", "port:1", "$(x)"] {
            let line = with("process:old,er port:443 word", "process", name);
            let (filter, _) = crate::query::filter::parse(pairs(&line)).unwrap();
            assert_eq!(filter.process, [name], "{line}");
            assert_eq!((filter.port, filter.text), (vec![443], vec!["word".to_owned()]), "{line}");
        }
    }
}
