//! The table of what is answered where. The router and the OpenAPI document are both made from it,
//! so that nothing can be in one and not in the other.

use axum::Router;
use axum::routing::{MethodRouter, get};
use serde_json::Value;

use super::compat::{self, drops};
use super::openapi::{self, Answer, MakeSchema, Operation, schema};
use super::{Api, event, metrics, stream, v1};
use crate::event::Connection;
use crate::query::diff::{self, Diff};
use crate::query::dns::{DNS_FILTER_NAMES, DNS_PAGE_NAMES, DnsList};
use crate::query::drops::{DROP_FILTER_NAMES, DROP_PAGE_NAMES, DropList};
use crate::query::filter::{FILTER_NAMES, PAGE_NAMES};
use crate::query::findings::{self, Findings};
use crate::query::series::{self, Series};
use crate::query::top::{self, Top};
use crate::query::{List, Status, Summary};

/// What a request has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Looks through records: so many at a time.
    Question,
    /// The same, with a body that is read before.
    WithBody,
    /// Nothing: it must be answered when the server is busy, or goes on for long.
    Free,
}

pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) class: Class,
    pub(super) handler: MethodRouter<Api>,
    pub(super) operations: Vec<Operation>,
}

/// The routes of one class.
pub(super) fn router(class: Class) -> Router<Api> {
    let of_class = routes().into_iter().filter(|route| route.class == class);
    of_class.fold(Router::new(), |router, route| router.route(route.path, route.handler))
}

/// The OpenAPI document.
pub(super) fn document() -> Value {
    let routes = routes();
    openapi::document(
        routes
            .iter()
            .flat_map(|route| route.operations.iter().map(|operation| (route.path, operation))),
    )
}

pub(super) fn routes() -> Vec<Route> {
    let mut routes = own();
    routes.extend(compatible());
    routes.extend(about());
    routes
}

/// A question of `/api/v1`.
fn question(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    handler: MethodRouter<Api>,
    query: Vec<&'static str>,
    answer: MakeSchema,
) -> Route {
    let operation = Operation {
        method: "get",
        id,
        summary,
        query,
        required: &[],
        body: &[],
        answer: Answer::Json(answer),
        problems: &[400, 503],
    };
    Route { path, class: Class::Question, handler, operations: vec![operation] }
}

fn own() -> Vec<Route> {
    let filters = FILTER_NAMES.to_vec();
    let pages = [&FILTER_NAMES[..], &PAGE_NAMES].concat();
    let dropped = [&DROP_FILTER_NAMES[..], &DROP_PAGE_NAMES].concat();
    let asked = [&DNS_FILTER_NAMES[..], &DNS_PAGE_NAMES].concat();
    let mut one = question(
        "/api/v1/connections/{id}",
        "get_connection",
        "One record.",
        get(v1::get),
        Vec::new(),
        schema::<Connection>,
    );
    one.operations.iter_mut().for_each(|operation| operation.problems = &[400, 404, 503]);
    let mut top = question(
        "/api/v1/top",
        "top",
        "The groups with the most records.",
        get(v1::top),
        top::names(),
        schema::<Top>,
    );
    top.operations.iter_mut().for_each(|operation| operation.required = &["by"]);
    vec![
        question(
            "/api/v1/connections",
            "list_connections",
            "Records, newest first, page by page.",
            get(v1::list),
            pages,
            schema::<List>,
        ),
        one,
        question(
            "/api/v1/summary",
            "summary",
            "Totals, rates and handshake times.",
            get(v1::summary),
            filters.clone(),
            schema::<Summary>,
        ),
        top,
        question(
            "/api/v1/series",
            "series",
            "Attempts over time, step by step.",
            get(v1::series),
            series::names(),
            schema::<Series>,
        ),
        question(
            "/api/v1/diff",
            "diff",
            "What is new, gone and changed between two windows: the last hour and the one before, \
             unless said otherwise.",
            get(v1::diff),
            diff::names(),
            schema::<Diff>,
        ),
        question(
            "/api/v1/drops",
            "list_drops",
            "Packets that the kernel dropped, newest first, page by page.",
            get(v1::drops),
            dropped,
            schema::<DropList>,
        ),
        question(
            "/api/v1/dns",
            "list_dns",
            "Questions that processes sent to name servers and what came of them, newest first, page \
             by page.",
            get(v1::dns),
            asked,
            schema::<DnsList>,
        ),
        question(
            "/api/v1/findings",
            "findings",
            "What stands out among the outbound attempts, by fixed rules.",
            get(v1::findings),
            findings::names(),
            schema::<Findings>,
        ),
        question(
            "/api/v1/status",
            "status",
            "Health, what is observed and how, the store, and the books since the start.",
            get(v1::status),
            Vec::new(),
            schema::<Status>,
        ),
        Route {
            path: "/api/v1/stream",
            class: Class::Free,
            handler: get(stream::stream),
            operations: vec![Operation {
                method: "get",
                id: "stream",
                summary: "New and changed records as they come (Server-Sent Events).",
                query: [&filters[..], &["after"]].concat(),
                required: &[],
                body: &[],
                answer: Answer::Events(schema::<Connection>),
                problems: &[400, 429],
            }],
        },
    ]
}

