//! Dropped packets: their records, and the attempts that they explain.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use netspy::ConnectionStream;
use netspy::event::{Connection, DropRecord, Dropped, Endpoint, Family, Outcome, Protocol, State};
use netspy::stream::Builder;
use rustix::net::{AddressFamily, SocketType};

use crate::harness::{Watch, connect, free_port, goes_to, ip, own_network, shared, v4, watch};
use crate::roles::play;

/// A capture that sees drops with their addresses and reasons; `None`, with the reason printed, where
/// there is none.
fn watch_drops() -> Option<Watch> {
    that_tells(shared()?, |note| note.is_none())
}

fn watch_drops_where(is_enough: impl Fn(Option<&str>) -> bool) -> Option<Watch> {
    that_tells(shared()?, is_enough)
}

fn that_tells(watch: Watch, is_enough: impl Fn(Option<&str>) -> bool) -> Option<Watch> {
    let feature = watch.handle.capabilities().features.remove("drops").unwrap();
    match (feature.ok, feature.note) {
        (true, note) if is_enough(note.as_deref()) => Some(watch),
        (_, why) => {
            println!("skipped: {}", why.unwrap_or_default());
            feature.not_used.iter().for_each(|way| println!("{}: {}", way.hook, way.why));
            None
        }
    }
}

/// Inode of the network namespace that this thread is in.
pub fn netns() -> u32 {
    use std::os::linux::fs::MetadataExt;
    std::fs::metadata("/proc/thread-self/ns/net").unwrap().st_ino().try_into().unwrap()
}

/// Runs in a network namespace of its own; gives its inode too.
fn in_own_network<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> (u32, T) {
    std::thread::spawn(|| {
        own_network();
        (netns(), run())
    })
    .join()
    .unwrap()
}

fn end(at: SocketAddr) -> Option<Endpoint> {
    Some(Endpoint { ip: at.ip(), port: at.port() })
}

fn local(c: &Connection) -> SocketAddr {
    let local = c.local.unwrap();
    SocketAddr::new(local.ip, local.port)
}

fn dropped(reason: &str, count: u64) -> Option<Dropped> {
    Some(Dropped { reason: reason.to_owned(), count })
}

/// The record of an attempt once a drop explains it.
fn explained(watch: &Watch, remote: SocketAddr) -> Connection {
    watch.wait(&format!("an explained attempt at {remote}"), |c| {
        goes_to(c, remote) && c.drop.is_some()
    })
}

/// Whether an attempt has timed out after this reason dropped every SYN that it sent. The last may
/// be known half a second after the outcome.
fn timed_out(c: &Connection, reason: &str) -> bool {
    let syns = u64::from(c.syn_retransmits.unwrap_or(0)) + 1;
    c.outcome == Outcome::TimedOut && syns > 1 && c.drop == dropped(reason, syns)
}

fn release() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn drops_are_seen_and_the_report_says_whether_the_kernel_tells_why() {
    let Some(watch) = shared() else { return };
    let feature = watch.handle.capabilities().features.remove("drops").unwrap();
    let hook = feature.hook.as_deref();
    assert_eq!((feature.ok, hook), (true, Some("tp_btf/kfree_skb")), "{:#?}", feature.not_used);
    let says_so = feature.note.is_some_and(|note| note.contains("5.17"));
    assert_eq!(says_so, release() < (5, 17));
}

#[test]
fn where_there_are_no_reasons_the_function_that_drops_stands_for_them() {
    if release() >= (5, 17) {
        println!("skipped: this kernel tells reasons");
        return;
    }
    let Some(watch) = watch_drops_where(|_| true) else { return };
    let (netns, (tcp, udp, sender)) = in_own_network(|| {
        let tcp = free_port("127.0.0.1:0".parse().unwrap());
        connect(AddressFamily::INET, SocketType::STREAM, tcp).1.unwrap_err();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(udp).unwrap();
        sender.send(&[0; 100]).unwrap();
        (tcp, udp, sender.local_addr().unwrap())
    });
    let c = explained(&watch, tcp);
    assert_eq!((c.outcome, c.drop), (Outcome::Refused, dropped("tcp_v4_rcv", 1)));
    let drops = watch.drops("the datagram", 1, |d| d.destination == end(udp));
    let [d] = drops.as_slice() else { panic!("{drops:#?}") };
    assert_eq!((&*d.reason, d.reason_code, d.count), ("__udp4_lib_rcv", 0, 1));
    assert_eq!((d.source, d.netns, d.bytes), (end(sender), Some(netns), 128));
    assert!(d.process.as_ref().is_some_and(|p| p.pid == std::process::id()));
}

