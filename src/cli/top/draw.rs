//! The full-screen view as a picture.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Sparkline, SparklineBar};

use super::about;
use super::head;
use super::help;
use super::look::{Look, chosen};
use super::rows;
use super::state::{Over, State};
use super::tabs::Tab;
use crate::cli::locate::Origin;
use crate::cli::render::answers::incomplete;
use crate::cli::render::screen::{BAD, GOOD, ODD, PENDING, PLAIN};
use crate::cli::render::text::{clean, truncate_middle, width, wrap};
use crate::cli::render::units::{self, Clock};
use crate::query::series::Series;

/// Where a list leaves room for something beside it.
const WIDE: u16 = 120;

/// Columns of the name of an order, with its mark and the spaces around it.
const ORDER: usize = 12;

/// What is said beside a filter that is being typed, as there is room.
const HINTS: [&str; 3] = [
    "  Enter keeps it, Esc does not: curl port:443 outcome:refused",
    "  Enter keeps it, Esc does not",
    "  Enter, Esc",
];

/// The most minutes that a graph shows.
const MOST_MINUTES: u32 = 180;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, state: &mut State, origin: &Origin, look: &Look, clock: &Clock) {
    let area = frame.area();
    state.wide = area.width >= WIDE && area.height >= 20;
    state.minutes = u32::from(area.width.saturating_sub(2)).clamp(1, MOST_MINUTES);
    let warning = state.answers.as_ref().and_then(|a| incomplete(&a.summary.accounting, clock));
    let graph = match area.height {
        0..16 => 0,
        16..40 => 3,
        _ => 5,
    };
    let [title, figures, outcomes, warned, graph, tabs, list, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(u16::from(warning.is_some())),
        Constraint::Length(graph),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_title(frame, title, state, origin, look, clock);
    if let Some(answers) = &state.answers {
        let room = usize::from(area.width);
        frame.render_widget(head::figures(answers, room, look), figures);
        let line = head::outcomes(&answers.summary.by_outcome, room, look);
        frame.render_widget(line, outcomes);
        draw_graph(frame, graph, &answers.series, look);
    }
    if let Some(warning) = warning {
        let text = truncate_middle(&warning, usize::from(area.width).saturating_sub(1), 0);
        frame.render_widget(look.span(format!(" {text}"), ODD), warned);
    }
    draw_tabs(frame, tabs, state, look);
    draw_list(frame, list, state, look, clock);
    draw_footer(frame, footer, state, look);
    if let Some(error) = state.line_error.as_ref().or(state.error.as_ref()) {
        draw_error(frame, list, error, look);
    }
    if let Over::Help = state.over {
        help::keys(frame, look);
    }
}

fn draw_title(
    frame: &mut Frame<'_>,
    area: Rect,
    state: &State,
    origin: &Origin,
    look: &Look,
    clock: &Clock,
) {
    let until = state.answers.as_ref().map(|a| clock.short(a.until)).unwrap_or_default();
    let time = format!("last {}  {until} ", state.window_name());
    let (mark, mark_style) = match (&state.error, state.paused) {
        (Some(_), _) => (" NO ANSWER ", BAD),
        (None, Some(_)) => (" PAUSED ", ODD),
        (None, None) => ("", PLAIN),
    };
    let room = usize::from(area.width).saturating_sub(width(&time) + width(mark) + 14);
    let place = clean(&origin.source.describe()).into_owned();
    let place = truncate_middle(&place, room, 0).into_owned();
    let left = Line::from(vec![look.title(" netspy top  "), look.dim(place)]);
    frame.render_widget(left, area);
    let mark = Span::styled(mark, look.of(mark_style).patch(chosen()));
    let right = Line::from(vec![mark, Span::raw(" "), look.title(time)]).right_aligned();
    frame.render_widget(right, area);
}

/// Attempts per minute, under a line that says so.
pub fn draw_graph(frame: &mut Frame<'_>, area: Rect, series: &Series, look: &Look) {
    if area.height < 2 || area.width < 3 {
        return;
    }
    let area = Rect { x: area.x + 1, width: area.width - 2, ..area };
    let room = usize::from(area.width);
    let points = &series.points[series.points.len().saturating_sub(room)..];
    let most = points.iter().map(|p| p.count).max().unwrap_or(0);
    let text = format!(
        "Attempts per minute, {} min to now, at most {}",
        points.len().saturating_sub(1),
        units::count(most)
    );
    let title = Rect { height: 1, ..area };
    frame.render_widget(look.dim(truncate_middle(&text, room, 0)), title);
    let bars = points.iter().map(|point| {
        let style = match (point.count, point.unsuccessful) {
            (_, 0) => GOOD,
            (all, bad) if bad.saturating_mul(2) >= all => BAD,
            (all, bad) if bad.saturating_mul(10) >= all => ODD,
            _ => GOOD,
        };
        SparklineBar::from(point.count).style(look.of(style))
    });
    let graph = Rect { y: area.y + 1, height: area.height - 1, ..area };
    // The present is at the right edge.
    let used = u16::try_from(points.len()).unwrap_or(area.width).min(graph.width);
    let graph = Rect { x: graph.x + graph.width - used, width: used, ..graph };
    frame
        .render_widget(Sparkline::default().data(bars.collect::<Vec<_>>()).max(most.max(1)), graph);
}

fn draw_tabs(frame: &mut Frame<'_>, area: Rect, state: &State, look: &Look) {
    let room = usize::from(area.width);
    let forms: [(bool, Name); 3] =
        [(true, Tab::title), (false, Tab::title), (false, Tab::short_title)];
    let forms = forms.map(|(apart, name)| tabs_line(state, apart, name));
    // Whatever the order is called, the same room is left for it, so that nothing moves.
    let beside = |line: &&Line<'_>| line.width() + ORDER <= room;
    let fitting = forms.iter().find(beside);
    if fitting.is_some() {
        let (sort, reversed) = state.sort();
        let text = format!("{} {} ", if reversed { '▲' } else { '▼' }, sort.name());
        frame.render_widget(Line::from(look.dim(text)).right_aligned(), area);
    }
    // Without it, the mark at the title of its column says the same.
    let line = fitting.or_else(|| forms.iter().find(|line| line.width() <= room));
    frame.render_widget(line.unwrap_or(&forms[2]), area);
}

/// What a tab is called.
type Name = fn(Tab) -> &'static str;

/// The names of the lists, two spaces `apart` or one. Each has its place, whichever is chosen.
fn tabs_line(state: &State, apart: bool, name: Name) -> Line<'static> {
    let mut line = Line::default();
    // The chosen one stands out with a space on both sides: where there is but one, it is not the next
    // one's any more.
    let mut is_spaced = false;
    for (key, tab) in state.tabs() {
        let before = if is_spaced { "" } else { " " };
        let is_chosen = tab == state.tab;
        let after = if apart || is_chosen { " " } else { "" };
        is_spaced = is_chosen && !apart;
        let text = format!("{before}{key} {}{after}", name(tab));
        line.push_span(match is_chosen {
            true => Span::styled(text, chosen().add_modifier(Modifier::BOLD)),
            false => Span::raw(text),
        });
    }
    line
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, state: &mut State, look: &Look, clock: &Clock) {
    let (list, beside) = match state.wide {
        false => (area, None),
        true => {
            let [list, beside] =
                Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(area);
            (list, Some(beside))
        }
    };
    rows::draw(frame, list, state, look, clock);
    if let Some(beside) = beside {
        about::draw(frame, beside, state, look, clock);
    }
    if let Over::Detail(connection, scrolled) = &state.over {
        let scrolled = help::detail(frame, area, connection, *scrolled, look, clock);
        if let Over::Detail(_, to) = &mut state.over {
            *to = scrolled;
        }
    }
}

