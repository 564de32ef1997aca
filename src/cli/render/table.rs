//! Tables that fit the terminal.

use std::borrow::Cow;
use std::io::{self, Write};

use anstyle::Style;

use super::screen::{PLAIN, Screen, TITLE};
use super::text::{truncate_after, truncate_middle, whole_parts, width};

/// One field of a table. Its text has been through [`clean`](super::text::clean).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// What is shown.
    pub text: String,
    /// How.
    pub style: Style,
    /// What of it gives way.
    pub cut: Cut,
}

/// What of a field is left out where its column is narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cut {
    /// Its middle.
    #[default]
    Middle,
    /// What comes before so many columns at its end, such as a pid.
    Before(usize),
    /// What comes after so many columns at its start: the name after an address.
    After(usize),
    /// Whole parts of `a 3, b 2, c 1`: a number that lacks digits would be another number.
    Parts,
}

impl Cut {
    fn fit(self, text: &str, limit: usize) -> Cow<'_, str> {
        match self {
            Cut::Middle => truncate_middle(text, limit, 0),
            Cut::Before(tail) => truncate_middle(text, limit, tail),
            Cut::After(head) => truncate_after(text, limit, head),
            Cut::Parts => whole_parts(text, limit),
        }
    }
}

impl Cell {
    /// A field without colour.
    pub fn plain(text: impl Into<String>) -> Self {
        Cell::new(text, PLAIN)
    }

    /// A field.
    pub fn new(text: impl Into<String>, style: Style) -> Self {
        Cell { text: text.into(), style, cut: Cut::Middle }
    }

    /// The same, cut so.
    pub fn cut(self, cut: Cut) -> Self {
        Cell { cut, ..self }
    }
}

/// Takes columns away where the terminal is narrow: in this order, each column (by position) is
/// narrowed to the width given. Width 0 leaves the column out.
pub type Steps = &'static [(usize, usize)];

/// Widths of columns on a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    widths: Vec<usize>,
    gap: usize,
    cut: bool,
}

impl Layout {
    /// Fits columns of `natural` widths to the screen.
    pub fn new(natural: Vec<usize>, steps: Steps, screen: &Screen) -> Self {
        let gap = if screen.is_wide() { 2 } else { 1 };
        let mut layout = Layout { widths: natural, gap, cut: screen.width.is_some() };
        let Some(limit) = screen.width else { return layout };
        for &(column, least) in steps {
            let over = layout.total().saturating_sub(limit);
            if over == 0 {
                break;
            }
            if let Some(width) = layout.widths.get_mut(column) {
                let narrowed = if least == 0 { 0 } else { width.saturating_sub(over).max(least) };
                *width = narrowed.min(*width);
            }
        }
        layout
    }

    fn total(&self) -> usize {
        let shown = self.widths.iter().filter(|w| **w > 0).count();
        self.widths.iter().sum::<usize>() + shown.saturating_sub(1) * self.gap
    }

    /// The width of a column; 0 where it is left out.
    pub fn width(&self, column: usize) -> usize {
        self.widths.get(column).copied().unwrap_or(0)
    }

    /// One line of the table.
    pub fn line(&self, cells: &[Cell], screen: &Screen) -> String {
        let mut line = String::new();
        for (spaces, text, style) in self.pieces(cells) {
            line.extend(std::iter::repeat_n(' ', spaces));
            line.push_str(&screen.paint(&text, style));
        }
        line
    }