#[test]
fn drops_that_nobody_wants_are_not_looked_at() {
    let Some(watch) = watch(Builder { no_drops: true, ..ConnectionStream::builder() }) else {
        return;
    };
    let report = watch.handle.capabilities();
    assert!(!report.features["drops"].ok);
    assert!(report.programs.iter().all(|p| !p.hook.contains("kfree_skb")));
}

#[test]
fn a_refused_connect_is_explained_by_the_missing_socket() {
    let Some(watch) = watch_drops() else { return };
    for (address, family) in [("127.0.0.1:0", Family::Ipv4), ("[::1]:0", Family::Ipv6)] {
        let (socket, size) = match family {
            Family::Ipv4 => (AddressFamily::INET, 60),
            _ => (AddressFamily::INET6, 80),
        };
        let (netns, remote) = in_own_network(move || {
            let remote = free_port(address.parse().unwrap());
            connect(socket, SocketType::STREAM, remote).1.unwrap_err();
            remote
        });
        let c = explained(&watch, remote);
        assert_eq!((c.outcome, c.state), (Outcome::Refused, State::Closed));
        assert_eq!(c.drop, dropped("NO_SOCKET", 1));
        assert_eq!(watch.only(remote), c, "one record");
        let drops = watch.drops("the SYN", 1, |d| d.destination == end(remote));
        let [d] = drops.as_slice() else { panic!("{drops:#?}") };
        assert_eq!((&*d.reason, d.count, d.bytes), ("NO_SOCKET", 1, size));
        assert_eq!((d.protocol, d.ip_protocol), (Some(Protocol::Tcp), Some(6)));
        assert_eq!((d.family, d.source), (Some(family), end(local(&c))));
        assert_eq!((d.connection, &d.process), (Some(c.id), &c.process));
        assert_eq!((d.netns, d.no_room), (Some(netns), false));
        assert!(d.time >= c.time && d.last == d.time);
    }
}

#[test]
fn datagrams_to_a_closed_port_explain_the_socket_that_sent_them() {
    let Some(watch) = watch_drops() else { return };
    let (_, (sender, remote, sent)) = in_own_network(|| {
        let remote = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(remote).unwrap();
        // Every other call fetches the error that the answer left.
        let sent = (0..20).filter(|_| socket.send(&[0; 100]).is_ok()).count() as u64;
        (socket.local_addr().unwrap(), remote, sent)
    });
    let drops = watch.drops("datagrams", sent, |d| d.destination == end(remote));
    for d in &drops {
        assert_eq!((&*d.reason, d.source), ("NO_SOCKET", end(sender)));
        assert_eq!((d.protocol, d.bytes), (Some(Protocol::Udp), 128 * d.count));
        assert!(d.process.as_ref().is_some_and(|p| p.pid == std::process::id()));
    }
    assert_eq!(drops.iter().map(|d| d.count).sum::<u64>(), sent);
    let all = |c: &Connection| c.drop == dropped("NO_SOCKET", sent);
    let c = watch.wait("the sender", |c| goes_to(c, remote) && all(c));
    // The answers may have refused it.
    assert!(matches!(c.outcome, Outcome::Associated | Outcome::Sent | Outcome::Refused));
    assert_eq!(local(&c), sender);
}

#[test]
fn datagrams_that_a_full_socket_does_not_take_are_counted_one_by_one() {
    const SENT: u64 = 2_000;
    let Some(watch) = watch_drops() else { return };
    let (_, (sender, remote, taken)) = in_own_network(|| {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let remote = receiver.local_addr().unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(remote).unwrap();
        for _ in 0..SENT {
            sender.send(&[0; 1000]).unwrap();
        }
        receiver.set_nonblocking(true).unwrap();
        let taken = std::iter::from_fn(|| receiver.recv(&mut [0; 1500]).ok()).count() as u64;
        (sender.local_addr().unwrap(), remote, taken)
    });
    assert!((1..SENT).contains(&taken), "{taken} of {SENT} were taken");
    let lost = SENT - taken;
    let drops = watch.drops("datagrams", lost, |d| d.destination == end(remote));
    assert_eq!(drops.iter().map(|d| d.count).sum::<u64>(), lost);
    for d in &drops {
        assert_eq!((&*d.reason, d.source), ("SOCKET_RCVBUFF", end(sender)));
        assert_eq!(d.bytes, 1028 * d.count);
    }
    let all = |c: &Connection| c.drop == dropped("SOCKET_RCVBUFF", lost);
    watch.wait("the sender", |c| goes_to(c, remote) && all(c));
}

