//! The parameters as OpenAPI describes them. A test holds every name that the query layer reads
//! against this list.

use serde_json::{Value, json};
use strum::{VariantArray, VariantNames};

use crate::event::{Direction, DnsOutcome, Outcome, Protocol, Scope, State};
use crate::query::diff::Diff;
use crate::query::findings::Findings;
use crate::query::top::{Top, TopBy};
use crate::query::{Page, Sort};

/// A text among others that are separated by commas: not empty, not white space alone. A comma or a
/// backslash that belongs to it has a backslash before it. White space is spelled out, since
/// dialects differ in what `\s` is.
const TEXT: &str = concat!(
    r"^(?:[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*",
    r"(?:[^,\\\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]|\\[\s\S])",
    r"(?:[^,\\]|\\[\s\S])*)",
    // As it is read, a comma begins another value.
    r"(?:,[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*",
    r"(?:[^,\\\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]|\\[\s\S])",
    r"(?:[^,\\]|\\[\s\S])*)*$",
);
/// How long ago.
const AGE: &str = "^[0-9]+(ms|s|m|h|d|w)$";
/// A length of time, up to a year or so.
const STEP: &str = r"^0*[1-9]([0-9]{0,9}ms|[0-9]{0,6}s|[0-9]{0,4}m|[0-9]{0,2}h|[0-9]?d|w)$";
/// The id of a connection.
const CONNECTION: &str = "^[0-9a-f]{1,8}-[0-9a-f]{1,16}-[0-9a-f]{1,8}$";
/// What the server makes, and nobody else can.
const CURSOR: &str = "^[!-~]{1,128}$";

fn texts() -> Value {
    list(json!({"type": "string", "pattern": TEXT, "minLength": 1}))
}

fn numbers(most: u64) -> Value {
    list(json!({"type": "integer", "minimum": 0, "maximum": most}))
}

fn words<T: VariantArray + Copy + Into<&'static str>>(more: &[&'static str]) -> Value {
    let words = T::VARIANTS.iter().map(|word| (*word).into());
    let words: Vec<&'static str> = words.chain(more.iter().copied()).collect();
    list(json!({"type": "string", "enum": words}))
}

fn list(item: Value) -> Value {
    json!({"type": "array", "items": item, "minItems": 1, "maxItems": 256})
}

fn text(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn time() -> Value {
    json!({"anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "string", "pattern": AGE, "examples": ["15m"]},
    ]})
}

