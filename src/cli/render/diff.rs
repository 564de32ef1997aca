//! What is new, gone and changed, in every form of [`Output`].

use std::io;

use super::answers::{Printer, beside, incomplete};
use super::csv;
use super::groups::outcomes_worst_first;
use super::record::flow;
use super::screen::{BAD, DIM, GOOD, ODD, TITLE};
use super::table::{self, Cell, Cut, Steps};
use super::units;
use super::{Output, write_json};
use crate::query::diff::{Diff, Difference, Differences, Seen};

const TITLES: [&str; 5] = ["", "WHAT", "BEFORE", "NOW", "OUTCOMES"];
/// Said where the windows that were asked for overlap.
const CUT: &str = "The two times overlap: the one before is cut where the other begins.";
/// What gives way on a narrow terminal.
const STEPS: Steps = &[(4, 25), (1, 30), (4, 17), (4, 0), (1, 15)];

impl Printer<'_> {
    /// What differs between two windows.
    pub fn diff(&mut self, diff: &Diff, output: Output) -> io::Result<()> {
        match output {
            Output::Table => self.diff_table(diff),
            Output::Json => write_json(self.out, diff, true),
            Output::Jsonl => {
                for (kind, differences) in kinds(diff) {
                    for (change, difference) in changes(differences) {
                        write_json(self.out, &Line { kind, change, difference }, false)?;
                    }
                }
                self.diff_beside(diff)
            }
            Output::Csv => {
                writeln!(
                    self.out,
                    "kind,change,process,remote,port,before,before_unsuccessful,now,now_unsuccessful"
                )?;
                for (kind, differences) in kinds(diff) {
                    for (change, difference) in changes(differences) {
                        writeln!(self.out, "{kind},{}", csv(change, difference))?;
                    }
                }
                self.diff_beside(diff)
            }
        }
    }

    /// What a reader of single differences must know of the answer.
    fn diff_beside(&mut self, diff: &Diff) -> io::Result<()> {
        let hidden = kinds(diff).into_iter().filter(|(_, differences)| hidden(differences) > 0);
        let hidden = hidden.map(|(kind, differences)| {
            format!("{kind}: {} more; --limit shows them", units::count(self::hidden(differences)))
        });
        let books = [("Before", &diff.compared_with.accounting), ("Now", &diff.accounting)];
        let books = books.into_iter().filter_map(|(when, books)| {
            Some(format!("{when}: {}", incomplete(books, &self.clock)?))
        });
        let cut = diff.compared_with.cut.then(|| CUT.to_owned());
        beside(self.out, cut.into_iter().chain(hidden).chain(books))
    }

    fn diff_table(&mut self, diff: &Diff) -> io::Result<()> {
        let mut side = |name: &str, total: u64, window: &crate::query::Window| {
            let (since, until) = (self.clock.short(window.since), self.clock.short(window.until));
            let total = units::counted(total, "attempt", "attempts");
            writeln!(self.out, "{name:<7} {since} to {until}: {total}")
        };
        side("Before", diff.compared_with.total, &diff.compared_with.window)?;
        side("Now", diff.total, &diff.window)?;
        if diff.compared_with.cut {
            writeln!(self.out, "{}", self.screen.paint(CUT, ODD))?;
        }
        for (kind, differences) in kinds(diff) {
            let d = differences;
            let n = units::count;
            let title = format!(
                "{}: {} new, {} gone, {} changed, {} as before",
                kind,
                n(d.new_total),
                n(d.gone_total),
                n(d.changed_total),
                n(d.same)
            );
            writeln!(self.out, "\n{}", self.screen.paint(&title, TITLE))?;
            let rows: Vec<_> = changes(d).map(|(change, what)| cells(change, what)).collect();
            if !rows.is_empty() {
                table::write(self.out, &self.screen, &TITLES, &rows, STEPS)?;
            }
            if hidden(d) > 0 {
                let more = format!("{} more; --limit shows them", n(hidden(d)));
                writeln!(self.out, "{}", self.screen.paint(&more, DIM))?;
            }
            if d.left_out > 0 {
                let more = format!("{} attempts were too many to tell apart", n(d.left_out));
                writeln!(self.out, "{}", self.screen.paint(&more, ODD))?;
            }
        }
        let before = &diff.compared_with.accounting;
        if !before.complete || !diff.accounting.complete {
            writeln!(self.out)?;
        }
        if !before.complete {
            write!(self.out, "Before: ")?;
            self.incomplete(before)?;
        }
        if !diff.accounting.complete {
            write!(self.out, "Now: ")?;
            self.incomplete(&diff.accounting)?;
        }
        Ok(())
    }
}

fn kinds(diff: &Diff) -> [(&'static str, &Differences); 3] {
    [("processes", &diff.processes), ("remotes", &diff.remotes), ("flows", &diff.flows)]
}

/// One difference as a line of JSON.
#[derive(serde::Serialize)]
struct Line<'a> {
    kind: &'static str,
    change: &'static str,
    #[serde(flatten)]
    difference: &'a Difference,
}

/// How many differences are not shown.
fn hidden(d: &Differences) -> u64 {
    let shown = (d.new.len() + d.gone.len() + d.changed.len()) as u64;
    (d.new_total + d.gone_total + d.changed_total).saturating_sub(shown)
}

fn changes(differences: &Differences) -> impl Iterator<Item = (&'static str, &Difference)> {
    let named = |name| move |difference| (name, difference);
    let new = differences.new.iter().map(named("new"));
    let gone = differences.gone.iter().map(named("gone"));
    new.chain(gone).chain(differences.changed.iter().map(named("changed")))
}

fn cells(change: &'static str, d: &Difference) -> Vec<Cell> {
    let style = match change {
        "new" => GOOD,
        "gone" => DIM,
        _ => ODD,
    };
    let figure = |seen: &Seen| match seen.unsuccessful {
        0 => Cell::plain(units::count(seen.count)),
        bad => Cell::new(format!("{} ({} bad)", units::count(seen.count), units::count(bad)), BAD),
    };
    let seen = if d.after.count > 0 { &d.after } else { &d.before };
    vec![
        Cell::new(change, style),
        Cell::plain(flow(d.process.as_deref(), d.remote, d.port)),
        figure(&d.before),
        figure(&d.after),
        Cell::plain(outcomes_worst_first(&seen.by_outcome)).cut(Cut::Parts),
    ]
}

fn csv(change: &str, d: &Difference) -> String {
    csv::line([
        change.to_owned(),
        csv::known(d.process.as_ref()),
        csv::known(d.remote),
        csv::known(d.port),
        d.before.count.to_string(),
        d.before.unsuccessful.to_string(),
        d.after.count.to_string(),
        d.after.unsuccessful.to_string(),
    ])
}
