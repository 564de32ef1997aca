//! wrk, which asks one question again and again.

use std::fmt;
use std::process::Command;
use std::time::Duration;

pub struct Figures {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Answers that were no success, and questions without one.
    pub errors: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { per_second, p50_ms, p99_ms, errors } = self;
        let per_second_places = if *per_second < 100.0 { 1 } else { 0 };
        write!(f, "{per_second:.per_second_places$} | {p50_ms:.2} | {p99_ms:.2} | {errors}")
    }
}

/// Over connections that stay open, each with one question at a time.
pub fn run(url: &str, connections: u32, time: Duration) -> Figures {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", &format!("-c{connections}"), "--timeout", "30s", "--latency"]);
    let output = wrk.arg(format!("-d{}s", time.as_secs())).arg(url).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    figures(&text).unwrap_or_else(|| panic!("{url}: wrk says {text}"))
}

fn figures(text: &str) -> Option<Figures> {
    let after = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
    let bad = after("Non-2xx or 3xx responses:").map_or(Some(0), |n| n.trim().parse().ok())?;
    // "connect 0, read 0, write 0, timeout 0"; the line is there only where one is not 0.
    let socket = after("Socket errors:").unwrap_or_default();
    let broken: u64 = socket.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum();
    Some(Figures {
        per_second: after("Requests/sec:")?.trim().parse().ok()?,
        p50_ms: milliseconds(after("50%")?.trim())?,
        p99_ms: milliseconds(after("99%")?.trim())?,
        errors: bad + broken,
    })
}

/// As wrk writes times: `12.34us`, `1.20ms`, `3.00s`, `1.50m`.
fn milliseconds(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}
