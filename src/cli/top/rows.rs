//! The list of the full-screen view.

use std::collections::HashMap;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::answers::NOW;
use super::look::{Look, chosen};
use super::state::{Row, State};
use super::tabs::{Sort, Tab};
use crate::cli::render::groups::{key, outcomes, unsuccessful};
use crate::cli::render::record;
use crate::cli::render::screen::{DIM, PLAIN, Screen};
use crate::cli::render::table::{Cell, Layout, Steps};
use crate::cli::render::text::{clean, width};
use crate::cli::render::units::{self, Clock};
use crate::query::top::{Group, Key};

/// What gives way where groups are listed.
const GROUP_STEPS: Steps =
    &[(4, 24), (0, 30), (4, 12), (0, 20), (4, 0), (0, 12), (2, 0), (5, 0), (0, 6)];

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
    let shown: Vec<Vec<Cell>> = rows
        .iter()
        .skip(offset)
        .take(page)
        .map(|row| match row {
            Row::Group(group) => group_cells(group, now, clock),
            Row::Connection(connection) => record::cells(connection, clock, &screen),
        })
        .collect();
    let is_empty = rows.is_empty();
    let table = Table::new(state, shown, &screen);
    state.offset = offset;
    frame.render_widget(table.titles(look), titles);
    if is_empty {
        let text = match &state.answers {
            Some(answers) if answers.question.tab == state.tab => "  No connections match.",
            _ => "",
        };
        frame.render_widget(Paragraph::new(look.dim(text)), body);
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
        let by = state.tab.by().map(|by| by.to_string().to_uppercase());
        let (mut titles, steps, sorted): (Vec<String>, _, _) = match by {
            Some(by) => {
                let titles = [&by, "ATTEMPTS", "/S", "FAILED", "OUTCOMES", "LATEST"];
                let sorted = match sort {
                    Sort::Name => 0,
                    Sort::Now => 2,
                    Sort::Failed => 3,
                    Sort::Latest => 5,
                    _ => 1,
                };
                (titles.map(str::to_owned).to_vec(), GROUP_STEPS, sorted)
            }
            None => {
                let sorted = match sort {
                    Sort::Name => 1,
                    Sort::Remote => 3,
                    Sort::Outcome => 4,
                    Sort::Latency => 6,
                    _ => 0,
                };
                (record::TITLES.map(str::to_owned).to_vec(), record::STEPS, sorted)
            }
        };
        if let Some(title) = titles.get_mut(sorted) {
            title.push(mark);
        }
        let least = LEAST[usize::from(state.tab == Tab::Connections)];
        if state.tab != Tab::Connections {
            for column in [1, 2, 3] {
                align_right(&mut titles, &mut rows, column, least);
            }
        }
        let natural = titles.iter().enumerate().map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| width(&cell.text)).max().unwrap_or(0);
            widest.max(width(title)).max(least.get(column).copied().unwrap_or(0))
        });
        let layout = Layout::new(natural.collect(), steps, screen);
        if state.tab != Tab::Connections {
            let room = layout.width(OUTCOMES);
            for cell in rows.iter_mut().filter_map(|row| row.get_mut(OUTCOMES)) {
                cell.text = whole_parts(&cell.text, room);
            }
        }
        Table { titles, rows, layout }
    }

    fn titles(&self, look: &Look) -> Paragraph<'static> {
        let titles: Vec<&str> = self.titles.iter().map(String::as_str).collect();
        let plain = Screen { width: None, color: false };
        let line = Line::from(look.title(self.layout.header(&titles, &plain)));
        Paragraph::new(line.patch_style(Modifier::UNDERLINED))
    }
}

/// The column of outcomes of groups.
const OUTCOMES: usize = 4;

/// As many of the parts of `a 3, b 2, c 1` as there is room for: a number that lacks digits would be
/// another number.
fn whole_parts(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut shown = String::new();
    for part in text.split(", ") {
        if width(&shown) + width(part) + 3 > room {
            break;
        }
        shown.push_str(part);
        shown.push_str(", ");
    }
    shown.push('…');
    shown
}

/// Columns do not jump to and fro with what happens to be in them: of groups, and of connections.
const LEAST: [&[usize]; 2] = [&[15, 9, 6, 7, 11, 8], &[8, 13, 5, 21, 11, 0, 7]];

/// Figures are compared by their last digits.
fn align_right(titles: &mut [String], rows: &mut [Vec<Cell>], column: usize, least: &[usize]) {
    let Some(title) = titles.get_mut(column) else { return };
    let cells = rows.iter().filter_map(|row| row.get(column));
    let widest = cells.map(|cell| width(&cell.text)).max().unwrap_or(0);
    let widest = widest.max(width(title)).max(least.get(column).copied().unwrap_or(0));
    *title = pad(title, widest);
    for cell in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
        cell.text = pad(&cell.text, widest);
    }
}

fn pad(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}

fn group_cells(group: &Group, now: Option<&HashMap<Key, u64>>, clock: &Clock) -> Vec<Cell> {
    let recent = now.and_then(|now| now.get(&group.key)).copied().unwrap_or(0);
    vec![
        Cell::plain(name(group)),
        Cell::plain(units::count(group.count)),
        Cell::new(rate(recent, NOW.as_secs()), if recent == 0 { DIM } else { PLAIN }),
        unsuccessful(group.unsuccessful),
        Cell::plain(outcomes(&group.by_outcome)),
        Cell::new(clock.short(group.last), DIM),
    ]
}

/// `93.184.215.14 (example.com)`
pub fn name(group: &Group) -> String {
    let key = key(&group.key);
    match &group.label {
        Some(label) => format!("{} ({})", clean(&key), clean(label)),
        None => clean(&key).into_owned(),
    }
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
    fn no_figure_is_cut_in_two() {
        let text = "established 1,204, refused 17, reset 3";
        assert_eq!(whole_parts(text, 38), text);
        assert_eq!(whole_parts(text, 37), "established 1,204, refused 17, …");
        assert_eq!(whole_parts(text, 20), "established 1,204, …");
        assert_eq!(whole_parts(text, 19), "…");
    }

    #[test]
    fn a_rate_has_a_tenth_while_that_says_something() {
        for (count, text) in [(0, "0.0"), (17, "1.7"), (999, "99.9"), (12_340, "1,234")] {
            assert_eq!(rate(count, 10), text);
        }
    }
}
