//! Filters and pages as the query parameters of `/api/v1`.

use std::fmt::Display;

use form_urlencoded::Serializer;

use crate::query::{Filter, Page, Sort};

/// `path` with the parameters that say `filter` and `page`.
pub fn with_query(path: &str, filter: &Filter, page: Option<&Page>) -> String {
    let mut query = Serializer::new(String::new());
    let mut add = |name: &str, values: String| {
        if !values.is_empty() {
            query.append_pair(name, &values);
        }
    };
    add("process", list(&filter.process));
    add("pid", list(&filter.pid));
    add("uid", list(&filter.uid));
    add("container", list(&filter.container));
    add("remote", list(&filter.remote));
    add("cidr", list(&filter.cidr));
    add("host_name", list(&filter.host_name));
    add("port", list(&filter.port));
    add("protocol", list(&filter.protocol));
    add("direction", list(&filter.direction));
    add("state", list(&filter.state));
    add("outcome", list(&filter.outcome));
    add("unit", list(&filter.unit));
    add("since", filter.since.map(|t| t.to_string()).unwrap_or_default());
    add("until", filter.until.map(|t| t.to_string()).unwrap_or_default());
    if let Some(page) = page {
        add("limit", page.limit.map(|n| n.to_string()).unwrap_or_default());
        add("cursor", page.cursor.clone().unwrap_or_default());
        if page.sort != Sort::default() {
            add("sort", page.sort.to_string());
        }
    }
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

fn list<T: Display>(values: &[T]) -> String {
    let texts: Vec<String> = values.iter().map(T::to_string).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Outcome;

    #[test]
    fn nothing_asked_is_no_query() {
        let page = Page::default();
        assert_eq!(with_query("/x", &Filter::default(), Some(&page)), "/x");
    }

    #[test]
    fn values_cannot_break_out_of_their_parameter() {
        let filter = Filter {
            process: vec!["a&pid=1 #é".to_owned()],
            outcome: vec![Outcome::Refused, Outcome::TimedOut],
            ..Filter::default()
        };
        let page = Page { limit: Some(5), sort: Sort::Oldest, ..Page::default() };
        assert_eq!(
            with_query("/x", &filter, Some(&page)),
            "/x?process=a%26pid%3D1+%23%C3%A9&outcome=refused%2Ctimed_out&limit=5&sort=oldest"
        );
    }
}
