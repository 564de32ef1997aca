//! Comma-separated values (RFC 4180), for a program or a spreadsheet: a line of titles, then a line
//! for each record, whatever there is; what is not known is empty.

use std::borrow::Cow;

use jiff::Timestamp;

use super::text::clean;
use crate::event::time::Shown;

/// What a spreadsheet takes for the start of a formula, the wide forms of East Asian ones included.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// One field. What would be run as a formula has a `'` before it, as spreadsheets mark text; a number
/// stays one. Line feeds and what else is not shown are replaced, as on a terminal.
pub fn field(text: &str) -> String {
    let text = clean(text);
    let formula = text.trim_start().starts_with(FORMULA) && !is_number(&text);
    let text = if formula { Cow::Owned(format!("'{text}")) } else { text };
    // Some spreadsheets part fields at semicolons as well.
    if text.contains([',', '"', ';']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}

/// Words such as `-inf` are numbers to Rust and names to a spreadsheet.
fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// One line of fields.
pub fn line<const N: usize>(fields: [String; N]) -> String {
    fields.map(|text| field(&text)).join(",")
}

/// What is not known is empty.
pub fn known(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// As in JSON: with nine digits, so that times sort as text.
pub fn time(time: Timestamp) -> String {
    Shown(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_one_field_and_no_formula() {
        assert_eq!(field("plain"), "plain");
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
        for formula in ["=1+1", "+1+1", "-1+1", "@SUM(A1)", " =1", "＝1+1", "=cmd|'/C calc'!A0"] {
            assert_eq!(field(formula), format!("'{formula}"));
        }
        for number in ["-12", "+3", "-1.5e3"] {
            assert_eq!(field(number), number);
        }
        assert_eq!((&*field("-inf"), &*field("+NaN")), ("'-inf", "'+NaN"));
        assert_eq!(field("a;=1"), "\"a;=1\"");
        assert_eq!(field("=a,b"), "\"'=a,b\"");
        assert_eq!(field("\t=1"), "\u{fffd}=1", "a tab is not skipped, since it is not there");
        assert_eq!(field("a\r\nb"), "a\u{fffd}\u{fffd}b");
    }
}
