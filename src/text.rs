//! What makes text from telemetry harmless.
//!
//! Process names, command lines, paths and host names are chosen by whoever runs on the host. A
//! name with an escape sequence in it could repaint a terminal, one with bidi controls could read
//! as another name, one with invisible characters could hide words from a person that a model reads.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar;

/// Stands for a character that must not reach a terminal or a model.
const REPLACEMENT: char = '\u{fffd}';

/// Whether a character changes something else than the place where it stands.
pub fn is_unsafe(c: char) -> bool {
    match c {
        ' '..='~' => false,
        // Soft hyphen, line and paragraph separators, interlinear annotation, tags: not of width
        // zero in every table, invisible in most terminals.
        '\u{ad}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}' => true,
        // Width zero: joiners, bidi marks, variation selectors, combining characters without end.
        _ => c.is_control() || matches!(c.width(), None | Some(0)),
    }
}

/// `text` with every control, bidi and zero-width character replaced by `�`.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let replaced = text.chars().map(|c| if is_unsafe(c) { REPLACEMENT } else { c });
    Cow::Owned(replaced.collect())
}

/// The same in at most `most` characters; where something is left out, `…` stands at its end.
pub fn short(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => clean(text),
        Some((end, _)) => Cow::Owned(format!("{}…", clean(text.get(..end).unwrap_or_default()))),
    }
}

/// A host name in at most `most` characters and one: what is left out is in its middle, since its end
/// says whose it is, however long somebody made its beginning.
pub fn short_host(name: &str, most: usize) -> Cow<'_, str> {
    let count = name.chars().count();
    if count <= most {
        return clean(name);
    }
    let end = most.div_ceil(2);
    let first: String = name.chars().take(most - end).collect();
    let last: String = name.chars().skip(count - end).collect();
    Cow::Owned(format!("{}…{}", clean(&first), clean(&last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_host_name_says_whose_it_is() {
        assert_eq!(short_host("www.example.com", 15), "www.example.com");
        let long = format!("bank.example.{}.evil.example", "a".repeat(200));
        assert_eq!(short_host(&long, 26), "bank.example.….evil.example");
        assert_eq!(short_host("a\u{202e}b\u{200b}c\x1b", 3), "a…c\u{fffd}");
    }

    #[test]
    fn a_long_name_is_cut_between_characters_and_says_so() {
        assert_eq!(short("curl", 4), "curl");
        assert_eq!(short("ünïcode", 3), "ünï…");
        assert_eq!(short("a\u{202e}b\u{200b}c\x1b", 9), "a\u{fffd}b\u{fffd}c\u{fffd}");
    }
}
