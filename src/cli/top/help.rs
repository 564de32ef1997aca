//! The keys of the full-screen view, and one connection in full.

use ratatui::Frame;
use ratatui::layout::{Margin, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::look::Look;
use crate::cli::render::record;
use crate::cli::render::text::{width, wrap};
use crate::cli::render::units::Clock;
use crate::event::Connection;

const KEYS: [(&str, &str); 13] = [
    ("1 to 6, Tab, ← →", "what is listed; 7 and 8: containers, pods, if any"),
    ("↑ ↓, j k, PgUp PgDn", "choose a row; Home and End: the first and last"),
    ("Enter", "the connections of a group; all of one connection"),
    ("Esc, Backspace", "back; then without a filter"),
    ("/", "filter: words, and NAME:VALUE as in --NAME VALUE"),
    ("", "  curl   process:curl port:443   outcome:unsuccessful"),
    ("", "  cidr:10.0.0.0/8   unit:nginx.service   protocol:unix"),
    ("s, S", "next and last order"),
    ("r", "the other way round"),
    ("p, Space", "pause: the view stays at this time, keys still work"),
    ("+ -", "longer and shorter time"),
    ("Ctrl-Z", "to the shell; fg comes back"),
    ("q, Ctrl-C", "quit"),
];

/// Shows the keys over everything else.
pub fn keys(frame: &mut Frame<'_>, look: &Look) {
    let mut lines: Vec<Line<'_>> = KEYS
        .iter()
        .map(|(key, does)| Line::from(vec![look.title(format!("{key:<20} ")), Span::raw(*does)]))
        .collect();
    lines.push(Line::default());
    for text in [
        "/S: attempts per second over the last 10 s. FAILED: refused, timed_out,",
        "unreachable, denied, reset and failed. p50, p99: handshakes. Bars: attempts",
        "per minute, yellow from a tenth failed on, red from half. UNIX sockets and",
        "what existed before: protocol:unix, state:open, state:listening.",
    ] {
        lines.push(Line::from(look.dim(text)));
    }
    let columns = lines.iter().map(Line::width).max().unwrap_or(0);
    let area = centred(frame.area(), columns + 4, lines.len() + 2);
    frame.render_widget(Clear, area);
    frame.render_widget(Block::bordered().title(look.title(" Keys ")), area);
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(text, area.inner(Margin::new(2, 1)));
}

/// Shows one connection over the list, and gives how far it is scrolled.
pub fn detail(
    frame: &mut Frame<'_>,
    area: Rect,
    connection: &Connection,
    scrolled: usize,
    look: &Look,
    clock: &Clock,
) -> usize {
    let lines = facts(connection, usize::from(area.width.saturating_sub(4)), look, clock);
    let room = usize::from(area.height.saturating_sub(2));
    let scrolled = scrolled.min(lines.len().saturating_sub(room));
    let title = match lines.len() > room {
        true => format!(
            " Connection, lines {} to {} of {} (↑ ↓ scroll, Esc closes) ",
            scrolled + 1,
            (scrolled + room).min(lines.len()),
            lines.len()
        ),
        false => " Connection (Esc closes) ".to_owned(),
    };
    frame.render_widget(Clear, area);
    frame.render_widget(Block::bordered().title(look.title(title)), area);
    let shown: Vec<Line<'_>> = lines.into_iter().skip(scrolled).take(room).collect();
    frame.render_widget(Paragraph::new(shown), area.inner(Margin::new(2, 1)));
    scrolled
}

/// Everything that is known of one connection, in lines of at most so many columns.
pub fn facts(c: &Connection, columns: usize, look: &Look, clock: &Clock) -> Vec<Line<'static>> {
    const TITLE_WIDTH: usize = 19;
    let room = columns.saturating_sub(TITLE_WIDTH).max(10);
    let mut lines = Vec::new();
    for (title, text, style) in record::facts(c, clock) {
        let mut title = title;
        for part in broken(&text, room) {
            let title = look.title(format!("{:<TITLE_WIDTH$}", std::mem::take(&mut title)));
            lines.push(Line::from(vec![title, look.span(part, style)]));
        }
    }
    lines
}

/// `text` in lines of at most so many columns, whatever is in it.
fn broken(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in wrap(text, columns) {
        let mut part = String::new();
        for c in line.chars() {
            let mut one = [0; 4];
            if width(&part) + width(c.encode_utf8(&mut one)) > columns {
                lines.push(std::mem::take(&mut part));
            }
            part.push(c);
        }
        lines.push(part);
    }
    lines
}

fn centred(area: Rect, columns: usize, lines: usize) -> Rect {
    /// Beside it there is more, or nothing: single characters of what lies below say nothing.
    const MARGIN: u16 = 4;
    let width = match u16::try_from(columns).unwrap_or(u16::MAX) {
        width if width.saturating_add(MARGIN) > area.width => area.width,
        width => width,
    };
    let height = u16::try_from(lines).unwrap_or(u16::MAX).min(area.height);
    Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    }
}
