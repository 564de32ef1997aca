//! What is said where a list is empty.

use super::state::State;
use crate::cli::render::left_out;
use crate::cli::render::text::{clean, wrap};
use crate::cli::render::units::{self, Clock};

/// In lines of at most so many columns; none while the answers are about another list.
pub fn lines(state: &State, columns: usize, clock: &Clock) -> Vec<String> {
    /// As far from the edge as the names of the lists.
    const INDENT: &str = "  ";
    let Some(answers) = state.answers.as_ref().filter(|a| a.question.tab == state.tab) else {
        return Vec::new();
    };
    let (summary, by) = (&answers.summary, state.tab.by());
    let mut said = match (summary.newest_outside_window, by) {
        (Some(time), _) => {
            let time = clock.short(time);
            vec![format!("No connections match. The newest began {time}; + goes further back.")]
        }
        (None, Some(by)) if summary.total > 0 => {
            let (one, many) = ("connection that matches", "connections that match");
            let total = units::counted(summary.total, one, many);
            let by = by.to_string().replace('_', " ");
            vec![format!("Of the {total}, none has a {by}.")]
        }
        (None, _) => vec!["No connections match.".to_owned()],
    };
    if summary.total == 0 {
        said.extend(state.left_out().as_ref().and_then(left_out::typed));
    }
    let room = columns.saturating_sub(2 * INDENT.len()).max(10);
    let lines = said.iter().flat_map(|text| wrap(&clean(text), room));
    lines.map(|line| format!("{INDENT}{line}")).collect()
}
