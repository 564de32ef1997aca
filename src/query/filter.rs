//! Names and values of filters: parsing them, writing them, and what they match.
//!
//! REST and command line share these words. Several values are separated by commas; a comma, a
//! backslash, or white space at the edge of a value is written with a backslash before it. Times
//! are RFC 3339, or an age such as `15m`.

use std::collections::BTreeMap;
use std::str::FromStr;

use ipnet::IpNet;
use jiff::Timestamp;
use strum::VariantNames;

use crate::event::{Connection, Direction, DnsRecord, Outcome, Protocol, Scope, State};
use crate::query::{Filter, Page, QueryError, Sort};

mod matching;
mod values;

#[cfg(feature = "history")]
pub(crate) use matching::container_id_matches;
pub(crate) use matching::{
    Texts, any, any_of_addresses, container_matches, has_name, info_matches, nanos,
};
pub use matching::{exe_base_name, host_name_matches};
use values::canonical;
pub(super) use values::parse_length;
pub use values::parse_time;
pub(crate) use values::{escape, split};

/// The parameters that say which records are meant.
pub const FILTER_NAMES: [&str; 22] = [
    "process",
    "pid",
    "uid",
    "container",
    "pod",
    "namespace",
    "remote",
    "cidr",
    "scope",
    "country",
    "asn",
    "host_name",
    "port",
    "protocol",
    "direction",
    "state",
    "outcome",
    "unit",
    "text",
    "preexisting",
    "since",
    "until",
];

/// The parameters that say which part of a list is meant.
pub const PAGE_NAMES: [&str; 3] = ["limit", "cursor", "sort"];

/// The most values that one parameter takes.
pub const MAX_VALUES: usize = 256;

/// The longest value of a parameter, in bytes.
pub const MAX_VALUE_BYTES: usize = 16 * 1024;

/// The word that stands for every outcome for which [`Outcome::is_unsuccessful`] holds.
pub(super) const UNSUCCESSFUL: &str = "unsuccessful";

/// Reads parameters; ages count from now.
pub fn parse<N: AsRef<str>, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (N, V)>,
) -> Result<(Filter, Page), QueryError> {
    parse_at(pairs, Timestamp::now())
}

/// Reads parameters; ages count from `now`.
pub fn parse_at<N: AsRef<str>, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (N, V)>,
    now: Timestamp,
) -> Result<(Filter, Page), QueryError> {
    let mut filter = Filter::default();
    let mut page = Page::default();
    let mut seen: Vec<&'static str> = Vec::new();
    for (name, value) in pairs {
        let (name, value) = (name.as_ref(), value.as_ref());
        let known = FILTER_NAMES.iter().chain(&PAGE_NAMES).find(|known| **known == name);
        let Some(known) = known else {
            return Err(unknown(name, &[&FILTER_NAMES[..], &PAGE_NAMES[..]].concat()));
        };
        if seen.contains(known) {
            return Err(given_twice(name));
        }
        seen.push(known);
        set(&mut filter, &mut page, known, value, now)?;
    }
    if let (Some(since), Some(until)) = (filter.since, filter.until)
        && since > until
    {
        return Err(invalid("since", "is after until", "a time before until"));
    }
    Ok((filter, page))
}

/// The error for a parameter that does not exist.
pub fn unknown(name: &str, accepted: &[&str]) -> QueryError {
    invalid(&clip(name), "there is no such parameter", &accepted.join(", "))
}

/// The error for a wrong value.
pub fn invalid(parameter: &str, problem: &str, accepted: &str) -> QueryError {
    QueryError::Invalid {
        parameter: parameter.to_owned(),
        problem: problem.to_owned(),
        accepted: accepted.to_owned(),
    }
}

/// The error for a parameter that is there more than once.
pub(super) fn given_twice(name: &str) -> QueryError {
    invalid(name, "given more than once", "one parameter, its values separated by commas")
}

