//! TCP fast open: the SYN carries data, and no connect() says how it ended.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use netspy::event::{Connection, Evidence, Outcome, Protocol};
use rustix::net::{AddressFamily, SendFlags, SocketType};

use crate::harness::{Watch, bound_port, goes_to, own_network, shared};

const ADDRESSES: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

fn socket(remote: SocketAddr) -> OwnedFd {
    let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    rustix::net::socket(family, SocketType::STREAM, None).unwrap()
}

fn set(fd: &OwnedFd, option: libc::c_int, value: libc::c_int) {
    // SAFETY: the option takes an int, which lives through the call.
    #[allow(unsafe_code)]
    let ret = unsafe {
        let length = size_of_val(&value) as libc::socklen_t;
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    assert_eq!(ret, 0, "{}", std::io::Error::last_os_error());
}

/// A network of this thread in which both sides do without cookies (ip-sysctl.rst).
fn network_with_fast_open() {
    own_network();
    std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1543").unwrap();
}

fn listener(address: &str) -> (OwnedFd, SocketAddr) {
    let address: SocketAddr = address.parse().unwrap();
    let fd = socket(address);
    rustix::net::bind(&fd, &address).unwrap();
    set(&fd, libc::TCP_FASTOPEN, 16);
    rustix::net::listen(&fd, 16).unwrap();
    let address = rustix::net::getsockname(&fd).unwrap().try_into().unwrap();
    (fd, address)
}

/// Runs attempts in such a network, all in the thread that settles.
fn in_network(run: impl FnOnce(&Watch) + Send) {
    let Some(watch) = shared() else { return };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            network_with_fast_open();
            run(&watch);
        });
    });
}

/// The one attempt there that is not among those known already.
fn next(watch: &Watch, remote: SocketAddr, known: &[Connection]) -> Connection {
    let known: Vec<_> = known.iter().map(|c| c.id).collect();
    let mut all = watch.records(|c| goes_to(c, remote) && !known.contains(&c.id));
    assert_eq!(all.len(), 1, "{all:#?}");
    all.pop().unwrap()
}

fn assert_established(c: &Connection) {
    assert_eq!((c.outcome, c.errno, c.protocol), (Outcome::Established, None, Protocol::Tcp));
    assert_eq!(c.evidence, Some(Evidence::TcpState));
    assert_eq!(c.process.as_ref().unwrap().pid, std::process::id());
}

fn assert_refused(c: &Connection) {
    assert_eq!((c.outcome, c.errno), (Outcome::Refused, Some(libc::ECONNREFUSED)));
    assert_eq!((c.evidence, c.protocol), (Some(Evidence::SkError), Protocol::Tcp));
}

#[test]
fn fast_open_by_sendto_is_one_attempt_although_nobody_calls_connect() {
    in_network(|watch| {
        let fast_open = SendFlags::from_bits_retain(libc::MSG_FASTOPEN as u32);
        for address in ADDRESSES {
            let (listening, remote) = listener(address);
            let fd = socket(remote);
            assert_eq!(rustix::net::sendto(&fd, b"hello", fast_open, &remote).unwrap(), 5);
            let served = rustix::net::accept(&listening).unwrap();
            let mut data = [0; 8];
            assert_eq!(rustix::io::read(&served, &mut data).unwrap(), 5);
            let c = next(watch, remote, &[]);
            assert_established(&c);

            drop((listening, served));
            let refused = socket(remote);
            let error = rustix::net::sendto(&refused, b"hello", fast_open, &remote).unwrap_err();
            assert_eq!(error.raw_os_error(), libc::ECONNREFUSED);
            assert_refused(&next(watch, remote, &[c]));
        }
    });
}

#[test]
fn fast_open_by_connect_is_established_by_the_answer_and_not_by_the_return_of_connect() {
    in_network(|watch| {
        for address in ADDRESSES {
            let (listening, remote) = listener(address);
            let fd = socket(remote);
            set(&fd, libc::TCP_FASTOPEN_CONNECT, 1);
            rustix::net::connect(&fd, &remote).unwrap();
            // No packet was sent.
            let waiting = watch.wait("what was not sent yet", |c| goes_to(c, remote));
            assert_eq!((waiting.outcome, waiting.evidence), (Outcome::InProgress, None));
            assert_eq!(next(watch, remote, &[]).outcome, Outcome::InProgress);
            assert_eq!(rustix::io::write(&fd, b"hello").unwrap(), 5);
            let _served = rustix::net::accept(&listening).unwrap();
            let c = next(watch, remote, &[]);
            assert_established(&c);
            assert_eq!(c.id, waiting.id);
        }

        let remote = bound_port();
        let fd = socket(remote);
        set(&fd, libc::TCP_FASTOPEN_CONNECT, 1);
        rustix::net::connect(&fd, &remote).unwrap();
        let error = rustix::io::write(&fd, b"hello").unwrap_err();
        assert_eq!(error.raw_os_error(), libc::ECONNREFUSED);
        assert_refused(&next(watch, remote, &[]));

        // Given up before anything was sent.
        let remote = bound_port();
        let fd = socket(remote);
        set(&fd, libc::TCP_FASTOPEN_CONNECT, 1);
        rustix::net::connect(&fd, &remote).unwrap();
        drop(fd);
        let c = next(watch, remote, &[]);
        assert_eq!((c.outcome, c.errno), (Outcome::Aborted, None));
        assert_eq!(c.evidence, Some(Evidence::OwnerClose));
    });
}
