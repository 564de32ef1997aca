//! Figures of an answer that no tool returned.
//!
//! A figure is a word that begins with a digit, of whatever script. It is supported where a tool returned it as a
//! number, in a text or as the length of a list, or where the question has it. It may be rounded,
//! and said in another unit; what a model computed (sums, shares) no tool returned, and it is told.
//! Names with digits in them (`eth0`, `IPv4`) are no figures, and neither are numbers in words.

use serde_json::Value;

use super::digits::Plain;

/// What figures may come from.
#[derive(Debug, Default)]
pub struct Sources {
    numbers: Vec<f64>,
    texts: String,
}

impl Sources {
    /// Adds what a tool answered.
    pub fn add(&mut self, answer: &Value) {
        match answer {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => self.numbers.extend(number.as_f64()),
            Value::String(text) => self.add_text(text),
            Value::Array(items) => {
                self.numbers.push(items.len() as f64);
                items.iter().for_each(|item| self.add(item));
            }
            Value::Object(members) => members.values().for_each(|value| self.add(value)),
        }
    }

    /// Adds a text, such as the question.
    pub fn add_text(&mut self, text: &str) {
        for figure in figures(text) {
            match figure.number() {
                Some(number) => self.numbers.push(number.value),
                // The port of "192.0.2.1:443".
                None => {
                    let end = figure.word.parse::<std::net::SocketAddrV4>();
                    let port = end.ok().map(|end| end.port());
                    self.numbers.extend(port.map(f64::from));
                }
            }
        }
        for line in text.lines() {
            self.texts.push_str(&Plain::of(line).text);
            self.texts.push('\n');
        }
    }

    /// The figures of `text` that are not among them, each once, in their order.
    pub fn unsupported(&self, text: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for figure in figures(text) {
            if !self.supports(&figure) {
                let shown = figure.shown();
                if !found.contains(&shown) {
                    found.push(shown);
                }
            }
        }
        found
    }

    fn supports(&self, figure: &Figure) -> bool {
        if let Some(number) = figure.number() {
            return self.has(&number) || self.has_any(figure.other_readings());
        }
        if self.has_word(&figure.word) || self.has_any(figure.other_readings()) {
            return true;
        }
        // "3/10", "192.0.2.1:443", "443,8443": each part by itself.
        let parts: Vec<&str> = figure.word.split(['/', ',', '-', ':']).collect();
        let is_address = figure.word.matches(':').count() > 1 || figure.word.contains('T');
        let mut parts = parts.into_iter().filter(|part| part.bytes().any(|b| b.is_ascii_digit()));
        !is_address
            && figure.word.contains(['/', ',', '-', ':'])
            && parts.all(|word| {
                let part = Figure::bare(word);
                part.number().map_or_else(|| self.has_word(word), |number| self.has(&number))
            })
    }

    fn has_any(&self, readings: impl IntoIterator<Item = Number>) -> bool {
        readings.into_iter().any(|number| self.has(&number))
    }

    fn has(&self, figure: &Number) -> bool {
        // What rounding to the shown digits hides, and what floating point does.
        let shown = 0.5 * 10_f64.powi(-figure.decimals) + 1e-9;
        self.numbers.iter().any(|number| {
            figure.scales.iter().any(|scale| {
                let number = number * scale;
                let is_whole = number.fract() == 0.0 && *scale == 1.0;
                let tolerance = if is_whole { 1e-9 } else { shown };
                (number - figure.value).abs() <= tolerance
            })
        })
    }

    /// Whether a word stands in the texts, not as a part of a longer number.
    fn has_word(&self, word: &str) -> bool {
        self.texts.match_indices(word).any(|(at, _)| {
            let before = self.texts[..at].chars().next_back();
            let after = self.texts[at + word.len()..].chars().next();
            let joins = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
            !joins(before) && before != Some('.') && !joins(after)
        })
    }
}

struct Number {
    value: f64,
    decimals: i32,
    /// By which a returned number may be multiplied to say the same in this unit.
    scales: &'static [f64],
}

/// A word that begins with a digit, and the word behind it.
struct Figure {
    word: String,
    unit: String,
    /// As it stands in the text.
    said: String,
}

impl Figure {
    fn bare(word: &str) -> Self {
        Figure { word: word.to_owned(), unit: String::new(), said: word.to_owned() }
    }

    /// As English writes numbers: commas between thousands, a point before decimals.
    fn number(&self) -> Option<Number> {
        self.read(',', '.')
    }

    /// As other languages do: points between thousands, a comma before decimals.
    fn other_readings(&self) -> Option<Number> {
        self.read('.', ',')
    }