    /// The fields of a line that show anything, cut to their columns, each with the number of
    /// spaces before it.
    pub fn pieces<'a>(&self, cells: &'a [Cell]) -> Vec<(usize, Cow<'a, str>, Style)> {
        let mut pieces = Vec::with_capacity(cells.len());
        let mut owed = 0;
        let widths = match self.cut {
            true => self.lent(cells),
            false => Cow::Borrowed(self.widths.as_slice()),
        };
        for (cell, &column) in cells.iter().zip(widths.iter()).filter(|(_, width)| **width > 0) {
            let text = match self.cut {
                true => cell.cut.fit(&cell.text, column),
                false => cell.text.as_str().into(),
            };
            let shown = width(&text);
            if !text.is_empty() {
                pieces.push((owed, text, cell.style));
                owed = 0;
            }
            owed += column.saturating_sub(shown) + self.gap;
        }
        pieces
    }

    /// The widths for one line: what must stay whole in a field takes the room that others leave
    /// free, and then that of a name before a pid.
    fn lent(&self, cells: &[Cell]) -> Cow<'_, [usize]> {
        /// Of a name with its pid, this much stays.
        const LEAST: usize = 13;
        let mut widths = Cow::Borrowed(self.widths.as_slice());
        for (column, cell) in cells.iter().enumerate() {
            let (Cut::After(head), own) = (cell.cut, self.width(column)) else { continue };
            let mut lack = head.saturating_sub(own);
            if lack == 0 || own == 0 {
                continue;
            }
            let widths = widths.to_mut();
            // What stands after it, so that the columns before it stay where they are.
            let after = (column + 1..widths.len()).map(|other| (other, false));
            let before = (0..column).rev().map(|other| (other, false));
            let names = (0..widths.len()).map(|other| (other, true));
            for (other, gives_way) in after.chain(before).chain(names) {
                let Some(cell) = cells.get(other).filter(|_| other != column) else { continue };
                let least = match (gives_way, cell.cut) {
                    (true, Cut::Before(_)) => LEAST,
                    (true, _) => continue,
                    // A column of width 0 is left out, with its gap.
                    (false, _) => width(&cell.text).max(1),
                };
                let Some(lender) = widths.get_mut(other) else { continue };
                let part = lender.saturating_sub(least).min(lack);
                *lender -= part;
                lack -= part;
                if let Some(own) = widths.get_mut(column) {
                    *own += part;
                }
            }
        }
        widths
    }

    /// The line of titles.
    pub fn header(&self, titles: &[&str], screen: &Screen) -> String {
        // A title is known by its start: it is cut at the end.
        let cut = |(title, width): (&&str, &usize)| match self.cut {
            true => title.chars().take(*width).collect(),
            false => (*title).to_owned(),
        };
        let titles = titles.iter().zip(&self.widths).map(cut);
        let cells: Vec<Cell> = titles.map(|title: String| Cell::new(title, TITLE)).collect();
        self.line(&cells, screen)
    }
}

/// Writes a table with its titles; columns are as wide as what is in them, if there is room.
pub fn write(
    out: &mut dyn Write,
    screen: &Screen,
    titles: &[&str],
    rows: &[Vec<Cell>],
    steps: Steps,
) -> io::Result<()> {
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| width(&cell.text)).max().unwrap_or(0)
    };
    let natural = titles.iter().enumerate().map(|(i, title)| widest(i).max(width(title))).collect();
    let layout = Layout::new(natural, steps, screen);
    writeln!(out, "{}", layout.header(titles, screen))?;
    rows.iter().try_for_each(|row| writeln!(out, "{}", layout.line(row, screen)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: Steps = &[(2, 0), (1, 6), (1, 4), (0, 3)];

    fn screen(width: usize) -> Screen {
        Screen { width: Some(width), color: false }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_column_narrower_than_it_must_be() {
        let cells = ["abcdef", "0123456789", "xyz"].map(Cell::plain);
        for (width, expected) in [
            (21, "abcdef 0123456789 xyz"),
            (20, "abcdef 0123456789"),
            (16, "abcdef 0123…6789"),
            (11, "abcdef 0…89"),
            (8, "a…f 0…89"),
        ] {
            let screen = screen(width);
            let layout = Layout::new(vec![6, 10, 3], STEPS, &screen);
            let line = layout.line(&cells, &screen);
            assert_eq!(line, expected);
            assert!(super::width(&line) <= width);
        }
    }

    #[test]
    fn a_pipe_gets_every_column_whole() {
        let screen = Screen { width: None, color: false };
        let layout = Layout::new(vec![2, 2, 2], STEPS, &screen);
        let cells = ["a", "longer than 2", "c"].map(Cell::plain);
        assert_eq!(layout.line(&cells, &screen), "a   longer than 2  c");
    }

    #[test]
    fn empty_fields_leave_no_spaces_at_the_end() {
        let screen = screen(80);
        let layout = Layout::new(vec![3, 3, 3], STEPS, &screen);
        assert_eq!(layout.line(&["a", "", ""].map(Cell::plain), &screen), "a");
    }
}
