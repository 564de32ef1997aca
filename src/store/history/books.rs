//! The books of each capture, beside its records: without them nobody could say whether an answer
//! about yesterday is complete.
//!
//! The file `books` has a line for each entry, the CRC-32 of its JSON in hexadecimal digits before
//! it. Figures are written a second after they were read, when their records are in a file: whatever
//! ends the process, the books of its last capture end before what may be missing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::changes::Changes;
use super::directory::Directory;
use crate::accounting::{Counters, Gap};
use crate::store::archive::{Noted, Progress};
use crate::store::evictions::Stretch;
use crate::store::ledger::{Past, Run, Sample};
use crate::store::row::{nanos, wide};
use crate::store::segment::Range;

/// How often figures are written that have changed.
const CHANGED_EVERY: SignedDuration = SignedDuration::from_secs(10);
/// How often it is written that they have not.
const SAME_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// A file that has grown by so much is written anew, with fewer samples of what is long ago.
const GROWTH: u64 = 1 << 20;
/// Samples that are kept in all.
const SAMPLES: usize = 10_000;
/// The largest file that is read: far more than any that is written.
const MAX_FILE: u64 = 64 << 20;
const DAMAGED: &str = "the books of this time are damaged";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    /// A capture began: all figures are zero. If it was the `first`, there is no history of before it.
    /// Its changes have numbers `after` this.
    Started {
        at: Timestamp,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        first: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
    },
    /// Figures of the capture that began last, when everything up to this `change` was in files, which
    /// `stored` attempts were by then.
    Figures {
        at: Timestamp,
        counters: Counters,
        #[serde(default, skip_serializing_if = "is_unknown")]
        change: u64,
        #[serde(default, skip_serializing_if = "is_unknown")]
        stored: u64,
    },
    /// They have not changed until then; the records may have.
    Same {
        at: Timestamp,
        #[serde(default, skip_serializing_if = "is_unknown")]
        change: u64,
        #[serde(default, skip_serializing_if = "is_unknown")]
        stored: u64,
    },
    /// Nothing was watched after the last figures, or, if they are from the files of a process that
    /// had ended without notice, not all since then.
    Ended {
        why: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// Records that were let go, and the times of their attempts.
    Evicted { since: Timestamp, until: Timestamp, records: u64 },
    /// Records of this time may have been lost.
    Damaged { gap: Gap },
    /// Changes that are in no file, as is known by now: the one before them and the last.
    Accounted { changes: Vec<(u64, u64)> },
}

fn is_unknown(change: &u64) -> bool {
    *change == 0
}

/// The file.
#[derive(Debug)]
pub(super) struct Books {
    path: PathBuf,
    unfinished: PathBuf,
    /// None where it cannot be written.
    file: Option<File>,
    bytes: u64,
    bytes_when_new: u64,
    max_age: Option<Duration>,
    /// There was nothing before the capture of this process.
    is_new: bool,
    past: Arc<Past>,
    evicted: Vec<Stretch>,
    /// Changes that need be in no file any more.
    accounted: Changes,
    /// The capture of this process, once it has begun.
    current: Option<Run>,
    written: Timestamp,
    /// What the disk said last; told once.
    trouble: Option<String>,
}

impl Books {
    /// What an earlier process left.
    pub(super) fn read(directory: &Directory) -> Contents {
        read(&directory.books()).unwrap_or_else(|error| {
            let damage = Some(format!("{error}; the time before is a gap"));
            Contents { damage, ..Contents::default() }
        })
    }

    /// Goes on with what there was; `is_new` if there are no records. What it says of evictions is for
    /// whoever keeps those.
    pub(super) fn open(
        directory: &Directory,
        contents: Contents,
        max_age: Option<Duration>,
        is_new: bool,
    ) -> Self {
        let path = directory.books();
        let mut books = Books {
            path,
            unfinished: directory.unfinished_books(),
            file: None,
            bytes: 0,
            bytes_when_new: 0,
            max_age,
            is_new: is_new && contents.past.runs.is_empty() && contents.damage.is_none(),
            past: Arc::new(contents.past),
            evicted: contents.evicted,
            accounted: contents.accounted,
            current: None,
            written: Timestamp::MIN,
            trouble: None,
        };
        books.write_anew(Timestamp::now());
        books
    }

