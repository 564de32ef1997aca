//! The two text forms that Prometheus reads: OpenMetrics 1.0, and the older one (0.0.4).

use std::fmt::{Display, Write};

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// A form of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    OpenMetrics,
    Plain,
}

impl Form {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Form::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The form that a client likes best (RFC 9110, section 12.5.1). Who says nothing of
    /// OpenMetrics gets what a browser shows.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let (mut open, mut plain) = (0.0_f32, 0.0_f32);
        for range in values.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut known) = (1.0, true);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => known = ["1.0.0", "0.0.1", "0.0.4"].contains(&value.trim()),
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if known => open = open.max(quality),
                "text/plain" | "text/*" | "*/*" => plain = plain.max(quality),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain { Form::OpenMetrics } else { Form::Plain }
    }
}

/// What a family of metrics is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// Always 1; what it says is in its labels.
    Info,
}

/// A page that is being written.
#[derive(Debug)]
pub(super) struct Page {
    form: Form,
    text: String,
    family: &'static str,
    kind: Kind,
}

impl Page {
    pub(super) fn new(form: Form) -> Self {
        Page { form, text: String::with_capacity(16 << 10), family: "", kind: Kind::Gauge }
    }

    /// Begins a family. `name` is without the ending that counters and information have.
    pub(super) fn family(&mut self, kind: Kind, name: &'static str, help: &str) -> &mut Self {
        (self.family, self.kind) = (name, kind);
        let (ending, kind) = match (self.form, kind) {
            (Form::OpenMetrics, Kind::Counter) => ("", "counter"),
            (Form::Plain, Kind::Counter) => ("_total", "counter"),
            (Form::OpenMetrics, Kind::Info) => ("", "info"),
            (Form::Plain, Kind::Info) => ("_info", "gauge"),
            (_, Kind::Gauge) => ("", "gauge"),
            (_, Kind::Histogram) => ("", "histogram"),
        };
        self.line(format_args!("# HELP {name}{ending} {help}"));
        self.line(format_args!("# TYPE {name}{ending} {kind}"));
        self
    }

    /// One value of the family.
    pub(super) fn value(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        let ending = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.sample(ending, labels, value)
    }

    /// The family is a counter or a gauge with a single value.
    pub(super) fn single(
        &mut self,
        kind: Kind,
        name: &'static str,
        help: &str,
        value: impl Display,
    ) {
        self.family(kind, name, help).value(&[], value);
    }

    /// The classes of a histogram: how many fell into each, of which the last has no bound, and the
    /// sum of all values. Bounds and sum are in seconds.
    pub(super) fn histogram(&mut self, bounds: &[f64], counts: &[u64], sum: f64) {
        let mut total = 0;
        let bounds = bounds.iter().map(|bound| seconds(*bound));
        let bounds = bounds.chain(std::iter::once("+Inf".to_owned()));
        for (bound, count) in bounds.zip(counts) {
            total += count;
            self.sample("_bucket", &[("le", &bound)], total);
        }
        self.sample("_sum", &[], sum).sample("_count", &[], total);
    }

    fn sample(&mut self, ending: &str, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.text.push_str(self.family);
        self.text.push_str(ending);
        for (n, (name, value)) in labels.iter().enumerate() {
            self.text.push(if n == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.line(format_args!(" {value}"));
        self
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    pub(super) fn finish(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// OpenMetrics wants bounds to be written as floating-point numbers: `1.0`, not `1`.
fn seconds(bound: f64) -> String {
    format!("{bound:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(value: &str) -> Form {
        Form::accepted(&HeaderMap::from_iter([(ACCEPT, value.parse().unwrap())]))
    }

    #[test]
    fn the_form_is_the_one_that_the_client_likes_best() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(accepted(prometheus), Form::OpenMetrics);
        assert_eq!(accepted("application/openmetrics-text"), Form::OpenMetrics);
        for plain in [
            "text/plain",
            "*/*",
            "text/plain;q=0.9, application/openmetrics-text;q=0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=9.0.0",
            "application/openmetrics-text;q=x",
            ";;,,=",
        ] {
            assert_eq!(accepted(plain), Form::Plain, "{plain}");
        }
        assert_eq!(Form::accepted(&HeaderMap::new()), Form::Plain);
    }

    #[test]
    fn labels_are_escaped_and_the_forms_differ_where_they_have_to() {
        let page = |form| {
            let mut page = Page::new(form);
            page.family(Kind::Counter, "a", "Help.").value(&[("l", "x\"\\\ny")], 1);
            page.family(Kind::Histogram, "h", "Help.").histogram(&[0.5, 1.0], &[1, 0, 2], 7.5);
            page.finish()
        };
        let open = page(Form::OpenMetrics);
        assert!(
            open.starts_with("# HELP a Help.\n# TYPE a counter\na_total{l=\"x\\\"\\\\\\ny\"} 1\n")
        );
        assert!(
            open.contains(
                "h_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 7.5\nh_count 3\n"
            )
        );
        assert!(open.ends_with("# EOF\n"));
        let plain = page(Form::Plain);
        assert!(plain.contains("# TYPE a_total counter\na_total{") && !plain.contains("EOF"));
    }
}
