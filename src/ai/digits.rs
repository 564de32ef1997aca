//! Digits of other scripts, and other ways to set digits apart, as those of ASCII: a model may
//! answer in any language.

/// Zeros of the scripts that have decimal digits (Unicode 14, category Nd); nine more follow each.
const ZEROS: [u32; 65] = [
    0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6,
    0xE50, 0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50,
    0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
    0x104A0, 0x10D30, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650,
    0x116C0, 0x11730, 0x118E0, 0x11950, 0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0, 0x16B50,
    0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

/// A line with digits and separators of ASCII, and where each byte of it comes from.
pub(super) struct Plain<'a> {
    pub(super) text: String,
    line: &'a str,
    origins: Vec<usize>,
}

impl<'a> Plain<'a> {
    pub(super) fn of(line: &'a str) -> Self {
        let mut chars: Vec<char> = line.chars().map(ascii).collect();
        for at in 1..chars.len() {
            if is_separator(chars[at]) && parts_thousands(&chars, at) {
                chars[at] = ',';
            } else if let Some(c) = within_figures(chars[at])
                && chars[at - 1].is_ascii_digit()
                && chars.get(at + 1).is_some_and(char::is_ascii_digit)
            {
                chars[at] = c;
            }
        }
        let mut plain =
            Plain { text: String::with_capacity(line.len()), line, origins: Vec::new() };
        for (c, (origin, _)) in chars.into_iter().zip(line.char_indices()) {
            plain.text.push(c);
            plain.origins.resize(plain.text.len(), origin);
        }
        plain.origins.push(line.len());
        plain
    }

    /// What stands in the line where this part of the text does.
    pub(super) fn said(&self, from: usize, to: usize) -> &'a str {
        let origin = |at: usize| self.origins.get(at).copied().unwrap_or(self.line.len());
        self.line.get(origin(from)..origin(to)).unwrap_or_default()
    }
}

fn ascii(c: char) -> char {
    if c.is_ascii() {
        return c;
    }
    let code = u32::from(c);
    let before = ZEROS.partition_point(|zero| *zero <= code);
    let digit = before.checked_sub(1).map(|n| code - ZEROS[n]).filter(|digit| *digit < 10);
    if let Some(digit) = digit.and_then(|digit| char::from_digit(digit, 10)) {
        return digit;
    }
    match c {
        '\u{66b}' => '.',
        '\u{66c}' => ',',
        '\u{66a}' | '\u{ff05}' => '%',
        c => c,
    }
}

/// Full-width signs, which elsewhere end a clause.
fn within_figures(c: char) -> Option<char> {
    Some(match c {
        '\u{ff0e}' => '.',
        '\u{ff1a}' => ':',
        '\u{ff0f}' => '/',
        _ => return None,
    })
}

/// Apostrophes, low lines, full-width commas and the spaces that break no line: what sets thousands apart, beside the
/// comma. (A usual space parts words as well.)
fn is_separator(c: char) -> bool {
    matches!(
        c,
        '\'' | '_'
            | '\u{ff0c}'
            | '\u{2019}'
            | '\u{a0}'
            | '\u{202f}'
            | '\u{2009}'
            | '\u{2007}'
            | '\u{2008}'
    )
}

/// Between a digit and three, after which there is no other digit.
fn parts_thousands(chars: &[char], at: usize) -> bool {
    let is_digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_digit);
    is_digit(at - 1) && (1..=3).all(|n| is_digit(at + n)) && !is_digit(at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &str) -> String {
        Plain::of(line).text
    }

    #[test]
    fn digits_and_separators_of_other_scripts_are_known() {
        assert!(ZEROS.is_sorted());
        for (line, plain) in [
            ("٤٢ و ۴۲", "42 و 42"),
            ("４２％", "42%"),
            ("१२३४ 𝟙𝟚", "1234 12"),
            ("١٬٢٣٤٫٥", "1,234.5"),
            ("1\u{202f}234\u{a0}567", "1,234,567"),
            ("1'234 1’234 1_234", "1,234 1,234 1,234"),
            ("1_2345 it's x_123 1'23", "1_2345 it's x_123 1'23"),
            ("１，２３４，其中６：是", "1,234，其中6：是"),
            ("１０：３０ ４．５", "10:30 4.5"),
            ("no figures: é, 九", "no figures: é, 九"),
        ] {
            assert_eq!(text(line), plain);
        }
    }

    #[test]
    fn what_was_said_is_found_back() {
        let plain = Plain::of("é ４２％ x");
        let at = plain.text.find("42").unwrap();
        assert_eq!(plain.said(at, at + 3), "４２％");
        assert_eq!(plain.said(0, plain.text.len()), "é ４２％ x");
    }
}
