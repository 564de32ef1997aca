//! Single values: lists with escapes, and times.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

use super::{clip, invalid};
use crate::event::time::OLDEST;
use crate::query::QueryError;

const TIMES: &str = "RFC 3339 such as 2026-01-31T09:30:00Z, or an age such as 30s, 15m, 2h, 1d";

/// Cuts a list at its commas. Values lose white space at their edges, unless a backslash keeps it.
pub(crate) fn split(list: &str) -> Vec<String> {
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
pub(crate) fn escape(value: &str) -> String {
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
        let time = age.and_then(|age| now.checked_sub(age).ok());
        // Whoever writes the time down has to find words. What is longer ago still means the same:
        // from the beginning.
        return Ok(time.unwrap_or(OLDEST).max(OLDEST));
    }
    // A `+` that was not percent-encoded arrives as a space.
    rfc_3339(text)
        .or_else(|| rfc_3339(&plus_at_offset(text)?))
        .ok_or_else(|| invalid(parameter, &format!("'{}' is not a time", clip(text)), TIMES))
}

fn plus_at_offset(text: &str) -> Option<String> {
    let (time, offset) = text.rsplit_once(' ')?;
    Some(format!("{time}+{offset}"))
}

/// The parser knows more forms than RFC 3339 has, some of which are slips: `+0530` for `+05:30`.
fn rfc_3339(text: &str) -> Option<Timestamp> {
    let (date_time, offset) = text.split_at_checked("2026-01-31T09:30:00".len())?;
    let shaped = date_time.bytes().zip(*b"0000-00-00T00:00:00").all(|(b, form)| match form {
        b'0' => b.is_ascii_digit(),
        b'T' => matches!(b, b'T' | b't' | b' '),
        form => b == form,
    });
    let (fraction, offset) = match offset.strip_prefix('.') {
        None => ("", offset),
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            if end == 0 {
                return None;
            }
            // Finer than a nanosecond is cut off.
            (rest.get(..end.min(9))?, rest.get(end..)?)
        }
    };
    if !shaped || !is_offset(offset) {
        return None;
    }
    let dot = if fraction.is_empty() { "" } else { "." };
    let offset = offset.to_ascii_uppercase();
    let time = format!("{date_time}{dot}{fraction}{offset}").parse();
    // The last hours of the year 9999 are what clients write for "no end", and lie beyond what a
    // timestamp can hold.
    let beyond = || date_time.parse::<DateTime>().is_ok_and(|time| time.year() == 9999);
    time.ok().or_else(|| beyond().then_some(Timestamp::MAX))
}

fn is_offset(offset: &str) -> bool {
    match offset.as_bytes() {
        b"Z" | b"z" => true,
        [b'+' | b'-', hours @ .., b':', m1, m2] => {
            let digits = hours.iter().chain([m1, m2]).all(u8::is_ascii_digit);
            digits && hours.len() == 2 && *hours <= b"23"[..] && *m1 <= b'5'
        }
        _ => false,
    }
}

/// Records show IPv4-mapped addresses as IPv4, and so networks of them are meant as IPv4.
pub(super) fn canonical(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let IpAddr::V4(ip) = IpAddr::V6(v6.addr()).to_canonical()
        && let Some(bits) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(ip, bits)
    {
        return IpNet::V4(v4);
    }
    network
}

/// A length of time such as `10s`.
pub(in crate::query) fn parse_length(text: &str) -> Option<SignedDuration> {
    age(text.trim()).flatten()
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
