//! Faults that are made to happen: each is counted, and nothing else suffers.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, MapFlags};
use netspy::ConnectionStream;
use netspy::capture::report::Backend;
use netspy::event::{Evidence, Outcome};
use netspy::stream::Builder;
use rustix::net::{AddressFamily, SocketType};

use crate::harness::{
    bound_port, connect, free_port, goes_to, ip, newest, own_network, set_syn_retries, start, v4,
    watch,
};
use crate::kernel;
use crate::roles::play;

const PATIENCE: Duration = Duration::from_secs(20);

fn own() -> Builder {
    Builder { only_pid: vec![std::process::id()], ..ConnectionStream::builder() }
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// Where members of struct netspy_counters lie (connect.h).
const ATTEMPTS: usize = 0;
const WAITING: usize = 7;

#[test]
fn an_event_that_cannot_be_understood_is_counted() {
    let Some(watch) = watch(own()) else { return };
    let report = watch.handle.capabilities();
    if !report.features["in_progress"].ok {
        println!("skipped: nothing sweeps the map that the event is planted in");
        return;
    }
    watch.settle();
    let before = watch.handle.accounting();
    assert!(before.complete && before.lost.undecodable == 0, "{before:?}");
    let maps = kernel::maps(&report);
    // A waiting attempt (struct netspy_conn, connect.h) on a socket of no type that there is.
    let key = 8_u64.to_ne_bytes();
    let mut planted = vec![0; maps["conns"].value_size() as usize];
    planted[0] = 1; // NETSPY_KIND_CONN
    planted[8] = 1; // start_ns
    planted[112] = libc::AF_INET as u8;
    planted[114] = 99; // sock_type
    maps["conns"].update(&key, &planted, MapFlags::NO_EXIST).unwrap();
    // Counted as the programs do when they put an entry there.
    kernel::add(&maps["counters"], &[ATTEMPTS, WAITING]);
    until("the sweep shows it", || watch.handle.accounting().lost.undecodable > 0);
    maps["conns"].delete(&key).unwrap();
    // What comes after it is as before.
    let remote = bound_port();
    connect(AddressFamily::INET, SocketType::STREAM, remote).1.unwrap_err();
    assert_eq!(watch.only(remote).outcome, Outcome::Refused);
    let books = watch.handle.accounting();
    assert_eq!(books.lost.undecodable, 1, "{books:?}");
    assert_eq!((books.lost.total(), books.pending), (1, 0), "{books:?}");
    assert!(books.balances() && !books.complete, "{books:?}");
}

#[test]
fn more_threads_in_connect_than_return_probes_do_not_change_a_record() {
    let Some(watch) = watch(own()) else { return };
    // max(10, 2 * processors) unless another number is asked for (kernel/kprobes.c).
    let threads = 3 * std::thread::available_parallelism().unwrap().get().max(5);
    let remotes: Vec<_> = (0..threads).map(|n| v4([192, 0, 2, 50], 1000 + n as u16)).collect();
    let attempts = std::thread::spawn({
        let remotes = remotes.clone();
        move || {
            own_network();
            ip("route add 192.0.2.0/24 dev lo");
            let attempt = |remote| {
                std::thread::spawn(move || {
                    let kind = SocketType::STREAM;
                    let fd = rustix::net::socket(AddressFamily::INET, kind, None).unwrap();
                    set_syn_retries(&fd, 1);
                    rustix::net::connect(&fd, &remote).unwrap_err().raw_os_error()
                })
            };
            let all: Vec<_> = remotes.into_iter().map(attempt).collect();
            all.into_iter().map(|attempt| attempt.join().unwrap()).collect::<Vec<_>>()
        }
    });
    assert!(attempts.join().unwrap().iter().all(|errno| *errno == libc::ETIMEDOUT));
    let report = watch.handle.capabilities();
    let books = watch.handle.accounting();
    assert!(books.balances() && books.lost.total() == 0, "{books:?}");
    let is_counted = report.backend == Some(Backend::Kprobe);
    // A kernel that preempts programs (since 7.0) may skip one and its stand-in, and says so. Return
    // probes are none of them.
    let mut may_miss = if is_counted { 0 } else { books.missed };
    for remote in remotes {
        if may_miss > 0 && watch.records(|c| goes_to(c, remote)).is_empty() {
            may_miss -= 1;
            continue;
        }
        let c = watch.only(remote);
        assert_eq!((c.outcome, c.errno), (Outcome::TimedOut, Some(libc::ETIMEDOUT)));
        assert_eq!(c.evidence, Some(Evidence::SkError));
    }
    if is_counted && !tells_missed_probes() {
        println!("skipped: that misses are counted: Linux 6.7 brings their number");
    } else if is_counted {
        assert!(books.missed > 0 && !books.complete, "{books:?}");
    }
    // Nor does a call whose return was missed stay, to be taken for a part of a later one.
    let maps = kernel::maps(&report);
    let left = kernel::entries(&maps);
    assert_eq!(left["calls"], 0, "{left:?}");
}

/// Whether the kernel tells how often a probe was missed (bpf_link_info.perf_event.kprobe.missed).
pub fn tells_missed_probes() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().unwrap().unwrap();
    (next(), next()) >= (6, 7)
}

