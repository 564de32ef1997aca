//! Arguments of a call, read against the parameters of its tool.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::ToolError;
use super::spec::{Kind, Param, Tool};
use crate::event::{Scope, State};
use crate::query::dns::DnsFilter;
use crate::query::drops::DropFilter;
use crate::query::filter;
use crate::query::{self, Filter, Page};
use crate::text;

/// Seconds that an answer looks back where nothing is said.
const LOOK_BACK: u64 = 3_600;

/// Arguments that fit the tool's parameters.
#[derive(Debug)]
pub(super) struct Args {
    given: Map<String, Value>,
    now: Timestamp,
}

impl Args {
    /// Checks names and types. What is null, empty or zero is not given, as the original had it.
    pub(super) fn read(tool: &Tool, args: Value) -> Result<Args, ToolError> {
        let given = match args {
            Value::Null => Map::new(),
            Value::Object(given) => given,
            _ => return Err(invalid("arguments", "not a JSON object", "an object")),
        };
        let mut read = Map::new();
        for (name, value) in given {
            let Some(param) = tool.params.iter().find(|param| param.name == name) else {
                let known: Vec<&str> = tool.params.iter().map(|param| param.name).collect();
                return Err(invalid(&clip(&name), "there is no such parameter", &known.join(", ")));
            };
            if let Some(value) = normal(param, value)? {
                read.insert(name, value);
            }
        }
        Ok(Args { given: read, now: Timestamp::now() })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.given.get(name)?.as_str()
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.given.get(name)?.as_u64()
    }

    /// Whether the longer form is asked for.
    pub(super) fn detailed(&self) -> bool {
        self.text("response_format") == Some("detailed")
    }

    /// At most `most` things, `usual` unless said.
    pub(super) fn limit(&self, usual: usize, most: usize) -> usize {
        let said = self.number("max_events").map(|n| usize::try_from(n).unwrap_or(most));
        said.unwrap_or(usual).min(most)
    }

    /// Which records, with what views leave out left in: the caller knows the source.
    pub(super) fn filter(&self) -> Result<Filter, ToolError> {
        let pairs = [
            ("process", "process_name"),
            ("pid", "pid"),
            ("port", "port"),
            ("protocol", "protocol"),
            ("unit", "unit"),
            ("direction", "direction"),
            ("state", "state"),
            ("outcome", "outcome"),
        ];
        let mut filter = filter::parse_at(self.pairs(&pairs)?, self.now).map_err(named)?.0;
        // What is open or listening has been so for any time.
        let always = filter.state.iter().any(|state| *state != State::Closed);
        if !always || self.text("since").is_some() || self.number("duration").is_some() {
            filter.since = Some(self.since(filter.since)?);
        }
        Ok(filter)
    }

    /// Which drops.
    pub(super) fn drop_filter(&self) -> Result<DropFilter, ToolError> {
        let pairs = [
            ("process", "process_name"),
            ("pid", "pid"),
            ("remote", "remote"),
            ("port", "port"),
            ("reason", "reason"),
        ];
        let pairs = self.plain_pairs(&pairs).chain(self.times());
        let mut filter = query::drops::parse(pairs).map_err(named)?.0;
        filter.since = Some(self.since(filter.since)?);
        Ok(filter)
    }

    /// Which look-ups of names.
    pub(super) fn dns_filter(&self) -> Result<DnsFilter, ToolError> {
        const NOT_OF_NAMES: [&str; 7] =
            ["port", "unit", "direction", "state", "sort", "group_by", "compare"];
        if let Some(name) = NOT_OF_NAMES.iter().find(|name| self.given.contains_key(**name)) {
            let accepted = "process_name, pid, container, remote, outcome, duration, since, until";
            return Err(invalid(name, "does not go with protocol=dns", accepted));
        }
        let pairs = [("process", "process_name"), ("pid", "pid"), ("outcome", "outcome")];
        let pairs = self.pairs(&pairs)?;
        if pairs.iter().any(|(name, _)| ["cidr", "scope"].contains(name)) {
            let accepted =
                "IP addresses, of servers or in answers, or the names that are asked for";
            let problem = "networks and kinds of addresses do not go with protocol=dns";
            return Err(invalid("remote", problem, accepted));
        }
        let mut filter = query::dns::parse(pairs).map_err(named)?.0;
        filter.since = Some(self.since(filter.since)?);
        Ok(filter)
    }

