//! The two lines of figures above everything else. What a narrow screen has no room for is left out
//! whole, and what matters least first: half a figure would be another one.

use std::collections::BTreeMap;

use ratatui::text::{Line, Span};

use super::answers::{Answers, NOW};
use super::look::Look;
use super::rows::rate;
use crate::cli::render::groups::worst_first;
use crate::cli::render::record::style;
use crate::cli::render::text::width;
use crate::cli::render::units;
use crate::event::Outcome;

/// How many attempts, how fast they come, and of whom to whom.
pub fn figures(answers: &Answers, columns: usize, look: &Look) -> Line<'static> {
    let summary = &answers.summary;
    let some = |n: u64, one: &'static str, many: &'static str| {
        (units::count(n), format!(" {}", if n == 1 { one } else { many }))
    };
    let now = format!("{}/s", rate(answers.now_total, NOW.as_secs()));
    let counts = [
        some(summary.total, "attempt", "attempts"),
        (now, " now".to_owned()),
        some(summary.processes, "process", "processes"),
        some(summary.remotes, "remote", "remotes"),
    ];
    let mut parts: Vec<Vec<Span<'static>>> =
        counts.into_iter().map(|(n, what)| vec![look.title(n), look.dim(what)]).collect();
    if let Some(handshake) = &summary.handshake {
        for (name, us) in [("p50 ", handshake.p50_us), ("p99 ", handshake.p99_us)] {
            parts.push(vec![look.dim(name), look.title(units::duration(us))]);
        }
    }
    let mut line = Line::from(" ");
    for part in parts {
        let needed: usize = part.iter().map(Span::width).sum();
        if line.width() + needed > columns {
            break;
        }
        line.extend(part);
        line.push_span("  ");
    }
    line
}

/// How they ended: what failed first, and of what there is no room for how many there are.
pub fn outcomes(by_outcome: &BTreeMap<Outcome, u64>, columns: usize, look: &Look) -> Line<'static> {
    let counts = worst_first(by_outcome);
    let mut line = Line::from(" ");
    for (index, (outcome, n)) in counts.iter().enumerate() {
        let figure = format!(" {}", units::count(*n));
        let needed = width(outcome.as_str()) + width(&figure);
        let after = others(counts.get(index + 1..).unwrap_or_default());
        let rest = if after.is_empty() { 0 } else { width(&after) + 2 };
        if line.width() + needed + rest > columns {
            let text = others(counts.get(index..).unwrap_or_default());
            // Of all of them it says what the line above says.
            if index > 0 {
                line.push_span(look.dim(text));
            }
            break;
        }
        line.push_span(look.span(outcome.as_str(), style(*outcome)));
        line.push_span(Span::raw(figure));
        line.push_span("  ");
    }
    line
}

/// Several outcomes as one: `3 others 41`.
fn others(counts: &[(Outcome, u64)]) -> String {
    let sum = counts.iter().map(|(_, n)| *n).fold(0, u64::saturating_add);
    match counts.len() {
        0 => String::new(),
        1 => format!("1 other {}", units::count(sum)),
        many => format!("{many} others {}", units::count(sum)),
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;
    use crate::cli::render::screen::Screen;

    fn shown(by_outcome: &BTreeMap<Outcome, u64>, columns: usize) -> String {
        let look = Look::new(Screen { width: Some(columns), color: false });
        outcomes(by_outcome, columns, &look).to_string().trim_end().to_owned()
    }

    #[test]
    fn what_failed_comes_first_and_the_rest_is_counted() {
        let counts = [
            (Outcome::Established, 12_345),
            (Outcome::Sent, 353),
            (Outcome::Unreachable, 85),
            (Outcome::TimedOut, 1_078),
            (Outcome::Refused, 65),
            (Outcome::Reset, 58),
            (Outcome::InProgress, 2),
        ]
        .into();
        let failed = " timed_out 1,078  unreachable 85  refused 65  reset 58";
        let all = format!("{failed}  established 12,345  sent 353  in_progress 2");
        assert_eq!(shown(&counts, 200), all);
        assert_eq!(shown(&counts, 80), format!("{failed}  3 others 12,700"));
        assert_eq!(shown(&counts, 90), format!("{failed}  established 12,345  2 others 355"));
        assert_eq!(shown(&[(Outcome::Sent, 7)].into(), 80), " sent 7");
    }

    #[test]
    fn no_line_is_too_long_and_each_says_how_many_there_are() {
        let every = Outcome::VARIANTS.iter().zip(1..).map(|(outcome, n)| (*outcome, n * 1_234));
        let counts: BTreeMap<Outcome, u64> = every.collect();
        let all: u64 = counts.values().sum();
        for columns in 40..250 {
            let line = shown(&counts, columns);
            assert!(width(&line) <= columns, "{columns}: {line}");
            let words: Vec<&str> = line.split("  ").collect();
            let figure = |part: &&str| part.rsplit(' ').next().unwrap().replace(',', "");
            let sum: u64 = words.iter().map(|part| figure(part).parse::<u64>().unwrap()).sum();
            assert_eq!(sum, all, "{columns}: {line}");
        }
    }
}
