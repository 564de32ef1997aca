//! `/api/v1`: the query layer, question by question.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};

use super::openapi::Tagged;
use super::problem::Problem;
use super::{Api, Transport, withhold, withhold_of};
use crate::event::ConnectionId;
use crate::query::diff::{self, Diff};
use crate::query::dns::{self, DnsList};
use crate::query::drops::{self, DropList};
use crate::query::filter::{self, FILTER_NAMES};
use crate::query::findings::{self, Findings};
use crate::query::series::{self, Series};
use crate::query::top::{self, Top};
use crate::query::{Filter, List, Page, QueryError, Source, Status, Summary};

pub(super) async fn list(
    State(api): State<Api>,
    Extension(transport): Extension<Transport>,
    RawQuery(query): RawQuery,
) -> Result<Json<List>, Problem> {
    let (filter, page) = parameters(query.as_deref())?;
    let mut list = api.source.list(&filter, &page).await?;
    withhold(&mut list.connections, transport);
    Ok(Json(list))
}

pub(super) async fn get(
    State(api): State<Api>,
    Extension(transport): Extension<Transport>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    none(query.as_deref())?;
    let accepted = "an id as records show it, such as 1f0c22ab-3b9aca00-4d2";
    let wrong =
        |problem: &str| Problem::parameter(StatusCode::BAD_REQUEST, "id", problem, accepted);
    let Path(id) = id.map_err(|_| wrong("is no UTF-8 once decoded"))?;
    let id: ConnectionId = id
        .parse()
        .map_err(|_| wrong(&format!("'{}' is not the id of a connection", filter::clip(&id))))?;
    let mut found = api.source.get(id).await?.ok_or_else(|| {
        let detail = format!("there is no connection {id}, or it has aged out");
        Problem::new(StatusCode::NOT_FOUND, detail)
    })?;
    withhold(std::slice::from_mut(&mut found), transport);
    // Most records never change again once they are closed: who asks again need not read again.
    let body = serde_json::to_string(&found)
        .map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    Ok(Tagged::new(body, "application/json").respond(&headers))
}

pub(super) async fn summary(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<Summary>, Problem> {
    Ok(Json(api.source.summary(&only_filter(query.as_deref())?).await?))
}

pub(super) async fn top(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<Top>, Problem> {
    let (filter, by, limit) = top::parse(pairs(query.as_deref()))?;
    Ok(Json(api.source.top(&filter, by, limit).await?))
}

pub(super) async fn series(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<Series>, Problem> {
    let (filter, step) = series::parse(pairs(query.as_deref()))?;
    Ok(Json(api.source.series(&filter, step).await?))
}

pub(super) async fn diff(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<Diff>, Problem> {
    let (filter, compare, limit) = diff::parse(pairs(query.as_deref()))?;
    Ok(Json(api.source.diff(&filter, compare, limit).await?))
}

pub(super) async fn drops(
    State(api): State<Api>,
    Extension(transport): Extension<Transport>,
    RawQuery(query): RawQuery,
) -> Result<Json<DropList>, Problem> {
    let (filter, page) = drops::parse(pairs(query.as_deref()))?;
    let mut list = api.source.drops(&filter, &page).await?;
    withhold_of(list.drops.iter_mut().filter_map(|d| d.process.as_mut()), transport);
    Ok(Json(list))
}

pub(super) async fn dns(
    State(api): State<Api>,
    Extension(transport): Extension<Transport>,
    RawQuery(query): RawQuery,
) -> Result<Json<DnsList>, Problem> {
    let (filter, page) = dns::parse(pairs(query.as_deref()))?;
    let mut list = api.source.dns(&filter, &page).await?;
    withhold_of(list.questions.iter_mut().filter_map(|q| q.process.as_mut()), transport);
    Ok(Json(list))
}

pub(super) async fn findings(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<Findings>, Problem> {
    let (filter, limit) = findings::parse(pairs(query.as_deref()))?;
    Ok(Json(api.source.findings(&filter, limit).await?))
}

pub(super) async fn status(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<Status>, Problem> {
    none(query.as_deref())?;
    Ok(Json(api.source.status().await?))
}

/// The parameters of a question that yields a list.
fn parameters(query: Option<&str>) -> Result<(Filter, Page), QueryError> {
    filter::parse(pairs(query))
}

/// The parameters of a question about everything that matches.
pub(super) fn only_filter(query: Option<&str>) -> Result<Filter, QueryError> {
    filter_of(pairs(query), &[])
}

/// Parameters of which none may say which part of a list is meant. The question takes `more`,
/// which are not among these.
pub(super) fn filter_of(pairs: Vec<(String, String)>, more: &[&str]) -> Result<Filter, QueryError> {
    match pairs.iter().find(|(name, _)| !FILTER_NAMES.contains(&name.as_str())) {
        Some((name, _)) => Err(filter::unknown(name, &[&FILTER_NAMES[..], more].concat())),
        None => Ok(filter::parse(pairs)?.0),
    }
}

fn none(query: Option<&str>) -> Result<(), QueryError> {
    match pairs(query).first() {
        Some((name, _)) => Err(filter::unknown(name, &["no parameters"])),
        None => Ok(()),
    }
}

/// The parameters of a query string, decoded.
pub(super) fn pairs(query: Option<&str>) -> Vec<(String, String)> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect()
}
