//! What is asked of a compatible endpoint: in the query string, or in a JSON body.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use super::super::problem::Problem;
use super::super::v1::pairs;
use crate::query::Page;
use crate::query::filter::{clip, parse_time};

const NUMBER: &str = "a whole number from 0 to 4294967295; 0 for all processes";
const SECONDS: &str = "a whole number of seconds";
const LIMIT: &str = "a whole number; at most 10000 events are shown";
const NAME: &str = "the name of a process or thread";
const KINDS: &str = "connection, packet_drop";

#[derive(Debug, Default)]
pub(super) struct Asked {
    /// 0: all.
    pub(super) pid: u32,
    /// Empty: all.
    pub(super) command: String,
    duration: u64,
    limit: u64,
    pub(super) kind: Option<String>,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

impl Asked {
    /// The original read 0 as nothing asked.
    pub(super) fn duration_or(&self, default: u64) -> u64 {
        if self.duration == 0 { default } else { self.duration }
    }

    pub(super) fn limit_or_default(&self) -> usize {
        match usize::try_from(self.limit) {
            Ok(0) => Page::DEFAULT_LIMIT,
            limit => limit.unwrap_or(usize::MAX).min(Page::MAX_LIMIT),
        }
    }

    /// Reads the query string, then the body of a POST, whose members win.
    pub(super) async fn read(request: Request) -> Result<Self, Problem> {
        let mut asked = Asked::default();
        asked.read_query(request.uri().query())?;
        if request.method() == Method::POST {
            let (parts, body) = request.into_parts();
            // Read and bounded already, on the way here.
            let body = to_bytes(body, usize::MAX)
                .await
                .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the body could not be read"))?;
            if !body.is_empty() {
                check_content_type(&parts.headers)?;
                asked.read_json(&body)?;
            }
        }
        Ok(asked)
    }

    pub(super) fn read_query(&mut self, query: Option<&str>) -> Result<(), Problem> {
        let wrong = |name: &str, value: &str, accepted: &str| {
            let problem = format!("'{}' is not understood", clip(value));
            Problem::parameter(StatusCode::BAD_REQUEST, name, &problem, accepted)
        };
        let mut pairs = pairs(query);
        // Of what is given twice the first counts, as in the original.
        pairs.reverse();
        let mut alias = String::new();
        for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
            match name.as_str() {
                "pid" => self.pid = number(&value).ok_or_else(|| wrong(&name, &value, NUMBER))?,
                "command" => self.command = value,
                "process_name" => alias = value,
                "duration_seconds" => {
                    self.duration = number(&value).ok_or_else(|| wrong(&name, &value, SECONDS))?;
                }
                "limit" => {
                    self.limit = number(&value).ok_or_else(|| wrong(&name, &value, LIMIT))?
                }
                "type" if matches!(value.as_str(), "connection" | "packet_drop") => {
                    self.kind = Some(value);
                }
                "type" => return Err(wrong(&name, &value, KINDS)),
                "since" => self.since = Some(parse_time(&name, &value, Timestamp::now())?),
                "until" => self.until = Some(parse_time(&name, &value, Timestamp::now())?),
                _ => {}
            }
        }
        if self.command.is_empty() {
            self.command = alias;
        }
        Ok(())
    }

    fn read_json(&mut self, body: &[u8]) -> Result<(), Problem> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}"))
        })?;
        let Value::Object(members) = value else {
            let detail = "the body is not a JSON object such as {\"pid\": 1234}";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
        };
        let wrong = |name: &str, accepted: &str| {
            let problem = "the value is not of the right type, or out of range";
            Problem::parameter(StatusCode::UNPROCESSABLE_ENTITY, name, problem, accepted)
        };
        let (mut command, mut alias) = (None, None);
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            let whole = whole(value);
            let text = value.as_str().map(str::to_owned);
            // In any letter case, as Go's decoder took them.
            match name.to_ascii_lowercase().as_str() {
                "pid" => {
                    let pid = whole.and_then(|pid| pid.try_into().ok());
                    self.pid = pid.ok_or_else(|| wrong(name, NUMBER))?;
                }
                "command" => command = Some(text.ok_or_else(|| wrong(name, NAME))?),
                "process_name" => alias = Some(text.ok_or_else(|| wrong(name, NAME))?),
                "duration_seconds" => {
                    self.duration = whole.ok_or_else(|| wrong(name, SECONDS))?;
                }
                "limit" => self.limit = whole.ok_or_else(|| wrong(name, LIMIT))?,
                _ => {}
            }
        }
        // The alias of the body comes before the name of the query string.
        let named = [&command, &alias].into_iter().flatten().find(|name| !name.is_empty()).cloned();
        if let Some(name) = named.or(command) {
            self.command = name;
        }
        Ok(())
    }
}

/// A whole number, which may be written as `7.0`: to JSON that is the same.
fn whole(value: &Value) -> Option<u64> {
    const BEYOND: f64 = 18_446_744_073_709_551_616.0;
    let of_float = |float: f64| {
        (float.fract() == 0.0 && (0.0..BEYOND).contains(&float)).then_some(float as u64)
    };
    value.as_u64().or_else(|| of_float(value.as_f64()?))
}

/// A number of digits alone: no sign, no white space.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    // The original did not look, and the form type is what `curl -d` says of any body; what says
    // that it is something else is still refused.
    let Some(kind) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json" || essence.ends_with("+json");
    if is_json || essence == "application/x-www-form-urlencoded" {
        return Ok(());
    }
    Err(Problem::parameter(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "Content-Type",
        &format!("'{}' is not taken", clip(kind)),
        "application/json",
    ))
}