    /// Which part of a list.
    pub(super) fn page(&self, limit: usize) -> Result<Page, ToolError> {
        let pairs = self.plain_pairs(&[("cursor", "cursor"), ("sort", "sort")]);
        let page = filter::parse(pairs).map_err(named)?.1;
        Ok(Page { limit: Some(limit), ..page })
    }

    fn since(&self, said: Option<Timestamp>) -> Result<Timestamp, ToolError> {
        match (said, self.number("duration")) {
            (Some(_), Some(_)) => {
                let accepted = "duration (seconds until now), or since and until";
                Err(invalid("duration", "given together with since", accepted))
            }
            (Some(since), None) => Ok(since),
            (None, seconds) => {
                let seconds = i64::try_from(seconds.unwrap_or(LOOK_BACK)).unwrap_or(i64::MAX);
                let until = self.text("until").map(|t| filter::parse_time("until", t, self.now));
                let until = until.transpose().map_err(named)?.unwrap_or(self.now);
                let since = until.checked_sub(SignedDuration::from_secs(seconds));
                Ok(since.unwrap_or(Timestamp::MIN))
            }
        }
    }

    /// The parameters of the query layer for these arguments: its name, and the tool's.
    fn plain_pairs<'a>(
        &'a self,
        names: &'a [(&'static str, &'static str)],
    ) -> impl Iterator<Item = (&'static str, String)> + 'a {
        names.iter().filter_map(|(query, tool)| Some((*query, self.shown(tool)?)))
    }

    fn times(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.plain_pairs(&[("since", "since"), ("until", "until")])
    }

    fn pairs(
        &self,
        names: &[(&'static str, &'static str)],
    ) -> Result<Vec<(&'static str, String)>, ToolError> {
        let mut pairs: Vec<_> = self.plain_pairs(names).chain(self.times()).collect();
        if let Some(remote) = self.text("remote") {
            pairs.push(remote_pair(remote)?);
        }
        if let Some(container) = self.text("container") {
            pairs.push(container_pair(container)?);
        }
        Ok(pairs)
    }

    fn shown(&self, name: &str) -> Option<String> {
        match self.given.get(name)? {
            Value::String(text) => Some(text.clone()),
            value => Some(value.to_string()),
        }
    }
}

/// The query layer tells addresses, networks and names apart; whoever asks "remote" should not
/// have to.
fn remote_pair(text: &str) -> Result<(&'static str, String), ToolError> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let address = |part: &&str| part.parse::<std::net::IpAddr>().is_ok();
    let network = |part: &&str| part.parse::<ipnet::IpNet>().is_ok();
    if parts.iter().all(address) {
        return Ok(("remote", text.to_owned()));
    }
    // No parameter of its own: each costs a model in every conversation.
    if parts.iter().all(|part| part.parse::<Scope>().is_ok()) {
        return Ok(("scope", text.to_owned()));
    }
    if parts.iter().all(|part| address(part) || network(part)) {
        let widened = parts.iter().map(|part| match part.parse::<std::net::IpAddr>() {
            Ok(ip) => ipnet::IpNet::from(ip).to_string(),
            Err(_) => (*part).to_owned(),
        });
        return Ok(("cidr", widened.collect::<Vec<_>>().join(",")));
    }
    if parts.iter().any(|part| address(part) || network(part) || part.contains([':', '/'])) {
        let accepted =
            "IP addresses and networks (10.0.0.0/8), or host names; a port goes into port";
        return Err(invalid("remote", &format!("'{}' is not understood", clip(text)), accepted));
    }
    Ok(("host_name", text.to_owned()))
}

