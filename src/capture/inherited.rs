//! What whoever started this process has it do with signals, for a command that this one starts.
//!
//! `nohup` has it ignore SIGHUP, shells SIGINT and SIGQUIT of what runs in the background, service
//! managers SIGPIPE. What is ignored or blocked stays so in programs that are started, unless somebody
//! changes it on the way: Rust's runtime ignores SIGPIPE before `main`, and its `Command` gives SIGPIPE
//! its default and blocks nothing.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, sigset_t};

static IGNORED_SIGPIPE: AtomicBool = AtomicBool::new(false);

/// The C library calls it before `main`, and so before the runtime changes anything.
// SAFETY: what stands in this section is called as a function without parameters that are needed,
// once, when the C library is ready; `look` needs nothing of Rust's runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = look;

extern "C" fn look() {
    IGNORED_SIGPIPE.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

fn is_ignored(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set, and `action` is large enough for what is there; it was zeroed, which is a
    // valid value of it, so that it is whole also where the call fails.
    let action = unsafe {
        libc::sigaction(signal, ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

/// Which signals this process was started with as ignored and as blocked.
#[derive(Clone)]
pub(crate) struct Inherited {
    ignored: Vec<c_int>,
    blocked: Vec<c_int>,
    mask: sigset_t,
}

impl std::fmt::Debug for Inherited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut this = f.debug_struct("Inherited");
        this.field("ignored", &self.ignored).field("blocked", &self.blocked).finish_non_exhaustive()
    }
}

impl Inherited {
    /// To be asked before anything is done about signals in this process.
    pub(crate) fn read() -> io::Result<Self> {
        let ignored = (1..=libc::SIGRTMAX()).filter(|signal| match *signal {
            libc::SIGPIPE => IGNORED_SIGPIPE.load(Ordering::Relaxed),
            signal => is_ignored(signal),
        });
        let ignored = ignored.collect();
        let mask = mask()?;
        // SAFETY: `mask` is a whole set.
        let is_blocked = |signal: &c_int| unsafe { libc::sigismember(&mask, *signal) } == 1;
        let blocked = (1..=libc::SIGRTMAX()).filter(is_blocked).collect();
        Ok(Inherited { ignored, blocked, mask })
    }

    /// Whether a signal was ignored.
    pub(crate) fn ignores(&self, signal: c_int) -> bool {
        self.ignored.contains(&signal)
    }

    /// Has a command that is started inherit the same. What is ignored it does by itself, but for
    /// SIGPIPE, and what this process has to listen to.
    pub(crate) fn give(&self, command: &mut Command) {
        let is_lost = [libc::SIGPIPE, libc::SIGCHLD].into_iter().any(|signal| self.ignores(signal));
        if !is_lost && self.blocked.is_empty() {
            return;
        }
        let Inherited { ignored, mask, .. } = self.clone();
        let give = move || {
            for signal in &ignored {
                // SAFETY: SIG_IGN is a valid action of every signal that was ignored before.
                if unsafe { libc::signal(*signal, libc::SIG_IGN) } == libc::SIG_ERR {
                    return Err(io::Error::last_os_error());
                }
            }
            // SAFETY: `mask` is a set that pthread_sigmask() has written.
            match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &mask, ptr::null_mut()) } {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        };
        // SAFETY: between fork and exec it only reads what it owns and calls functions that are safe
        // there (signal-safety(7)); it allocates nothing.
        unsafe { command.pre_exec(give) };
    }
}

/// What the calling thread blocks.
fn mask() -> io::Result<sigset_t> {
    let mut set = MaybeUninit::<sigset_t>::zeroed();
    // SAFETY: nothing is set, and `set` is large enough for what is there.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), set.as_mut_ptr()) } {
        // SAFETY: the call has written it.
        0 => Ok(unsafe { set.assume_init() }),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