#[test]
fn a_timed_out_connect_is_explained_by_what_dropped_its_packets() {
    let Some(watch) = shared() else { return };
    if release() < (5, 17) {
        println!("skipped: this kernel does not tell why packets are dropped");
        return;
    }
    let Some(group) = crate::cgroup::that_drops_egress() else { return };
    let remote = v4([127, 0, 0, 1], 7);
    let (netns, pid) = in_own_network(move || {
        let mut child = group.take(play("connect, one retry", remote)).spawn().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(libc::ETIMEDOUT), "what connect() said");
        child.id()
    });
    let ours = |c: &Connection| c.process.as_ref().is_some_and(|p| p.pid == pid);
    let reason = "BPF_CGROUP_EGRESS";
    let c = watch.wait("the outcome", |c| ours(c) && timed_out(c, reason));
    let syns = u64::from(c.syn_retransmits.unwrap()) + 1;
    let waiting = watch.wait("it in progress", |c| ours(c) && c.drop.is_some());
    assert_eq!((waiting.id, waiting.outcome), (c.id, Outcome::InProgress));
    assert_eq!(waiting.drop, dropped(reason, 1));
    let drops = watch.drops("SYNs", syns, |d| d.netns == Some(netns) && &*d.reason == reason);
    assert_eq!(drops.iter().map(|d| d.count).sum::<u64>(), syns);
    for d in &drops {
        assert_eq!((d.source, d.destination), (end(local(&c)), end(remote)));
        assert_eq!((d.connection, &d.process), (Some(c.id), &c.process));
    }
}

#[test]
fn a_firewall_is_named_as_the_cause() {
    let Some(watch) = watch_drops() else { return };
    let rules = "add table inet t; \
                 add chain inet t out { type filter hook output priority 0; }; \
                 add rule inet t out tcp dport 7 drop";
    let (_, result) = in_own_network(move || {
        let nft = Command::new("nft").arg(rules).output();
        match nft {
            Ok(output) if output.status.success() => {}
            Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => return Err(error.to_string()),
        }
        let remote = v4([127, 0, 0, 1], 7);
        let status = play("connect, one retry", remote).status().unwrap();
        assert_eq!(status.code(), Some(libc::ETIMEDOUT), "what connect() said");
        Ok(remote)
    });
    match result {
        Err(why) => println!("skipped: no rule of nftables can be set: {why}"),
        Ok(remote) => {
            watch.wait("the outcome", |c| goes_to(c, remote) && timed_out(c, "NETFILTER_DROP"));
        }
    }
}

#[test]
fn data_that_nobody_takes_explains_an_established_connection() {
    let Some(watch) = watch_drops() else { return };
    let (_, remote) = in_own_network(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = listener.local_addr().unwrap();
        let client = TcpStream::connect(remote).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        // The client's socket is closed: what comes now has no reader, and is answered by a reset.
        drop(client);
        server.write_all(&[1; 10]).unwrap();
        remote
    });
    let c = explained(&watch, remote);
    assert_eq!((c.outcome, c.drop.as_ref().map(|d| d.count)), (Outcome::Established, Some(1)));
    // Since 6.15; before, the kernel drops it without a reason.
    let reason = c.drop.unwrap().reason;
    assert!(["TCP_ABORT_ON_DATA", "NOT_SPECIFIED"].contains(&reason.as_str()), "{reason}");
    let closed = watch.wait("its close", |c| goes_to(c, remote) && c.close.is_some());
    assert_eq!(closed.id, c.id);
}

/// The server's FIN finds the client in TIME_WAIT.
fn close_long_after_the_peer() -> SocketAddr {
    const FIN_WAIT2: u8 = 5;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    // The acknowledgement may be delayed.
    while raw::tcp_state(&client) != FIN_WAIT2 {
        std::thread::yield_now();
    }
    drop((client, server));
    listener.local_addr().unwrap()
}

