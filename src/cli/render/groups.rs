//! Groups of records and steps of time in every form of [`Output`].

use std::collections::BTreeMap;
use std::io;

use strum::VariantArray;

use super::answers::{Printer, beside, incomplete};
use super::csv;
use super::screen::{BAD, DIM, PLAIN};
use super::table::{self, Cell, Cut, Steps};
use super::text::{clean, width};
use super::units;
use super::{Output, write_json};
use crate::event::Outcome;
use crate::query::series::{Point, Series};
use crate::query::top::{Group, Key, Top, TopBy};

/// What gives way on a narrow terminal.
const GROUP_STEPS: Steps = &[(3, 30), (0, 30), (3, 17), (4, 8), (3, 0), (0, 12), (4, 0)];
const POINT_STEPS: Steps = &[(3, 20), (4, 0), (3, 0)];
/// Columns of the longest bar, of a screen.
const BAR_PART: usize = 4;

impl Printer<'_> {
    /// The groups with the most records.
    pub fn top(&mut self, top: &Top, output: Output) -> io::Result<()> {
        match output {
            Output::Table => self.top_table(top),
            Output::Json => write_json(self.out, top, true),
            Output::Jsonl => {
                top.groups.iter().try_for_each(|g| write_json(self.out, g, false))?;
                self.top_beside(top)
            }
            Output::Csv => {
                writeln!(self.out, "key,label,count,unsuccessful,first,last,{}", outcome_titles())?;
                top.groups.iter().try_for_each(|g| {
                    let fields = [
                        key(&g.key),
                        csv::known(g.label.as_ref()),
                        g.count.to_string(),
                        g.unsuccessful.to_string(),
                        csv::time(g.first),
                        csv::time(g.last),
                    ];
                    let outcomes = outcome_fields(&g.by_outcome);
                    writeln!(self.out, "{},{outcomes}", csv::line(fields))
                })?;
                self.top_beside(top)
            }
        }
    }

    /// What a reader of single groups must know of the answer.
    fn top_beside(&mut self, top: &Top) -> io::Result<()> {
        let more = (top.others > 0 || !top.exact).then(|| totals(top));
        beside(self.out, more.into_iter().chain(incomplete(&top.accounting, &self.clock)))
    }

    fn top_table(&mut self, top: &Top) -> io::Result<()> {
        if top.groups.is_empty() {
            self.nothing(top.newest_outside_window)?;
        } else {
            let by = top.by.to_string().replace('_', " ").to_uppercase();
            let titles = [by.as_str(), "COUNT", "UNSUCCESSFUL", "OUTCOMES", "LATEST"];
            let rows: Vec<_> = top.groups.iter().map(|g| self.group_cells(g, top.by)).collect();
            table::write(self.out, &self.screen, &titles, &rows, GROUP_STEPS)?;
        }
        writeln!(self.out, "{}", self.screen.paint(&totals(top), DIM))?;
        self.incomplete(&top.accounting)
    }

    fn group_cells(&self, group: &Group, by: TopBy) -> Vec<Cell> {
        let (name, first) = name(group, by);
        vec![
            Cell::plain(name).cut(Cut::After(first)),
            Cell::plain(units::count(group.count)),
            unsuccessful(group.unsuccessful),
            Cell::plain(outcomes_worst_first(&group.by_outcome)).cut(Cut::Parts),
            Cell::new(self.clock.short(group.last), DIM),
        ]
    }

    /// Attempts by step of time.
    pub fn series(&mut self, series: &Series, output: Output) -> io::Result<()> {
        match output {
            Output::Table => self.series_table(series),
            Output::Json => write_json(self.out, series, true),
            Output::Jsonl => {
                series.points.iter().try_for_each(|p| write_json(self.out, p, false))?;
                beside(self.out, incomplete(&series.accounting, &self.clock))
            }
            Output::Csv => {
                writeln!(self.out, "time,count,unsuccessful,{}", outcome_titles())?;
                series.points.iter().try_for_each(|p| {
                    let (time, outcomes) = (csv::time(p.time), outcome_fields(&p.by_outcome));
                    writeln!(self.out, "{time},{},{},{outcomes}", p.count, p.unsuccessful)
                })?;
                beside(self.out, incomplete(&series.accounting, &self.clock))
            }
        }
    }

    fn series_table(&mut self, series: &Series) -> io::Result<()> {
        if series.total == 0 {
            self.nothing(series.newest_outside_window)?;
            return self.incomplete(&series.accounting);
        }
        let most = series.points.iter().map(|p| p.count).max().unwrap_or(0);
        let rows: Vec<_> = series.points.iter().map(|p| self.point_cells(p, most)).collect();
        let titles = ["TIME", "COUNT", "UNSUCCESSFUL", "OUTCOMES", ""];
        table::write(self.out, &self.screen, &titles, &rows, POINT_STEPS)?;
        let step = units::duration(series.step_ms.saturating_mul(1_000));
        let total = units::counted(series.total, "attempt", "attempts");
        let total = format!("{total} in steps of {step}");
        writeln!(self.out, "{}", self.screen.paint(&total, DIM))?;
        self.incomplete(&series.accounting)
    }

    fn point_cells(&self, point: &Point, most: u64) -> Vec<Cell> {
        vec![
            Cell::new(self.clock.short(point.time), DIM),
            Cell::plain(units::count(point.count)),
            unsuccessful(point.unsuccessful),
            Cell::plain(outcomes_worst_first(&point.by_outcome)).cut(Cut::Parts),
            // A bar tells nothing to a program.
            Cell::plain(
                self.screen
                    .width
                    .map_or_else(String::new, |w| bar(point.count, most, w / BAR_PART)),
            ),
        ]
    }
}

