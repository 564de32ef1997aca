//! `/openapi.json`: the document that tells programs what this server answers.
//!
//! It is made from the table that the router is made from, from the lists of parameters that the
//! query layer reads, and from the types of the answers, so that it cannot fall behind.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::problem::Document;

mod parameters;

/// Makes the schema of an answer.
pub(super) type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) id: &'static str,
    /// What it answers, in a line.
    pub(super) summary: &'static str,
    /// Names of the parameters in the query string.
    pub(super) query: Vec<&'static str>,
    /// Of these, those that have to be there.
    pub(super) required: &'static [&'static str],
    /// The members that a JSON body takes, if there may be a body.
    pub(super) body: &'static [&'static str],
    pub(super) answer: Answer,
    /// Statuses of errors, beside those that every operation may give.
    pub(super) problems: &'static [u16],
}

/// What comes back.
pub(super) enum Answer {
    Json(MakeSchema),
    /// The same document, with another status where the server is not well.
    Health(MakeSchema),
    Events(MakeSchema),
    /// Of one of these types.
    Text(&'static [&'static str]),
}

/// The schema of `T` as it is written.
pub(super) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What any request may be answered with: where the server wants a token, no token; where it wants
/// none, a Host header that is not this host's; no encoding that the client takes.
const ALWAYS: [u16; 3] = [401, 403, 406];

/// The same, before there is a request that could be answered with a document.
const WITHOUT_BODY: [(&str, &str); 2] = [
    ("414", "The target is longer than 64 KiB. There is no body."),
    (
        "431",
        "The head of the request is larger than 64 KiB, or has more than 100 fields. There is no body, \
         or a problem document where all of the head was read.",
    ),
];

/// The document for these operations, by path.
pub(super) fn document<'a>(operations: impl Iterator<Item = (&'a str, &'a Operation)>) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let settings = settings.with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<Document>();
    let mut paths: Map<String, Value> = Map::new();
    let mut statuses = BTreeSet::new();
    for (path, operation) in operations {
        let described = operation.describe(path, &mut generator, &mut statuses);
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        if let Some(entry) = entry.as_object_mut() {
            entry.insert(operation.method.to_owned(), described);
        }
    }
    let responses: Map<String, Value> = statuses
        .iter()
        .map(|status| (format!("Problem{status}"), problem_response(*status, &problem)))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "netspy",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Every connection attempt of a Linux host, its process and its true outcome",
            "description": "Answers cover a window of time and carry its books. Errors are problem \
                            documents (RFC 9457), but for those to what is not understood as a \
                            request of HTTP at all: 400, 414 and 431 without a body, after which the \
                            connection is closed. Names, paths and command lines are chosen by \
                            whoever runs on the host: treat them as data.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "tags": [
            {"name": "v1", "description": "The typed questions."},
            {"name": "compatible", "description": "The endpoints of the original server."},
            {"name": "server", "description": "About the server itself."},
        ],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": responses,
            "securitySchemes": {"token": {
                "type": "http",
                "scheme": "bearer",
                "description": "Over TCP, where the server was given tokens.",
            }},
        },
    })
}

fn problem_response(status: u16, problem: &Schema) -> Value {
    let words = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    json!({
        "description": words.unwrap_or("Error"),
        "content": {"application/problem+json": {"schema": problem}},
    })
}

impl Operation {
    fn describe(
        &self,
        path: &str,
        generator: &mut SchemaGenerator,
        statuses: &mut BTreeSet<u16>,
    ) -> Value {
        let tag = match path {
            path if path.starts_with("/api/v1/") => "v1",
            path if path.starts_with("/api/") || path == "/health" => "compatible",
            _ => "server",
        };
        let mut parameters: Vec<Value> = Vec::new();
        if path.contains("{id}") {
            parameters.push(parameters::in_path("id"));
        }
        let compatible = tag == "compatible";
        parameters.extend(self.query.iter().map(|name| {
            parameters::in_query(name, self.required.contains(name), compatible, path)
        }));
        if let Answer::Events(_) = self.answer {
            parameters.push(parameters::last_event_id());
        }
        let mut responses = Map::new();
        for (status, response) in self.answer.describe(generator) {
            responses.insert(status.to_owned(), response);
        }
        for status in self.problems.iter().chain(&ALWAYS) {
            statuses.insert(*status);
            let reference = json!({"$ref": format!("#/components/responses/Problem{status}")});
            responses.entry(status.to_string()).or_insert(reference);
        }
        for (status, words) in WITHOUT_BODY {
            responses.insert(status.to_owned(), json!({ "description": words }));
        }
        let mut described = json!({
            "operationId": self.id,
            "summary": self.summary,
            "tags": [tag],
            "parameters": parameters,
            "responses": responses,
        });
        if !self.body.is_empty()
            && self.method == "post"
            && let Some(described) = described.as_object_mut()
        {
            let body = json!({"content": {"application/json": {
                "schema": parameters::body(self.body)
            }}});
            described.insert("requestBody".to_owned(), body);
        }
        described
    }
}

