//! Connections that are not made by connect(2) of a 64-bit program: io_uring, 32-bit programs.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use netspy::capture::report::{AttachReport, Backend};
use netspy::event::{Connection, Evidence, Outcome, Protocol};
use netspy::stream::StreamHandle;
use rustix::net::{AddressFamily, SocketType};

use crate::harness::{bound_port, goes_to, ip, own_network, shared, v4};
use crate::ring::{ASYNC, Ring};

/// What the report promises of calls that are not connect(2) of a 64-bit program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// As of any other.
    Everything,
    /// All that reaches the network, and failures without what the call returned.
    NoReturnValue,
    /// TCP that sent a SYN.
    TcpStates,
}

fn promise(handle: &StreamHandle) -> Promise {
    let AttachReport { backend, features, .. } = handle.capabilities();
    if backend != Some(Backend::Tracepoint) {
        return Promise::Everything;
    }
    if features.get("connect_other_callers").is_some_and(|f| f.ok) {
        return Promise::NoReturnValue;
    }
    let note = features["connect"].note.as_deref().unwrap_or_default();
    assert!(note.contains("io_uring") && note.contains("32-bit"), "it is said: {note}");
    Promise::TcpStates
}

fn ring() -> Option<Ring> {
    match Ring::new() {
        Ok(ring) => Some(ring),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            println!("skipped: io_uring is not to be had here: {e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

fn socket(remote: SocketAddr, kind: SocketType) -> OwnedFd {
    let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    rustix::net::socket(family, kind, None).unwrap()
}

fn errno(result: io::Result<()>) -> i32 {
    result.err().map_or(0, |e| e.raw_os_error().unwrap())
}

fn failure(c: &Connection) -> (Outcome, Option<i32>) {
    (c.outcome, c.errno)
}

/// Of this thread, or, done by a worker, of the process.
fn assert_mine(c: &Connection, worker: bool) {
    let process = c.process.as_ref().unwrap();
    let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(process.pid, std::process::id(), "{c:#?}");
    assert_eq!(&*process.comm, comm.trim());
    if worker {
        assert_eq!(process.tid, process.pid, "the thread that asked cannot be told");
        assert_eq!(process.thread, process.comm, "no worker of the kernel");
    } else {
        assert_eq!(process.tid, tid);
        let thread = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
        assert_eq!(&*process.thread, thread.trim());
    }
}

/// Whether workers are threads of the process (5.12) rather than of the kernel. After one worked.
fn workers_are_own() -> bool {
    let mut tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let own = tasks.any(|task| {
        let comm = std::fs::read_to_string(task.unwrap().path().join("comm"));
        comm.is_ok_and(|comm| comm.starts_with("iou-wrk"))
    });
    if !own {
        println!("skipped: whose attempt of a worker it is: workers are threads of the kernel");
    }
    own
}

fn tcp_by_io_uring(flags: u8) {
    let Some(watch) = shared() else { return };
    let Some(ring) = ring() else { return };
    let name = std::thread::Builder::new().name("asks-io-uring".into());
    std::thread::scope(|scope| {
        let run = || {
            // A ring belongs to the thread that made it.
            let ring = Ring::new().unwrap();
            for address in ["127.0.0.1:0", "[::1]:0"] {
                let listener = TcpListener::bind(address).unwrap();
                let remote = listener.local_addr().unwrap();
                let fd = socket(remote, SocketType::STREAM);
                ring.connect(&fd, remote, flags).unwrap();
                let local = rustix::net::getsockname(&fd).unwrap();
                let local: SocketAddr = local.try_into().unwrap();
                let is_known = flags == 0 || workers_are_own();
                let c = watch.only(remote);
                assert_eq!((c.outcome, c.protocol), (Outcome::Established, Protocol::Tcp));
                assert_eq!((c.errno, c.evidence), (None, Some(Evidence::TcpState)));
                assert_eq!(c.local.map(|l| SocketAddr::new(l.ip, l.port)), Some(local));
                assert!(c.latency_us.is_some() && c.syn_retransmits == Some(0));
                if is_known {
                    assert_mine(&c, flags == ASYNC);
                }

                drop(listener);
                let fd = socket(remote, SocketType::STREAM);
                assert_eq!(errno(ring.connect(&fd, remote, flags)), libc::ECONNREFUSED);
                let all = watch.records(|r| goes_to(r, remote) && r.id != c.id);
                assert_eq!(all.len(), 1, "{all:#?}");
                let c = &all[0];
                assert_eq!(failure(c), (Outcome::Refused, Some(libc::ECONNREFUSED)));
                assert_eq!(c.evidence, Some(Evidence::SkError));
                if is_known {
                    assert_mine(c, flags == ASYNC);
                }
            }
        };
        name.spawn_scoped(scope, run).unwrap();
    });
    drop(ring);
}

#[test]
fn tcp_by_io_uring_is_one_attempt_of_the_thread_that_asked() {
    tcp_by_io_uring(0);
}

#[test]
fn tcp_by_a_worker_of_io_uring_is_one_attempt_of_the_process() {
    tcp_by_io_uring(ASYNC);
}

#[test]
fn a_connect_that_io_uring_comes_back_to_is_one_attempt() {
    let Some(watch) = shared() else { return };
    let Some(ring) = ring() else { return };
    drop(ring);
    let remote = v4([192, 0, 2, 40], 80);
    let attempt = std::thread::spawn(move || {
        own_network();
        // SYNs vanish: io_uring waits for the socket, and calls again when it has failed.
        ip("route add 192.0.2.0/24 dev lo");
        let ring = Ring::new().unwrap();
        let fd = socket(remote, SocketType::STREAM);
        crate::harness::set_syn_retries(&fd, 1);
        errno(ring.connect(&fd, remote, 0))
    });
    let first = watch.wait("the attempt while it waits", |c| goes_to(c, remote));
    assert_eq!(first.outcome, Outcome::InProgress);
    assert_eq!(attempt.join().unwrap(), libc::ETIMEDOUT);
    let c = watch.only(remote);
    assert_eq!(failure(&c), (Outcome::TimedOut, Some(libc::ETIMEDOUT)));
    assert_eq!(c.id, first.id);
    assert!(c.latency_us.unwrap() > 1_000_000 && c.syn_retransmits.unwrap() > 0, "{c:#?}");
}

#[test]
fn datagram_sockets_by_io_uring_are_seen_as_far_as_the_report_says() {
    let Some(watch) = shared() else { return };
    let Some(ring) = ring() else { return };
    for (remote, flags) in [("127.0.0.41:4000", 0), ("127.0.0.42:4000", ASYNC), ("[::1]:4041", 0)] {
        let remote: SocketAddr = remote.parse().unwrap();
        let fd = socket(remote, SocketType::DGRAM);
        ring.connect(&fd, remote, flags).unwrap();
        let is_known = flags == 0 || workers_are_own();
        if promise(&watch.handle) == Promise::NoReturnValue {
            // What came of the call is looked up a little later.
            watch.outcome(remote);
        }
        let all = watch.records(|c| goes_to(c, remote));
        if promise(&watch.handle) == Promise::TcpStates {
            assert!(all.is_empty(), "{all:#?}");
            continue;
        }
        assert_eq!(all.len(), 1, "{all:#?}");
        assert_eq!((all[0].outcome, all[0].protocol), (Outcome::Associated, Protocol::Udp));
        assert_eq!(all[0].errno, None);
        if is_known {
            assert_mine(&all[0], flags == ASYNC);
        }
    }
}

/// What an attempt that never sent a packet must look like.
#[test]
fn a_datagram_socket_that_io_uring_connects_again_has_both_attempts() {
    let Some(watch) = shared() else { return };
    let Some(ring) = ring() else { return };
    if promise(&watch.handle) == Promise::TcpStates {
        println!("skipped: the report says that these are not seen");
        return;
    }
    let remotes = [v4([127, 0, 0, 43], 4000), v4([127, 0, 0, 44], 4000)];
    let fd = socket(remotes[0], SocketType::DGRAM);
    for remote in remotes {
        ring.connect(&fd, remote, 0).unwrap();
    }
    drop(fd);
    for remote in remotes {
        let c = watch.outcome(remote);
        assert_eq!((c.outcome, c.protocol), (Outcome::Associated, Protocol::Udp));
        watch.only(remote);
    }
}

#[test]
fn an_attempt_that_io_uring_takes_back_is_aborted() {
    let Some(watch) = shared() else { return };
    let Some(ring) = ring() else { return };
    drop(ring);
    let remote = v4([192, 0, 2, 41], 80);
    let attempt = std::thread::spawn(move || {
        own_network();
        ip("route add 192.0.2.0/24 dev lo");
        let ring = Ring::new().unwrap();
        let fd = socket(remote, SocketType::STREAM);
        ring.begin_connect(&fd, remote);
        let _ = ring.shutdown(&fd);
        fd
    });
    let _fd = attempt.join().unwrap();
    let c = watch.outcome(remote);
    assert_eq!((c.outcome, c.errno), (Outcome::Aborted, None), "{c:#?}");
    watch.only(remote);
}

fn assert_no_route(promise: Promise, all: &[Connection]) {
    match promise {
        Promise::Everything => {
            assert_eq!(all.len(), 1, "{all:#?}");
            assert_eq!(failure(&all[0]), (Outcome::Unreachable, Some(libc::ENETUNREACH)));
            assert_eq!(all[0].evidence, Some(Evidence::ConnectReturn));
        }
        Promise::NoReturnValue => {
            // Nothing tells why it failed; that must not be invented.
            assert_eq!(all.len(), 1, "{all:#?}");
            assert_eq!(failure(&all[0]), (Outcome::Failed, None));
            assert_eq!(all[0].evidence, Some(Evidence::SocketState));
        }
        Promise::TcpStates => assert!(all.is_empty(), "{all:#?}"),
    }
}

#[test]
fn io_uring_without_a_route_fails_as_far_as_the_report_says() {
    let Some(watch) = shared() else { return };
    let Some(ring) = ring() else { return };
    drop(ring);
    let remotes = [v4([192, 0, 2, 43], 80), "[2001:db8::43]:80".parse().unwrap()];
    let attempts = std::thread::spawn(move || {
        own_network();
        let ring = Ring::new().unwrap();
        remotes.map(|remote| {
            let fd = socket(remote, SocketType::STREAM);
            errno(ring.connect(&fd, remote, 0))
        })
    });
    assert_eq!(attempts.join().unwrap(), [libc::ENETUNREACH; 2]);
    for remote in remotes {
        let promise = promise(&watch.handle);
        if promise != Promise::TcpStates {
            watch.outcome(remote);
        }
        assert_no_route(promise, &watch.records(|c| goes_to(c, remote)));
    }
}

/// A program for 32-bit x86 that connects a socket and ends with the error of connect(). By hand,
/// so that no compiler and no library are needed: ELF header, one segment, code, address.
fn program_of_32_bits(kind: SocketType, remote: SocketAddr) -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let SocketAddr::V4(remote) = remote else { panic!("IPv4 only") };
    let word = |opcode: u8, value: u32| {
        let mut bytes = vec![opcode];
        bytes.extend(value.to_le_bytes());
        bytes
    };
    let [eax, ecx, edx, ebx] = [0xb8, 0xb9, 0xba, 0xbb]; // mov register, value
    let code = |address: u32| {
        [
            word(eax, 359), // socket
            word(ebx, libc::AF_INET as u32),
            word(ecx, kind.as_raw()),
            word(edx, 0),
            vec![0xcd, 0x80, 0x89, 0xc3], // int 0x80; mov ebx, eax
            word(eax, 362),               // connect
            word(ecx, address),
            word(edx, 16),
            vec![0xcd, 0x80, 0x89, 0xc3, 0xf7, 0xdb], // int 0x80; mov ebx, eax; neg ebx
            word(eax, 1),                             // exit
            vec![0xcd, 0x80],
        ]
        .concat()
    };
    let length = code(0).len() as u32;
    let code = code(BASE + HEADERS + length);
    let total = HEADERS + length + 16;
    let mut elf = b"\x7fELF\x01\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 3, 0]); // executable, 80386
    for value in [1, BASE + HEADERS, 52, 0, 0] {
        elf.extend(u32::to_le_bytes(value));
    }
    for value in [52, 32, 1, 0, 0, 0] {
        elf.extend(u16::to_le_bytes(value));
    }
    for value in [1, 0, BASE, BASE, total, total, 5, 0x1000] {
        elf.extend(u32::to_le_bytes(value));
    }
    elf.extend(code);
    elf.extend((libc::AF_INET as u16).to_le_bytes());
    elf.extend(remote.port().to_be_bytes());
    elf.extend(remote.ip().octets());
    elf.extend([0; 8]);
    assert_eq!(elf.len(), total as usize);
    elf
}

/// Runs it; returns its pid and how it ended, or `None` where 32-bit programs do not run.
fn run_32_bits(kind: SocketType, remote: SocketAddr) -> Option<(u32, Option<i32>)> {
    use std::os::unix::fs::OpenOptionsExt;
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: this processor has no 32-bit mode that the test has a program for");
        return None;
    }
    let path = std::env::temp_dir().join(format!("netspy32-{}-{remote}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o700).open(&path).unwrap();
    io::Write::write_all(&mut file, &program_of_32_bits(kind, remote)).unwrap();
    drop(file);
    // Another thread may start a program just now, which holds the file open until it runs.
    let spawned = loop {
        match std::process::Command::new(&path).spawn() {
            Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) => std::thread::yield_now(),
            spawned => break spawned,
        }
    };
    let ended = match spawned {
        Ok(mut child) => Some((child.id(), child.wait().unwrap().code())),
        Err(e) if e.raw_os_error() == Some(libc::ENOEXEC) => {
            println!("skipped: this kernel runs no 32-bit programs");
            None
        }
        Err(e) => panic!("{e}"),
    };
    std::fs::remove_file(&path).unwrap();
    ended
}

#[test]
fn tcp_of_a_32_bit_program_is_as_any_other() {
    let Some(watch) = shared() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = bound_port();
    for (remote, errno, outcome) in [
        (listener.local_addr().unwrap(), 0, Outcome::Established),
        (refused, libc::ECONNREFUSED, Outcome::Refused),
    ] {
        let Some((pid, code)) = run_32_bits(SocketType::STREAM, remote) else { return };
        assert_eq!(code, Some(errno));
        let c = watch.only(remote);
        assert_eq!(failure(&c), (outcome, (errno != 0).then_some(errno)));
        assert_eq!(c.protocol, Protocol::Tcp);
        let process = c.process.unwrap();
        assert_eq!((process.pid, process.tid), (pid, pid));
        assert!(process.comm.starts_with("netspy32-"), "{}", process.comm);
    }
}

#[test]
fn what_sends_nothing_of_a_32_bit_program_is_seen_as_far_as_the_report_says() {
    let Some(watch) = shared() else { return };
    let datagrams = v4([127, 0, 0, 44], 4000);
    let Some((pid, code)) = run_32_bits(SocketType::DGRAM, datagrams) else { return };
    assert_eq!(code, Some(0));
    let unreachable = v4([192, 0, 2, 44], 80);
    let attempt = std::thread::spawn(move || {
        own_network();
        run_32_bits(SocketType::STREAM, unreachable).unwrap()
    });
    assert_eq!(attempt.join().unwrap().1, Some(libc::ENETUNREACH));
    let promise = promise(&watch.handle);
    if promise != Promise::TcpStates {
        watch.outcome(datagrams);
        watch.outcome(unreachable);
    }
    let all = watch.records(|c| goes_to(c, datagrams));
    if promise == Promise::TcpStates {
        assert!(all.is_empty(), "{all:#?}");
    } else {
        assert_eq!(all.len(), 1, "{all:#?}");
        assert_eq!((all[0].outcome, all[0].protocol), (Outcome::Associated, Protocol::Udp));
        assert_eq!(all[0].process.as_ref().unwrap().pid, pid);
    }
    assert_no_route(promise, &watch.records(|c| goes_to(c, unreachable)));
}
