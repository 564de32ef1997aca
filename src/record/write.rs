//! Writing a recording.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Footer, Header, RecordError};
use crate::accounting::Accounting;
use crate::event::Connection;

/// Writes a recording, batch by batch.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: BufWriter<W>,
}

impl Writer<File> {
    /// Makes a file that only its owner can read (command lines are in it). A file that exists is
    /// left alone: it may be all that is left of an incident.
    pub fn create(path: &Path, header: &Header) -> Result<Self, RecordError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|source| RecordError::Create { path: path.to_owned(), source })?;
        Writer::new(file, header)
    }
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    pub fn new(out: W, header: &Header) -> Result<Self, RecordError> {
        let mut writer = Writer { out: BufWriter::with_capacity(256 * 1024, out) };
        writer.line(header)?;
        writer.flush()?;
        Ok(writer)
    }

    /// Adds records, and hands the whole batch on: should the program be killed, no more than the
    /// last batch is missing.
    pub fn write(&mut self, batch: &[Connection]) -> Result<(), RecordError> {
        for connection in batch {
            self.line(connection)?;
        }
        self.flush()
    }

    /// Ends the recording with the books, by which a reader knows that nothing is missing.
    pub fn finish(mut self, accounting: &Accounting) -> Result<(), RecordError> {
        self.line(&Footer { netspy_accounting: accounting.clone() })?;
        self.flush()
    }

    fn line(&mut self, value: &impl serde::Serialize) -> Result<(), RecordError> {
        let written = serde_json::to_writer(&mut self.out, value).map_err(std::io::Error::from);
        written.and_then(|()| self.out.write_all(b"\n")).map_err(RecordError::Write)
    }

    fn flush(&mut self) -> Result<(), RecordError> {
        self.out.flush().map_err(RecordError::Write)
    }
}