/// Meaning and form of a parameter of `/api/v1`; `most` is the largest `limit`.
fn known(name: &str, path: &str) -> Option<(&'static str, Value)> {
    let most = match path {
        "/api/v1/top" => Top::MAX_LIMIT,
        "/api/v1/diff" => Diff::MAX_LIMIT,
        "/api/v1/findings" => Findings::MAX_LIMIT,
        _ => Page::MAX_LIMIT,
    };
    Some(match name {
        "process" => ("Name of the process or thread, or base name of its executable.", texts()),
        "pid" => ("Process id.", numbers(u64::from(u32::MAX))),
        "uid" => ("User id.", numbers(u64::from(u32::MAX))),
        "container" => {
            ("Id of the container, or a prefix of at least 6 characters, or its name.", texts())
        }
        "pod" => ("Name of the Kubernetes pod.", texts()),
        "namespace" => ("Kubernetes namespace.", texts()),
        "remote" => (
            "Remote address, or where address translation sends to (`remote_actual`); of drops, that \
             of either end; of questions for names, the server's or one that was the answer.",
            list(json!({"anyOf": [
                {"type": "string", "format": "ipv4"},
                {"type": "string", "format": "ipv6"},
            ]})),
        ),
        "cidr" => (
            "Network of the remote, or of `remote_actual`.",
            list(json!({"type": "string", "examples": ["10.0.0.0/8"],
                "pattern": r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}/(3[0-2]|[12]?[0-9])|([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}/(12[0-8]|1[01][0-9]|[1-9]?[0-9])|([0-9a-f]{1,4}:){1,3}:/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$"})),
        ),
        "scope" => (
            "What kind of address the remote is, by the registries of special-purpose addresses.",
            words::<Scope>(&[]),
        ),
        "country" => (
            "Country of the remote, by its two letters.",
            list(json!({"type": "string", "examples": ["DE"], "pattern": "^[A-Za-z]{2}$"})),
        ),
        "asn" => (
            "Number of the network (autonomous system) of the remote.",
            numbers(u64::from(u32::MAX)),
        ),
        "host_name" => (
            "Remote host name, of questions that which was asked for, or `.example.com` for that domain and everything below it.",
            texts(),
        ),
        "port" => ("Remote port; of what comes in or listens, the local one.", numbers(65_535)),
        "protocol" => ("Protocol of the socket.", words::<Protocol>(&[])),
        "direction" => ("Who opened it.", words::<Direction>(&[])),
        "state" => ("What it is doing.", words::<State>(&[])),
        "outcome" if path == "/api/v1/dns" => (
            "What came of the question. `unsuccessful` stands for nxdomain, servfail, refused, failed \
             and timed_out.",
            words::<DnsOutcome>(&["unsuccessful"]),
        ),
        "connection" => (
            "Id of a connection that carried the question, or that followed the answer.",
            list(json!({"type": "string", "pattern": CONNECTION})),
        ),
        "type" => ("Type that was asked for, such as `A`, in any letter case.", texts()),
        "outcome" => (
            "How it ended. `unsuccessful` stands for refused, timed_out, unreachable, denied, reset \
             and failed.",
            words::<Outcome>(&["unsuccessful"]),
        ),
        "unit" => ("systemd unit.", texts()),
        "text" => (
            "Part of a name, path or address that the record shows, in any letter case; not of \
             command lines.",
            texts(),
        ),
        "reason" => ("The kernel's name of the reason, in any letter case.", texts()),
        "preexisting" => (
            "Whether it existed before capture began.",
            json!({"type": "string", "enum": ["true", "false"]}),
        ),
        "since" => ("Start of the window: RFC 3339, or an age such as `15m`.", time()),
        "until" => ("End of the window: RFC 3339, or an age.", time()),
        "compare_since" => (
            "Start of the window to compare with; unless given, it is as long as the other one.",
            time(),
        ),
        "compare_until" => {
            ("End of the window to compare with; unless given, the start of the other one.", time())
        }
        "sort" => (
            "The order of the list.",
            json!({"type": "string", "enum": Sort::VARIANTS, "default": "newest"}),
        ),
        "limit" => ("At most so many.", json!({"type": "integer", "minimum": 1, "maximum": most})),
        "cursor" => {
            ("Where an earlier answer to the same question ended: its `next_cursor`.", text(CURSOR))
        }
        "by" => (
            "What to group by.",
            json!({"type": "string", "enum": <TopBy as VariantNames>::VARIANTS}),
        ),
        "step" => (
            "Length of a step, such as `10s`, `1m` or `1h`; unless given, one that makes about \
             sixty of them. More than 10,000 steps are refused.",
            text(STEP),
        ),
        "after" => (
            "Goes on after the change with this number, as `Last-Event-ID` does; 0 for all that \
             the server still has.",
            json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
        ),
        _ => return None,
    })
}

/// The same for the original server's endpoints: one value each, and 0 or nothing for all.
fn original(name: &str) -> Option<(&'static str, Value)> {
    Some(match name {
        "pid" => (
            "Process id; 0 for all.",
            json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
        ),
        "command" => ("Name of the process or thread.", json!({"type": "string"})),
        "process_name" => ("The same as `command`.", json!({"type": "string"})),
        "duration_seconds" => (
            "So many seconds back; 0 for the usual (60 for a summary, 3600 for a list).",
            json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
        ),
        "limit" => (
            "At most so many events, 10,000 in any case; 0 for the usual 100.",
            json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
        ),
        "type" => (
            "What kind of events.",
            json!({"type": "string", "enum": ["connection", "packet_drop"]}),
        ),
        "since" | "until" => return known(name, ""),
        _ => return None,
    })
}

/// A parameter in the query string.
pub(super) fn in_query(name: &str, required: bool, compatible: bool, path: &str) -> Value {
    let found = if compatible { original(name) } else { known(name, path) };
    let (description, schema) = found.unwrap_or(("", json!({})));
    let mut parameter = json!({
        "name": name,
        "in": "query",
        "description": description,
        "required": required,
        "schema": schema,
    });
    if parameter["schema"]["type"] == "array"
        && let Some(parameter) = parameter.as_object_mut()
    {
        // Several values are separated by commas.
        parameter.insert("style".to_owned(), json!("form"));
        parameter.insert("explode".to_owned(), json!(false));
    }
    if compatible {
        // `pid=` asks for all, as it did in the original.
        parameter["allowEmptyValue"] = json!(true);
    }
    parameter
}

pub(super) fn in_path(name: &str) -> Value {
    json!({
        "name": name,
        "in": "path",
        "description": "The id of a record.",
        "required": true,
        "schema": {"type": "string", "pattern": CONNECTION},
    })
}

pub(super) fn last_event_id() -> Value {
    json!({
        "name": "Last-Event-ID",
        "in": "header",
        "description": "Goes on after the event with this id.",
        "required": false,
        "schema": {"type": "integer", "minimum": 0, "maximum": u64::MAX},
    })
}

/// The JSON body of a POST, in which null is as good as nothing.
pub(super) fn body(members: &[&str]) -> Value {
    let member = |name: &&str| {
        let (description, mut schema) = original(name).unwrap_or(("", json!({})));
        schema["type"] = json!([schema["type"], "null"]);
        schema["description"] = json!(description);
        ((*name).to_owned(), schema)
    };
    let properties: serde_json::Map<_, _> = members.iter().map(member).collect();
    json!({"type": "object", "properties": properties})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{diff, dns, drops, filter, findings, series, top};

    #[test]
    fn every_parameter_of_the_query_layer_is_described() {
        let pages = [&filter::FILTER_NAMES[..], &filter::PAGE_NAMES].concat();
        let dropped = [&drops::DROP_FILTER_NAMES[..], &drops::DROP_PAGE_NAMES].concat();
        let own = [top::names(), series::names(), diff::names(), findings::names()].concat();
        let asked = [&dns::DNS_FILTER_NAMES[..], &dns::DNS_PAGE_NAMES].concat();
        for name in [pages, dropped, asked, own].concat() {
            let (description, schema) = known(name, "/api/v1/connections").expect(name);
            assert!(description.ends_with('.') && schema.is_object(), "{name}");
        }
        assert!(known("nothing", "").is_none() && original("nothing").is_none());
    }

    #[test]
    fn the_examples_of_patterns_are_what_the_server_takes() {
        let now = jiff::Timestamp::now();
        for time in ["15m", "1d", "2026-01-31T09:30:00Z", "2026-01-31t09:30:00.5+05:30"] {
            assert!(filter::parse_time("since", time, now).is_ok(), "{time}");
        }
    }
}