    fn read(&self, thousands: char, point: char) -> Option<Number> {
        let end = self.word.find(|c: char| !c.is_ascii_digit() && c != ',' && c != '.');
        let (digits, suffix) = self.word.split_at(end.unwrap_or(self.word.len()));
        let (whole, decimals) = digits.split_once(point).unwrap_or((digits, ""));
        if decimals.contains(['.', ',']) || !is_grouped(whole, thousands) {
            return None;
        }
        let value = format!("{}.{decimals}0", whole.replace(thousands, "")).parse().ok()?;
        let unit = if suffix.is_empty() { &self.unit } else { suffix };
        let scales = scales(unit).or_else(|| suffix.is_empty().then_some(&[1.0][..]))?;
        let decimals = i32::try_from(decimals.len()).ok()?;
        Some(Number { value, decimals, scales })
    }

    fn shown(&self) -> String {
        match self.unit.as_str() {
            "%" | "percent" => format!("{} {}", self.said, self.unit),
            _ => self.said.clone(),
        }
    }
}

/// Digits, in groups of three where they are in groups; or, as in India, of two but for the last.
fn is_grouped(whole: &str, separator: char) -> bool {
    let groups: Vec<&str> = whole.split(separator).collect();
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let [first, middle @ .., last] = groups.as_slice() else { return all_digits(whole) };
    groups.iter().all(|group| all_digits(group))
        && last.len() == 3
        && ((first.len() <= 3 && middle.iter().all(|group| group.len() == 3))
            || (first.len() <= 2 && middle.iter().all(|group| group.len() == 2)))
}

fn scales(unit: &str) -> Option<&'static [f64]> {
    Some(match unit {
        "%" | "percent" | "x" | "×" | "st" | "nd" | "rd" | "th" => &[1.0],
        "ns" | "nanoseconds" => &[1.0, 1e3, 1e6, 1e9],
        "µs" | "μs" | "us" | "microseconds" => &[1.0, 1e-3, 1e3, 1e6],
        "ms" | "milliseconds" | "millisecond" => &[1.0, 1e-3, 1e-6, 1e3],
        "s" | "sec" | "secs" | "second" | "seconds" => &[1.0, 1e-3, 1e-6, 1e-9, 60.0],
        "m" | "min" | "mins" | "minute" | "minutes" => {
            &[1.0, 1.0 / 60.0, 1.0 / 60e3, 1.0 / 60e6, 60.0]
        }
        "h" | "hour" | "hours" => &[1.0, 1.0 / 60.0, 1.0 / 3.6e3, 1.0 / 3.6e6],
        "d" | "day" | "days" => &[1.0, 1.0 / 24.0, 1.0 / 86.4e3, 1.0 / 86.4e6],
        "thousand" => &[1.0, 1e-3],
        "million" | "millions" => &[1.0, 1e-6],
        "billion" | "billions" => &[1.0, 1e-9],
        "B" | "byte" | "bytes" => &[1.0],
        "k" | "K" | "kB" | "KB" | "KiB" => &[1.0, 1e-3, 1.0 / 1024.0],
        "M" | "MB" | "MiB" => &[1.0, 1e-6, 1.0 / 1_048_576.0],
        "G" | "GB" | "GiB" => &[1.0, 1e-9, 1.0 / 1_073_741_824.0],
        _ => return None,
    })
}

fn figures(text: &str) -> Vec<Figure> {
    text.lines().flat_map(of_line).collect()
}

