//! Figures with a label before them, wrapped on a terminal so that no figure is cut in two.

use std::io;

use anstyle::Style;

use super::answers::Printer;
use super::screen::TITLE;
use super::text::{width, wrap};
use super::units;

/// Columns of a label with the space after it.
const LABEL: usize = 10;

impl Printer<'_> {
    /// `OUTCOME   established 12, refused 3`: the most frequent first, and none that did not occur.
    pub(super) fn totals(
        &mut self,
        title: &str,
        mut counts: Vec<(&'static str, u64, Style)>,
    ) -> io::Result<()> {
        counts.retain(|(_, n, _)| *n > 0);
        counts.sort_by_key(|(_, n, _)| std::cmp::Reverse(*n));
        let last = counts.len().saturating_sub(1);
        let mut line = self.screen.paint(&format!("{title:<LABEL$}"), TITLE);
        let mut used = LABEL;
        for (index, (word, n, style)) in counts.iter().enumerate() {
            let rest = format!(" {}{}", units::count(*n), if index < last { "," } else { "" });
            let needed = width(word) + width(&rest);
            let space = usize::from(used > LABEL);
            if space > 0 && self.screen.width.is_some_and(|all| used + space + needed > all) {
                writeln!(self.out, "{line}")?;
                (line, used) = (" ".repeat(LABEL), LABEL);
            } else if space > 0 {
                line.push(' ');
                used += space;
            }
            line.push_str(&self.screen.paint(word, *style));
            line.push_str(&rest);
            used += needed;
        }
        if counts.is_empty() { Ok(()) } else { writeln!(self.out, "{line}") }
    }

    /// `Books     12 attempts = ...`, wrapped between words.
    pub(super) fn labelled(&mut self, label: &str, text: &str) -> io::Result<()> {
        let room = self.screen.width.map_or(usize::MAX, |all| all.saturating_sub(LABEL).max(20));
        if width(text) <= room {
            return writeln!(self.out, "{label:<LABEL$}{text}");
        }
        let labels = std::iter::once(label).chain(std::iter::repeat(""));
        let mut lines = wrap(text, room).into_iter().zip(labels);
        lines.try_for_each(|(line, label)| writeln!(self.out, "{label:<LABEL$}{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::screen::{PLAIN, Screen};
    use super::*;
    use crate::cli::render::units::Clock;

    fn shown(columns: Option<usize>, write: impl Fn(&mut Printer<'_>)) -> String {
        let mut out = Vec::new();
        let screen = Screen { width: columns, color: false };
        write(&mut Printer { out: &mut out, screen, clock: Clock::local() });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn figures_are_wrapped_whole_below_each_other() {
        let counts = vec![("sent", 2_131, PLAIN), ("denied", 0, PLAIN), ("refused", 522, PLAIN)];
        let totals = |printer: &mut Printer<'_>| printer.totals("OUTCOME", counts.clone()).unwrap();
        assert_eq!(shown(None, totals), "OUTCOME   sent 2,131, refused 522\n");
        assert_eq!(shown(Some(33), totals), "OUTCOME   sent 2,131, refused 522\n");
        assert_eq!(shown(Some(32), totals), "OUTCOME   sent 2,131,\n          refused 522\n");
        assert_eq!(shown(Some(80), |printer| printer.totals("X", Vec::new()).unwrap()), "");
        let books = |printer: &mut Printer<'_>| printer.labelled("Books", "1 = 1 + 0").unwrap();
        assert_eq!(shown(Some(80), books), "Books     1 = 1 + 0\n");
    }
}
