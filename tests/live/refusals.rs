//! Attempts that fail, each for another reason, and what is no attempt.

use std::os::fd::OwnedFd;

use netspy::event::{Connection, Evidence, Outcome, State};
use rustix::net::{AddressFamily, SocketType};

use crate::harness::{
    bound_port, connect, connect_nonblocking, goes_to, ip, own_network, set_syn_retries, shared,
    v4, writable,
};
use crate::roles::play;

fn failure(c: &Connection) -> (Outcome, Option<i32>, Option<&str>) {
    (c.outcome, c.errno, c.error.as_deref())
}

#[test]
fn a_refused_connect_keeps_its_destination_and_its_error() {
    let Some(watch) = shared() else { return };
    let remote = bound_port();
    connect(AddressFamily::INET, SocketType::STREAM, remote).1.unwrap_err();
    let c = watch.only(remote);
    assert_eq!(failure(&c), (Outcome::Refused, Some(111), Some("ECONNREFUSED")));
    assert_eq!((c.state, c.evidence), (State::Closed, Some(Evidence::SkError)));
    assert!(c.local.is_some_and(|l| l.port != 0) && c.latency_us.is_some());
}

#[test]
fn the_second_connect_that_fetches_the_error_is_no_new_attempt() {
    let Some(watch) = shared() else { return };
    let remote = bound_port();
    let (fd, _) = connect_nonblocking(remote);
    writable(&fd);
    rustix::net::connect(&fd, &remote).unwrap_err();
    assert_eq!(watch.only(remote).outcome, Outcome::Refused);
    // The socket is as new: from here on it is a further attempt.
    let _ = rustix::net::connect(&fd, &remote);
    writable(&fd);
    assert_eq!(watch.records(|c| goes_to(c, remote)).len(), 2);
}

#[test]
fn an_error_fetched_from_the_socket_is_not_counted_again() {
    let Some(watch) = shared() else { return };
    let remote = bound_port();
    let (fd, _) = connect_nonblocking(remote);
    writable(&fd);
    let error = rustix::net::sockopt::socket_error(&fd).unwrap();
    assert!(error.is_err());
    let again = rustix::net::connect(&fd, &remote).unwrap_err();
    assert_eq!(again, rustix::io::Errno::CONNABORTED);
    assert_eq!(watch.only(remote).errno, Some(111));
}

#[test]
fn one_socket_can_make_many_attempts() {
    let Some(watch) = shared() else { return };
    let remote = bound_port();
    let (fd, _) = connect(AddressFamily::INET, SocketType::STREAM, remote);
    for _ in 0..4 {
        rustix::net::connect(&fd, &remote).unwrap_err();
    }
    let all = watch.records(|c| goes_to(c, remote));
    assert_eq!(all.len(), 5);
    assert!(all.iter().all(|c| c.outcome == Outcome::Refused));
}

#[test]
fn what_never_sends_a_packet_is_an_attempt_with_the_error_that_connect_returned() {
    let Some(watch) = shared() else { return };
    let cases = [
        ([192, 0, 2, 1], Outcome::Unreachable, 101, "ENETUNREACH"),
        ([198, 51, 100, 1], Outcome::Unreachable, 113, "EHOSTUNREACH"),
        ([198, 51, 100, 2], Outcome::Denied, 13, "EACCES"),
        ([198, 51, 100, 3], Outcome::Failed, 22, "EINVAL"),
    ];
    let attempts = std::thread::spawn(move || {
        own_network();
        ip("route add unreachable 198.51.100.1");
        ip("route add prohibit 198.51.100.2");
        ip("route add blackhole 198.51.100.3");
        for kind in [SocketType::STREAM, SocketType::DGRAM] {
            for (address, ..) in cases {
                connect(AddressFamily::INET, kind, v4(address, 443)).1.unwrap_err();
            }
        }
    });
    attempts.join().unwrap();
    for (address, outcome, errno, error) in cases {
        let all = watch.records(|c| goes_to(c, v4(address, 443)));
        assert_eq!(all.len(), 2, "{all:#?}");
        for c in all {
            assert_eq!(failure(&c), (outcome, Some(errno), Some(error)), "{address:?}");
            assert_eq!(c.evidence, Some(Evidence::ConnectReturn));
        }
    }
}