fn of_line(line: &str) -> Vec<Figure> {
    const EDGES: [char; 6] = ['.', ',', ':', '/', '-', '_'];
    let plain = Plain::of(line);
    let line = plain.text.as_str();
    // Scripts without spaces have figures between their letters.
    let is_part = |c: char| c.is_ascii_alphanumeric() || "µμ._,:/-%".contains(c);
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in line.char_indices().chain([(line.len(), ' ')]) {
        match (is_part(c), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                words.push((from, &line[from..at]));
                start = None;
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (n, (from, word)) in words.iter().enumerate() {
        let whole = word.trim_start_matches(EDGES);
        let mut at = from + word.len() - whole.len();
        let mut word = whole.trim_end_matches(EDGES);
        // "x3" counts; "×3" is two words already.
        if let Some(rest) = word.strip_prefix('x')
            && rest.bytes().all(|b| b.is_ascii_digit())
        {
            (at, word) = (at + 1, rest);
        }
        if !word.starts_with(|c: char| c.is_ascii_digit()) || is_marker(line, *from, word) {
            continue;
        }
        let (word, unit) = match word.strip_suffix('%') {
            Some(word) => (word, "%"),
            None => {
                (word, words.get(n + 1).map_or("", |(_, unit)| unit.trim_matches(['.', ',', ':'])))
            }
        };
        let said = plain.said(at, at + word.len()).to_owned();
        found.push(Figure { word: word.to_owned(), unit: unit.to_owned(), said });
    }
    found
}

/// Whether it numbers an item of a list: "2. ", "2) ", in front of the line.
fn is_marker(line: &str, at: usize, word: &str) -> bool {
    let is_first = line[..at].chars().all(|c| c.is_whitespace() || "*#->".contains(c));
    let behind = &line[at..][word.len().min(line.len() - at)..];
    is_first
        && word.len() <= 2
        && word.bytes().all(|b| b.is_ascii_digit())
        && [". ", ") ", ".) ", ".**", ". "].iter().any(|end| behind.starts_with(end))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn unsupported(text: &str) -> Vec<String> {
        let mut sources = Sources::default();
        sources.add(&json!({
            "total": 1234, "per_second": 0.342, "handshake_ms": {"p50": 0.412, "p99": 18.4},
            "columns": ["process", "remote", "outcomes"],
            "rows": [["curl", "192.0.2.1:443", "refused 6, established 2"], ["wget", "2001:db8::7", "NO_SOCKET x3"]],
            "bytes": 1_572_864, "longer_than_seconds": 90,
            "window": {"since": "2026-11-28T09:00:00Z", "until": "2026-11-28T10:00:00Z"},
        }));
        sources.add_text("what did curl do in the last 15 minutes on port 8443?");
        sources.unsupported(text)
    }

    #[test]
    fn what_tools_returned_is_supported_in_every_usual_form() {
        for text in [
            "1234 attempts, 1,234 of them, 1.2k or so",
            "6 of them were refused, 2 established.",
            "curl -> 192.0.2.1:443, port 443/tcp (192.0.2.1)",
            "2001:db8::7 dropped 3 packets, x3, ×3",
            "0.34 per second; the median is 0.412 ms, 412 µs, 0.41ms; p99 18 ms, 18.4ms",
            "1.5 MiB, 1.57 MB, 1,572,864 bytes, 90 s, 1.5 minutes",
            "since 09:00 on 2026-11-28, until 2026-11-28T10:00:00Z (10:00:00)",
            "the last 15 minutes on 8443",
            "١٢٣٤ attempts, ۶ refused, １，２３４ of them, ٠٫٤١٢ ms",
            "1\u{202f}234, 1'234, 1_234, 1.234 Versuche, 1,2 thousand; 15,72,864 bytes",
            "p50 0,412 ms, p99 18,4 ms; 1.2 thousand attempts, 1.57 million bytes",
            "共１２３４次，其中6次被拒绝",
            "1. first\n2) second\n  - 3. third\n**4.** x",
            "IPv4, eth0, HTTP, p99, x86_64",
            "2 rows, 3 columns",
            "no figures at all",
        ] {
            assert_eq!(unsupported(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn what_no_tool_returned_is_told() {
        for (text, expected) in [
            ("42 attempts, again 42", vec!["42"]),
            ("75% failed, that is 75 percent", vec!["75 %", "75 percent"]),
            ("1235 attempts", vec!["1235"]),
            ("1.3k attempts", vec!["1.3k"]),
            ("٤٢ محاولة, ４２", vec!["٤٢", "４２"]),
            ("７５％ failed", vec!["７５ %"]),
            ("1\u{202f}235 and 1.235, 1'235", vec!["1\u{202f}235", "1.235", "1'235"]),
            ("1.3 thousand", vec!["1.3"]),
            ("共42次，其中４３次", vec!["42", "４３"]),
            (
                "192.0.2.12 and 192.0.2.1:444, 92.0.2.1",
                vec!["192.0.2.12", "192.0.2.1:444", "92.0.2.1"],
            ),
            ("p99 was 19 ms, or 17.4", vec!["19", "17.4"]),
            ("at 09:01", vec!["09:01"]),
            ("7/1234", vec!["7/1234"]),
            ("2001:db8::8", vec!["2001:db8::8"]),
        ] {
            assert_eq!(unsupported(text), expected, "{text}");
        }
    }

    #[test]
    fn anything_can_be_asked() {
        for text in [
            "",
            "1",
            "1.",
            "9".repeat(5000).as_str(),
            "1,2,3",
            "1..2",
            "٣",
            "1e999",
            "0x1F",
            "%",
            "5%%",
            "-1",
        ] {
            let _ = unsupported(text);
        }
    }
}
