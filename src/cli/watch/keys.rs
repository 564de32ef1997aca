//! Keys that are pressed while lines go by.
//!
//! The terminal stays as a shell left it but for two things: keys come at once, and are not shown.
//! Ctrl-C and Ctrl-Z remain signals, and lines scroll as ever.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// The end of a line.
    Enter,
    /// The character before goes.
    Backspace,
    /// The whole line goes (Ctrl-U).
    Clear,
    /// Out of this.
    Escape,
}

/// The keys of the terminal that lines are shown on.
#[derive(Debug)]
pub struct Keys {
    /// Nothing of it is special to pipes; it waits for whatever can be waited for.
    terminal: Receiver,
    before: Termios,
    /// A shell that continues this process has set the terminal its own way.
    continued: Signal,
}

impl Keys {
    /// `None` where nobody can press any: standard input or output is no terminal, or this runs in
    /// the background.
    pub fn open() -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return None;
        }
        // Opened anew, so that the shell's own descriptor goes on to block.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = File::from(rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()?);
        if !is_in_foreground(&terminal) {
            return None;
        }
        let before = tcgetattr(&terminal).ok()?;
        let continued =
            signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw())).ok()?;
        let keys =
            Keys { terminal: Receiver::from_file_unchecked(terminal).ok()?, before, continued };
        keys.take().ok()?;
        Some(keys)
    }

    fn take(&self) -> io::Result<()> {
        let mut modes = self.before.clone();
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        Ok(tcsetattr(&self.terminal, OptionalActions::Now, &modes)?)
    }

    /// The next keys; never returns once the terminal is gone.
    pub async fn next(&mut self) -> Vec<Key> {
        loop {
            let read = tokio::select! {
                _ = self.continued.recv() => {
                    if is_in_foreground(&self.terminal) {
                        let _ = self.take();
                    }
                    continue;
                }
                read = read(&self.terminal) => read,
            };
            match read {
                Ok(bytes) if !bytes.is_empty() => return decode(&bytes),
                _ => std::future::pending::<()>().await,
            }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // Setting a terminal from the background would stop the process.
        if is_in_foreground(&self.terminal) {
            let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
        }
    }
}

async fn read(terminal: &Receiver) -> io::Result<Vec<u8>> {
    let mut bytes = [0; 256];
    loop {
        terminal.readable().await?;
        if !is_in_foreground(terminal) {
            // What is typed while this runs in the background is for another program.
            std::future::pending::<()>().await;
        }
        match terminal.try_read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return Ok(bytes.get(..read?).unwrap_or_default().to_vec()),
        }
    }
}

fn is_in_foreground(terminal: &impl AsFd) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp())
}

/// What was typed. A key that sends an escape sequence (an arrow) is none of these.
fn decode(bytes: &[u8]) -> Vec<Key> {
    if let [0x1b, _, ..] = bytes {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(bytes);
    let key = |c: char| match c {
        '\r' | '\n' => Some(Key::Enter),
        '\u{8}' | '\u{7f}' => Some(Key::Backspace),
        '\u{15}' => Some(Key::Clear),
        '\u{1b}' => Some(Key::Escape),
        c if c.is_control() => None,
        c => Some(Key::Char(c)),
    };
    text.chars().filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_keys_and_an_arrow_is_none() {
        assert_eq!(decode("/ä\r".as_bytes()), [Key::Char('/'), Key::Char('ä'), Key::Enter]);
        assert_eq!(decode(b"\x1b"), [Key::Escape]);
        assert_eq!(decode(b"\x1b[A"), []);
        assert_eq!(decode(b"\x7f\x15\x00"), [Key::Backspace, Key::Clear]);
    }
}