#[test]
fn what_ends_in_order_is_no_drop() {
    let Some(watch) = watch_drops_where(|note| note.is_none_or(|note| note.contains("5.17")))
    else {
        return;
    };
    let (netns, remotes) = in_own_network(|| {
        let mut remotes = Vec::new();
        for first in ["client", "server", "client's writing half"] {
            for _ in 0..20 {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let remote = listener.local_addr().unwrap();
                let mut client = TcpStream::connect(remote).unwrap();
                let (mut server, _) = listener.accept().unwrap();
                client.write_all(&[1; 1000]).unwrap();
                server.read_exact(&mut [0; 1000]).unwrap();
                if first == "client's writing half" {
                    client.shutdown(Shutdown::Write).unwrap();
                }
                server.write_all(&vec![2; 100_000]).unwrap();
                client.read_exact(&mut vec![0; 100_000]).unwrap();
                if first == "client" {
                    drop(client);
                    let _ = server.read(&mut [0; 1]);
                } else {
                    drop(server);
                    let _ = client.read(&mut [0; 1]);
                }
                remotes.push(remote);
            }
        }
        remotes.push(close_long_after_the_peer());
        let (a, b) = (UdpSocket::bind("[::1]:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap());
        a.send_to(&[1; 100], b.local_addr().unwrap()).unwrap();
        b.recv(&mut [0; 200]).unwrap();
        // Processes of one host send each other no packets.
        let (one, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        one.send(&[1; 100]).unwrap();
        ip("link set lo up");
        // The mark: after it, all that was before has come.
        connect(AddressFamily::INET, SocketType::STREAM, v4([127, 0, 0, 1], 9)).1.unwrap_err();
        remotes
    });
    let mark =
        |d: &DropRecord| d.netns == Some(netns) && d.destination == end(v4([127, 0, 0, 1], 9));
    let marked = watch.drops("the mark", 1, mark)[0].time;
    watch.handle.drain();
    // A later namespace may have the number of this one. What the kernel itself sends about groups
    // and routers (ICMPv6) may find nobody.
    let others = watch
        .drops("", 0, |d| d.netns == Some(netns) && d.time < marked && d.ip_protocol != Some(58));
    // A retransmission of what has come already is nobody's fault, where a machine stalls.
    let old = |d: &&DropRecord| !d.reason.starts_with("TCP_OLD");
    assert_eq!(others.iter().filter(old).collect::<Vec<_>>(), Vec::<&DropRecord>::new());
    let ours = |c: &Connection| c.process.as_ref().is_some_and(|p| p.netns == netns);
    let hit = watch.records(|c| {
        ours(c) && c.drop.is_some() && remotes.iter().any(|remote| goes_to(c, *remote))
    });
    let hit: Vec<_> = hit.iter().filter_map(|c| c.drop.as_ref()).collect();
    assert!(hit.iter().all(|d| d.reason.starts_with("TCP_OLD")), "{hit:?}");
}

#[test]
fn a_bad_checksum_is_named() {
    let Some(watch) = watch_drops() else { return };
    let (netns, remote) = in_own_network(|| {
        let listening = UdpSocket::bind("127.0.0.1:0").unwrap();
        let remote = listening.local_addr().unwrap();
        raw::Socket::open().send(4711, remote, Some(0xbad));
        remote
    });
    let drops = watch.drops("the datagram", 1, |d| d.destination == end(remote));
    let [d] = drops.as_slice() else { panic!("{drops:#?}") };
    assert_eq!((&*d.reason, d.source), ("UDP_CSUM", end(v4([127, 0, 0, 1], 4711))));
    assert_eq!((d.netns, d.connection, &d.process), (Some(netns), None, &None));
}

#[test]
fn ports_are_found_behind_extension_headers() {
    let Some(watch) = watch_drops() else { return };
    let (_, (sender, remote)) = in_own_network(|| {
        let remote = UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap();
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        // One header of eight bytes that holds nothing but padding (RFC 8200, 4.2).
        raw::set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, &[0, 0, 1, 4, 0, 0, 0, 0]);
        socket.send_to(&[1; 100], remote).unwrap();
        (socket.local_addr().unwrap(), remote)
    });
    let drops = watch.drops("the datagram", 1, |d| d.destination == end(remote));
    let [d] = drops.as_slice() else { panic!("{drops:#?}") };
    assert_eq!((&*d.reason, d.source), ("NO_SOCKET", end(sender)));
    assert_eq!((d.protocol, d.bytes), (Some(Protocol::Udp), 40 + 8 + 8 + 100));
}

#[test]
fn a_flood_from_random_ports_costs_bounded_tables_and_loses_no_count() {
    let Some(watch) = watch(ConnectionStream::builder()) else { return };
    let Some(watch) = that_tells(watch, |note| note.is_none()) else { return };
    let flood = std::env::var("NETSPY_LIVE_FLOOD").ok().and_then(|n| n.parse().ok());
    let flood: u64 = flood.unwrap_or(100_000);
    let (_, (remote, began, ended)) = in_own_network(move || {
        let remote = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = raw::Socket::open();
        let began = std::time::Instant::now();
        for n in 0..flood {
            socket.send(1024 + (n * 7919 % 60_000) as u16, remote, None);
        }
        (remote, began, began.elapsed())
    });
    let hit = |d: &DropRecord| d.destination == end(remote);
    let rest = |d: &DropRecord| d.no_room && &*d.reason == "NO_SOCKET";
    let drops = watch.drops("the flood", flood, |d| hit(d) || rest(d));
    let count = |of: &dyn Fn(&DropRecord) -> bool| {
        drops.iter().filter(|d| of(d)).map(|d| d.count).sum::<u64>()
    };
    let (listed, no_room) = (count(&hit), count(&rest));
    println!("{flood} drops in {ended:?}: {listed} listed, {no_room} by reason alone");
    // Other connects of this host may have been refused meanwhile.
    assert!(listed <= flood && listed + no_room >= flood);
    // Two tables that hold 2,048 flows of a reason and namespace each, one of which is taken every half second.
    let looks = 2 + began.elapsed().as_millis() as usize / 500;
    let records = drops.iter().filter(|d| hit(d)).count();
    assert!(records <= looks * 2048, "{records} records in {looks} looks");
    if ended.as_secs_f64() < 0.4 {
        assert!(no_room > 0, "{records} records");
    }
    balanced(watch);
}

/// Every packet is in one term, and in one record.
fn balanced(watch: Watch) {
    let handle = watch.handle.clone();
    let records = watch.stop_drops();
    let books = handle.counters().drops;
    assert_eq!((books.missed, books.lost, books.pending()), (0, 0, 0), "{books:?}");
    let sum = |of: &dyn Fn(&DropRecord) -> bool| {
        records.iter().filter(|d| of(d)).map(|d| d.count).sum::<u64>()
    };
    assert_eq!(sum(&|_| true), books.packets, "{books:?}");
    assert_eq!(sum(&|d| d.source.is_some()), books.listed, "{books:?}");
    assert_eq!(sum(&|d| d.no_room), books.no_room, "{books:?}");
    assert_eq!(books.packets, books.listed + books.no_room + books.no_address, "{books:?}");
}

/// What no library of the tests offers.
mod raw {
    use std::net::SocketAddr;
    use std::os::fd::{AsRawFd, OwnedFd};

    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};

    /// Sends packets with a header of their own.
    pub struct Socket(OwnedFd);

    impl Socket {
        pub fn open() -> Self {
            let protocol = rustix::net::Protocol::from_raw(255.try_into().unwrap());
            let flags = SocketFlags::CLOEXEC;
            let family = AddressFamily::INET;
            Socket(socket_with(family, SocketType::RAW, flags, Some(protocol)).unwrap())
        }

        /// A datagram from any port of 127.0.0.1; a checksum of 0 is none (RFC 768).
        pub fn send(&self, source: u16, to: SocketAddr, checksum: Option<u16>) {
            let mut packet = [0_u8; 32];
            // Length and checksum of the header are set by the kernel (raw(7)).
            packet[0] = 0x45;
            (packet[8], packet[9]) = (64, libc::IPPROTO_UDP as u8);
            packet[12..16].copy_from_slice(&[127, 0, 0, 1]);
            packet[16..20].copy_from_slice(&[127, 0, 0, 1]);
            packet[20..22].copy_from_slice(&source.to_be_bytes());
            packet[22..24].copy_from_slice(&to.port().to_be_bytes());
            packet[24..26].copy_from_slice(&12_u16.to_be_bytes());
            packet[26..28].copy_from_slice(&checksum.unwrap_or(0).to_be_bytes());
            sendto(&self.0, &packet, SendFlags::empty(), &to).unwrap();
        }
    }

    /// The first member of struct tcp_info.
    pub fn tcp_state(fd: &impl AsRawFd) -> u8 {
        let (mut state, mut len) = (0_u8, 1 as libc::socklen_t);
        // SAFETY: the kernel writes no more than the length allows.
        #[allow(unsafe_code)]
        let ret = unsafe {
            let (level, option) = (libc::IPPROTO_TCP, libc::TCP_INFO);
            let to = (&raw mut state).cast();
            libc::getsockopt(fd.as_raw_fd(), level, option, to, &raw mut len)
        };
        assert_eq!(ret, 0, "{}", std::io::Error::last_os_error());
        state
    }

    pub fn set_option(fd: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: &[u8]) {
        let len = value.len() as libc::socklen_t;
        // SAFETY: the value has this length and lives through the call.
        #[allow(unsafe_code)]
        let ret =
            unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value.as_ptr().cast(), len) };
        assert_eq!(ret, 0, "{}", std::io::Error::last_os_error());
    }
}
