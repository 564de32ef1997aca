//! The whole screen, which is given back whatever happens.

use std::io::{self, Stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Hide;
use crossterm::execute;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpid, kill_process};

use crate::cli::quiet;

/// Whether the terminal is in a mode that a shell could not use.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while netspy has all of it.
#[derive(Debug)]
pub struct FullScreen {
    /// Draws on it.
    pub terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl FullScreen {
    /// Takes the terminal.
    pub fn enter() -> io::Result<Self> {
        restore_before_panics();
        end_with_the_terminal()?;
        let screen = FullScreen { terminal: new_terminal()? };
        // From here on `screen` gives back what was taken, also where only a part of it succeeds.
        take()?;
        Ok(screen)
    }

    /// Whether a panic of any thread has taken the screen away.
    pub fn is_lost(&self) -> bool {
        !TAKEN.load(Ordering::SeqCst)
    }

    /// Stops until the shell continues this process, as Ctrl-Z does.
    pub fn suspend(&mut self) -> io::Result<()> {
        restore();
        kill_process(getpid(), Signal::TSTP)?;
        // A new one draws everything. Terminal::clear() would ask the terminal where its cursor is,
        // and fail where none answers.
        self.terminal = new_terminal()?;
        take()
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        restore();
    }
}

fn new_terminal() -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    Terminal::new(CrosstermBackend::new(io::stdout()))
}

fn take() -> io::Result<()> {
    quiet::hold();
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Hide, Clear(ClearType::All))
}

/// Gives the terminal back, once. Nothing can be done about a terminal that is gone.
fn restore() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let _ = disable_raw_mode();
    // Not through the standard library's lock: the thread that panicked may be another one.
    const LEAVE: &[u8] = b"\x1b[0m\x1b[?1049l\x1b[?25h";
    let _ = rustix::io::write(rustix::stdio::stdout(), LEAVE);
    quiet::release();
}

/// Ends the process when its terminal is gone. Whoever reads keys could not: crossterm (0.29) goes on
/// to read from such a terminal for good, and the signal that says so waits for that.
fn end_with_the_terminal() -> io::Result<()> {
    static ONCE: Once = Once::new();
    if ONCE.is_completed() {
        return Ok(());
    }
    let wait = || {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
        loop {
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                // It cannot be told then; keys still end it.
                Err(_) => return,
                Ok(_) => break,
            }
        }
        // As a shell has it for the signal that this stands for: 128 and its number.
        std::process::exit(128 + Signal::HUP.as_raw());
    };
    std::thread::Builder::new().name("netspy-terminal".to_owned()).spawn(wait)?;
    ONCE.call_once(|| {});
    Ok(())
}

/// The words of a panic belong on the screen of the shell, where they stay.
fn restore_before_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let say = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            say(panic);
        }));
    });
}
