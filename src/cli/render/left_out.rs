//! What an empty answer lacks only because nobody asked for it, in words.

use std::io;

use super::Output;
use super::answers::{Printer, beside};
use crate::query::LeftOut;

/// In lines; `is_unix_unwatched`: capture in this process was told to leave UNIX sockets out.
pub fn lines(left_out: &LeftOut, is_unix_unwatched: bool) -> Vec<String> {
    let mut said = Vec::new();
    if left_out.any() {
        let place = if left_out.outside { " outside the time asked for" } else { "" };
        said.push(format!("Left out{place}: {left_out} (--all shows them)."));
    }
    if is_unix_unwatched {
        said.push("UNIX sockets were not watched (--all watches them, too).".to_owned());
    }
    said
}

/// Where filters are typed: `Left out: 7 UNIX sockets (/ protocol:unix shows them).`
pub fn typed(left_out: &LeftOut) -> Option<String> {
    let ways: Vec<_> = left_out.ways().map(|(name, value)| format!("{name}:{value}")).collect();
    let place = if left_out.outside { " outside this time" } else { "" };
    let shows = if ways.len() == 1 { "shows" } else { "show" };
    left_out
        .any()
        .then(|| format!("Left out{place}: {left_out} (/ {} {shows} them).", ways.join(" or ")))
}

impl Printer<'_> {
    /// Below an empty answer, or beside it.
    pub fn left_out(
        &mut self,
        left_out: &LeftOut,
        is_unix_unwatched: bool,
        output: Output,
    ) -> io::Result<()> {
        let said = lines(left_out, is_unix_unwatched);
        match output {
            Output::Table => said.iter().try_for_each(|text| writeln!(self.out, "{text}")),
            Output::Json | Output::Jsonl | Output::Csv => beside(self.out, said),
        }
    }
}