/// What of a hostile value goes into a message: bounded, and without control characters.
pub fn clip(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn set(
    filter: &mut Filter,
    page: &mut Page,
    name: &'static str,
    value: &str,
    now: Timestamp,
) -> Result<(), QueryError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(invalid(name, "is too long", "at most 16 KiB"));
    }
    match name {
        "process" => filter.process = texts(name, value, "names of processes or threads")?,
        "pid" => filter.pid = typed(name, value, "process ids, whole numbers")?,
        "uid" => filter.uid = typed(name, value, "user ids, whole numbers")?,
        "container" => filter.container = texts(name, value, "ids or names of containers")?,
        "pod" => filter.pod = texts(name, value, "names of Kubernetes pods")?,
        "namespace" => filter.namespace = texts(name, value, "Kubernetes namespaces")?,
        "remote" => {
            let remotes: Vec<std::net::IpAddr> =
                typed(name, value, "IP addresses such as 192.0.2.1 or 2001:db8::1")?;
            // Records show IPv4-mapped addresses as IPv4.
            filter.remote = remotes.into_iter().map(|ip| ip.to_canonical()).collect();
        }
        "cidr" => {
            let networks: Vec<IpNet> = typed(name, value, "networks such as 10.0.0.0/8")?;
            filter.cidr = networks.into_iter().map(canonical).collect();
        }
        "scope" => filter.scope = words::<Scope>(name, value)?,
        "country" => filter.country = countries(name, value)?,
        "asn" => filter.asn = asns(name, value)?,
        "host_name" => {
            filter.host_name = texts(name, value, "host names, or .example.com for a domain")?;
        }
        "port" => filter.port = typed(name, value, "ports, 0 to 65535")?,
        "protocol" => filter.protocol = words::<Protocol>(name, value)?,
        "direction" => filter.direction = words::<Direction>(name, value)?,
        "state" => filter.state = words::<State>(name, value)?,
        "outcome" => filter.outcome = outcomes(name, value)?,
        "unit" => filter.unit = texts(name, value, "systemd units such as nginx.service")?,
        "text" => filter.text = texts(name, value, "parts of names, paths or addresses")?,
        "preexisting" => {
            let read = value.trim().parse();
            filter.preexisting = Some(read.map_err(|_| wrong(name, value, "true, false"))?);
        }
        "since" => filter.since = Some(parse_time(name, value, now)?),
        "until" => filter.until = Some(parse_time(name, value, now)?),
        "limit" => page.limit = Some(limit(name, value, Page::MAX_LIMIT)?),
        "cursor" => page.cursor = Some(cursor(name, value)?),
        "sort" => {
            let accepted = Sort::VARIANTS.join(", ");
            page.sort = value.trim().parse().map_err(|_| wrong(name, value, &accepted))?;
        }
        _ => return Err(unknown(name, &FILTER_NAMES)),
    }
    Ok(())
}

/// Reads the parameters of a question that takes some of its `own` beside the filters, and nothing
/// that says which part of a list is meant; the values of its own come back by name.
pub(super) fn apart<N: AsRef<str>, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (N, V)>,
    own: &[&'static str],
) -> Result<(BTreeMap<&'static str, String>, Filter), QueryError> {
    let mut values = BTreeMap::new();
    let mut others = Vec::new();
    for (name, value) in pairs {
        let (name, value) = (name.as_ref(), value.as_ref());
        if let Some(name) = own.iter().find(|own| **own == name) {
            if value.len() > MAX_VALUE_BYTES {
                return Err(invalid(name, "is too long", "at most 16 KiB"));
            }
            if values.insert(*name, value.to_owned()).is_some() {
                return Err(given_twice(name));
            }
        } else if FILTER_NAMES.contains(&name) {
            others.push((name.to_owned(), value.to_owned()));
        } else {
            return Err(unknown(name, &[&FILTER_NAMES[..], own].concat()));
        }
    }
    Ok((values, parse(others)?.0))
}

/// The error for a value that cannot be read.
pub(super) fn wrong(name: &str, value: &str, accepted: &str) -> QueryError {
    if value.trim().is_empty() {
        return invalid(name, "is empty", accepted);
    }
    invalid(name, &format!("'{}' is not understood", clip(value)), accepted)
}

pub(super) fn texts(name: &str, value: &str, accepted: &str) -> Result<Vec<String>, QueryError> {
    let parts = split(value);
    if parts.len() > MAX_VALUES {
        return Err(invalid(name, "has too many values", "at most 256 values"));
    }
    if parts.iter().any(String::is_empty) {
        let problem = if parts.len() == 1 { "is empty" } else { "has an empty value" };
        return Err(invalid(name, problem, accepted));
    }
    Ok(parts)
}

fn typed<T: FromStr>(name: &str, value: &str, accepted: &str) -> Result<Vec<T>, QueryError> {
    texts(name, value, accepted)?
        .iter()
        // `+1` parses as a number, and is what a badly encoded `%2B1` looks like.
        .map(|part| match part.strip_prefix('+') {
            Some(_) => Err(wrong(name, part, accepted)),
            None => part.parse().map_err(|_| wrong(name, part, accepted)),
        })
        .collect()
}

fn words<T: FromStr + strum::VariantArray + Into<&'static str> + Copy>(
    name: &str,
    value: &str,
) -> Result<Vec<T>, QueryError> {
    typed(name, value, &all_words::<T>().join(", "))
}

fn all_words<T: strum::VariantArray + Into<&'static str> + Copy>() -> Vec<&'static str> {
    T::VARIANTS.iter().map(|variant| (*variant).into()).collect()
}