/// One parameter for containers and what Kubernetes puts around them: each costs a model in every
/// conversation.
fn container_pair(text: &str) -> Result<(&'static str, String), ToolError> {
    let parts = || text.split(',').map(str::trim);
    for (prefix, name) in [("pod:", "pod"), ("namespace:", "namespace")] {
        let named: Vec<&str> = parts().filter_map(|part| part.strip_prefix(prefix)).collect();
        match named.len() {
            0 => {}
            n if n == parts().count() => return Ok((name, named.join(","))),
            _ => {
                let problem = format!("'{}' mixes containers with others", clip(text));
                let accepted = "names or ids of containers, or pod:NAME, or namespace:NAME";
                return Err(invalid("container", &problem, accepted));
            }
        }
    }
    Ok(("container", text.to_owned()))
}

/// The records of this remote, whatever form it is named in.
#[cfg(feature = "mcp")]
pub(crate) fn remote_filter(remote: &str) -> Result<Filter, query::QueryError> {
    let pair = remote_pair(remote).map_err(|error| match error {
        ToolError::Invalid { parameter, problem, accepted } => {
            query::QueryError::Invalid { parameter, problem, accepted }
        }
        error => filter::invalid("remote", &error.to_string(), "an address or a name"),
    })?;
    filter::parse([pair]).map(|(filter, _)| filter)
}

/// The value as its parameter has it; `None` where it stands for "not given".
fn normal(param: &Param, value: Value) -> Result<Option<Value>, ToolError> {
    let wrong = || {
        let shown = clip(&value.to_string()).into_owned();
        invalid(param.name, &format!("{shown} is not understood"), &param.kind.accepted())
    };
    let normal = match (&param.kind, &value) {
        (_, Value::Null) => None,
        (_, Value::String(text)) if text.trim().is_empty() => None,
        (Kind::Text, Value::String(_)) => Some(value),
        // Ports and words are lists elsewhere, and models like to write them so.
        (Kind::Text, Value::Array(parts)) => {
            // Each of them is one name, whatever is in it.
            let is_name = ["process_name", "unit", "container"].contains(&param.name);
            let part = |part: &Value| match (plain(part)?, is_name) {
                (name, true) => Some(filter::escape(&name)),
                (text, false) => Some(text),
            };
            let parts: Option<Vec<String>> = parts.iter().map(part).collect();
            Some(parts.ok_or_else(wrong)?.join(",")).filter(|all| !all.is_empty()).map(Value::from)
        }
        (Kind::Text, Value::Number(n)) => Some(n.to_string().into()),
        (Kind::Number(most), value) => {
            let number = match value {
                Value::Number(n) => n.as_u64().or_else(|| whole(n.as_f64()?)),
                Value::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            let number = number.ok_or_else(wrong)?;
            if number > *most {
                return Err(wrong());
            }
            // Nothing here is counted below one; zero stood for "not given" in the original.
            (number > 0).then(|| number.into())
        }
        (Kind::Words(words), Value::String(text)) => {
            let word = text.trim();
            if !words.contains(&word) {
                return Err(wrong());
            }
            Some(word.into())
        }
        _ => return Err(wrong()),
    };
    Ok(normal)
}

/// What of a wrong value goes into a message.
pub(super) fn clip(text: &str) -> std::borrow::Cow<'_, str> {
    text::short(text, 80)
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..9e15).contains(&number)).then_some(number as u64)
}

pub(super) fn invalid(parameter: &str, problem: &str, accepted: &str) -> ToolError {
    ToolError::Invalid {
        parameter: parameter.to_owned(),
        problem: problem.to_owned(),
        accepted: accepted.to_owned(),
    }
}

/// An error of the query layer, with the tool's names of parameters.
pub(super) fn named(error: query::QueryError) -> ToolError {
    match ToolError::from(error) {
        ToolError::Invalid { parameter, problem, accepted } => {
            let parameter = match parameter.as_str() {
                "process" => "process_name".to_owned(),
                "cidr" | "host_name" | "scope" => "remote".to_owned(),
                "pod" | "namespace" => "container".to_owned(),
                "limit" => "max_events".to_owned(),
                "compare_since" | "compare_until" => "compare".to_owned(),
                _ => parameter,
            };
            ToolError::Invalid { parameter, problem, accepted }
        }
        error => error,
    }
}
