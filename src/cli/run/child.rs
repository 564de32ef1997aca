//! The command: how it is started, which signals it gets, and how it ended.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::user::Account;
use crate::capture::inherited::Inherited;
use crate::cli::signals::Unignored;

/// What netspy itself ends with where the command was not run: as env(1), timeout(1) and others
/// have it, so that it is not taken for the command's.
pub const NOT_RUN: u8 = 125;

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// As a shell has it: 128 and the signal, for one that ended it.
    pub code: u8,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        let signal = status.signal();
        let code = status.code().or_else(|| signal.map(|n| n + 128));
        Exit { code: code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX), signal }
    }
}

/// Why the command was not run.
#[derive(Debug, thiserror::Error)]
pub enum NotRun {
    /// There is no such program.
    #[error("cannot run '{}': {error}", .program.display())]
    Program { program: OsString, error: io::Error },
    /// Its user's privileges could not be taken on.
    #[error("cannot run '{}' as {user}: {error}", .program.display())]
    User { program: OsString, user: String, error: io::Error },
    /// netspy itself could not do what it takes.
    #[error("cannot run a command: {0}")]
    Own(#[from] io::Error),
}

impl NotRun {
    /// As shells have it.
    pub fn code(&self) -> u8 {
        match self {
            NotRun::Program { error, .. } if error.kind() == io::ErrorKind::NotFound => 127,
            NotRun::Program { .. } => 126,
            NotRun::User { .. } | NotRun::Own(_) => NOT_RUN,
        }
    }
}

/// The command, running.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pid: Pid,
    ended: oneshot::Receiver<()>,
    signals: Signals,
}

impl Running {
    /// Starts the command with this process's standard streams, in its process group: it gets
    /// what is typed, Ctrl-C included.
    pub fn start(command: &[OsString], user: Option<&Account>) -> Result<Self, NotRun> {
        let inherited = Inherited::read()?;
        // Before there is anything that they could be meant for.
        let signals = Signals::new(&inherited)?;
        let child = spawn(command, user, &inherited)?;
        let pid = Pid::from_child(&child);
        let (tell, ended) = oneshot::channel();
        let wait = move || {
            // Leaves it to be waited for, so that its id is not given to another.
            let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), how), Err(Errno::INTR)) {}
            let _ = tell.send(());
        };
        std::thread::Builder::new().name("netspy-wait".to_owned()).spawn(wait)?;
        Ok(Running { child, pid, ended, signals })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end. Signals that are meant for it are handed on.
    pub async fn wait(mut self) -> io::Result<(Exit, Signals)> {
        loop {
            tokio::select! {
                _ = &mut self.ended => break,
                signal = self.signals.next_for_command() => {
                    // It may have ended just now.
                    let _ = kill_process(self.pid, signal);
                }
            }
        }
        Ok((self.child.wait()?.into(), self.signals))
    }
}

/// In a thread of its own, whose user the command inherits.
fn spawn(
    command: &[OsString],
    user: Option<&Account>,
    inherited: &Inherited,
) -> Result<Child, NotRun> {
    let [program, arguments @ ..] = command else {
        return Err(NotRun::Own(io::ErrorKind::InvalidInput.into()));
    };
    let start = || {
        let mut command = Command::new(program);
        command.args(arguments);
        inherited.give(&mut command);
        if let Some(user) = user {
            let failed =
                |error| NotRun::User { program: program.clone(), user: user.describe(), error };
            user.become_it().map_err(failed)?;
            user.prepare(&mut command);
        }
        command.spawn().map_err(|error| NotRun::Program { program: program.clone(), error })
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, start)?;
        thread.join().unwrap_or_else(|_| Err(NotRun::Own(io::Error::other("its thread failed"))))
    })
}

/// The signals that would end netspy before it has reported, but for those that netspy was started to
/// ignore: the command ignores them, too.
#[derive(Debug)]
pub struct Signals {
    interrupt: Unignored,
    terminate: Unignored,
    hang_up: Unignored,
    /// Only so that it does not end netspy.
    _quit: Unignored,
}

impl Signals {
    fn new(inherited: &Inherited) -> io::Result<Self> {
        if inherited.ignores(SignalKind::child().as_raw_value()) {
            // Of a command whose end is ignored nobody would be told how it ended. What listens goes
            // on to do so when this stream is gone.
            drop(signal(SignalKind::child())?);
        }
        let one = |kind| Unignored::new(kind, inherited);
        Ok(Signals {
            interrupt: one(SignalKind::interrupt())?,
            terminate: one(SignalKind::terminate())?,
            hang_up: one(SignalKind::hangup())?,
            _quit: one(SignalKind::quit())?,
        })
    }

    /// Those that somebody sent to netspy, who means the command. What is typed (SIGINT, SIGQUIT)
    /// has come to it already.
    async fn next_for_command(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hang_up.recv() => Signal::HUP,
        }
    }

    /// Any that says that netspy should wait no longer.
    pub async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// `npm test`, with quotes where they are needed.
pub fn in_words(command: &[OsString]) -> String {
    let words = command.iter().map(OsString::as_os_str).map(OsStr::to_string_lossy);
    let quoted = words.map(|word| match shlex::try_quote(&word) {
        Ok(quoted) => quoted.into_owned(),
        Err(_) => word.clone().into_owned(),
    });
    quoted.collect::<Vec<_>>().join(" ")
}
