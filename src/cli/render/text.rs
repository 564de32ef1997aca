//! The one way for text from telemetry to a terminal.
//!
//! Process names, command lines, paths and host names are chosen by whoever runs on the host. A
//! name with an escape sequence in it could repaint the screen, one with bidi controls could read
//! as another name.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

pub use crate::text::clean;
use crate::text::is_unsafe;

/// JSON whose strings carry no character that a terminal would act on. JSON leaves DEL, the C1
/// controls and bidi characters as they are; all of them occur inside strings only, where an
/// escape means the same.
pub fn escape_json(json: String) -> String {
    if !json.chars().any(|c| is_unsafe(c) && c != '\n') {
        return json;
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_unsafe(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Columns that `text` takes on a terminal.
pub fn width(text: &str) -> usize {
    text.width()
}

/// `text` in at most `limit` columns; what does not fit is left out in the middle, since the ends
/// (a port, the top of a path) tell the most. The last `tail` columns are kept if there is room.
pub fn truncate_middle(text: &str, limit: usize, tail: usize) -> Cow<'_, str> {
    if width(text) <= limit {
        return Cow::Borrowed(text);
    }
    let Some(room) = limit.checked_sub(1) else { return Cow::Borrowed("") };
    // A tail that leaves no room for the start of the text is not worth it.
    let tail = if tail > 0 && tail + 2 <= room { tail } else { room - room / 2 };
    let start: String = take_columns(text.chars(), room - tail).into_iter().collect();
    let mut end = take_columns(text.chars().rev(), tail);
    end.reverse();
    Cow::Owned(format!("{start}…{}", end.into_iter().collect::<String>()))
}

/// `text` in at most `limit` columns, of which the first `head` stay whole as long as there is room:
/// what follows them loses its middle, or is left out where hardly anything of it would be seen.
pub fn truncate_after(text: &str, limit: usize, head: usize) -> Cow<'_, str> {
    /// Of what follows, with the space before it and the mark after it.
    const WORTH: usize = 8;
    if width(text) <= limit {
        return Cow::Borrowed(text);
    }
    let start: String = take_columns(text.chars(), head).into_iter().collect();
    if head > limit {
        return Cow::Owned(truncate_middle(&start, limit, 0).into_owned());
    }
    if head + WORTH > limit {
        return Cow::Owned(start);
    }
    let rest = text.get(start.len()..).unwrap_or_default();
    Cow::Owned(format!("{start}{}", truncate_middle(rest, limit - width(&start), 0)))
}

/// As many of the parts of `a 3, b 2, c 1` as there is room for; of the first, if need be, its word
/// alone.
pub fn whole_parts(text: &str, limit: usize) -> Cow<'_, str> {
    if width(text) <= limit {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for part in text.split(", ") {
        if width(&shown) + width(part) + 3 > limit {
            break;
        }
        shown.push_str(part);
        shown.push_str(", ");
    }
    if shown.is_empty() {
        let first = text.split(", ").next().unwrap_or_default();
        let word = first.split(' ').next().unwrap_or_default();
        let fits = |part: &&str| !part.is_empty() && width(part) + 2 <= limit;
        if let Some(part) = [first, word].into_iter().find(fits) {
            return Cow::Owned(format!("{part} …"));
        }
    }
    if limit > 0 {
        shown.push('…');
    }
    Cow::Owned(shown)
}

/// `text` in lines of at most `limit` columns, cut at spaces; a longer word stays whole.
pub fn wrap(text: &str, limit: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= limit => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn take_columns(chars: impl Iterator<Item = char>, limit: usize) -> Vec<char> {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= limit
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for text in ["curl", "kworker/0:1-events", "naïve", "名前", "a b", "🦀"] {
            assert!(matches!(clean(text), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn nothing_that_a_terminal_acts_on_gets_through() {
        for c in [
            '\u{0}',
            '\u{7}',
            '\u{8}',
            '\t',
            '\n',
            '\r',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0041}',
            '\u{300}',
            '\u{180e}',
        ] {
            assert_eq!(clean(&format!("a{c}b")), "a\u{fffd}b", "{c:?}");
        }
    }

    #[test]
    fn json_keeps_its_meaning_when_it_is_escaped() {
        let value = serde_json::json!({"comm": "\u{1b}[31m\u{9b}1m\u{202e}x\u{e0041}é", "n": [1]});
        for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let safe = escape_json(json);
            assert!(!safe.chars().any(|c| is_unsafe(c) && c != '\n'), "{safe}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
        }
    }

    #[test]
    fn long_text_is_wrapped_at_spaces() {
        assert_eq!(wrap("a bb ccc  dddddd e", 5), ["a bb", "ccc", "dddddd", "e"]);
        assert_eq!(wrap("", 5), Vec::<String>::new());
    }

    #[test]
    fn an_address_stands_whole_before_a_name_is_shown() {
        let text = "192.0.2.1:443 (www.example.com)";
        assert_eq!(truncate_after(text, 31, 13), text);
        assert_eq!(truncate_after(text, 24, 13), "192.0.2.1:443 (www….com)");
        assert_eq!(truncate_after(text, 21, 13), "192.0.2.1:443 (w…com)");
        assert_eq!(truncate_after(text, 20, 13), "192.0.2.1:443");
        assert_eq!(truncate_after(text, 9, 13), "192.…:443");
        let wide = "[2001:db8::1]:443 (日本語.例え.テスト)";
        for limit in 0..40 {
            assert!(width(&truncate_after(wide, limit, 17)) <= limit, "{limit}");
        }
    }

    #[test]
    fn no_figure_is_cut_in_two() {
        let text = "established 1,204, refused 17, reset 3";
        assert_eq!(whole_parts(text, 38), text);
        assert_eq!(whole_parts(text, 37), "established 1,204, refused 17, …");
        assert_eq!(whole_parts(text, 20), "established 1,204, …");
        assert_eq!(whole_parts(text, 19), "established 1,204 …");
        assert_eq!(whole_parts(text, 18), "established …");
        assert_eq!(whole_parts(text, 13), "established …");
        assert_eq!(whole_parts(text, 12), "…");
        assert_eq!(whole_parts(text, 0), "");
    }

    #[test]
    fn what_is_too_wide_loses_its_middle() {
        assert_eq!(truncate_middle("systemd-resolve[1234]", 11, 0), "syste…1234]");
        assert_eq!(truncate_middle("systemd-resolve[1234]", 11, 6), "syst…[1234]");
        assert_eq!(truncate_middle("systemd-resolve[1234]", 8, 6), "sys…234]");
        assert_eq!(truncate_middle("short", 5, 0), "short");
        assert_eq!(truncate_middle("ab", 1, 0), "…");
        assert_eq!(truncate_middle("ab", 0, 2), "");
        for limit in 0..12 {
            assert!(width(&truncate_middle("名前名前名前", limit, 4)) <= limit, "{limit}");
        }
    }
}