#[test]
fn a_capture_that_is_killed_leaves_nothing_in_the_kernel_and_does_not_disturb_another() {
    let Some(watch) = watch(ConnectionStream::builder()) else { return };
    let before = kernel::loaded();
    let mut child = play("capture", bound_port()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ids = lines.map(Result::unwrap).find_map(|line| {
        let ids = line.split_once("programs:")?.1.split_ascii_whitespace();
        Some(ids.map(|id| id.parse::<u32>().unwrap()).collect::<Vec<_>>())
    });
    let ids = ids.unwrap();
    assert!(!ids.is_empty() && ids.iter().all(|id| !before.contains(id)));
    assert!(ids.iter().all(|id| kernel::loaded().contains(id)));
    let remote = bound_port();
    connect(AddressFamily::INET, SocketType::STREAM, remote).1.unwrap_err();
    child.kill().unwrap();
    child.wait().unwrap();
    // The kernel frees programs after a grace period.
    until("its programs go", || ids.iter().all(|id| !kernel::loaded().contains(id)));
    let after = bound_port();
    connect(AddressFamily::INET, SocketType::STREAM, after).1.unwrap_err();
    for remote in [remote, after] {
        assert_eq!(watch.only(remote).outcome, Outcome::Refused);
    }
    let books = watch.handle.accounting();
    assert!(books.balances() && books.lost.total() == 0, "{books:?}");
    assert_eq!(books.updates_lost, 0, "{books:?}");
}

/// The role "capture": captures until it is killed.
pub fn capture_until_killed() {
    let stream = start(ConnectionStream::builder()).unwrap();
    let ids: Vec<_> = stream.handle().capabilities().programs.iter().map(|p| p.id).collect();
    let ids = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    println!("programs: {ids}");
    for connection in stream {
        drop(connection);
    }
}

#[test]
fn two_captures_see_the_same_and_the_end_of_one_is_not_felt_by_the_other() {
    let Some(watch) = watch(own()) else { return };
    let other = start(own()).unwrap();
    // Addresses that nothing else here asks for.
    let remotes: Vec<_> = (0..20_u16)
        .map(|n| (free_port(v4([127, 0, 0, 52 + n as u8], 0)), v4([127, 0, 0, 51], 5000 + n)))
        .collect();
    for (refused, associated) in &remotes {
        connect(AddressFamily::INET, SocketType::STREAM, *refused).1.unwrap_err();
        connect(AddressFamily::INET, SocketType::DGRAM, *associated).1.unwrap();
    }
    let handle = other.handle();
    handle.stop();
    let theirs = newest(other);
    let books = handle.accounting();
    assert!(books.balances() && books.lost.total() == 0, "{books:?}");
    let later = bound_port();
    connect(AddressFamily::INET, SocketType::STREAM, later).1.unwrap_err();
    assert_eq!(watch.only(later).outcome, Outcome::Refused);
    for (refused, associated) in remotes {
        for remote in [refused, associated] {
            let mine = watch.records(|c| goes_to(c, remote));
            let theirs: Vec<_> = theirs.iter().filter(|c| goes_to(c, remote)).collect();
            assert_eq!((mine.len(), theirs.len()), (1, 1), "{remote}");
            assert_eq!((mine[0].outcome, mine[0].errno), (theirs[0].outcome, theirs[0].errno));
            assert_eq!((mine[0].local, mine[0].evidence), (theirs[0].local, theirs[0].evidence));
        }
    }
    let books = watch.handle.accounting();
    assert!(books.balances() && books.lost.total() == 0, "{books:?}");
}
