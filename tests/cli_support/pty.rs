//! The real binary on a terminal that is typed at and read like a screen.
//!
//! `script` (util-linux) provides the terminal, `stty` its size, and a parser of escape sequences
//! what is on it.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::TempDir;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Shown {
    parser: Option<vt100::Parser>,
    raw: Vec<u8>,
    ended: bool,
}

pub struct Terminal {
    script: Child,
    stdin: ChildStdin,
    shown: Arc<(Mutex<Shown>, Condvar)>,
    dir: TempDir,
}

impl Terminal {
    /// Runs netspy on a terminal of this size; `None`, with the reason, where there is none.
    pub fn start(columns: u16, rows: u16, args: &str, env: &[(&str, &str)]) -> Option<Terminal> {
        Terminal::start_shell(columns, rows, &format!("exec \"$NETSPY\" {args}"), env)
    }

    /// The same for a line of a shell, which finds netspy in `$NETSPY`.
    pub fn start_shell(
        columns: u16,
        rows: u16,
        line: &str,
        env: &[(&str, &str)],
    ) -> Option<Terminal> {
        let dir = TempDir::new();
        let place = dir.path().display();
        let line = format!(
            "stty cols {columns} rows {rows}; tty > {place}/tty; echo $$ > {place}/pid; {line}"
        );
        let mut command = Command::new("script");
        command.args(["-qefc", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        for name in ["NETSPY_SERVER", "NO_COLOR", "CLICOLOR_FORCE", "RUST_LOG"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color").env("TZ", "UTC").env("SHELL", "/bin/sh");
        command.env("NETSPY", env!("CARGO_BIN_EXE_netspy"));
        command.env("XDG_STATE_HOME", dir.path()).envs(env.iter().copied());
        let Ok(mut script) = command.spawn() else {
            eprintln!("skipped: no 'script' command to make a terminal");
            return None;
        };
        let (stdin, mut stdout) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
        let parser = Some(vt100::Parser::new(rows, columns, 1000));
        let shown = Arc::new((Mutex::new(Shown { parser, ..Shown::default() }), Condvar::new()));
        let writer = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let n = stdout.read(&mut bytes).unwrap_or(0);
                let mut shown = writer.0.lock().unwrap();
                shown.raw.extend_from_slice(&bytes[..n]);
                shown.parser.as_mut().unwrap().process(&bytes[..n]);
                shown.ended = n == 0;
                writer.1.notify_all();
                if n == 0 {
                    break;
                }
            }
        });
        Some(Terminal { script, stdin, shown, dir })
    }

    /// Types.
    pub fn send(&mut self, keys: &str) {
        self.stdin.write_all(keys.as_bytes()).unwrap();
        self.stdin.flush().unwrap();
    }

    /// Waits until the screen fits, and gives its text.
    pub fn wait(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let (lock, changed) = &*self.shown;
        let deadline = Instant::now() + PATIENCE;
        let mut shown = lock.lock().unwrap();
        loop {
            let text = shown.parser.as_ref().unwrap().screen().contents();
            if is_there(&text) {
                return text;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !shown.ended, "{what} never came; the screen:\n{text}");
            shown = changed.wait_timeout(shown, left).unwrap().0;
        }
    }

    /// Waits for a text on the screen.
    pub fn wait_for(&self, part: &str) -> String {
        self.wait(part, |text| text.contains(part))
    }

    /// Everything that was written, escape sequences and all.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.shown.0.lock().unwrap().raw).into_owned()
    }

    /// Whether the screen of full-screen programs is shown.
    pub fn is_full_screen(&self) -> bool {
        self.shown.0.lock().unwrap().parser.as_ref().unwrap().screen().alternate_screen()
    }

    /// Changes the size, as a window that is pulled larger does.
    pub fn resize(&self, columns: u16, rows: u16) {
        let mut shown = self.shown.0.lock().unwrap();
        shown.parser.as_mut().unwrap().screen_mut().set_size(rows, columns);
        drop(shown);
        let mut stty = Command::new("stty");
        let size = ["cols", &columns.to_string(), "rows", &rows.to_string()].map(str::to_owned);
        assert!(stty.args(["-F", &self.noted("tty")]).args(size).status().unwrap().success());
    }

    /// Whether the terminal is in this mode, as stty calls it.
    pub fn has_mode(&self, mode: &str) -> bool {
        let stty = Command::new("stty").args(["-a", "-F", &self.noted("tty")]).output().unwrap();
        String::from_utf8(stty.stdout).unwrap().split_whitespace().any(|word| word == mode)
    }

    /// Sends the program a signal.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        assert!(kill.args(["-s", name, &self.noted("pid")]).status().unwrap().success());
    }

    /// Takes the terminal away, as a window does that is closed; the program has to end.
    pub fn hang_up(mut self) {
        let status = format!("/proc/{}/status", self.noted("pid"));
        self.script.kill().unwrap();
        self.script.wait().unwrap();
        let deadline = Instant::now() + PATIENCE;
        // One that nobody has waited for yet has ended, too.
        while std::fs::read_to_string(&status).is_ok_and(|s| !s.contains("\nState:\tZ")) {
            assert!(Instant::now() < deadline, "it goes on without a terminal");
            std::thread::yield_now();
        }
    }

    fn noted(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(file)).unwrap().trim().to_owned()
    }

    /// Waits for the end, and gives the exit code and what the screen then shows.
    pub fn end(self) -> (i32, String) {
        let (code, screen, _) = self.end_with_raw();
        (code, screen)
    }

    /// The same, with everything that was written.
    pub fn end_with_raw(mut self) -> (i32, String, String) {
        let (lock, changed) = &*self.shown;
        let deadline = Instant::now() + PATIENCE;
        let mut shown = lock.lock().unwrap();
        while !shown.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            let text = shown.parser.as_ref().unwrap().screen().contents();
            assert!(!left.is_zero(), "it does not end; the screen:\n{text}");
            shown = changed.wait_timeout(shown, left).unwrap().0;
        }
        let screen = shown.parser.as_ref().unwrap().screen();
        assert!(!screen.alternate_screen(), "the screen is not given back");
        assert!(!screen.hide_cursor(), "the cursor is not given back");
        let text = screen.contents();
        let raw = String::from_utf8_lossy(&shown.raw).into_owned();
        drop(shown);
        (self.script.wait().unwrap().code().unwrap_or(-1), text, raw)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Takes the program with it, whose terminal goes.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}