    pub(super) fn past(&self) -> &Arc<Past> {
        &self.past
    }

    pub(super) fn evicted(&self) -> &[Stretch] {
        &self.evicted
    }

    /// Notes that files were found damaged at the start, so that records of this time are lost.
    pub(super) fn damaged(&mut self, gap: Gap) {
        Arc::make_mut(&mut self.past).damage.push(gap.clone());
        self.write(&[Entry::Damaged { gap }]);
    }

    /// Notes records that were let go. All that are known are given, too, since the file may be
    /// written anew.
    pub(super) fn let_go(
        &mut self,
        times: Range<i64>,
        records: u64,
        changes: (u64, u64),
        all: Vec<Stretch>,
    ) {
        self.evicted = all;
        self.accounted.add(changes);
        let (since, until) = (wide(times.min), wide(times.max));
        let changes = vec![changes];
        self.write(&[Entry::Evicted { since, until, records }, Entry::Accounted { changes }]);
    }

    /// Notes that changes are in no file, and why nothing is missing for that, or what is.
    pub(super) fn account(&mut self, changes: (u64, u64)) {
        self.accounted.add(changes);
        self.write(&[Entry::Accounted { changes: vec![changes] }]);
    }

    /// Notes figures of which all records are safe.
    pub(super) fn note(&mut self, noted: &Noted) {
        if self.current.as_ref().is_some_and(|run| run.why.is_some()) {
            // It has ended.
            return;
        }
        let begins = self.current.is_none();
        let run = self.current.get_or_insert_with(|| Run {
            after: Some(noted.after),
            ..Run::new(noted.start, self.is_new)
        });
        let Some(last) = run.samples.last_mut() else { return };
        let at = noted.at.max(last.last);
        let changed = last.counters != noted.counters;
        let urgent = incomplete(&last.counters) != incomplete(&noted.counters);
        let age = at.duration_since(self.written.min(at));
        let due = if changed { age >= CHANGED_EVERY || urgent } else { age >= SAME_EVERY };
        if !(begins || due || noted.ended.is_some()) {
            return;
        }
        let mut entries = Vec::new();
        if begins {
            entries.push(Entry::Started { at: run.start, first: run.is_first, after: run.after });
        }
        let progress = noted.progress;
        let Progress { change, attempts: stored } = progress;
        if changed {
            run.samples.push(Sample { progress, ..Sample::new(at, noted.counters) });
            entries.push(Entry::Figures { at, counters: noted.counters, change, stored });
        } else {
            (last.last, last.progress) = (at, progress);
            entries.push(Entry::Same { at, change, stored });
        }
        if let Some(why) = &noted.ended {
            run.why = Some(why.clone());
            entries.push(Entry::Ended { why: why.clone(), since: None });
        }
        self.written = at;
        self.write(&entries);
    }

    /// Notes that the capture of this process ends, and that its records are in no file since the last
    /// figures.
    pub(super) fn break_off(&mut self, why: &str) {
        let Some(run) = self.current.as_mut().filter(|run| run.why.is_none()) else { return };
        (run.why, run.whole_until) = (Some(why.to_owned()), Some(run.end()));
        let entry = Entry::Ended { why: why.to_owned(), since: run.whole_until };
        self.write(&[entry]);
    }

    fn write(&mut self, entries: &[Entry]) {
        if self.file.is_none() || self.bytes > self.bytes_when_new + GROWTH {
            // With what is to be written, which is in memory.
            return self.write_anew(Timestamp::now());
        }
        let text: String = entries.iter().filter_map(line).collect();
        let Some(file) = &mut self.file else { return };
        match file.write_all(text.as_bytes()) {
            Ok(()) => self.bytes += text.len() as u64,
            Err(error) => {
                // It may have a part of a line: what comes next is written to another file.
                self.file = None;
                self.tell(&error);
            }
        }
    }

