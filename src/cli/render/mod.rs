//! How answers look: tables for people, JSON, JSON lines and CSV for programs.

pub mod analysis;
pub mod answers;
pub mod csv;
mod diff;
mod dns;
pub mod drops;
mod findings;
pub mod groups;
mod labelled;
pub mod left_out;
mod listed;
pub mod record;
pub mod screen;
pub mod table;
pub mod text;
pub mod units;

use std::io::{self, Write};

use serde::Serialize;

/// The form of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// The answer as one JSON document, as the REST API gives it.
    Json,
    /// JSON lines: one record per line, or the answer where it has none.
    Jsonl,
    /// Comma-separated values with a line of titles, a line for each record.
    Csv,
}

/// Writes one JSON document and a line feed.
pub fn write_json(out: &mut dyn Write, value: &impl Serialize, pretty: bool) -> io::Result<()> {
    let json = match pretty {
        true => serde_json::to_string_pretty(value)?,
        false => serde_json::to_string(value)?,
    };
    writeln!(out, "{}", text::escape_json(json))
}
