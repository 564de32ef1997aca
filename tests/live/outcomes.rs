//! Outcomes of both families and of every kind of error, against what connect() itself returned.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::time::Instant;

use libbpf_rs::libbpf_sys;
use netspy::event::{CloseReason, Connection, Evidence, Family, Outcome, Protocol, State};
use rustix::net::{AddressFamily, SocketType};

use crate::group::Group;
use crate::harness::{
    connect, connect_nonblocking, goes_to, ip, own_network, set_syn_retries, shared, v4, writable,
};
use crate::roles::play;

const KINDS: [SocketType; 2] = [SocketType::STREAM, SocketType::DGRAM];

fn v6(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(ip.parse().unwrap()), port)
}

fn family(remote: SocketAddr) -> AddressFamily {
    if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

fn failure(c: &Connection) -> (Outcome, Option<i32>, Option<&str>) {
    (c.outcome, c.errno, c.error.as_deref())
}

/// What an error of connect() is called.
fn outcome_of(errno: i32) -> Outcome {
    match errno {
        libc::ETIMEDOUT => Outcome::TimedOut,
        libc::ENETUNREACH => Outcome::Unreachable,
        _ => Outcome::Failed,
    }
}

/// A network in which SYNs to 192.0.2.0/24 and 2001:db8::/32 vanish.
fn network_without_answers() {
    own_network();
    ip("route add 192.0.2.0/24 dev lo");
    ip("-6 route add 2001:db8::/32 dev lo");
}

#[test]
fn routes_that_refuse_have_their_own_errors_in_ipv6_too() {
    let Some(watch) = shared() else { return };
    let cases = [
        ("2001:db8::1", Outcome::Unreachable, 101, "ENETUNREACH"),
        ("2001:db8::2", Outcome::Unreachable, 113, "EHOSTUNREACH"),
        ("2001:db8::3", Outcome::Denied, 13, "EACCES"),
        ("2001:db8::4", Outcome::Failed, 22, "EINVAL"),
    ];
    let attempts = std::thread::spawn(move || {
        own_network();
        ip("-6 route add unreachable 2001:db8::2");
        ip("-6 route add prohibit 2001:db8::3");
        ip("-6 route add blackhole 2001:db8::4");
        for (address, _, errno, _) in cases {
            for kind in KINDS {
                let error = connect(AddressFamily::INET6, kind, v6(address, 443)).1.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(errno), "{address}");
            }
        }
    });
    attempts.join().unwrap();
    for (address, outcome, errno, error) in cases {
        let all = watch.records(|c| goes_to(c, v6(address, 443)));
        assert_eq!(all.len(), 2, "{all:#?}");
        let protocols: Vec<_> = all.iter().map(|c| c.protocol).collect();
        assert_eq!(protocols, [Protocol::Tcp, Protocol::Udp]);
        for c in all {
            assert_eq!(failure(&c), (outcome, Some(errno), Some(error)), "{address}");
            assert_eq!((c.family, c.state), (Family::Ipv6, State::Closed));
            assert_eq!(c.evidence, Some(Evidence::ConnectReturn));
            let is_tcp = c.protocol == Protocol::Tcp;
            assert_eq!((c.syn_retransmits, c.close), (is_tcp.then_some(0), None));
        }
    }
}

#[test]
fn an_address_that_is_not_of_this_host_is_no_place_to_connect_from() {
    let Some(watch) = shared() else { return };
    let remote = v4([127, 0, 0, 1], 50);
    let attempts = std::thread::spawn(move || {
        own_network();
        ip("addr add 203.0.113.7/32 dev lo");
        let sockets = KINDS.map(|kind| {
            let fd = rustix::net::socket(AddressFamily::INET, kind, None).unwrap();
            rustix::net::bind(&fd, &v4([203, 0, 113, 7], 0)).unwrap();
            fd
        });
        ip("addr del 203.0.113.7/32 dev lo");
        sockets.map(|fd| rustix::net::connect(fd, &remote).unwrap_err().raw_os_error())
    });
    let errors = attempts.join().unwrap();
    let all = watch.records(|c| goes_to(c, remote));
    assert_eq!(all.len(), 2, "{all:#?}");
    for ((c, errno), protocol) in all.iter().zip(errors).zip([Protocol::Tcp, Protocol::Udp]) {
        // Which error depends on the kernel.
        assert_eq!((c.outcome, c.errno), (outcome_of(errno), Some(errno)));
        assert_eq!((c.protocol, c.evidence), (protocol, Some(Evidence::ConnectReturn)));
    }
}