/// One of the original server's paths: GET, and POST with the same in a body.
fn original(
    path: &'static str,
    ids: [&'static str; 2],
    summary: &'static str,
    handler: MethodRouter<Api>,
    parameters: &'static [&'static str],
    answer: MakeSchema,
) -> Route {
    let operation = |method, id| Operation {
        method,
        id,
        summary,
        query: parameters.to_vec(),
        required: &[],
        body: parameters,
        answer: Answer::Json(answer),
        problems: if method == "post" { &[400, 408, 413, 415, 422, 503] } else { &[400, 503] },
    };
    let [get, post] = ids;
    Route {
        path,
        class: Class::WithBody,
        handler,
        operations: vec![operation("get", get), operation("post", post)],
    }
}

const COUNT: [&str; 4] = ["pid", "command", "process_name", "duration_seconds"];
const LIST: [&str; 5] = ["pid", "command", "process_name", "limit", "duration_seconds"];
const EVENTS: [&str; 7] = ["type", "pid", "command", "process_name", "since", "until", "limit"];

fn compatible() -> Vec<Route> {
    let health = Operation {
        method: "get",
        id: "health",
        summary: "Whether the server and its capture are well.",
        query: Vec::new(),
        required: &[],
        body: &[],
        answer: Answer::Health(schema::<compat::Health>),
        problems: &[],
    };
    vec![
        // Whoever watches over the server has to hear of it most of all when it is busy.
        Route {
            path: "/health",
            class: Class::Free,
            handler: get(compat::health),
            operations: vec![health],
        },
        original(
            "/api/connection-summary",
            ["connection_summary", "post_connection_summary"],
            "How many outbound attempts there were.",
            get(compat::summary).post(compat::summary),
            &COUNT,
            schema::<compat::Count>,
        ),
        original(
            "/api/list-connections",
            ["list_connections_by_pid", "post_list_connections_by_pid"],
            "The newest outbound attempts, by process id.",
            get(compat::list).post(compat::list),
            &LIST,
            schema::<compat::ByPid<event::Event>>,
        ),
        question(
            "/api/events",
            "events",
            "The newest outbound attempts, or dropped packets.",
            get(compat::events),
            EVENTS.to_vec(),
            schema::<compat::Events>,
        ),
        question(
            "/api/programs",
            "programs",
            "The BPF programs that are loaded.",
            get(compat::programs),
            Vec::new(),
            schema::<compat::Programs>,
        ),
        original(
            "/api/packet-drop-summary",
            ["packet_drop_summary", "post_packet_drop_summary"],
            "How many packets the kernel dropped.",
            get(drops::summary).post(drops::summary),
            &COUNT,
            schema::<compat::Count>,
        ),
        original(
            "/api/list-packet-drops",
            ["list_packet_drops_by_pid", "post_list_packet_drops_by_pid"],
            "The newest dropped packets, by process id.",
            get(drops::list).post(drops::list),
            &LIST,
            schema::<compat::ByPid<drops::DropEvent>>,
        ),
    ]
}

/// About the interface itself.
fn about() -> Vec<Route> {
    let text = |path, id, summary, handler, kinds| Route {
        path,
        class: Class::Free,
        handler,
        operations: vec![Operation {
            method: "get",
            id,
            summary,
            query: Vec::new(),
            required: &[],
            body: &[],
            answer: Answer::Text(kinds),
            problems: &[],
        }],
    };
    let mut document =
        text("/openapi.json", "openapi", "This document.", get(openapi::openapi), &[]);
    let any: MakeSchema = schema::<serde_json::Map<String, Value>>;
    document.operations.iter_mut().for_each(|operation| operation.answer = Answer::Json(any));
    vec![
        text(
            "/metrics",
            "metrics",
            "Figures for Prometheus: OpenMetrics for those who accept it, else the older text form.",
            get(metrics::metrics),
            &["application/openmetrics-text", "text/plain"],
        ),
        document,
        text("/docs", "docs", "This document as a page.", get(openapi::docs), &["text/html"]),
        text("/docs/docs.js", "docs_js", "Its script.", get(openapi::script), &["text/javascript"]),
        text("/docs/docs.css", "docs_css", "Its style.", get(openapi::style), &["text/css"]),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_operation_has_a_name_of_its_own_and_a_line_of_words() {
        let routes = routes();
        let operations: Vec<_> = routes.iter().flat_map(|route| &route.operations).collect();
        let ids: BTreeSet<_> = operations.iter().map(|operation| operation.id).collect();
        assert_eq!(ids.len(), operations.len());
        assert!(operations.iter().all(|operation| operation.summary.ends_with('.')));
        assert!(routes.iter().all(|route| !route.operations.is_empty()));
    }

    #[test]
    fn references_in_the_document_lead_somewhere_and_parameters_have_words() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(members) => {
                    for (name, value) in members {
                        match value {
                            Value::String(text) if name == "$ref" => found.push(text),
                            value => references(value, found),
                        }
                    }
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50);
        for reference in found {
            let target = document.pointer(reference.strip_prefix('#').unwrap());
            assert!(target.is_some(), "{reference}");
        }
        for (path, methods) in document["paths"].as_object().unwrap() {
            for operation in methods.as_object().unwrap().values() {
                for parameter in operation["parameters"].as_array().unwrap() {
                    assert!(parameter["description"] != "", "{path}: {parameter}");
                    assert!(parameter["schema"] != serde_json::json!({}), "{path}: {parameter}");
                }
            }
        }
    }
}
