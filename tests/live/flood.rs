//! A flood of short-lived processes, connections and ends of every kind: the books balance, and
//! nothing is left behind.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use netspy::ConnectionStream;
use netspy::accounting::Accounting;
use netspy::stream::Builder;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketType};

use crate::group::Group;
use crate::harness::{bound_port, connect, connect_nonblocking, ip, own_network, start, v4};
use crate::kernel;
use crate::roles::play;

/// The place of `stood_in` in struct netspy_counters (connect.h).
const STOOD_IN: usize = 10;
/// Of enum netspy_phase (connect.h).
const FAILED: u64 = 2;
const CLOSED: u64 = 3;

/// How long the flood runs (`NETSPY_LIVE_FLOOD_SECONDS`).
fn duration() -> Duration {
    let seconds = std::env::var("NETSPY_LIVE_FLOOD_SECONDS");
    Duration::from_secs(seconds.map_or(5, |text| text.parse().unwrap()))
}

/// Processes at a time; fewer where one processor has to run them all.
fn processes() -> usize {
    if crate::harness::is_small_machine() { 8 } else { 32 }
}

/// Takes connections and ends every other one by a reset, until it is told to end.
fn serve(listener: &TcpListener, is_over: &AtomicBool) {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = 0_u32;
    while !is_over.load(Ordering::Relaxed) {
        let timeout = Duration::from_millis(50).try_into().unwrap();
        let mut fds = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
        while let Ok((stream, _)) = listener.accept() {
            accepted += 1;
            if accepted.is_multiple_of(2) {
                let _ = set_socket_linger(&stream, Some(Duration::ZERO));
            }
        }
    }
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The role "flood": attempts of every kind until it is killed, by itself and by children.
pub fn flood(remote: SocketAddr) {
    let refused = bound_port();
    let silent = v4([192, 0, 2, 99], 80);
    loop {
        drop(TcpStream::connect(remote));
        if let Ok(stream) = TcpStream::connect(remote) {
            let _ = set_socket_linger(&stream, Some(Duration::ZERO));
        }
        drop(connect(AddressFamily::INET, SocketType::STREAM, refused));
        drop(connect_nonblocking(remote));
        drop(connect_nonblocking(silent));
        // Left to the end of the process, in the middle of a handshake.
        std::mem::forget(connect_nonblocking(silent));
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = socket.connect(refused);
            let _ = socket.send(b"x");
        }
        let _ = UnixStream::connect("/nowhere.sock");
        // SAFETY: the child only calls connect() and _exit().
        #[allow(unsafe_code)]
        unsafe {
            let child = libc::fork();
            if child == 0 {
                let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
                let _ = rustix::net::connect(std::os::fd::BorrowedFd::borrow_raw(fd), &silent);
                libc::_exit(0);
            }
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        // Few files stay open.
        if connections_left() > 200 {
            std::process::exit(0);
        }
    }
}

fn connections_left() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(usize::MAX, Iterator::count)
}

