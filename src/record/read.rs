//! Reading a recording, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::{FORMAT, Footer, Header, MAX_LINE, RecordError};
use crate::accounting::Accounting;
use crate::event::Connection;

/// Reads a recording: an iterator of its records. After a [`RecordError::BadLine`] it goes on
/// with the next line; any other error is the last item.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    header: Header,
    footer: Option<Accounting>,
    line: u64,
    ended: bool,
    buffer: Vec<u8>,
}

/// What was read of a line.
enum Line {
    Whole,
    /// Without the line feed at its end: the file ends here.
    Last,
    TooLong,
    End,
}

impl Reader<BufReader<File>> {
    /// Opens a file and reads its first line.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let open = |source| RecordError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(open)?;
        // Opening a directory works; reading it is what fails, with a message that helps nobody.
        if file.metadata().map_err(open)?.is_dir() {
            return Err(open(std::io::ErrorKind::IsADirectory.into()));
        }
        Reader::new(BufReader::with_capacity(256 * 1024, file))
            .map_err(|error| RecordError::File { path: path.to_owned(), error: Box::new(error) })
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line.
    pub fn new(mut input: R) -> Result<Self, RecordError> {
        let mut buffer = Vec::new();
        let not = |why: &str| RecordError::NotARecording { why: why.to_owned() };
        match read_line(&mut input, &mut buffer) {
            Err(source) => return Err(RecordError::Read { line: 0, source }),
            Ok(Line::End) => return Err(RecordError::Empty),
            Ok(Line::TooLong) => return Err(not("its first line has no end")),
            Ok(Line::Whole | Line::Last) => {}
        }
        #[derive(serde::Deserialize)]
        struct Version {
            netspy_recording: u32,
        }
        // The version first: the other members of a later one may differ.
        let version: Version = serde_json::from_slice(&buffer)
            .map_err(|_| not("its first line is not {\"netspy_recording\":1,…}"))?;
        if version.netspy_recording != FORMAT {
            return Err(RecordError::Version { found: version.netspy_recording });
        }
        let header = serde_json::from_slice(&buffer)
            .map_err(|error| not(&format!("its first line is incomplete: {error}")))?;
        Ok(Reader { input, header, footer: None, line: 1, ended: false, buffer })
    }

    /// The first line.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The books, once everything was read; `None` if the recording was not finished.
    pub fn accounting(&self) -> Option<&Accounting> {
        self.footer.as_ref()
    }

    fn parse(&mut self, complete: bool) -> Option<Result<Connection, RecordError>> {
        let why = match serde_json::from_slice(&self.buffer) {
            Ok(connection) => return Some(Ok(connection)),
            Err(error) => error,
        };
        if let Ok(footer) = serde_json::from_slice::<Footer>(&self.buffer) {
            self.footer = Some(footer.netspy_accounting);
            return None;
        }
        let line = self.line;
        self.ended |= !complete;
        Some(Err(match complete {
            true => RecordError::BadLine { line, why: why.to_string() },
            false => RecordError::Torn { line },
        }))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Connection, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let read = match read_line(&mut self.input, &mut self.buffer) {
                Ok(Line::End) => break,
                Ok(read) => read,
                Err(source) => {
                    self.ended = true;
                    return Some(Err(RecordError::Read { line: self.line, source }));
                }
            };
            self.line += 1;
            if matches!(read, Line::TooLong) {
                let why = format!("it is longer than {MAX_LINE} bytes");
                return Some(Err(RecordError::BadLine { line: self.line, why }));
            }
            if self.buffer.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if let Some(item) = self.parse(matches!(read, Line::Whole)) {
                return Some(item);
            }
        }
        self.ended = true;
        None
    }
}

/// Reads a line into the buffer; of one that is too long it skips the rest.
fn read_line(input: &mut impl BufRead, buffer: &mut Vec<u8>) -> std::io::Result<Line> {
    buffer.clear();
    let limit = MAX_LINE as u64 + 1;
    if input.by_ref().take(limit).read_until(b'\n', buffer)? == 0 {
        return Ok(Line::End);
    }
    if buffer.ends_with(b"\n") {
        return Ok(Line::Whole);
    }
    if buffer.len() as u64 != limit {
        return Ok(Line::Last);
    }
    loop {
        buffer.clear();
        let read = input.by_ref().take(limit).read_until(b'\n', buffer)?;
        if read == 0 || buffer.ends_with(b"\n") {
            return Ok(Line::TooLong);
        }
    }
}