#[test]
fn an_attempt_without_answer_is_in_progress_and_then_timed_out_under_one_id() {
    let Some(watch) = shared() else { return };
    let remote = v4([192, 0, 2, 9], 80);
    let attempt = std::thread::spawn(move || {
        own_network();
        // Routed to loopback, where nobody has the address: SYNs vanish.
        ip("route add 192.0.2.0/24 dev lo");
        let fd = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        set_syn_retries(&fd, 1);
        let error = rustix::net::connect(&fd, &remote).unwrap_err();
        (error, retransmitted())
    });
    let first = watch.wait("an attempt in progress", |c| goes_to(c, remote));
    assert_eq!((first.outcome, first.state), (Outcome::InProgress, State::Connecting));
    assert_eq!((first.latency_us, first.evidence), (None, None));
    let report = watch.handle.capabilities();
    if report.features["in_progress"].note.is_none() {
        assert!(first.local.is_some_and(|l| l.port != 0), "the port is known by then");
    }
    let shown_after = jiff::Timestamp::now().duration_since(first.time);
    assert!(shown_after < jiff::SignedDuration::from_secs(1), "shown after {shown_after}");
    let (error, retransmitted) = attempt.join().unwrap();
    assert_eq!(error, rustix::io::Errno::TIMEDOUT);
    let last = watch.outcome(remote);
    assert_eq!(failure(&last), (Outcome::TimedOut, Some(110), Some("ETIMEDOUT")));
    assert_eq!((last.id, last.syn_retransmits), (first.id, Some(retransmitted)));
    assert_eq!(watch.only(remote).id, first.id);
}

/// What the kernel itself counts in this thread's network namespace (RetransSegs, RFC 4022).
fn retransmitted() -> u32 {
    let file = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut tcp = file.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let mut names = tcp.next().unwrap().split_ascii_whitespace();
    let mut values = tcp.next().unwrap().split_ascii_whitespace();
    let column = names.position(|name| name == "RetransSegs").unwrap();
    values.nth(column).unwrap().parse().unwrap()
}

#[test]
fn what_its_owner_gives_up_is_aborted() {
    let Some(watch) = shared() else { return };
    let closed = v4([192, 0, 2, 10], 80);
    let disconnected = v4([192, 0, 2, 11], 80);
    let killed = v4([192, 0, 2, 12], 80);
    let taken_back = v4([192, 0, 2, 13], 80);
    let owner = std::thread::spawn(move || {
        own_network();
        ip("route add 192.0.2.0/24 dev lo");
        drop(connect_nonblocking(closed).0);

        let (fd, _) = connect_nonblocking(disconnected);
        rustix::net::shutdown(&fd, rustix::net::Shutdown::Both).unwrap();

        let (fd, _) = connect_nonblocking(taken_back);
        rustix::net::connect_unspec(&fd).unwrap();

        play("connect", killed).spawn().unwrap()
    });
    let mut child = owner.join().unwrap();
    watch.wait("the attempt of the child", |c| goes_to(c, killed));
    child.kill().unwrap();
    child.wait().unwrap();
    for remote in [closed, disconnected, taken_back, killed] {
        let c = watch.outcome(remote);
        assert_eq!(failure(&c), (Outcome::Aborted, None, None), "{remote}");
        assert_eq!((c.state, c.evidence), (State::Closed, Some(Evidence::OwnerClose)));
        assert_eq!(watch.only(remote).id, c.id);
    }
}

#[test]
fn a_connect_that_finds_no_free_port_fails_with_its_own_error() {
    let Some(watch) = shared() else { return };
    let remote = v4([127, 0, 0, 1], 7);
    let attempts = std::thread::spawn(move || {
        own_network();
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50000").unwrap();
        let _listener = std::net::TcpListener::bind(remote).unwrap();
        let first = connect(AddressFamily::INET, SocketType::STREAM, remote);
        let second = connect(AddressFamily::INET, SocketType::STREAM, remote);
        (first.1.is_ok(), second.1.unwrap_err().raw_os_error())
    });
    assert_eq!(attempts.join().unwrap(), (true, Some(99)));
    let c = watch.wait("the failure", |c| goes_to(c, remote) && c.outcome == Outcome::Failed);
    assert_eq!(failure(&c), (Outcome::Failed, Some(99), Some("EADDRNOTAVAIL")));
    assert_eq!(c.evidence, Some(Evidence::ConnectReturn));
    assert_eq!(watch.records(|c| goes_to(c, remote)).len(), 2);
}