/// Floods by so many processes at a time, each of which is killed in the middle of something.
fn flood_for(group: &Group, remote: SocketAddr, mut each_second: impl FnMut(Duration)) {
    let began = Instant::now();
    let mut children: Vec<Child> = Vec::new();
    let mut next = Duration::ZERO;
    let mut victim = 0;
    while began.elapsed() < duration() {
        while children.len() < processes() {
            children.push(group.take(play("flood", remote)).spawn().unwrap());
        }
        // The oldest goes, and whatever has ended by itself.
        if began.elapsed() > next {
            each_second(began.elapsed());
            next += Duration::from_secs(1);
            victim = (victim + 1) % children.len();
            let _ = children[victim].kill();
        }
        children.retain_mut(|child| child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    for child in &mut children {
        child.kill().unwrap();
    }
    for mut child in children {
        child.wait().unwrap();
    }
}

/// Entries of what is no more: sockets of the group, and calls of threads that have ended.
fn stale(maps: &BTreeMap<String, MapHandle>, group: u64) -> (Vec<String>, usize) {
    let (mut stale, mut told) = (Vec::new(), 0);
    for key in maps["conns"].keys() {
        let Ok(Some(conn)) = maps["conns"].lookup(&key, MapFlags::ANY) else { continue };
        // cgroup_id of struct netspy_conn (connect.h).
        if conn[40..48] == group.to_ne_bytes() {
            // The sweep found its end, which no program has seen (unseen.h): the next sock in this
            // place takes it over.
            let time = |at: usize| u64::from_ne_bytes(conn[at..at + 8].try_into().unwrap());
            if matches!(time(32).wrapping_sub(time(8)), FAILED | CLOSED) {
                told += 1;
                continue;
            }
            let number = |at: usize| u16::from_ne_bytes([conn[at], conn[at + 1]]);
            stale.push(format!(
                "socket {key:x?}: phase {}, flags {:#x}, protocol {}, ports {} to {}, start {}, \
                 outcome {}, swept {}, error {}",
                conn[6],
                number(4),
                number(116),
                number(118),
                number(120),
                time(8),
                time(16),
                time(32),
                number(92),
            ));
        }
    }
    for key in maps.get("calls").iter().flat_map(|calls| calls.keys()) {
        let tid = u32::from_ne_bytes(key[..4].try_into().unwrap());
        if !std::path::Path::new(&format!("/proc/{tid}")).exists() {
            stale.push(format!("call of thread {tid}"));
        }
    }
    (stale, told)
}

#[test]
fn a_flood_of_processes_leaves_balanced_books_and_nothing_else() {
    flood_with(ConnectionStream::builder());
}

#[test]
fn a_flood_that_the_ring_does_not_hold_leaves_balanced_books_too() {
    if crate::harness::is_small_machine() {
        println!("skipped: one processor makes no flood that the smallest ring does not hold");
        return;
    }
    let small = Builder { ring_bytes: Some(64 << 10), ..ConnectionStream::builder() };
    let Some(books) = flood_with(small) else { return };
    assert!(books.lost.ring_full > 0 && !books.complete, "{books:?}");
}

/// The books at the end of a flood.
fn flood_with(builder: Builder) -> Option<Accounting> {
    let _alone = crate::harness::alone();
    let group = Group::new("flood")?;
    let before = resident();
    // So that the rest of the host, which goes on, is in the books at once.
    let stream = start(Builder { only_cgroup: vec![group.id()], ..builder })?;
    let handle = stream.handle();
    let read = std::sync::Arc::new(AtomicU64::new(0));
    let reader = std::thread::spawn({
        let read = std::sync::Arc::clone(&read);
        move || {
            for _ in stream {
                read.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let report = handle.capabilities();
    let maps = kernel::maps(&report);
    let mut memory: Vec<(u64, u64)> = Vec::new();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            own_network();
            ip("route add 192.0.2.0/24 dev lo");
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let remote = listener.local_addr().unwrap();
            let is_over = &is_over;
            std::thread::scope(|inner| {
                inner.spawn(|| serve(&listener, is_over));
                flood_for(&group, remote, |_| {
                    memory.push((resident(), kernel::memory(&maps)));
                });
                is_over.store(true, Ordering::Relaxed);
            });
        });
    });

    // What the dead leave behind ends within a minute.
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let (stale, told) = stale(&maps, group.id());
        if stale.is_empty() {
            println!("{told} ends that no program has seen");
            break;
        }
        assert!(Instant::now() < patience, "left after a minute: {stale:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let books = handle.accounting();
    handle.stop();
    reader.join().unwrap();
    let at_end = handle.accounting();
    println!("{} records of {at_end:?}", read.load(Ordering::Relaxed));
    let (skipped, stood_in) = (kernel::skipped(&report), kernel::sum(&maps["counters"], STOOD_IN));
    println!("missed by program: {:?}", kernel::missed(&report));
    println!("{stood_in} of {skipped} were made up for");
    println!("maps: {:?}; memory: {memory:?}", kernel::entries(&maps));
    // More than were skipped would hide others that were. Rarely both places of an event are taken
    // by others before its stand-in looks.
    assert!(
        stood_in <= skipped + skipped / 20 + 1,
        "{stood_in} of {skipped}: {:?}",
        kernel::missed(&report)
    );
    assert!(books.balances() && at_end.balances(), "{books:?} {at_end:?}");
    assert!(at_end.attempts - at_end.filtered > 100, "{at_end:?}");
    assert_eq!(at_end.pending, 0, "{at_end:?}");
    assert_eq!((at_end.lost.undecodable, at_end.lost.slow_consumer), (0, 0), "{at_end:?}");
    assert!(read.load(Ordering::Relaxed) >= at_end.delivered, "{at_end:?}");

    no_growth(before, &memory);
    Some(at_end)
}

/// Of this process and of the maps, once a second, and of this process before. Caches of names, of
/// processes and of the latest attempts are filled by a flood, to a size that it does not choose.
fn no_growth(before: u64, memory: &[(u64, u64)]) {
    let last = memory.last().unwrap();
    assert!(last.0 < before + (96 << 20), "resident: {before}, {memory:?}");
    let third = &memory[memory.len() / 3];
    assert!(last.1 < third.1 + third.1 / 10, "maps: {memory:?}");
    // By then a busy machine has filled them, too.
    if let Some(full) = memory.get(30) {
        assert!(last.0 < full.0 + full.0 / 10 + (4 << 20), "resident: {memory:?}");
    }
}
