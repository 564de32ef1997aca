//! Error answers of a server (`application/problem+json`, RFC 9457).

use hyper::StatusCode;
use serde::Deserialize;

use super::address::Address;
use super::transport::{Answer, server};
use crate::query::QueryError;

#[derive(Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    parameter: Option<String>,
    accepted: Option<String>,
}

/// Whether the answer explains itself in the form that the project's server uses.
pub(super) fn is_problem(answer: &Answer) -> bool {
    answer.content_type.starts_with("application/problem+json")
}

/// What the answer means.
pub(super) fn error(address: &Address, answer: &Answer) -> QueryError {
    let problem = is_problem(answer).then(|| serde_json::from_slice::<Problem>(&answer.body).ok());
    let Some(problem) = problem.flatten() else {
        let status = answer.status;
        let hint = match status {
            StatusCode::NOT_FOUND | StatusCode::OK => {
                "; is that netspy's ebpf-server, in a version that has this question?"
            }
            _ => "",
        };
        return server(address, &format!("{status}{hint}"));
    };
    if answer.status == StatusCode::UNAUTHORIZED {
        let why = "it wants a token, and this was none or another: name its file with --token-file";
        return server(address, why);
    }
    let words = problem.detail.or(problem.title).unwrap_or_else(|| answer.status.to_string());
    match (problem.parameter, problem.accepted) {
        (Some(parameter), accepted) if answer.status.is_client_error() => QueryError::Invalid {
            problem: without_prefix(&words, &parameter),
            parameter,
            accepted: accepted.unwrap_or_else(|| "see the server's documentation".to_owned()),
        },
        _ => server(address, &words),
    }
}

/// A detail may begin with the parameter's name, which the error shows by itself.
fn without_prefix(words: &str, parameter: &str) -> String {
    let rest = words.strip_prefix(parameter).and_then(|rest| rest.strip_prefix(": "));
    rest.unwrap_or(words).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, content_type: &str, body: &'static str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            content_type: content_type.to_owned(),
            body: body.into(),
        }
    }

    fn message(answer: &Answer) -> String {
        error(&"/run/x".parse().unwrap(), answer).to_string()
    }

    #[test]
    fn a_wrong_parameter_is_named_with_what_is_accepted() {
        let body = r#"{"title":"t","detail":"port: 'x' is no port","parameter":"port",
                       "accepted":"0 to 65535"}"#;
        assert_eq!(
            message(&answer(400, "application/problem+json", body)),
            "port: 'x' is no port (accepted: 0 to 65535)"
        );
    }

    #[test]
    fn a_server_in_trouble_is_quoted() {
        let body = r#"{"title":"starting","status":503}"#;
        assert_eq!(
            message(&answer(503, "application/problem+json", body)),
            "unix:/run/x answered: starting"
        );
    }

    #[test]
    fn a_stranger_is_not_mistaken_for_the_projects_server() {
        let text = message(&answer(404, "text/html", "<html>"));
        assert!(text.contains("404 Not Found; is that netspy's ebpf-server"), "{text}");
    }
}