fn draw_footer(frame: &mut Frame<'_>, area: Rect, state: &State, look: &Look) {
    let room = usize::from(area.width).saturating_sub(2);
    if state.before.is_some() {
        return draw_input(frame, area, state, look);
    }
    let keys = " ↑↓ choose  Enter open  / filter  s sort  p pause  + - time  ? help  q quit";
    let filter = [&state.fixed, &state.line].map(|text| clean(text));
    let filter = filter.iter().filter(|text| !text.is_empty()).map(|text| text.as_ref());
    let filter = filter.collect::<Vec<_>>().join(" ");
    if filter.is_empty() {
        frame.render_widget(look.dim(keys), area);
        return;
    }
    let hint = "  (/ changes it, Esc goes back, ? help)";
    let text = truncate_middle(&filter, room.saturating_sub(8 + width(hint)), 0).into_owned();
    let line = vec![look.dim(" Filter: "), look.span(text, PENDING), look.dim(hint)];
    frame.render_widget(Line::from(line), area);
}

/// What is wrong, over the end of the list: in as many lines as it takes, so that what would be right
/// can be read, too.
fn draw_error(frame: &mut Frame<'_>, list: Rect, error: &str, look: &Look) {
    let room = usize::from(list.width).saturating_sub(2).max(10);
    let mut lines = wrap(&clean(error), room);
    lines.truncate(usize::from(list.height));
    let height = u16::try_from(lines.len()).unwrap_or(list.height);
    let area = Rect { y: list.y + list.height - height, height, ..list };
    let lines: Vec<Line<'_>> =
        lines.iter().map(|line| look.span(format!(" {line}"), BAD).into()).collect();
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_input(frame: &mut Frame<'_>, area: Rect, state: &State, look: &Look) {
    let typed = clean(&state.line);
    // Where it is long, its end is what is being typed.
    let room = usize::from(area.width).saturating_sub(4);
    let skipped = width(&typed).saturating_sub(room);
    let shown: String = typed.chars().skip(skipped).collect();
    let left = room.saturating_sub(width(&shown));
    let fitting = HINTS.into_iter().find(|hint| width(hint) <= left);
    let hint = look.dim(fitting.unwrap_or_default());
    let columns = u16::try_from(width(&shown)).unwrap_or(0);
    let line = vec![look.title(" / "), Span::raw(shown), hint];
    frame.render_widget(Paragraph::new(Line::from(line)), area);
    frame.set_cursor_position((area.x + 3 + columns, area.y));
}
