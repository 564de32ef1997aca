//! Filters and pages as the query parameters of `/api/v1`.

use form_urlencoded::Serializer;

use crate::query::{Filter, Page};

/// `path` with the parameters that say `filter` and `page`.
pub fn with_query(path: &str, filter: &Filter, page: Option<&Page>) -> String {
    let page = page.map(Page::to_pairs).unwrap_or_default();
    with_pairs(path, filter.to_pairs().into_iter().chain(page))
}

/// `path` with these parameters.
pub fn with_pairs(path: &str, pairs: impl Iterator<Item = (&'static str, String)>) -> String {
    let query = Serializer::new(String::new()).extend_pairs(pairs).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Outcome;
    use crate::query::{Sort, filter};

    #[test]
    fn nothing_asked_is_no_query() {
        let page = Page::default();
        assert_eq!(with_query("/x", &Filter::default(), Some(&page)), "/x");
    }

    #[test]
    fn a_server_reads_back_what_was_asked() {
        let filter = Filter {
            process: vec!["a&pid=1 #é, b".to_owned()],
            outcome: vec![Outcome::Refused, Outcome::TimedOut],
            since: Some("2026-01-31T09:30:00.5Z".parse().unwrap()),
            ..Filter::default()
        };
        let page = Page { limit: Some(5), sort: Sort::Oldest, ..Page::default() };
        let path = with_query("/x", &filter, Some(&page));
        let query = path.strip_prefix("/x?").unwrap();
        let pairs = form_urlencoded::parse(query.as_bytes());
        assert_eq!(filter::parse(pairs).unwrap(), (filter, page));
    }
}
