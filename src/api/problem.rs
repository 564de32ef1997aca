//! Errors as `application/problem+json` (RFC 9457).

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::query::QueryError;

/// What went wrong with a request.
///
/// It travels as an extension of a response without body: the outermost layer writes it, which
/// knows what form the path asks for.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    detail: String,
    parameter: Option<String>,
    accepted: Option<String>,
}

/// What went wrong (RFC 9457).
#[derive(Serialize, schemars::JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Document<'a> {
    /// Always `about:blank`: the status says what kind of problem it is.
    r#type: &'static str,
    /// The words of the status.
    title: &'static str,
    status: u16,
    /// What was wrong.
    detail: &'a str,
    /// With which parameter, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a str>,
    /// What it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<&'a str>,
    /// The title again, where clients of the original server look for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    /// What was wrong and what is accepted, for the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem { status, detail: detail.into(), parameter: None, accepted: None }
    }

    /// A parameter that is wrong.
    pub(super) fn parameter(
        status: StatusCode,
        parameter: &str,
        problem: &str,
        accepted: &str,
    ) -> Self {
        Problem {
            status,
            detail: format!("{parameter}: {problem}"),
            parameter: Some(parameter.to_owned()),
            accepted: Some(accepted.to_owned()),
        }
    }

    /// What an error without explanation means.
    fn of_status(status: StatusCode, path: &str) -> Self {
        let detail = match status {
            StatusCode::NOT_FOUND => {
                format!("there is nothing at {}", crate::query::filter::clip(path))
            }
            StatusCode::METHOD_NOT_ALLOWED => "this path does not take that method".to_owned(),
            status => status.canonical_reason().unwrap_or("the request failed").to_owned(),
        };
        Problem::new(status, detail)
    }

    fn write(&self, compatible: bool) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let message = || match &self.accepted {
            Some(accepted) => format!("{} (accepted: {accepted})", self.detail),
            None => self.detail.clone(),
        };
        let document = Document {
            r#type: "about:blank",
            title,
            status: self.status.as_u16(),
            detail: &self.detail,
            parameter: self.parameter.as_deref(),
            accepted: self.accepted.as_deref(),
            error: compatible.then_some(title),
            message: compatible.then(message),
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        if busy.contains(&self.status) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"netspy\""));
        }
        // The rest of the body would be taken for the next request.
        let unread = [
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        ];
        if unread.contains(&self.status) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Writes the problem that a response stands for, if it does.
pub(super) fn explain(mut response: Response, path: &str) -> Response {
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        // The layer that compresses leaves the answer in there, though the client wants it in no
        // form that there is.
        None if status == StatusCode::NOT_ACCEPTABLE => Problem::parameter(
            status,
            "Accept-Encoding",
            "leaves no encoding that there is",
            "gzip, or identity, which is no encoding at all",
        ),
        // Errors of the framework come without a document of ours.
        None if is_unexplained(&response) => Problem::of_status(status, path),
        None => return response,
    };
    let allow = response.headers_mut().remove(ALLOW);
    let mut explained = problem.write(!path.starts_with("/api/v1"));
    if let Some(allow) = allow {
        explained.headers_mut().insert(ALLOW, allow);
    }
    explained
}

fn is_unexplained(response: &Response) -> bool {
    let error = response.status().is_client_error() || response.status().is_server_error();
    let json = response.headers().get(CONTENT_TYPE);
    error && !json.is_some_and(|kind| kind.as_bytes().starts_with(b"application/"))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Invalid { parameter, problem, accepted } => {
                Problem::parameter(StatusCode::BAD_REQUEST, &parameter, &problem, &accepted)
            }
            other => Problem::new(StatusCode::SERVICE_UNAVAILABLE, other.to_string()),
        }
    }
}
