//! What stands out, in every form of [`Output`].

use std::io;

use super::answers::{Printer, beside, incomplete};
use super::csv;
use super::record::flow;
use super::screen::{BAD, DIM, ODD, PLAIN};
use super::text::{self, clean};
use super::units;
use super::{Output, write_json};
use crate::analysis::{Finding, Severity, Subject};
use crate::query::findings::Findings;

/// Records that are named with a finding.
const RECORDS: usize = 3;

impl Printer<'_> {
    /// What stands out among the records.
    pub fn findings(&mut self, findings: &Findings, output: Output) -> io::Result<()> {
        match output {
            Output::Table => self.findings_text(findings),
            Output::Json => write_json(self.out, findings, true),
            Output::Jsonl => {
                findings.findings.iter().try_for_each(|f| write_json(self.out, f, false))?;
                self.findings_beside(findings)
            }
            Output::Csv => {
                let titles = "kind,severity,process,remote,port,first,last,figures,records,why,\
                              next,name,questions";
                writeln!(self.out, "{titles}")?;
                findings.findings.iter().try_for_each(|f| writeln!(self.out, "{}", csv(f)))?;
                self.findings_beside(findings)
            }
        }
    }

    /// What a reader of single findings must know of the answer.
    fn findings_beside(&mut self, findings: &Findings) -> io::Result<()> {
        let books = incomplete(&findings.accounting, &self.clock);
        beside(self.out, more(findings).into_iter().chain(inexact(findings)).chain(books))
    }

    fn findings_text(&mut self, findings: &Findings) -> io::Result<()> {
        let (since, until) = (findings.window.since, findings.window.until);
        let window = format!("{} to {}", self.clock.short(since), self.clock.short(until));
        if findings.findings.is_empty() {
            writeln!(self.out, "Nothing stands out, {window}.")?;
        }
        for finding in &findings.findings {
            self.finding(finding, 0)?;
        }
        if let Some(more) = more(findings) {
            writeln!(self.out, "{}", self.screen.paint(&more, DIM))?;
        }
        self.inexact(findings, 0)?;
        self.incomplete(&findings.accounting)
    }

    /// That findings may be missing, where they may be.
    pub(super) fn inexact(&mut self, findings: &Findings, indent: usize) -> io::Result<()> {
        let Some(warning) = inexact(findings) else { return Ok(()) };
        writeln!(self.out, "{:indent$}{}", "", self.screen.paint(&warning, ODD))
    }

    /// One of them, so many columns from the left.
    pub(super) fn finding(&mut self, finding: &Finding, indent: usize) -> io::Result<()> {
        let style = match finding.severity {
            Severity::Critical => BAD,
            Severity::Warning => ODD,
            Severity::Info => PLAIN,
        };
        let kind = word(&finding.kind).replace('_', " ");
        let severity = word(&finding.severity).to_uppercase();
        let severity = self.screen.paint(&severity, style);
        writeln!(self.out, "{:indent$}{severity} {kind}: {}", "", subject(&finding.subject))?;
        let indent = indent + 2;
        self.lines(&finding.why, indent)?;
        let e = &finding.evidence;
        let figures: Vec<_> =
            e.figures.iter().map(|(name, n)| format!("{name} {}", units::count(*n))).collect();
        let (first, last) = (self.clock.short(e.first), self.clock.short(e.last));
        self.lines(&format!("{}; {first} to {last}", figures.join(", ")), indent)?;
        if !e.records.is_empty() {
            let ids: Vec<_> = e.records.iter().take(RECORDS).map(ToString::to_string).collect();
            self.lines(&format!("netspy show shows them: {}", ids.join(", ")), indent)?;
        }
        if !e.questions.is_empty() {
            self.lines("netspy dns lists the questions, by --process or --host-name", indent)?;
        }
        self.lines(&format!("Next: {}", finding.next), indent)
    }

    /// Indented, wrapped, never cut.
    fn lines(&mut self, words: &str, indent: usize) -> io::Result<()> {
        let room = self.screen.width.unwrap_or(100).saturating_sub(indent).max(20);
        let lines = text::wrap(&clean(words), room);
        lines.iter().try_for_each(|line| writeln!(self.out, "{:indent$}{line}", ""))
    }
}

/// How many are not shown.
fn more(findings: &Findings) -> Option<String> {
    let shown = findings.findings.len() as u64;
    let more = || format!("{shown} of {} findings shown (--limit)", findings.total);
    (findings.total > shown).then(more)
}

fn inexact(findings: &Findings) -> Option<String> {
    let warning = "There was more to tell apart than there is room for: findings may be missing.";
    (!findings.exact).then(|| warning.to_owned())
}

/// As it is written in JSON.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Whom and what it is about.
pub(super) fn subject(subject: &Subject) -> String {
    let name = subject.name.as_deref().map(clean);
    // A name stands for what was asked for, whoever was asked.
    match (&subject.process, subject.remote, name) {
        (_, _, None) => flow(subject.process.as_deref(), subject.remote, subject.port),
        (None, _, Some(name)) => name.into_owned(),
        (Some(process), _, Some(name)) => format!("{} -> {name}", clean(process)),
    }
}

fn csv(f: &Finding) -> String {
    let e = &f.evidence;
    let figures: Vec<_> = e.figures.iter().map(|(name, n)| format!("{name}={n}")).collect();
    let records: Vec<_> = e.records.iter().map(ToString::to_string).collect();
    let questions: Vec<_> = e.questions.iter().map(ToString::to_string).collect();
    csv::line([
        word(&f.kind),
        word(&f.severity),
        csv::known(f.subject.process.as_ref()),
        csv::known(f.subject.remote),
        csv::known(f.subject.port),
        csv::time(e.first),
        csv::time(e.last),
        figures.join(" "),
        records.join(" "),
        f.why.clone(),
        f.next.clone(),
        csv::known(f.subject.name.as_ref()),
        questions.join(" "),
    ])
}