    /// Writes all of it to another file, which takes its place.
    fn write_anew(&mut self, now: Timestamp) {
        let oldest = self.max_age.and_then(|age| now.checked_sub(age).ok());
        let text = self.text(oldest, now);
        match self.replace(&text) {
            Ok(file) => {
                self.file = Some(file);
                self.bytes = text.len() as u64;
                self.bytes_when_new = self.bytes;
                if self.trouble.take().is_some() {
                    tracing::info!("{}: the books go on", self.path.display());
                }
            }
            Err(error) => self.tell(&error),
        }
    }

    fn replace(&self, text: &str) -> io::Result<File> {
        // What an earlier try left, whoever it belongs to now.
        match fs::remove_file(&self.unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create_new(true).mode(0o600).open(&self.unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&self.unfinished, &self.path)?;
        Ok(file)
    }

    fn tell(&mut self, error: &io::Error) {
        let path = self.path.display();
        if self.trouble.replace(error.to_string()).is_none() {
            tracing::error!("{path}: the books cannot be kept, history goes on: {error}");
        }
    }

    /// The whole of it, in fewer samples the longer ago they are; what is older than this goes.
    fn text(&mut self, oldest: Option<Timestamp>, now: Timestamp) -> String {
        let mut past = Past::clone(&self.past);
        if let Some(oldest) = oldest {
            let is_whole = past.whole_since().is_some();
            past.runs.retain(|run| run.end() >= oldest);
            // Of what is lacking from the time of a run that is known, as long as that is.
            let known = past.runs.iter().chain(&self.current).map(|run| run.start).min();
            let known = known.map_or(oldest, |start| start.min(oldest));
            past.damage.retain(|gap| gap.until >= known);
            self.evicted.retain(|stretch| stretch.times.max >= nanos(known));
            // History of before it is as old, and gone.
            if let Some(first) = past.runs.first_mut().or(self.current.as_mut()) {
                first.is_first |= is_whole;
            }
        }
        thin(&mut past.runs, self.current.as_mut(), now);
        let oldest_change = past.runs.iter().chain(&self.current).find_map(|run| run.after);
        self.accounted.forget_before(oldest_change.unwrap_or(0));
        let mut text = String::new();
        past.runs.iter().chain(&self.current).for_each(|run| add_run(&mut text, run));
        for gap in &past.damage {
            text.extend(line(&Entry::Damaged { gap: gap.clone() }));
        }
        for Stretch { times, records } in &self.evicted {
            let (since, until) = (wide(times.min), wide(times.max));
            text.extend(line(&Entry::Evicted { since, until, records: *records }));
        }
        let changes: Vec<_> = self.accounted.ranges().collect();
        if !changes.is_empty() {
            text.extend(line(&Entry::Accounted { changes }));
        }
        text
    }
}

/// What makes an answer incomplete.
fn incomplete(counters: &Counters) -> (u64, u64, u64) {
    (counters.lost.total(), counters.updates_lost, counters.missed)
}

fn add_run(text: &mut String, run: &Run) {
    text.extend(line(&Entry::Started { at: run.start, first: run.is_first, after: run.after }));
    for Sample { first, last, counters, progress } in run.samples.iter().copied() {
        let Progress { change, attempts: stored } = progress;
        text.extend(line(&Entry::Figures { at: first, counters, change, stored }));
        if last > first {
            text.extend(line(&Entry::Same { at: last, change, stored }));
        }
    }
    let ended = |why| line(&Entry::Ended { why, since: run.whole_until });
    text.extend(run.why.clone().and_then(ended));
}

/// Leaves out samples: the longer ago, the more. The first and the last of a capture stay, and the
/// figures are running totals, so that nothing is lost but the moment at which something was counted.
fn thin(runs: &mut Vec<Run>, mut current: Option<&mut Run>, now: Timestamp) {
    let mut part = 100.0;
    loop {
        for run in runs.iter_mut().chain(current.as_deref_mut()) {
            thin_run(run, now, part);
        }
        let of_now = current.as_ref().map_or(0, |run| run.samples.len());
        let samples: usize = runs.iter().map(|run| run.samples.len()).sum();
        if samples + of_now <= SAMPLES {
            return;
        }
        if part > 1.0 {
            part /= 2.0;
        } else if runs.is_empty() {
            return;
        } else {
            runs.drain(..runs.len().div_ceil(4));
        }
    }
}

fn thin_run(run: &mut Run, now: Timestamp, part: f64) {
    let Some(last) = run.samples.last().copied() else { return };
    let mut kept: Option<Timestamp> = None;
    run.samples.retain(|sample| {
        let age = now.duration_since(sample.first).as_secs_f64();
        let step = (age / part).max(CHANGED_EVERY.as_secs_f64());
        let far = kept.is_none_or(|kept| sample.first.duration_since(kept).as_secs_f64() >= step);
        let keep = far || *sample == last;
        if keep {
            kept = Some(sample.first);
        }
        keep
    });
}

/// An entry as it is written. Nothing in an entry can fail to become JSON.
fn line(entry: &Entry) -> Option<String> {
    let json = serde_json::to_string(entry).ok()?;
    Some(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())))
}

