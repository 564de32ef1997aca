//! The list of the full-screen view.

use std::collections::HashMap;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::answers::NOW;
use super::empty;
use super::look::{Look, chosen};
use super::state::{Row, State};
use super::tabs::Sort;
use crate::cli::render::groups::{name, outcomes_worst_first, unsuccessful};
use crate::cli::render::record;
use crate::cli::render::screen::{DIM, PLAIN, Screen};
use crate::cli::render::table::{Cell, Cut, Layout, Steps};
use crate::cli::render::text::width;
use crate::cli::render::units::{self, Clock};
use crate::cli::watch;
use crate::query::top::{Group, Key, TopBy};

/// What gives way where groups are listed. A column of outcomes that has no room for one with its
/// number says nothing.
const GROUP_STEPS: Steps =
    &[(4, 24), (0, 24), (4, 17), (0, 15), (4, 0), (0, 12), (2, 0), (5, 0), (0, 6)];

/// Draws the titles and as many rows as there is room for.
pub fn draw(frame: &mut Frame<'_>, area: Rect, state: &mut State, look: &Look, clock: &Clock) {
    let [titles, body] = split(area);
    state.page = usize::from(body.height);
    let rows = state.rows();
    let selected = state.selected_index(&rows);
    let page = usize::from(body.height).max(1);
    let offset = match state.offset.min(rows.len().saturating_sub(page)) {
        offset if selected < offset => selected,
        offset if selected >= offset + page => selected + 1 - page,
        offset => offset,
    };
    let screen = Screen { width: Some(usize::from(area.width)), color: true };
    let now = state.answers.as_ref().map(|a| &a.now);
    let by = state.tab.by().unwrap_or(TopBy::Process);
    let shown: Vec<Vec<Cell>> = rows
        .iter()
        .skip(offset)
        .take(page)
        .map(|row| match row {
            Row::Group(group) => group_cells(group, by, now, clock),
            Row::Connection(connection) => {
                let mut cells = record::cells(connection, clock, &screen);
                watch::fit(&mut cells, &screen);
                cells
            }
        })
        .collect();
    let is_empty = rows.is_empty();
    let table = Table::new(state, shown, &screen);
    state.offset = offset;
    frame.render_widget(table.titles(look), titles);
    if is_empty {
        let lines = empty::lines(state, usize::from(body.width), clock);
        let lines: Vec<Line<'_>> = lines.into_iter().map(|line| look.dim(line).into()).collect();
        frame.render_widget(Paragraph::new(lines), body);
    }
    for (line, (index, cells)) in body.rows().zip((offset..).zip(&table.rows)) {
        let text = look.line(&table.layout, cells);
        // In one colour: of a row that is turned round, others would be hard to read.
        let text = match index == selected {
            true => Paragraph::new(text.to_string()).style(chosen()),
            false => Paragraph::new(text),
        };
        frame.render_widget(text, line);
    }
}

fn split(area: Rect) -> [Rect; 2] {
    let titles = Rect { height: area.height.min(1), ..area };
    let body = Rect { y: area.y + titles.height, height: area.height - titles.height, ..area };
    [titles, body]
}

struct Table {
    titles: Vec<String>,
    rows: Vec<Vec<Cell>>,
    layout: Layout,
}

impl Table {
    fn new(state: &State, mut rows: Vec<Vec<Cell>>, screen: &Screen) -> Self {
        let (sort, reversed) = state.sort();
        let mark = if reversed { '▲' } else { '▼' };
        let Some(by) = state.tab.by() else {
            let mut titles: Vec<String> =
                record::TITLES[..7].iter().map(|t| (*t).to_owned()).collect();
            let sorted = match sort {
                Sort::Name => 1,
                Sort::Remote => 3,
                Sort::Outcome => 4,
                Sort::Latency => 6,
                _ => 0,
            };
            mark_title(&mut titles, sorted, mark);
            return Table { titles, rows, layout: watch::layout(screen) };
        };
        let by = by.to_string().to_uppercase();
        let mut titles =
            [&by, "ATTEMPTS", "/S", "FAILED", "OUTCOMES", "LATEST"].map(str::to_owned).to_vec();
        let sorted = match sort {
            Sort::Name => 0,
            Sort::Now => 2,
            Sort::Failed => 3,
            Sort::Latest => 5,
            _ => 1,
        };
        mark_title(&mut titles, sorted, mark);
        for column in FIGURES {
            align_right(&mut titles, &mut rows, column);
        }
        let natural =
            titles.iter().enumerate().map(|(column, title)| natural(title, &rows, column));
        let layout = Layout::new(natural.collect(), GROUP_STEPS, screen);
        Table { titles, rows, layout }
    }

    fn titles(&self, look: &Look) -> Paragraph<'static> {
        let titles: Vec<&str> = self.titles.iter().map(String::as_str).collect();
        let plain = Screen { width: None, color: false };
        let line = Line::from(look.title(self.layout.header(&titles, &plain)));
        Paragraph::new(line).style(Modifier::UNDERLINED)
    }
}

/// Columns of groups that are figures.
const FIGURES: [usize; 3] = [1, 2, 3];

/// Columns do not jump to and fro with what happens to be in them.
const LEAST: [usize; 6] = [15, 9, 6, 7, 11, 8];

fn natural(title: &str, rows: &[Vec<Cell>], column: usize) -> usize {
    let cells = rows.iter().filter_map(|row| row.get(column));
    let widest = cells.map(|cell| width(&cell.text)).max().unwrap_or(0);
    widest.max(width(title)).max(LEAST.get(column).copied().unwrap_or(0))
}

fn mark_title(titles: &mut [String], column: usize, mark: char) {
    if let Some(title) = titles.get_mut(column) {
        title.push(mark);
    }
}

/// Figures are compared by their last digits.
fn align_right(titles: &mut [String], rows: &mut [Vec<Cell>], column: usize) {
    let Some(title) = titles.get_mut(column) else { return };
    let widest = natural(title, rows, column);
    *title = pad(title, widest);
    for cell in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
        cell.text = pad(&cell.text, widest);
    }
}

fn pad(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}

fn group_cells(
    group: &Group,
    by: TopBy,
    now: Option<&HashMap<Key, u64>>,
    clock: &Clock,
) -> Vec<Cell> {
    let (name, first) = name(group, by);
    let recent = now.and_then(|now| now.get(&group.key)).copied().unwrap_or(0);
    vec![
        Cell::plain(name).cut(Cut::After(first)),
        Cell::plain(units::count(group.count)),
        Cell::new(rate(recent, NOW.as_secs()), if recent == 0 { DIM } else { PLAIN }),
        unsuccessful(group.unsuccessful),
        Cell::plain(outcomes_worst_first(&group.by_outcome)).cut(Cut::Parts),
        Cell::new(clock.short(group.last), DIM),
    ]
}

/// So many in so many seconds, as a figure per second.
pub fn rate(count: u64, seconds: u64) -> String {
    let seconds = seconds.max(1);
    match count / seconds {
        0..100 => format!("{}.{}", count / seconds, count % seconds * 10 / seconds),
        whole => units::count(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_tenth_while_that_says_something() {
        for (count, text) in [(0, "0.0"), (17, "1.7"), (999, "99.9"), (12_340, "1,234")] {
            assert_eq!(rate(count, 10), text);
        }
    }
}
