//! Server-Sent Events, read piece by piece (WHATWG HTML, section 9.2.6).

/// One event of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// `id:` of this event, or the last one before it.
    pub id: Option<String>,
    /// `event:`; `None` where the server named none.
    pub name: Option<String>,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
}

/// An event or a line was larger than any that a server of this project sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {} bytes", Parser::LIMIT)]
pub struct TooLarge;

/// Takes bytes as they come and yields the events that are complete.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte was a CR: a LF that follows belongs to it.
    after_cr: bool,
    started: bool,
    last_id: Option<String>,
    name: Option<String>,
    data: Option<String>,
}

impl Parser {
    /// Largest event in bytes.
    pub const LIMIT: usize = 1 << 20;

    /// Adds bytes; complete events are appended to `events`.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLarge> {
        let mut rest = bytes;
        if self.after_cr && rest.first() == Some(&b'\n') {
            rest = &rest[1..];
        }
        if !bytes.is_empty() {
            self.after_cr = false;
        }
        while let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            self.extend(&rest[..end])?;
            let cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            match rest.first() {
                Some(b'\n') if cr => rest = &rest[1..],
                None if cr => self.after_cr = true,
                _ => {}
            }
            self.end_line(events)?;
        }
        self.extend(rest)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        if self.line.len() + bytes.len() > Self::LIMIT {
            return Err(TooLarge);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<Event>) -> Result<(), TooLarge> {
        let taken = std::mem::take(&mut self.line);
        let mut line = taken.as_slice();
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                events.push(Event { id: self.last_id.clone(), name: self.name.take(), data });
            }
            self.name = None;
        } else {
            self.field(&String::from_utf8_lossy(line))?;
        }
        // Keeps the buffer's room for the next line.
        self.line = taken;
        self.line.clear();
        Ok(())
    }

    fn field(&mut self, line: &str) -> Result<(), TooLarge> {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
            "event" => self.name = Some(value.to_owned()),
            "data" => match &mut self.data {
                None => self.data = Some(value.to_owned()),
                Some(data) if data.len() + value.len() > Self::LIMIT => return Err(TooLarge),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            // Comments (an empty field name), `retry` and fields of the future.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: Option<&str>, name: Option<&str>, data: &str) -> Event {
        Event { id: id.map(Into::into), name: name.map(Into::into), data: data.to_owned() }
    }

    fn parse(pieces: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut events).unwrap();
        }
        events
    }

    const STREAM: &str = "\u{feff}: hello\n\nid: 1\nevent: connection\ndata: {\"a\":\ndata: 1}\n\n\
                          retry: 5\ndata:x\n\nevent: nothing\n\nid\ndata\n\n: ping\n\ndata: cut";

    #[test]
    fn events_are_the_same_wherever_the_pieces_are_cut() {
        let expected = vec![
            event(Some("1"), Some("connection"), "{\"a\":\n1}"),
            event(Some("1"), None, "x"),
            event(Some(""), None, ""),
        ];
        for ends in ["\n", "\r\n", "\r"] {
            let text = STREAM.replace('\n', ends);
            let bytes = text.as_bytes();
            assert_eq!(parse(&[bytes]), expected, "{ends:?}");
            for cut in 0..bytes.len() {
                assert_eq!(parse(&[&bytes[..cut], &bytes[cut..]]), expected, "{ends:?} {cut}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(parse(&single), expected, "{ends:?}");
        }
    }

    #[test]
    fn an_empty_piece_between_cr_and_lf_makes_no_second_line() {
        assert_eq!(parse(&[b"data: a\r", b"", b"\ndata: b\r\n\r\n"]), [event(None, None, "a\nb")]);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_end_the_stream() {
        assert_eq!(parse(&[b"data: a\xff\n\n"]), [event(None, None, "a\u{fffd}")]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        let piece = [b'x'; 4096];
        let mut result = Ok(());
        for _ in 0..=Parser::LIMIT / piece.len() {
            result = parser.push(&piece, &mut events);
        }
        assert_eq!(result, Err(TooLarge));
    }
}
