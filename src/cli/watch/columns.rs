//! The columns of connections whose contents are still to come.

use super::super::render::screen::Screen;
use super::super::render::table::{Cell, Layout, Steps};
use super::super::render::text::width;
use crate::event::Outcome;

/// The live view cannot measure what is still to come: columns have the widths of usual contents.
/// A name has at most 15 bytes and a pid 7 digits.
pub fn layout(screen: &Screen) -> Layout {
    let time = if screen.is_wide() { 12 } else { 8 };
    let (remote, latency) = if screen.width.is_some() { (64, 15) } else { (24, 8) };
    let (outcome, error) = if is_narrow(screen) { (JOINED, 0) } else { (11, 12) };
    Layout::new(vec![time, 24, 5, remote, outcome, error, latency], STEPS, screen)
}

/// Brings the fields of a connection to the columns of [`layout`].
pub fn fit(cells: &mut Vec<Cell>, screen: &Screen) {
    cells.truncate(7);
    if is_narrow(screen)
        && let [_, _, _, _, outcome, error, _] = cells.as_mut_slice()
    {
        join_error(outcome, &std::mem::take(&mut error.text));
    }
}

/// What gives way in the live view. In 80 columns, a name of 15 bytes with a pid of 5 digits and
/// an IPv4 address with its port still stand whole.
const STEPS: Steps = &[
    (3, 40),
    (6, 7),
    (3, 21),
    (2, 4),
    (1, 22),
    (3, 19),
    (1, 17),
    (3, 15),
    (1, 13),
    (4, 11),
    (0, 8),
    (6, 0),
    (1, 6),
    (3, 9),
    (2, 0),
];

/// The width of an outcome that has its error beside it: `denied EACCES`.
const JOINED: usize = 13;

/// Whether a column for errors, which most lines leave empty, would cost the process its name.
fn is_narrow(screen: &Screen) -> bool {
    screen.width.is_some_and(|width| width < 94)
}

/// Shows an error with its outcome where that says more: `refused` and `timed_out` have one error
/// each, `failed` says nothing without it.
fn join_error(outcome: &mut Cell, error: &str) {
    if error.is_empty() {
        return;
    }
    let joined = format!("{} {error}", outcome.text);
    if width(&joined) <= JOINED {
        outcome.text = joined;
    } else if outcome.text == Outcome::Failed.as_str() {
        outcome.text = error.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::render::table::Cut;
    use super::*;

    fn line(columns: usize, process: &str, outcome: &str, error: &str) -> String {
        let remote = "203.0.113.17:65535 (a.example.com)";
        let cells = ["12:34:56", process, "tcp", remote, outcome, error, "412 ms", "id"];
        shown(columns, cells.map(Cell::plain).to_vec())
    }

    fn shown(columns: usize, mut cells: Vec<Cell>) -> String {
        let screen = Screen { width: Some(columns), color: false };
        fit(&mut cells, &screen);
        layout(&screen).line(&cells, &screen).trim_end().to_owned()
    }

    #[test]
    fn a_process_has_its_whole_name_in_80_columns() {
        for (outcome, error, shown) in [
            ("established", "", "established"),
            ("refused", "ECONNREFUSED", "refused"),
            ("timed_out", "ETIMEDOUT", "timed_out"),
            ("unreachable", "EHOSTUNREACH", "unreachable"),
            ("denied", "EACCES", "denied EACCES"),
            ("failed", "EINVAL", "failed EINVAL"),
            ("failed", "EADDRNOTAVAIL", "EADDRNOTAVAIL"),
        ] {
            let line = line(80, "systemd-resolve[12345]", outcome, error);
            assert!(width(&line) <= 80, "{line}");
            assert!(line.starts_with("12:34:56 systemd-resolve[12345] tcp  203.0"), "{line}");
            assert!(line.ends_with(" 412 ms") && line.contains(&format!(" {shown} ")), "{line}");
        }
    }

    #[test]
    fn an_address_stands_whole_in_80_columns() {
        let address = |text: &str| Cell::plain(text).cut(Cut::After(width(text)));
        for remote in ["from 198.51.100.1:41834", "from 255.255.255.255:65535"] {
            for process in ["nginx[12345]", "systemd-resolve[12345]"] {
                let name = Cell::plain(process).cut(Cut::Before("[12345]".len()));
                let mut cells = ["12:34:56", "", "tcp", "", "denied", "EACCES", "412.5 ms", ""]
                    .map(Cell::plain)
                    .to_vec();
                (cells[1], cells[3]) = (name, address(remote));
                let line = shown(80, cells);
                assert!(width(&line) <= 80, "{line}");
                assert!(line.contains(remote) && line.contains("[12345] "), "{line}");
                assert!(line.contains(" denied EACCES "), "{line}");
            }
        }
    }

    #[test]
    fn where_there_is_room_every_column_stands_whole() {
        for columns in [94, 99, 100, 120, 200] {
            let line = line(columns, "systemd-resolve[12345]", "refused", "ECONNREFUSED");
            assert!(width(&line) <= columns, "{line}");
            for part in ["systemd-resolve[12345]", "refused", "ECONNREFUSED", "203.0.", "412 ms"] {
                assert!(line.contains(part), "{part} in {line}");
            }
        }
    }

    #[test]
    fn no_line_is_wider_than_a_small_terminal() {
        for columns in 40..94 {
            let line = line(columns, "systemd-resolve[1234567]", "unreachable", "EHOSTUNREACH");
            assert!(width(&line) <= columns, "{columns}: {line}");
        }
    }
}