/// Codes of countries, in capitals as records have them.
fn countries(name: &str, value: &str) -> Result<Vec<String>, QueryError> {
    let accepted = "countries by their two letters, such as DE";
    let codes = texts(name, value, accepted)?.into_iter().map(|code| {
        let is_code = code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic());
        is_code.then(|| code.to_ascii_uppercase()).ok_or_else(|| wrong(name, &code, accepted))
    });
    codes.collect()
}

/// Numbers of networks, as `64500` or `AS64500`.
fn asns(name: &str, value: &str) -> Result<Vec<u32>, QueryError> {
    let accepted = "numbers of networks, such as 64500 or AS64500";
    let parts = texts(name, value, accepted)?;
    let number = |part: &String| {
        let digits = part.strip_prefix("AS").or_else(|| part.strip_prefix("as")).unwrap_or(part);
        let is_number = digits.bytes().all(|b| b.is_ascii_digit());
        let number = is_number.then(|| digits.parse().ok()).flatten();
        number.ok_or_else(|| wrong(name, part, accepted))
    };
    parts.iter().map(number).collect()
}

fn outcomes(name: &str, value: &str) -> Result<Vec<Outcome>, QueryError> {
    let mut accepted = all_words::<Outcome>();
    accepted.push(UNSUCCESSFUL);
    let accepted = accepted.join(", ");
    let mut chosen = Vec::new();
    for part in texts(name, value, &accepted)? {
        if part == UNSUCCESSFUL {
            chosen.extend(unsuccessful());
        } else {
            chosen.push(part.parse().map_err(|_| wrong(name, &part, &accepted))?);
        }
    }
    let mut seen = Vec::new();
    chosen.retain(|outcome| {
        !seen.contains(outcome) && {
            seen.push(*outcome);
            true
        }
    });
    Ok(chosen)
}

fn unsuccessful() -> impl Iterator<Item = Outcome> {
    use strum::VariantArray;
    Outcome::VARIANTS.iter().copied().filter(|outcome| outcome.is_unsuccessful())
}

pub(super) fn limit(name: &str, value: &str, most: usize) -> Result<usize, QueryError> {
    let accepted = format!("1 to {most}");
    match value.trim() {
        text if text.starts_with('+') => Err(wrong(name, text, &accepted)),
        text => match text.parse() {
            Ok(n) if (1..=most).contains(&n) => Ok(n),
            _ => Err(wrong(name, text, &accepted)),
        },
    }
}

fn cursor(name: &str, value: &str) -> Result<String, QueryError> {
    let accepted = "the next_cursor of an earlier answer";
    if value.is_empty() || value.len() > 128 || !value.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong(name, value, accepted));
    }
    Ok(value.to_owned())
}

impl Filter {
    /// The parameters that [`parse`] reads back as this filter.
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        let mut put = |name: &'static str, values: Vec<String>| {
            if !values.is_empty() {
                pairs.push((name, values.join(",")));
            }
        };
        put("process", escaped(&self.process));
        put("pid", shown(&self.pid));
        put("uid", shown(&self.uid));
        put("container", escaped(&self.container));
        put("pod", escaped(&self.pod));
        put("namespace", escaped(&self.namespace));
        put("remote", shown(&self.remote));
        put("cidr", shown(&self.cidr));
        put("scope", shown(&self.scope));
        put("country", shown(&self.country));
        put("asn", shown(&self.asn));
        put("host_name", escaped(&self.host_name));
        put("port", shown(&self.port));
        put("protocol", shown(&self.protocol));
        put("direction", shown(&self.direction));
        put("state", shown(&self.state));
        put("outcome", shown(&self.outcome));
        put("unit", escaped(&self.unit));
        put("text", escaped(&self.text));
        put("preexisting", shown(self.preexisting.as_slice()));
        put("since", shown(self.since.as_slice()));
        put("until", shown(self.until.as_slice()));
        pairs
    }

    /// Whether a record is meant.
    pub fn matches(&self, connection: &Connection) -> bool {
        matching::matches(self, connection)
    }

    /// Whether a question for a name is meant: an outbound attempt at the name server.
    pub(crate) fn matches_question(&self, asked: &DnsRecord) -> bool {
        matching::matches_question(self, asked)
    }
}

impl Page {
    /// The parameters that [`parse`] reads back as this page.
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        if let Some(limit) = self.limit {
            pairs.push(("limit", limit.to_string()));
        }
        if let Some(cursor) = &self.cursor {
            pairs.push(("cursor", cursor.clone()));
        }
        if self.sort != Sort::default() {
            pairs.push(("sort", self.sort.to_string()));
        }
        pairs
    }
}

fn shown<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

pub(super) fn escaped(values: &[String]) -> Vec<String> {
    values.iter().map(|value| escape(value)).collect()
}

#[cfg(test)]
mod tests;