#[test]
fn an_interrupted_connect_is_one_attempt() {
    let Some(watch) = shared() else { return };
    let remote = v4([192, 0, 2, 14], 80);
    let attempt = std::thread::spawn(move || {
        own_network();
        ip("route add 192.0.2.0/24 dev lo");
        play("connect through signals", remote).status().unwrap()
    });
    assert_eq!(attempt.join().unwrap().code(), Some(110));
    assert_eq!(watch.outcome(remote).errno, Some(110));
    assert_eq!(watch.only(remote).outcome, Outcome::TimedOut);
}

#[test]
fn what_never_reaches_a_socket_is_no_attempt() {
    let Some(watch) = shared() else { return };
    watch.settle();
    let before = watch.handle.counters().attempts;
    let remote = v4([127, 0, 0, 1], 1);
    let pipe = rustix::pipe::pipe().unwrap();
    assert_eq!(rustix::net::connect(&pipe.0, &remote), Err(rustix::io::Errno::NOTSOCK));
    // SAFETY: an invalid descriptor and an unreadable address, which the kernel refuses.
    #[allow(unsafe_code)]
    let errors = unsafe {
        let fd = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
        [
            libc::connect(-1, std::ptr::null(), 16),
            libc::connect(raw, std::ptr::without_provenance(8), 16),
        ]
    };
    assert_eq!(errors, [-1, -1]);
    let ours = watch.records(|c| goes_to(c, remote));
    assert!(ours.is_empty(), "{ours:#?}");
    let after = watch.handle.counters().attempts;
    // Of this thread, only the marker of `records`; other programs may connect meanwhile.
    let strangers =
        watch.records(|c| c.process.as_ref().is_some_and(|p| p.pid != std::process::id()));
    assert!(after - before <= 1 + strangers.len() as u64, "{before} -> {after}");
}

#[test]
fn an_attempt_taken_back_keeps_nothing_of_the_next() {
    let Some(watch) = shared() else { return };
    let taken_back = v4([192, 0, 2, 15], 80);
    let refused_by_route = v4([198, 51, 100, 1], 81);
    let stopped = v4([192, 0, 2, 16], 80);
    let denied = v4([198, 51, 100, 2], 81);
    let attempts = std::thread::spawn(move || {
        own_network();
        ip("route add 192.0.2.0/24 dev lo");
        ip("route add unreachable 198.51.100.1");
        ip("route add prohibit 198.51.100.2");
        let (fd, _) = connect_nonblocking(taken_back);
        rustix::net::connect_unspec(&fd).unwrap();
        rustix::net::connect(&fd, &refused_by_route).unwrap_err();
        // Once more: an error of the same number is of another attempt.
        rustix::net::connect_unspec(&fd).unwrap();
        rustix::net::connect(&fd, &refused_by_route).unwrap_err();
        let (fd, _) = connect_nonblocking(stopped);
        rustix::net::shutdown(&fd, rustix::net::Shutdown::Both).unwrap();
        rustix::net::connect(&fd, &denied).unwrap_err();
    });
    attempts.join().unwrap();
    assert_eq!(failure(&watch.only(taken_back)), (Outcome::Aborted, None, None));
    assert_eq!(failure(&watch.only(stopped)), (Outcome::Aborted, None, None));
    let again = watch.records(|c| goes_to(c, refused_by_route));
    assert_eq!(again.len(), 2, "{again:#?}");
    assert!(again.iter().all(|c| c.errno == Some(113)));
    assert_eq!(watch.only(denied).errno, Some(13));
}

