//! What is told of the chosen row where there is room beside the list.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};

use super::draw::draw_graph;
use super::help;
use super::look::Look;
use super::state::{Row, State};
use super::tabs::{RowId, Tab};
use crate::cli::render::groups::{bar, name};
use crate::cli::render::record::{process, remote_cell, style};
use crate::cli::render::screen::DIM;
use crate::cli::render::screen::Screen;
use crate::cli::render::table::{Cell, Layout as Columns, Steps};
use crate::cli::render::text::{truncate_after, width};
use crate::cli::render::units::{self, Clock};
use crate::event::Connection;
use crate::query::top::{Group, Top, TopBy};

/// Draws what is known of the chosen row.
pub fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, look: &Look, clock: &Clock) {
    let block = Block::new().borders(Borders::LEFT).border_style(look.of(DIM));
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let inside = Rect { x: inside.x + 1, width: inside.width.saturating_sub(1), ..inside };
    let rows = state.rows();
    match rows.get(state.selected_index(&rows)) {
        Some(Row::Group(group)) => draw_group(frame, inside, group, state, look, clock),
        Some(Row::Connection(connection)) => {
            let lines = help::facts(connection, usize::from(inside.width), look, clock);
            frame.render_widget(Paragraph::new(lines), inside);
        }
        None => {}
    }
}

fn draw_group(
    frame: &mut Frame<'_>,
    area: Rect,
    group: &Group,
    state: &State,
    look: &Look,
    clock: &Clock,
) {
    let columns = usize::from(area.width);
    let outcomes = outcome_lines(group, columns, look);
    let [title, bars, graph, rest] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::try_from(outcomes.len()).unwrap_or(0) + 1),
        Constraint::Length(4),
        Constraint::Min(0),
    ])
    .areas(area);
    let by = state.tab.by().unwrap_or(TopBy::Process);
    let (name, first) = name(group, by);
    let text = truncate_after(&name, columns, first).into_owned();
    frame.render_widget(look.title(text), title);
    frame.render_widget(Paragraph::new(outcomes), bars);
    let about = state.answers.as_ref().and_then(|answers| answers.about.as_ref());
    // That of the row before is not shown under the name of this one.
    let Some(about) = about.filter(|about| about.id == RowId::Group(group.key.clone())) else {
        return;
    };
    let wider = Rect { x: graph.x.saturating_sub(1), width: graph.width + 1, ..graph };
    draw_graph(frame, wider, &about.series, look);
    let most = rows_of_parts(&about.parts, usize::from(rest.height));
    let mut lines = Vec::new();
    for part in &about.parts {
        lines.push(Line::default());
        lines.extend(part_lines(part, most, columns, look));
    }
    lines.push(Line::default());
    lines.push(Line::from(look.title("LATEST")));
    let one = state.tab == Tab::Groups(TopBy::Process);
    lines.extend(latest_lines(&about.latest.connections, one, columns, look, clock));
    frame.render_widget(Paragraph::new(lines), rest);
}

fn outcome_lines(group: &Group, columns: usize, look: &Look) -> Vec<Line<'static>> {
    let mut counts: Vec<_> = group.by_outcome.iter().filter(|(_, n)| **n > 0).collect();
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let line = |(outcome, n): (&crate::event::Outcome, &u64)| {
        let text = format!("{:<12}{:>9}  ", outcome.as_str(), units::count(*n));
        let room = columns.saturating_sub(width(&text));
        let bar = bar(*n, group.count, room);
        Line::from(vec![Span::raw(text), look.span(bar, style(*outcome))])
    };
    counts.into_iter().map(line).collect()
}

/// Rows of each kind: what is beyond them is a tab of its own. On a low screen they are fewer, so that
/// there is room for some of the latest connections, too.
fn rows_of_parts(parts: &[Top], lines: usize) -> usize {
    const MOST: usize = 5;
    const LEAST: usize = 2;
    const LATEST: usize = 3;
    // Each has an empty line and a title before it.
    let needed = |most: usize| -> usize {
        parts.iter().map(|part| 2 + part.groups.len().min(most)).sum::<usize>() + 2 + LATEST
    };
    (LEAST..=MOST).rev().find(|most| needed(*most) <= lines).unwrap_or(LEAST)
}

fn part_lines(top: &Top, most: usize, columns: usize, look: &Look) -> Vec<Line<'static>> {
    let title = format!("{}S", top.by.to_string().to_uppercase()).replace("SSS", "SSES");
    let count = match top.distinct {
        Some(distinct) => format!("  {}", units::count(distinct)),
        None => String::new(),
    };
    let mut lines = vec![Line::from(vec![look.title(title), look.dim(count)])];
    for group in top.groups.iter().take(most) {
        let figures = match group.unsuccessful {
            0 => units::count(group.count),
            bad => format!("{} ({} failed)", units::count(group.count), units::count(bad)),
        };
        let room = columns.saturating_sub(width(&figures) + 1);
        let (name, first) = name(group, top.by);
        let name = truncate_after(&name, room, first).into_owned();
        let space = " ".repeat(columns.saturating_sub(width(&name) + width(&figures)));
        lines.push(Line::from(vec![Span::raw(name), Span::raw(space), look.dim(figures)]));
    }
    lines
}

/// What gives way where the latest connections of a group are listed.
const LATEST_STEPS: Steps = &[(1, 16), (2, 22), (4, 0), (3, 8), (1, 0), (2, 10)];

/// `one`: they are of processes of one name, of which the pid is what differs.
fn latest_lines(
    connections: &[Connection],
    one: bool,
    columns: usize,
    look: &Look,
    clock: &Clock,
) -> Vec<Line<'static>> {
    let rows: Vec<[Cell; 5]> = connections
        .iter()
        .map(|c| {
            [
                Cell::new(clock.short(c.time), DIM),
                Cell::plain(match (&c.process, one) {
                    (Some(process), true) => process.pid.to_string(),
                    _ => process(c),
                }),
                remote_cell(c),
                Cell::new(c.outcome.as_str(), style(c.outcome)),
                Cell::new(c.latency_us.map(units::duration).unwrap_or_default(), DIM),
            ]
        })
        .collect();
    let widest = |column: usize| rows.iter().map(|row| width(&row[column].text)).max().unwrap_or(0);
    let screen = Screen { width: Some(columns), color: true };
    let layout = Columns::new((0..5).map(widest).collect(), LATEST_STEPS, &screen);
    rows.iter().map(|row| look.line(&layout, row)).collect()
}