#[test]
fn running_out_of_ports_is_told_of_both_families_and_of_datagrams() {
    let Some(watch) = shared() else { return };
    let tcp = v6("::1", 7);
    let udp = [v4([127, 0, 0, 1], 9), v6("::1", 9)];
    let attempts = std::thread::spawn(move || {
        own_network();
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50000").unwrap();
        let _listener = TcpListener::bind(tcp).unwrap();
        let first = connect(family(tcp), SocketType::STREAM, tcp);
        let second = connect(family(tcp), SocketType::STREAM, tcp).1.unwrap_err().raw_os_error();
        assert!(first.1.is_ok() && second == Some(libc::EADDRNOTAVAIL), "{second:?}");
        for remote in udp {
            let first = connect(family(remote), SocketType::DGRAM, remote);
            let second = connect(family(remote), SocketType::DGRAM, remote).1.unwrap_err();
            assert!(first.1.is_ok() && second.raw_os_error() == Some(libc::EAGAIN), "{second}");
        }
    });
    attempts.join().unwrap();
    let failed = |remote| {
        let all = watch.records(|c| goes_to(c, remote));
        assert_eq!(all.len(), 2, "{all:#?}");
        all.into_iter().find(|c| c.errno.is_some()).unwrap()
    };
    let c = failed(tcp);
    assert_eq!(failure(&c), (Outcome::Failed, Some(99), Some("EADDRNOTAVAIL")));
    assert_eq!(c.evidence, Some(Evidence::ConnectReturn));
    for remote in udp {
        let c = failed(remote);
        assert_eq!(failure(&c), (Outcome::Failed, Some(11), Some("EAGAIN")), "{remote}");
        assert_eq!(c.evidence, Some(Evidence::ConnectReturn));
    }
}

/// A cgroup in which connect() is denied by a BPF program.
fn denying_group() -> Option<Group> {
    let group = Group::new("denying")?;
    let directory = std::fs::File::open(&group.path).unwrap();
    for attach_type in [libbpf_sys::BPF_CGROUP_INET4_CONNECT, libbpf_sys::BPF_CGROUP_INET6_CONNECT]
    {
        let program = denying_program(attach_type);
        // SAFETY: both descriptors are open.
        #[allow(unsafe_code)]
        let ret = unsafe {
            let (program, group) = (program.as_raw_fd(), directory.as_raw_fd());
            libbpf_sys::bpf_prog_attach(program, group, attach_type, 2 /* ALLOW_MULTI */)
        };
        assert_eq!(ret, 0, "{}", std::io::Error::last_os_error());
    }
    Some(group)
}

/// r0 = 0; exit.
fn denying_program(attach_type: libbpf_sys::bpf_attach_type) -> OwnedFd {
    let code: [u64; 2] = [0xb7, 0x95];
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as _,
        expected_attach_type: attach_type,
        ..Default::default()
    };
    // SAFETY: an instruction is eight bytes; the strings end with a zero; all live through the
    // call, which returns a descriptor of its own.
    #[allow(unsafe_code)]
    unsafe {
        let fd = libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            c"deny".as_ptr(),
            c"GPL".as_ptr(),
            code.as_ptr().cast(),
            code.len() as _,
            &raw mut options,
        );
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

#[test]
fn what_a_program_on_the_cgroup_denies_is_denied_whoever_else_is_attached() {
    let Some(watch) = shared() else { return };
    let Some(group) = denying_group() else { return };
    let cases = [
        ("connect", v4([127, 0, 0, 61], 443), Protocol::Tcp),
        ("connect a datagram socket", v4([127, 0, 0, 62], 443), Protocol::Udp),
        ("connect", v6("::1", 4461), Protocol::Tcp),
        ("connect a datagram socket", v6("::1", 4462), Protocol::Udp),
    ];
    for (role, remote, protocol) in cases {
        let status = group.take(play(role, remote)).status().unwrap();
        assert_eq!(status.code(), Some(libc::EPERM), "{remote}");
        let c = watch.only(remote);
        assert_eq!(failure(&c), (Outcome::Denied, Some(1), Some("EPERM")), "{remote}");
        assert_eq!((c.protocol, c.evidence), (protocol, Some(Evidence::ConnectReturn)));
        assert_eq!(c.state, State::Closed);
    }
}

