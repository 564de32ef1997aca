//! Single values: lists with escapes, and times.

use jiff::{SignedDuration, Timestamp};

use super::{clip, invalid};
use crate::query::QueryError;

const TIMES: &str = "RFC 3339 such as 2026-01-31T09:30:00Z, or an age such as 30s, 15m, 2h, 1d";

/// Cuts a list at its commas. Values lose white space at their edges, unless a backslash keeps it.
pub(super) fn split(list: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut value = String::new();
    // Length up to which the value stays even if it ends in white space.
    let mut kept = 0;
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        match c {
            ',' => {
                value.truncate(kept);
                values.push(std::mem::take(&mut value));
                kept = 0;
            }
            '\\' => {
                value.push(chars.next().unwrap_or('\\'));
                kept = value.len();
            }
            c if c.is_whitespace() => {
                if !value.is_empty() {
                    value.push(c);
                }
            }
            c => {
                value.push(c);
                kept = value.len();
            }
        }
    }
    value.truncate(kept);
    values.push(value);
    values
}

/// Writes a value so that [`split`] gives it back.
pub(super) fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (i, c) in value.chars().enumerate() {
        if c == ',' || c == '\\' || (c.is_whitespace() && (i == 0 || i == last)) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// Reads a time: RFC 3339, or an age counted back from `now`.
pub fn parse_time(parameter: &str, text: &str, now: Timestamp) -> Result<Timestamp, QueryError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(invalid(parameter, "is empty", TIMES));
    }
    if let Some(age) = age(text) {
        let too_old = || invalid(parameter, &format!("'{}' is too long ago", clip(text)), TIMES);
        return now.checked_sub(age.ok_or_else(too_old)?).map_err(|_| too_old());
    }
    // A `+` that was not percent-encoded arrives as a space.
    text.parse()
        .or_else(|_| text.replace(' ', "+").parse())
        .map_err(|_| invalid(parameter, &format!("'{}' is not a time", clip(text)), TIMES))
}

/// `None` if the text does not look like an age, `Some(None)` if the age is out of range.
fn age(text: &str) -> Option<Option<SignedDuration>> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let millis: i64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return None,
    };
    if number.is_empty() {
        return None;
    }
    let total = number.parse::<i64>().ok().and_then(|n| n.checked_mul(millis));
    Some(total.map(SignedDuration::from_millis))
}