/// The entry of a line, if that is as it was written.
fn parse(line: &[u8]) -> Option<Entry> {
    let (crc, json) = line.split_at_checked(9)?;
    let (crc, space) = crc.split_at(8);
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
    let whole = space == b" " && crc == crc32fast::hash(json);
    whole.then(|| serde_json::from_slice(json).ok()).flatten()
}

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) past: Past,
    evicted: Vec<Stretch>,
    pub(super) accounted: Changes,
    /// What is wrong with it, if anything is.
    pub(super) damage: Option<String>,
}

fn read(path: &Path) -> io::Result<Contents> {
    let bytes = match fs::metadata(path) {
        Ok(file) if !file.is_file() => return Err(io::Error::other("it is no regular file")),
        Ok(file) if file.len() > MAX_FILE => {
            return Err(io::Error::other("it is larger than any that is written"));
        }
        Ok(_) => fs::read(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(understand(&bytes))
}

/// What the lines say. After the last one there may be a part of another, which was being written
/// when the process ended; any other that is not as it was written makes the time before a gap.
fn understand(bytes: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let mut damaged = 0_u64;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else {
            damaged += u64::from(!line.iter().take(8).all(u8::is_ascii_hexdigit));
            break;
        };
        match parse(line) {
            Some(entry) => contents.add(entry),
            None => damaged += 1,
        }
    }
    if damaged > 0 {
        contents.damage = Some(format!("lines that are not as they were written: {damaged}"));
    }
    let Past { runs, damage } = &mut contents.past;
    runs.retain(|run| !run.samples.is_empty());
    if damaged > 0
        && let (Some(first), Some(last)) = (runs.first(), runs.last())
    {
        damage.push(Gap { since: first.start, until: last.end(), why: DAMAGED.to_owned() });
    }
    contents
}

impl Contents {
    fn add(&mut self, entry: Entry) {
        let runs = &mut self.past.runs;
        match entry {
            Entry::Started { at, first, after } => {
                runs.push(Run { after, ..Run::new(at, first) });
            }
            Entry::Figures { at, counters, change, stored } => {
                if runs.is_empty() {
                    // The line of its start is damaged.
                    runs.push(Run::new(at, false));
                }
                if let Some(run) = runs.last_mut() {
                    // The clock may have been set back within a capture.
                    let at = at.max(run.end());
                    let progress = Progress { change, attempts: stored };
                    match run.samples.last_mut() {
                        Some(last) if last.counters == counters => {
                            (last.last, last.progress) = (at, progress);
                        }
                        _ => run.samples.push(Sample { progress, ..Sample::new(at, counters) }),
                    }
                }
            }
            Entry::Same { at, change, stored } => {
                if let Some(last) = runs.last_mut().and_then(|run| run.samples.last_mut()) {
                    let progress = Progress { change, attempts: stored };
                    (last.last, last.progress) = (at.max(last.last), progress);
                }
            }
            Entry::Ended { why, since } => {
                if let Some(run) = runs.last_mut() {
                    (run.why, run.whole_until) = (Some(why), since);
                }
            }
            Entry::Evicted { since, until, records } => {
                let times = Range { min: nanos(since), max: nanos(until) };
                self.evicted.push(Stretch { times, records });
            }
            Entry::Damaged { gap } => self.past.damage.push(gap),
            Entry::Accounted { changes } => changes.into_iter().for_each(|c| self.accounted.add(c)),
        }
    }
}

#[cfg(test)]
mod tests;