#[test]
fn a_failure_that_was_waited_for_has_the_time_that_it_took() {
    let Some(watch) = shared() else { return };
    let remotes = [v4([192, 0, 2, 62], 80), v6("2001:db8::62", 80)];
    let attempts = std::thread::spawn(move || {
        network_without_answers();
        let attempts = remotes.map(|remote| {
            let fd = rustix::net::socket(family(remote), SocketType::STREAM, None).unwrap();
            set_syn_retries(&fd, 1);
            std::thread::spawn(move || {
                let began = Instant::now();
                let error = rustix::net::connect(&fd, &remote).unwrap_err();
                (error.raw_os_error(), began.elapsed())
            })
        });
        attempts.map(|attempt| attempt.join().unwrap())
    });
    for (remote, (errno, waited)) in remotes.into_iter().zip(attempts.join().unwrap()) {
        let c = watch.only(remote);
        // Should the route be looked up anew meanwhile, IPv6 may have its error kept until then
        // (sk_err_soft, inet6_csk_xmit()).
        assert!(errno == libc::ETIMEDOUT || remote.is_ipv6() && errno == libc::ENETUNREACH);
        assert_eq!((c.outcome, c.errno), (outcome_of(errno), Some(errno)), "{remote}");
        assert_eq!(c.evidence, Some(Evidence::SkError));
        let latency = u128::from(c.latency_us.unwrap());
        // Taken within the call.
        assert!(latency <= waited.as_micros() && c.close.is_none(), "{latency} {waited:?}");
        if errno == libc::ETIMEDOUT {
            // The SYN alone was waited for a second.
            assert!(latency > 500_000 && c.syn_retransmits >= Some(1), "{latency} {c:#?}");
        }
    }
}

#[test]
fn a_connection_that_came_at_the_second_syn_says_so() {
    let Some(watch) = shared() else { return };
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let address: SocketAddr = address.parse().unwrap();
        let listening = rustix::net::socket(family(address), SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listening, &address).unwrap();
        rustix::net::listen(&listening, 0).unwrap();
        let remote: SocketAddr = rustix::net::getsockname(&listening).unwrap().try_into().unwrap();
        // Fills the queue of those that wait to be accepted; the SYN after it is dropped.
        let first = TcpStream::connect(remote).unwrap();
        let began = Instant::now();
        let (second, result) = connect_nonblocking(remote);
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
        let _accepted = rustix::net::accept(&listening).unwrap();
        writable(&second);
        let waited = began.elapsed().as_micros();
        let local: SocketAddr = rustix::net::getsockname(&second).unwrap().try_into().unwrap();
        let all = watch.records(|c| goes_to(c, remote));
        assert_eq!(all.len(), 2, "{all:#?}");
        let port = |port| all.iter().find(|c| c.local.is_some_and(|l| l.port == port)).unwrap();
        let c = port(local.port());
        assert_eq!((c.outcome, c.errno), (Outcome::Established, None));
        assert!(c.syn_retransmits >= Some(1), "{c:#?}");
        let latency = u128::from(c.latency_us.unwrap());
        assert!(latency > 500_000 && latency <= waited, "{latency} of {waited}");
        let at_once = port(first.local_addr().unwrap().port());
        assert_eq!((at_once.outcome, at_once.syn_retransmits), (Outcome::Established, Some(0)));
    }
}

#[test]
fn what_is_given_up_in_ipv6_is_aborted_too() {
    let Some(watch) = shared() else { return };
    let [closed, taken_back, killed] = [63, 64, 65].map(|port| v6("2001:db8::63", port));
    let owner = std::thread::spawn(move || {
        network_without_answers();
        drop(connect_nonblocking(closed).0);
        let (fd, _) = connect_nonblocking(taken_back);
        rustix::net::connect_unspec(&fd).unwrap();
        play("connect", killed).spawn().unwrap()
    });
    let mut child = owner.join().unwrap();
    let waiting = watch.wait("the attempt of the child", |c| goes_to(c, killed));
    assert_eq!(waiting.process.as_ref().unwrap().pid, child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    for remote in [closed, taken_back, killed] {
        watch.outcome(remote);
        let c = watch.only(remote);
        assert_eq!(failure(&c), (Outcome::Aborted, None, None), "{remote}");
        assert_eq!((c.state, c.evidence), (State::Closed, Some(Evidence::OwnerClose)));
    }
    // It was shown after a tenth of a second at the earliest.
    assert!(watch.only(killed).latency_us.unwrap() > 90_000);
}

#[test]
fn an_established_connection_ends_as_its_owner_or_its_peer_ends_it_in_ipv6_too() {
    use rustix::net::sockopt::set_socket_linger;
    let Some(watch) = shared() else { return };
    let now = Some(std::time::Duration::ZERO);
    for (reason, end) in [
        (CloseReason::Reset, 0),
        (CloseReason::Abort, 1),
        (CloseReason::Abort, 2),
        (CloseReason::Fin, 3),
    ] {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let remote = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(remote).unwrap();
        let (server, _) = listener.accept().unwrap();
        match end {
            0 => {
                set_socket_linger(&server, now).unwrap();
                drop(server);
                let error = std::io::Read::read(&mut client, &mut [0; 1]).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
            }
            1 => {
                set_socket_linger(&client, now).unwrap();
                drop(client);
            }
            // A disconnect is no attempt, and no orderly end.
            2 => rustix::net::connect_unspec(&client).unwrap(),
            _ => {
                drop(server);
                assert_eq!(std::io::Read::read(&mut client, &mut [0; 1]).unwrap(), 0);
                drop(client);
            }
        }
        let c = watch.wait("the end", |c| goes_to(c, remote) && c.close.is_some());
        assert_eq!((c.outcome, c.errno), (Outcome::Established, None));
        assert_eq!((c.state, c.family), (State::Closed, Family::Ipv6));
        assert_eq!(c.close.unwrap().reason, reason, "end {end}");
        assert_eq!(watch.only(remote).id, c.id);
    }
}

#[test]
fn taking_away_a_peer_that_there_is_not_is_no_attempt() {
    let Some(watch) = shared() else { return };
    watch.settle();
    let before = watch.handle.counters().attempts;
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        for kind in KINDS {
            let fd = rustix::net::socket(family, kind, None).unwrap();
            rustix::net::connect_unspec(&fd).unwrap();
        }
    }
    watch.settle();
    let after = watch.handle.counters().attempts;
    let strangers =
        watch.records(|c| c.process.as_ref().is_some_and(|p| p.pid != std::process::id()));
    assert!(after - before <= 1 + strangers.len() as u64, "{before} -> {after}");
}