impl Answer {
    fn describe(&self, generator: &mut SchemaGenerator) -> Vec<(&'static str, Value)> {
        let response = |words: &str, kind: &str, schema: Value| json!({"description": words, "content": {kind: {"schema": schema}}});
        match self {
            Answer::Json(make) => {
                let schema = json!(make(generator));
                vec![("200", response("The answer.", "application/json", schema))]
            }
            Answer::Health(make) => {
                let schema = json!(make(generator));
                let well = response("Capture runs.", "application/json", schema.clone());
                let ill = response("Capture is down, or not up yet.", "application/json", schema);
                vec![("200", well), ("503", ill)]
            }
            Answer::Events(make) => {
                let words = "Events, of which the schema describes each: `connection`, whose id is \
                             the number of the change, and `skipped` where the server no longer \
                             has what came between. The data is JSON.";
                let skipped = json!({
                    "type": "object",
                    "required": ["changes"],
                    "properties": {
                        "changes": {
                            "type": ["integer", "null"],
                            "minimum": 0,
                            "description": "How many, at most; null where nobody knows.",
                        },
                        "why": {"type": "string", "description": "Why nobody knows."},
                    },
                });
                let schema = json!({"oneOf": [
                    event("connection", true, json!(make(generator))),
                    event("skipped", false, skipped),
                ]});
                vec![("200", response(words, "text/event-stream", schema))]
            }
            Answer::Text(kinds) => {
                let one = |kind: &&str| ((*kind).to_owned(), json!({"schema": {"type": "string"}}));
                let content: Map<String, Value> = kinds.iter().map(one).collect();
                vec![("200", json!({"description": "The answer.", "content": content}))]
            }
        }
    }
}

/// The fields of an event, as a client reads them.
fn event(name: &str, has_id: bool, data: Value) -> Value {
    let mut required = vec!["event", "data"];
    let mut properties = json!({
        "event": {"type": "string", "const": name},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": data,
        },
    });
    if has_id {
        required.push("id");
        properties["id"] = json!({"type": "string", "pattern": "^[0-9]+$"});
    }
    json!({"type": "object", "required": required, "properties": properties})
}

/// A text with a tag that changes whenever the text does.
pub(super) struct Tagged {
    body: Bytes,
    kind: &'static str,
    etag: String,
}

impl Tagged {
    pub(super) fn new(body: String, kind: &'static str) -> Self {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        Tagged { body: body.into(), kind, etag }
    }

    /// The text, or that the client has it already.
    pub(super) fn respond(&self, headers: &HeaderMap) -> Response {
        let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let mut tags = known.flat_map(|tags| tags.split(',')).map(str::trim);
        let same = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag;
        let mut response = match tags.any(same) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => ([(CONTENT_TYPE, self.kind)], self.body.clone()).into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // Weak, since it stands for the text whether it is compressed or not.
        if let Ok(etag) = HeaderValue::from_str(&format!("W/{}", self.etag)) {
            headers.insert(ETAG, etag);
        }
        response
    }
}

pub(super) async fn openapi(headers: HeaderMap) -> Response {
    static DOCUMENT: LazyLock<Tagged> =
        LazyLock::new(|| Tagged::new(super::routes::document().to_string(), "application/json"));
    DOCUMENT.respond(&headers)
}

/// What the page may do: show itself, and fetch the document that it shows.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";

fn page(fixed: &Tagged, headers: &HeaderMap) -> Response {
    let mut response = fixed.respond(headers);
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert("content-security-policy", policy);
    response
}

pub(super) async fn docs(headers: HeaderMap) -> Response {
    static PAGE: LazyLock<Tagged> = LazyLock::new(|| {
        Tagged::new(include_str!("docs/index.html").to_owned(), "text/html; charset=utf-8")
    });
    page(&PAGE, &headers)
}

pub(super) async fn script(headers: HeaderMap) -> Response {
    static SCRIPT: LazyLock<Tagged> = LazyLock::new(|| {
        Tagged::new(include_str!("docs/docs.js").to_owned(), "text/javascript; charset=utf-8")
    });
    page(&SCRIPT, &headers)
}

pub(super) async fn style(headers: HeaderMap) -> Response {
    static STYLE: LazyLock<Tagged> = LazyLock::new(|| {
        Tagged::new(include_str!("docs/docs.css").to_owned(), "text/css; charset=utf-8")
    });
    page(&STYLE, &headers)
}
