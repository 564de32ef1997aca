//! Ctrl-C and SIGTERM end a command in order: totals are said, files are whole, hooks detached.

use std::future::pending;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::capture::inherited::Inherited;

/// Waits for the signals that end a command.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves.
    pub fn new() -> io::Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Returns when one of them came.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A signal that is waited for unless it was ignored from the start: then it stays so.
#[derive(Debug)]
pub struct Unignored(Option<Signal>);

impl Unignored {
    /// From here on a signal that is not ignored no longer ends the process by itself.
    pub fn new(kind: SignalKind, inherited: &Inherited) -> io::Result<Self> {
        match inherited.ignores(kind.as_raw_value()) {
            true => Ok(Unignored(None)),
            false => Ok(Unignored(Some(signal(kind)?))),
        }
    }

    /// Returns when it came.
    pub async fn recv(&mut self) {
        match &mut self.0 {
            Some(signal) => drop(signal.recv().await),
            None => pending().await,
        }
    }
}