/// A network behind a router that has no way to 10.66.0.0/24 and 2001:db8:66::/64, in a namespace of
/// its own; `Err` where there can be none. The router goes with what is returned.
fn network_behind_a_router() -> Result<mpsc::Sender<()>, String> {
    own_network();
    let (ready, is_ready) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let (go, goes) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        own_network();
        ready.send(rustix::thread::gettid()).unwrap();
        if goes.recv().is_err() {
            return;
        }
        for line in [
            "link set dev far up",
            "addr add 10.55.0.2/24 dev far",
            "-6 addr add 2001:db8:55::2/64 dev far nodad",
            "neigh add 10.55.0.1 lladdr 02:00:00:00:00:01 dev far",
            "-6 neigh add 2001:db8:55::1 lladdr 02:00:00:00:00:01 dev far",
            "route add unreachable 10.66.0.0/24",
            "-6 route add unreachable 2001:db8:66::/64",
        ] {
            ip(line);
        }
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{name}"), "1").unwrap();
        }
        ready.send(rustix::thread::gettid()).unwrap();
        let _ = ended.recv();
    });
    let router = is_ready.recv().unwrap().as_raw_nonzero();
    let link = "link add name near address 02:00:00:00:00:01 type veth peer name far address \
                02:00:00:00:00:02";
    let made = Command::new("ip").args(link.split_whitespace()).output();
    match made {
        Ok(output) if output.status.success() => {}
        Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    for line in [
        format!("link set dev far netns {router}"),
        "link set dev near up".to_owned(),
        "addr add 10.55.0.1/24 dev near".to_owned(),
        "-6 addr add 2001:db8:55::1/64 dev near nodad".to_owned(),
        "neigh add 10.55.0.2 lladdr 02:00:00:00:00:02 dev near".to_owned(),
        "-6 neigh add 2001:db8:55::2 lladdr 02:00:00:00:00:02 dev near".to_owned(),
    ] {
        ip(&line);
    }
    go.send(()).unwrap();
    is_ready.recv().unwrap();
    ip("route add 10.66.0.0/24 via 10.55.0.2 dev near onlink");
    ip("-6 route add 2001:db8:66::/64 via 2001:db8:55::2 dev near onlink");
    Ok(end)
}

/// The router's answer comes while the SYN is being sent, and the socket locked: the kernel goes on
/// trying, but poll() and SO_ERROR tell the owner.
#[test]
fn an_error_that_only_the_owner_was_told_is_the_outcome() {
    let Some(watch) = shared() else { return };
    let remotes = [v4([10, 66, 0, 1], 443), v6("2001:db8:66::1", 443)];
    let told = std::thread::spawn(move || {
        let _router = network_behind_a_router()?;
        let told = remotes.map(|remote| {
            let (fd, result) = connect_nonblocking(remote);
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EINPROGRESS), "{remote}");
            writable(&fd);
            let error = rustix::net::sockopt::socket_error(&fd).unwrap().unwrap_err();
            error.raw_os_error()
        });
        Ok::<_, String>(told)
    });
    let told = match told.join().unwrap() {
        Ok(told) => told,
        Err(why) => {
            println!("skipped: there can be no router: {why}");
            return;
        }
    };
    for (remote, errno) in remotes.into_iter().zip(told) {
        let all = watch.records(|c| goes_to(c, remote) && c.outcome != Outcome::InProgress);
        assert_eq!(all.len(), 1, "{all:#?}");
        let c = &all[0];
        assert_eq!((c.outcome, c.errno), (Outcome::Unreachable, Some(errno)), "{c:#?}");
        assert_eq!((c.evidence, c.state), (Some(Evidence::SkError), State::Closed));
    }
}
