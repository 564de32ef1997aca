//! The colours of netspy's tables on a screen that ratatui draws.

use anstyle::{AnsiColor, Color as AnyColor, Effects};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::cli::render::screen::{DIM, Screen, TITLE};
use crate::cli::render::table::{Cell, Layout};

/// Whether there is colour.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    color: bool,
}

impl Look {
    /// What this screen can show.
    pub fn new(screen: Screen) -> Self {
        Look { color: screen.color }
    }

    /// The same style.
    pub fn of(&self, style: anstyle::Style) -> Style {
        let mut same = Style::new();
        let effects = style.get_effects();
        if effects.contains(Effects::BOLD) {
            same = same.add_modifier(Modifier::BOLD);
        }
        if effects.contains(Effects::DIMMED) {
            same = same.add_modifier(Modifier::DIM);
        }
        match style.get_fg_color() {
            Some(AnyColor::Ansi(color)) if self.color => same.fg(match color {
                AnsiColor::Green => Color::Green,
                AnsiColor::Red => Color::Red,
                AnsiColor::Yellow => Color::Yellow,
                AnsiColor::Cyan => Color::Cyan,
                _ => Color::Reset,
            }),
            _ => same,
        }
    }

    /// Text in a style. The text has been through `clean`.
    pub fn span(&self, text: impl Into<String>, style: anstyle::Style) -> Span<'static> {
        Span::styled(text.into(), self.of(style))
    }

    /// Text of less interest.
    pub fn dim(&self, text: impl Into<String>) -> Span<'static> {
        self.span(text, DIM)
    }

    /// A title.
    pub fn title(&self, text: impl Into<String>) -> Span<'static> {
        self.span(text, TITLE)
    }

    /// A line of a table.
    pub fn line(&self, layout: &Layout, cells: &[Cell]) -> Line<'static> {
        let mut spans = Vec::with_capacity(cells.len() * 2);
        for (spaces, text, style) in layout.pieces(cells) {
            spans.push(Span::raw(" ".repeat(spaces)));
            spans.push(self.span(text, style));
        }
        Line::from(spans)
    }
}

/// What is chosen stands out without colour, too.
pub fn chosen() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}
