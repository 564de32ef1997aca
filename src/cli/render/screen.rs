//! What the output goes to: how wide it is, and whether it shows colour.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use anstyle::{AnsiColor, Style};

/// Properties of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Columns; `None` where lines may be as long as they are (a file, a pipe).
    pub width: Option<usize>,
    /// Whether escape sequences for colour may be written.
    pub color: bool,
}

impl Screen {
    /// What standard output is.
    pub fn of_stdout() -> Self {
        Screen::of(&std::io::stdout())
    }

    /// What standard error is.
    pub fn of_stderr() -> Self {
        Screen::of(&std::io::stderr())
    }

    /// A file.
    pub fn of_file() -> Self {
        Screen { width: None, color: false }
    }

    fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        if !stream.is_terminal() {
            return Screen::of_file();
        }
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        // https://no-color.org: present and not empty, whatever the value.
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let width = terminal_size::terminal_size_of(stream).map(|(w, _)| usize::from(w.0));
        Screen { width: width.or(Some(80)), color: !set("NO_COLOR") && !dumb }
    }

    /// `text` in `style`, if there is colour.
    pub fn paint(&self, text: &str, style: Style) -> String {
        if self.color && style != Style::new() && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// Whether there is room for what is nice to have.
    pub fn is_wide(&self) -> bool {
        self.width.is_none_or(|w| w >= 100)
    }
}

/// Succeeded.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Failed for a reason outside the process.
pub const BAD: Style = AnsiColor::Red.on_default();
/// Ended by its owner, or something to look at.
pub const ODD: Style = AnsiColor::Yellow.on_default();
/// Not ended yet.
pub const PENDING: Style = AnsiColor::Cyan.on_default();
/// Of less interest.
pub const DIM: Style = Style::new().dimmed();
/// Titles.
pub const TITLE: Style = Style::new().bold();
/// Nothing special.
pub const PLAIN: Style = Style::new();