/// How many records and groups there are, and how many are not shown.
fn totals(top: &Top) -> String {
    let n = units::count;
    let mut parts = vec![units::counted(top.total, "connection", "connections")];
    match top.distinct {
        Some(groups) => parts.push(units::counted(groups, "group", "groups")),
        None => parts.push("more groups than can be held apart".to_owned()),
    }
    if top.others > 0 {
        parts.push(format!("{} in groups that are not shown", n(top.others)));
    }
    if top.without > 0 {
        parts.push(format!("{} in none", n(top.without)));
    }
    if !top.exact {
        parts.push("a group that is not shown may be larger".to_owned());
    }
    parts.join(", ")
}

/// As much of the id of a container as names it, for people and in filters.
pub fn short_id(id: &str) -> &str {
    let is_long = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    id.get(..12).filter(|_| is_long).unwrap_or(id)
}

/// What a group is called, and how much of that comes before what may be left out:
/// `93.184.215.14 (example.com)`, `shop-web-1 (0123456789ab)`.
pub fn name(group: &Group, by: TopBy) -> (String, usize) {
    let key = key(&group.key);
    let (first, second) = match (&group.label, by) {
        (Some(label), TopBy::Container) => (label.as_str(), Some(short_id(&key))),
        (None, TopBy::Container) => (short_id(&key), None),
        (label, _) => (key.as_str(), label.as_deref()),
    };
    let first = clean(first);
    let text = match second {
        Some(second) => format!("{first} ({})", clean(second)),
        None => first.to_string(),
    };
    (text, width(&first))
}

/// A key as text.
pub fn key(key: &Key) -> String {
    match key {
        Key::Number(number) => number.to_string(),
        Key::Text(text) => text.clone(),
    }
}

/// A figure that is no good news unless it is 0.
pub fn unsuccessful(n: u64) -> Cell {
    Cell::new(units::count(n), if n == 0 { PLAIN } else { BAD })
}

/// `established 12, refused 3`: the most frequent first.
pub fn outcomes(by_outcome: &BTreeMap<Outcome, u64>) -> String {
    let mut counts: Vec<_> = by_outcome.iter().map(|(outcome, n)| (*outcome, *n)).collect();
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    listed(counts)
}

/// `refused 3, established 12`: for a column, which has not always room for all of them.
pub fn outcomes_worst_first(by_outcome: &BTreeMap<Outcome, u64>) -> String {
    listed(worst_first(by_outcome))
}

/// Those that occurred: what failed before what did not, and of each the most frequent first.
pub fn worst_first(by_outcome: &BTreeMap<Outcome, u64>) -> Vec<(Outcome, u64)> {
    let mut counts: Vec<_> =
        by_outcome.iter().map(|(outcome, n)| (*outcome, *n)).filter(|(_, n)| *n > 0).collect();
    counts.sort_by_key(|(outcome, n)| (!outcome.is_unsuccessful(), std::cmp::Reverse(*n)));
    counts
}

fn listed(counts: Vec<(Outcome, u64)>) -> String {
    let some = counts.into_iter().filter(|(_, n)| *n > 0);
    let words: Vec<_> = some.map(|(outcome, n)| format!("{outcome} {}", units::count(n))).collect();
    words.join(", ")
}

fn outcome_titles() -> String {
    Outcome::VARIANTS.iter().map(|outcome| outcome.as_str()).collect::<Vec<_>>().join(",")
}

fn outcome_fields(by_outcome: &BTreeMap<Outcome, u64>) -> String {
    let count = |outcome| by_outcome.get(outcome).copied().unwrap_or(0).to_string();
    Outcome::VARIANTS.iter().map(count).collect::<Vec<_>>().join(",")
}

/// As much of so many columns as `n` is of `most`, to an eighth; what is not nothing is seen.
pub fn bar(n: u64, most: u64, columns: usize) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = u128::from(n) * (columns as u128 * 8) / u128::from(most.max(1));
    let eighths = usize::try_from(eighths).unwrap_or(0).max(usize::from(n > 0));
    "█".repeat(eighths / 8) + PARTS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_figure_and_never_vanishes() {
        assert_eq!(bar(0, 10, 40), "");
        assert_eq!(bar(1, 1_000_000, 40), "▏");
        assert_eq!(bar(10, 10, 40), "█".repeat(40));
        assert_eq!(bar(1, 2, 40), "█".repeat(20));
        assert_eq!(bar(u64::MAX, u64::MAX, 25), "█".repeat(25));
    }

    #[test]
    fn outcomes_come_by_their_number_and_those_that_did_not_occur_not_at_all() {
        let counts = [(Outcome::Established, 3), (Outcome::Refused, 1_200), (Outcome::Reset, 0)];
        assert_eq!(outcomes(&counts.into()), "refused 1,200, established 3");
    }

    #[test]
    fn where_some_may_be_cut_what_failed_comes_first() {
        let counts = [
            (Outcome::Established, 900),
            (Outcome::Refused, 2),
            (Outcome::InProgress, 30),
            (Outcome::TimedOut, 4),
            (Outcome::Reset, 0),
        ];
        let words = "timed_out 4, refused 2, established 900, in_progress 30";
        assert_eq!(outcomes_worst_first(&counts.into()), words);
    }
}
