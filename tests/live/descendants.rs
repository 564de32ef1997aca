//! Capture of what descends from a process: all of it, and nothing else.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use netspy::event::Outcome;
use netspy::stream::Builder;
use netspy::{Connection, ConnectionStream};

use crate::harness::{Watch, bound_port, entries, goes_to, is_small_machine, watch};
use crate::roles::play;

/// A process whose descendants are meant. It waits to be told before it starts any.
struct Ancestor {
    process: Child,
    go: Option<ChildStdin>,
    out: ChildStdout,
}

impl Ancestor {
    fn new(role: &str, remote: SocketAddr) -> Self {
        let mut command = play(role, remote);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (go, mut out) = (process.stdin.take(), process.stdout.take().unwrap());
        wait_for(&mut out, '!');
        Ancestor { process, go, out }
    }

    fn descendants(&self) -> Option<Watch> {
        self.descendants_by(ConnectionStream::builder())
    }

    fn descendants_by(&self, builder: Builder) -> Option<Watch> {
        watch(Builder { only_descendants_of: vec![self.process.id()], ..builder })
    }

    /// Has it do what it is there for, and waits until that is done.
    fn goes(&mut self) {
        self.go.as_mut().unwrap().write_all(b"!").unwrap();
        wait_for(&mut self.out, '.');
    }