#[test]
fn a_failure_that_no_connect_returns_is_not_laid_to_the_owner() {
    let Some(watch) = shared() else { return };
    let remote = v4([127, 0, 0, 1], 8);
    let attempts = std::thread::spawn(move || {
        own_network();
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50000").unwrap();
        let _listener = std::net::TcpListener::bind(remote).unwrap();
        let first = connect(AddressFamily::INET, SocketType::STREAM, remote);
        let fd = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let flags = rustix::net::SendFlags::from_bits_retain(libc::MSG_FASTOPEN as u32);
        let sent = rustix::net::sendto(&fd, b"x", flags, &remote).unwrap_err();
        // A socket that was shut down before says the same of itself as one that is closed.
        let shut = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let _ = rustix::net::shutdown(&shut, rustix::net::Shutdown::Both);
        let connected = rustix::net::connect(&shut, &remote).unwrap_err();
        (first.1.is_ok(), sent.raw_os_error(), connected.raw_os_error())
    });
    assert_eq!(attempts.join().unwrap(), (true, 99, 99));
    let mut all = watch.records(|c| goes_to(c, remote) && c.outcome != Outcome::Established);
    all.sort_by_key(|c| c.time);
    let [sent, connected] = &all[..] else { panic!("{all:#?}") };
    // Where nothing tells which call a thread is in, it looks as if the owner had disconnected.
    if !netspy::capture::support::KernelSupport::probe().task_pt_regs {
        assert_eq!(sent.outcome, Outcome::Aborted);
    } else {
        assert_eq!(failure(sent), (Outcome::Failed, None, None));
        assert_eq!(sent.evidence, Some(Evidence::TcpState));
    }
    assert_eq!(failure(connected), (Outcome::Failed, Some(99), Some("EADDRNOTAVAIL")));
}

#[test]
fn threads_that_wait_in_connect_on_one_socket_are_one_attempt() {
    let Some(watch) = shared() else { return };
    for n in 0..5 {
        let remote = v4([192, 0, 2, 60], 8000 + n);
        let errors = std::thread::spawn(move || {
            own_network();
            ip("route add 192.0.2.0/24 dev lo");
            let fd = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            rustix::net::sockopt::set_tcp_user_timeout(&fd, 300).unwrap();
            std::thread::scope(|scope| {
                let call = || rustix::net::connect(&fd, &remote).unwrap_err();
                let calls = [scope.spawn(call), scope.spawn(call)];
                calls.map(|call| call.join().unwrap())
            })
        });
        let errors = errors.join().unwrap();
        assert!(errors.contains(&rustix::io::Errno::TIMEDOUT), "{errors:?}");
        let c = watch.outcome(remote);
        assert_eq!(c.outcome, Outcome::TimedOut, "{errors:?}: {c:#?}");
        watch.only(remote);
    }
}

#[test]
fn a_connect_that_another_thread_takes_back_is_one_attempt() {
    let Some(watch) = shared() else { return };
    let ways: [fn(&OwnedFd) -> rustix::io::Result<()>; 2] = [
        |fd| rustix::net::shutdown(fd, rustix::net::Shutdown::Both),
        |fd| rustix::net::connect_unspec(fd),
    ];
    for (n, take_back) in ways.into_iter().enumerate() {
        let remote = v4([192, 0, 2, 61], 8000 + n as u16);
        let (send, receive) = std::sync::mpsc::channel();
        let owner = std::thread::spawn(move || {
            own_network();
            ip("route add 192.0.2.0/24 dev lo");
            let fd = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            // Should nobody be able to take it back, it ends by itself.
            set_syn_retries(&fd, 1);
            let fd = std::sync::Arc::new(fd);
            send.send(std::sync::Arc::clone(&fd)).unwrap();
            rustix::net::connect(&*fd, &remote).unwrap_err()
        });
        let fd = receive.recv().unwrap();
        let waiting = watch.wait("the attempt while it waits", |c| goes_to(c, remote));
        if let Err(error) = take_back(&fd) {
            assert_eq!(error, rustix::io::Errno::BUSY);
            // While it waits, it has what a probe of the return needs, of which there is little.
            let _ = owner.join();
            println!("skipped: this kernel takes nothing from a thread that waits");
            return;
        }
        let error = owner.join().unwrap();
        let c = watch.outcome(remote);
        assert_eq!((c.id, failure(&c)), (waiting.id, (Outcome::Aborted, None, None)), "{error}");
        watch.settle();
        watch.only(remote);
    }
}