    /// Has it end, and with it whoever waits for that.
    fn ends(mut self) {
        self.go = None;
        let mut rest = Vec::new();
        self.out.read_to_end(&mut rest).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

fn wait_for(out: &mut impl Read, sign: char) {
    // The harness of the tests says this and that first.
    let mut seen = Vec::new();
    while seen.last() != Some(&(sign as u8)) {
        let mut byte = [0];
        out.read_exact(&mut byte).unwrap_or_else(|error| {
            panic!("{error} after {:?}", String::from_utf8_lossy(&seen));
        });
        seen.push(byte[0]);
    }
}

fn say(sign: char) {
    let mut out = std::io::stdout().lock();
    write!(out, "{sign}").unwrap();
    out.flush().unwrap();
}

/// Returns when the test says so; false when it has gone.
fn told() -> bool {
    std::io::stdin().read(&mut [0]).unwrap() == 1
}

/// The nth remote beside the one that a role was given.
fn beside(remote: SocketAddr, n: u8) -> SocketAddr {
    SocketAddr::new([127, 77, 0, n].into(), remote.port())
}

/// Without memory of its own: also right after fork().
fn attempt(remote: SocketAddr) {
    use rustix::net::{AddressFamily, SocketType, connect, socket};
    let fd: OwnedFd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    assert!(connect(&fd, &remote).is_err(), "nobody listens there");
}

/// Runs something in a new process; returns its id.
fn fork(run: impl FnOnce()) -> rustix::process::Pid {
    // SAFETY: what runs in the child makes system calls only, and it never returns from here.
    #[allow(unsafe_code)]
    unsafe {
        match libc::fork() {
            0 => {
                run();
                libc::_exit(0)
            }
            pid => rustix::process::Pid::from_raw(pid).unwrap(),
        }
    }
}

/// Returns when the parent is gone. There is no other sign of that than who the parent is.
fn outlive(parent: rustix::process::Pid) {
    while rustix::process::getppid() == Some(parent) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn reap(pid: rustix::process::Pid) {
    let options = rustix::process::WaitOptions::empty();
    let (_, status) = rustix::process::waitpid(Some(pid), options).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0));
}

const ITSELF: u8 = 1;
const CHILD: u8 = 2;
const THREAD_OF_CHILD: u8 = 3;
const ORPHAN: u8 = 4;
const EXECUTED: u8 = 5;
const LATE: u8 = 6;
const STRANGER: u8 = 7;

/// Every kind of descendant makes an attempt of its own.
pub fn family(remote: SocketAddr) {
    say('!');
    assert!(told());
    attempt(beside(remote, ITSELF));
    reap(fork(|| attempt(beside(remote, CHILD))));
    // A program that a program starts, in a thread of its own.
    let by_thread = move || {
        let remote = beside(remote, EXECUTED);
        let status = play("connect", remote).status().unwrap();
        assert_eq!(status.code(), Some(libc::ECONNREFUSED));
    };
    std::thread::spawn(by_thread).join().unwrap();
    let threads = play("connect in a thread", beside(remote, THREAD_OF_CHILD)).status().unwrap();
    assert!(threads.success());
    // A daemon: its parent and the session are gone before it does anything.
    let (end, done) = rustix::pipe::pipe().unwrap();
    let child = fork(|| {
        let parent = rustix::process::getpid();
        fork(|| {
            rustix::process::setsid().unwrap();
            outlive(parent);
            attempt(beside(remote, ORPHAN));
            rustix::io::write(&done, b".").unwrap();
        });
    });
    reap(child);
    rustix::io::read(&end, &mut [0]).unwrap();
    say('.');
    // One that outlives it: the end of what this process reads is the last that it hears.
    assert!(!told());
    let itself = rustix::process::getpid();
    fork(|| {
        outlive(itself);
        attempt(beside(remote, LATE));
    });
}

/// Many children, each with one attempt.
pub fn many(remote: SocketAddr) {
    say('!');
    while told() {
        // Some at a time, as a shell script with jobs has them.
        for _ in 0..MANY / 20 {
            let children: Vec<_> = (0..20).map(|_| fork(|| attempt(remote))).collect();
            children.into_iter().for_each(reap);
        }
        say('.');
    }
}

/// Two children that live at the same time; the second makes an attempt.
pub fn two(remote: SocketAddr) {
    say('!');
    assert!(told());
    let (wait, go) = rustix::pipe::pipe().unwrap();
    let first = fork(|| {
        rustix::io::read(&wait, &mut [0]).unwrap();
    });
    reap(fork(|| attempt(remote)));
    rustix::io::write(&go, b"!").unwrap();
    reap(first);
    say('.');
    assert!(!told());
}

const MANY: usize = 1_000;

/// Of all that was seen, what has the port of the test.
fn at_port(all: &[Connection], remote: SocketAddr) -> Vec<SocketAddr> {
    let remotes = all.iter().filter_map(|c| c.remote.as_ref());
    let remotes = remotes.map(|r| SocketAddr::new(r.ip, r.port));
    remotes.filter(|r| r.port() == remote.port()).collect()
}

#[test]
fn every_kind_of_descendant_is_seen_and_nobody_else() {
    let remote = bound_port();
    let mut ancestor = Ancestor::new("family", remote);
    let Some(watch) = ancestor.descendants() else { return };
    // From outside, while the others are at it and as often.
    let stranger = std::thread::spawn(move || {
        for _ in 0..20 {
            attempt(beside(remote, STRANGER));
        }
    });
    let status = play("connect", beside(remote, STRANGER)).status().unwrap();
    assert_eq!(status.code(), Some(libc::ECONNREFUSED));
    ancestor.goes();
    stranger.join().unwrap();
    ancestor.ends();
    watch.outcome(beside(remote, LATE));
    let handle = watch.handle.clone();
    let all = crate::harness::newest(watch.stop());
    let mut seen = at_port(&all, remote);
    seen.sort();
    let wanted = [CHILD, THREAD_OF_CHILD, ORPHAN, EXECUTED, LATE].map(|n| beside(remote, n));
    assert_eq!(seen, wanted, "{all:#?}");
    assert!(all.iter().all(|c| c.outcome == Outcome::Refused), "{all:#?}");
    let books = handle.accounting();
    assert!(books.balances() && books.complete && books.pending == 0, "{books:?}");
    assert!(books.filtered >= 22, "the strangers and the ancestor itself: {books:?}");
}

#[test]
fn a_thousand_children_that_connect_once_are_all_there_and_none_other() {
    let many = if is_small_machine() { 1 } else { 2 };
    let remote = bound_port();
    let mut ancestor = Ancestor::new("many", remote);
    let Some(watch) = ancestor.descendants() else { return };
    for _ in 0..many {
        // As much at the same time, of nobody who is meant.
        let stranger = std::thread::spawn(move || (0..MANY).for_each(|_| attempt(remote)));
        ancestor.goes();
        stranger.join().unwrap();
    }
    let me = std::process::id();
    watch.handle.drain();
    let seen = entries(&watch, "descendants");
    assert!(seen.is_empty(), "of those that have ended {} are left", seen.len());
    ancestor.ends();
    let handle = watch.handle.clone();
    let all = crate::harness::newest(watch.stop());
    let all: Vec<_> = all.into_iter().filter(|c| goes_to(c, remote)).collect();
    let pids: BTreeSet<_> = all.iter().filter_map(|c| c.process.as_ref()).map(|p| p.pid).collect();
    assert_eq!((all.len(), pids.len()), (many * MANY, many * MANY));
    assert!(!pids.contains(&me));
    let books = handle.accounting();
    assert!(books.balances() && books.complete, "{books:?}");
    assert!(books.filtered >= (many * MANY) as u64, "{books:?}");
}

#[test]
fn a_descendant_that_finds_no_room_makes_the_books_incomplete() {
    let remote = bound_port();
    let mut ancestor = Ancestor::new("two", remote);
    let one = Builder { max_sockets: Some(1), ..ConnectionStream::builder() };
    let Some(watch) = ancestor.descendants_by(one) else { return };
    ancestor.goes();
    ancestor.ends();
    let handle = watch.handle.clone();
    let all = crate::harness::newest(watch.stop());
    assert_eq!(at_port(&all, remote), [], "the second child was not followed");
    let books = handle.accounting();
    assert!(books.balances() && books.missed >= 1 && !books.complete, "{books:?}");
}

#[test]
fn what_descends_from_a_process_that_starts_nothing_is_nothing() {
    let remote = bound_port();
    let ancestor = Ancestor::new("many", remote);
    let Some(watch) = ancestor.descendants() else { return };
    TcpStream::connect(remote).unwrap_err();
    ancestor.ends();
    assert_eq!(watch.stop(), []);
}
