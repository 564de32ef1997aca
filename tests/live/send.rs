//! Datagrams that leave: which records they make, what these count, and how they end.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use netspy::event::{CloseReason, Connection, Evidence, Family, Outcome, Protocol, State};
use netspy::stream::Builder;
use rustix::net::{SendAncillaryBuffer, SendFlags, SocketAddrAny};

use crate::datagram::{has, own};
use crate::harness::{Watch, entries, goes_to, held_in, ip, own_network, shared, v4, watch};
use crate::ring::Ring;

/// Whether all that the kernel tells of a send is seen: whether it failed, and its bytes.
fn is_exact(watch: &Watch) -> bool {
    let report = watch.handle.capabilities();
    report.features["datagrams_without_connect"].note.is_none()
}

fn sent(c: &Connection) -> (Option<u64>, Option<u64>) {
    let close = c.close.unwrap_or_else(|| panic!("not closed: {c:#?}"));
    (close.datagrams_sent, close.bytes_sent)
}

fn any() -> UdpSocket {
    UdpSocket::bind("0.0.0.0:0").unwrap()
}

/// Several datagrams to an address (or to the peer) in one call.
fn sendmmsg(socket: &UdpSocket, to: &[SocketAddr]) {
    let mut names: Vec<_> = to.iter().map(|to| SocketAddrAny::from(*to)).collect();
    let mut part = libc::iovec { iov_base: c"four".as_ptr().cast_mut().cast(), iov_len: 4 };
    let mut messages: Vec<libc::mmsghdr> = names
        .iter_mut()
        .map(|name| {
            // SAFETY: zeroes are a message without anything.
            #[allow(unsafe_code)]
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = name.as_mut_ptr().cast();
            message.msg_hdr.msg_namelen = name.addr_len();
            message.msg_hdr.msg_iov = &raw mut part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    // SAFETY: as many messages as are given, whose names and parts live through the call.
    #[allow(unsafe_code)]
    let count = unsafe {
        libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0)
    };
    assert_eq!(count, to.len() as i32);
}

#[test]
fn the_first_datagram_to_a_peer_turns_associated_into_sent() {
    let Some(watch) = watch(own()) else { return };
    let peer = v4([127, 0, 0, 50], 4000);
    let _receiver = UdpSocket::bind(peer).unwrap();
    let socket = any();
    socket.connect(peer).unwrap();
    let before = watch.only(peer);
    assert_eq!((before.outcome, before.state), (Outcome::Associated, State::Open));
    for text in ["a", "bb", "ccc"] {
        socket.send(text.as_bytes()).unwrap();
    }
    let c = watch.only(peer);
    assert_eq!((c.id, c.state), (before.id, State::Open));
    if has(&watch, "datagram_sent") {
        assert_eq!((c.outcome, c.evidence), (Outcome::Sent, Some(Evidence::SendReturn)));
    } else {
        assert_eq!(c.outcome, Outcome::Associated);
    }
    drop(socket);
    let last = watch.only(peer);
    assert_eq!(last.outcome, c.outcome);
    if has(&watch, "datagram_close") {
        let counts = if has(&watch, "datagram_sent") { (Some(3), Some(6)) } else { (None, None) };
        assert_eq!(sent(&last), counts);
        assert_eq!(
            (last.close.unwrap().bytes_received, last.close.unwrap().retransmits),
            (None, None)
        );
    }
    let books = watch.handle.accounting();
    assert!(books.balances() && books.pending == 0 && books.complete, "{books:?}");
    assert_eq!(books.attempts - books.filtered, books.delivered, "{books:?}");
}

#[test]
fn what_a_peer_is_sent_counts_whichever_call_sends_it() {
    let Some(watch) = shared() else { return };
    let peer = v4([127, 0, 0, 51], 4000);
    let _receiver = UdpSocket::bind(peer).unwrap();
    let socket = any();
    socket.connect(peer).unwrap();
    socket.send(b"four").unwrap();
    rustix::io::write(&socket, b"four").unwrap();
    socket.send_to(b"four", peer).unwrap();
    let parts = [IoSlice::new(b"fo"), IoSlice::new(b"ur")];
    let nothing = &mut SendAncillaryBuffer::default();
    rustix::net::sendmsg(&socket, &parts, nothing, SendFlags::empty()).unwrap();
    rustix::net::sendmsg_addr(&socket, &peer, &parts, nothing, SendFlags::empty()).unwrap();
    sendmmsg(&socket, &[peer, peer]);
    drop(socket);
    let all = watch.records(|c| goes_to(c, peer));
    if !has(&watch, "datagram_close") {
        return;
    }
    assert_eq!(all.len(), 1, "{all:#?}");
    if has(&watch, "datagram_sent") {
        assert_eq!((all[0].outcome, sent(&all[0])), (Outcome::Sent, (Some(7), Some(28))));
    }
}

#[test]
fn datagrams_without_connect_are_one_record_for_each_destination() {
    let Some(watch) = watch(own()) else { return };
    let (a, b, c) =
        (v4([127, 0, 0, 52], 4001), v4([127, 0, 0, 53], 4001), v4([127, 0, 0, 52], 4002));
    let socket = any();
    for _ in 0..3 {
        socket.send_to(b"12345", a).unwrap();
    }
    socket.send_to(b"1234567", b).unwrap();
    sendmmsg(&socket, &[a, b, c, b]);
    let parts = [IoSlice::new(b"sixsix")];
    let nothing = &mut SendAncillaryBuffer::default();
    rustix::net::sendmsg_addr(&socket, &c, &parts, nothing, SendFlags::empty()).unwrap();
    if !has(&watch, "datagrams_without_connect") {
        assert!(watch.records(|r| [a, b, c].iter().any(|to| goes_to(r, *to))).is_empty());
        return;
    }
    let open = watch.only(a);
    assert_eq!((open.outcome, open.state), (Outcome::Sent, State::Open));
    assert_eq!((open.protocol, open.family), (Protocol::Udp, Family::Ipv4));
    assert_eq!((open.evidence, open.latency_us), (Some(Evidence::SendReturn), None));
    assert_eq!(open.local.unwrap().port, socket.local_addr().unwrap().port());
    assert_eq!(open.process.as_ref().unwrap().pid, std::process::id());
    drop(socket);
    for (to, datagrams, bytes) in [(a, 4, 19), (b, 3, 15), (c, 2, 10)] {
        let c = watch.only(to);
        assert_eq!((c.outcome, c.state), (Outcome::Sent, State::Closed));
        assert_eq!(c.close.unwrap().reason, CloseReason::OwnerClose);
        assert_eq!(sent(&c), (Some(datagrams), is_exact(&watch).then_some(bytes)), "{to}");
    }
    assert_eq!(watch.only(a).id, open.id);
    let books = watch.handle.accounting();
    assert!(books.balances() && books.pending == 0 && books.complete, "{books:?}");
    assert_eq!(books.attempts - books.filtered, books.delivered, "{books:?}");
}

#[test]
fn datagrams_by_io_uring_are_those_of_the_process_that_asked() {
    let Some(watch) = shared() else { return };
    let ring = match Ring::new() {
        Ok(ring) => ring,
        Err(error) => {
            println!("skipped: io_uring: {error}");
            return;
        }
    };
    let (peer, to) = (v4([127, 0, 0, 68], 4000), v4([127, 0, 0, 69], 4000));
    let _receiver = UdpSocket::bind(peer).unwrap();
    let socket = any();
    ring.send_to(&socket, b"four", to).unwrap();
    socket.connect(peer).unwrap();
    ring.send(&socket, b"four").unwrap();
    ring.send_to(&socket, b"four", peer).unwrap();
    drop(socket);
    let c = watch.only(peer);
    if has(&watch, "datagram_sent") {
        assert_eq!((c.outcome, sent(&c)), (Outcome::Sent, (Some(2), Some(8))));
    }
    if has(&watch, "datagrams_without_connect") {
        let c = watch.only(to);
        assert_eq!((c.outcome, sent(&c).0), (Outcome::Sent, Some(1)));
        assert_eq!(c.process.as_ref().unwrap().pid, std::process::id());
    }
}

#[test]
fn a_datagram_is_shown_within_a_second_though_its_socket_stays_open() {
    let Some(watch) = shared() else { return };
    if !has(&watch, "datagrams_without_connect") {
        return;
    }
    let to = v4([127, 0, 0, 54], 4000);
    let socket = any();
    socket.send_to(b"x", to).unwrap();
    let c = watch.wait("the datagram", |c| goes_to(c, to));
    let shown_after = jiff::Timestamp::now().duration_since(c.time);
    assert!(shown_after < jiff::SignedDuration::from_secs(1), "shown after {shown_after}");
    assert_eq!(c.state, State::Open);
}

#[test]
fn a_peer_and_another_destination_of_one_socket_are_two_records() {
    let Some(watch) = shared() else { return };
    let (peer, other) = (v4([127, 0, 0, 55], 4000), v4([127, 0, 0, 56], 4000));
    let _receiver = UdpSocket::bind(peer).unwrap();
    let socket = any();
    socket.connect(peer).unwrap();
    socket.send(b"to the peer").unwrap();
    socket.send_to(b"elsewhere", other).unwrap();
    socket.send(b"to the peer").unwrap();
    drop(socket);
    let c = watch.only(peer);
    if has(&watch, "datagram_sent") {
        assert_eq!(sent(&c), (Some(2), Some(22)));
    }
    let others = watch.records(|c| goes_to(c, other));
    assert_eq!(others.len(), usize::from(has(&watch, "datagrams_without_connect")));
    assert!(others.iter().all(|c| c.outcome == Outcome::Sent && sent(c).0 == Some(1)));
}

#[test]
fn datagrams_to_mapped_addresses_are_counted_once_and_shown_as_ipv4() {
    let Some(watch) = shared() else { return };
    let mapped = |n: u8| format!("[::ffff:127.0.0.{n}]:4000").parse::<SocketAddr>().unwrap();
    let (peer, unconnected) = (v4([127, 0, 0, 57], 4000), v4([127, 0, 0, 58], 4000));
    let _receiver = UdpSocket::bind(peer).unwrap();
    let socket = UdpSocket::bind("[::]:0").unwrap();
    socket.send_to(b"four", mapped(58)).unwrap();
    socket.send_to(b"four", mapped(58)).unwrap();
    socket.connect(mapped(57)).unwrap();
    socket.send(b"four").unwrap();
    socket.send_to(b"four", mapped(57)).unwrap();
    drop(socket);
    let c = watch.only(peer);
    assert_eq!(c.family, Family::Ipv4);
    if has(&watch, "datagram_sent") {
        assert_eq!((c.outcome, sent(&c)), (Outcome::Sent, (Some(2), Some(8))));
    }
    if has(&watch, "datagrams_without_connect") {
        let c = watch.only(unconnected);
        assert_eq!((c.family, c.outcome), (Family::Ipv4, Outcome::Sent));
        assert_eq!(sent(&c), (Some(2), is_exact(&watch).then_some(8)));
    }
}

#[test]
fn datagrams_to_ipv6_have_their_record() {
    let Some(watch) = shared() else { return };
    let receiver = UdpSocket::bind("[::1]:0").unwrap();
    let to = receiver.local_addr().unwrap();
    let socket = UdpSocket::bind("[::]:0").unwrap();
    socket.send_to(b"four", to).unwrap();
    drop(socket);
    if has(&watch, "datagrams_without_connect") {
        let c = watch.only(to);
        assert_eq!((c.family, c.outcome, sent(&c).0), (Family::Ipv6, Outcome::Sent, Some(1)));
    }
    let socket = UdpSocket::bind("[::]:0").unwrap();
    let other = UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap();
    socket.connect(other).unwrap();
    socket.send(b"four").unwrap();
    drop(socket);
    if has(&watch, "datagram_sent") {
        let c = watch.only(other);
        assert_eq!((c.family, sent(&c)), (Family::Ipv6, (Some(1), Some(4))));
    }
}

#[test]
fn a_send_that_fails_is_no_datagram_that_left() {
    let Some(watch) = shared() else { return };
    let cases = [
        ([192, 0, 2, 60], Outcome::Unreachable, 101),
        ([198, 51, 100, 60], Outcome::Unreachable, 113),
        ([198, 51, 100, 61], Outcome::Denied, 13),
        ([255, 255, 255, 255], Outcome::Unreachable, 101),
    ];
    let later = v4([198, 51, 100, 62], 4000);
    let sends = std::thread::spawn(move || {
        own_network();
        ip("route add unreachable 198.51.100.60");
        ip("route add prohibit 198.51.100.61");
        let socket = any();
        for (address, _, errno) in cases {
            for _ in 0..2 {
                let error = socket.send_to(b"x", v4(address, 4000)).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(errno), "{address:?}");
            }
        }
        socket.send_to(b"x", later).unwrap_err();
        ip("route add 198.51.100.62 dev lo");
        socket.send_to(b"x", later).unwrap();
        // What is wrong with the call itself says nothing about the way.
        let unnamed = rustix::net::send(&socket, b"x", SendFlags::empty());
        assert_eq!(unnamed, Err(rustix::io::Errno::DESTADDRREQ));
    });
    sends.join().unwrap();
    if !has(&watch, "datagrams_without_connect") {
        return;
    }
    for (address, outcome, errno) in cases {
        let c = watch.only(v4(address, 4000));
        if is_exact(&watch) {
            assert_eq!((c.outcome, c.errno), (outcome, Some(errno)), "{address:?}");
            assert_eq!((c.evidence, sent(&c)), (Some(Evidence::SendReturn), (Some(0), Some(0))));
        } else {
            assert_eq!((c.outcome, c.errno), (Outcome::Sent, None), "{address:?}");
        }
    }
    let c = watch.only(later);
    assert_eq!((c.outcome, c.errno), (Outcome::Sent, None));
}

#[test]
fn a_destination_that_is_sent_nothing_for_a_while_ends() {
    let idle = Duration::from_millis(300);
    let Some(watch) = watch(Builder { datagram_idle: Some(idle), ..own() }) else { return };
    if !has(&watch, "datagrams_without_connect") {
        return;
    }
    let to = v4([127, 0, 0, 63], 4000);
    let socket = any();
    socket.send_to(b"four", to).unwrap();
    let ended = watch.wait("the end", |c| goes_to(c, to) && c.state == State::Closed);
    assert_eq!((ended.outcome, sent(&ended).0), (Outcome::Sent, Some(1)));
    assert_eq!(ended.close.unwrap().reason, CloseReason::Idle);
    assert!(ended.close.unwrap().time >= ended.time);
    // What comes later is another record.
    socket.send_to(b"four", to).unwrap();
    let again = watch.wait("another", |c| goes_to(c, to) && c.id != ended.id);
    assert_eq!(again.outcome, Outcome::Sent);
    drop(socket);
    watch.wait("its end", |c| c.id == again.id && c.state == State::Closed);
    assert_eq!(held_in(&watch, "flows"), 0);
}

#[test]
fn no_flow_outlives_its_socket_however_many_it_has() {
    let Some(watch) = watch(own()) else { return };
    if !has(&watch, "datagrams_without_connect") {
        return;
    }
    let to = v4([127, 0, 0, 64], 5000);
    for _ in 0..1_000 {
        let socket = any();
        socket.send_to(b"four", to).unwrap();
        socket.send_to(b"four", v4([127, 0, 0, 64], 5001)).unwrap();
    }
    let socket = any();
    for n in 0..100 {
        socket.send_to(b"four", v4([127, 0, 0, 65], 5000 + n)).unwrap();
    }
    drop(socket);
    // The address of the sock is likely to be used again at once: none of the new one's.
    let next = any();
    next.send_to(b"four", v4([127, 0, 0, 65], 5000)).unwrap();
    drop(next);
    let ours = |n: u8| {
        watch.records(|c| c.remote.as_ref().is_some_and(|r| r.ip == v4([127, 0, 0, n], 0).ip()))
    };
    let (of_many, of_one) = (ours(64), ours(65));
    assert_eq!((of_many.len(), of_one.len()), (2_000, 101));
    for c in of_many.iter().chain(&of_one) {
        assert_eq!(
            (c.state, c.close.map(|close| close.reason)),
            (State::Closed, Some(CloseReason::OwnerClose))
        );
        assert_eq!(sent(c).0, Some(1), "{c:#?}");
    }
    assert_eq!(held_in(&watch, "flows"), 0);
    // Those of others do not say whose they are.
    assert!(entries(&watch, "senders").len() < 100 && entries(&watch, "sends").len() < 100);
    let books = watch.handle.accounting();
    assert!(books.balances() && books.pending == 0 && books.complete, "{books:?}");
    assert_eq!(books.attempts - books.filtered, books.delivered, "{books:?}");
}

#[test]
fn what_finds_no_room_and_what_is_filtered_counts_once() {
    let small = Builder { max_sockets: Some(1), only_port: vec![5100], ..own() };
    let Some(watch) = watch(small) else { return };
    if !has(&watch, "datagrams_without_connect") {
        return;
    }
    let (kept, full) = (v4([127, 0, 0, 66], 5100), v4([127, 0, 0, 67], 5100));
    let filtered = v4([127, 0, 0, 66], 5101);
    let socket = any();
    for to in [kept, full, filtered] {
        for _ in 0..5 {
            socket.send_to(b"four", to).unwrap();
        }
    }
    drop(socket);
    let handle = watch.handle.clone();
    let all = watch.stop();
    assert!(!all.iter().any(|c| goes_to(c, full) || goes_to(c, filtered)));
    let c = all.iter().rfind(|c| goes_to(c, kept)).unwrap();
    assert_eq!(sent(c).0, Some(5));
    let books = handle.accounting();
    assert_eq!((books.delivered, books.lost.map_full), (1, 1), "{books:?}");
    assert!(books.balances() && books.pending == 0 && !books.complete, "{books:?}");
}

/// sendmsg() without a destination, with one integer of control data.
fn send_with_control(socket: &UdpSocket, level: libc::c_int, kind: libc::c_int) {
    let mut part = libc::iovec { iov_base: c"four".as_ptr().cast_mut().cast(), iov_len: 4 };
    let mut control = [0_u64; 4];
    // SAFETY: msghdr is plain data, for which zeros are valid.
    #[allow(unsafe_code)]
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: the lengths are those of one integer, for which `control` has room; everything that
    // is pointed to lives through the call.
    #[allow(unsafe_code)]
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header).cast::<libc::c_int>().write_unaligned(64);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, 0)
    };
    assert_eq!(sent, 4, "{}", std::io::Error::last_os_error());
}

/// As QUIC sends.
#[test]
fn control_data_makes_no_other_destination() {
    let Some(watch) = shared() else { return };
    let cases = [
        (v4([127, 0, 0, 57], 4030), "0.0.0.0:0", libc::IPPROTO_IP, libc::IP_TTL),
        ("[::1]:4030".parse().unwrap(), "[::]:0", libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT),
    ];
    for (peer, any, level, kind) in cases {
        let _receiver = UdpSocket::bind(peer).unwrap();
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(peer).unwrap();
        let local = socket.local_addr().unwrap();
        send_with_control(&socket, level, kind);
        drop(socket);
        watch.settle();
        let all = watch.records(|c| {
            c.protocol == Protocol::Udp && c.local.is_some_and(|l| l.port == local.port())
        });
        assert_eq!(all.len(), 1, "{all:#?}");
        assert!(goes_to(&all[0], peer), "{all:#?}");
        if has(&watch, "datagram_sent") {
            assert_eq!((all[0].outcome, sent(&all[0])), (Outcome::Sent, (Some(1), Some(4))));
        }
    }
}

#[test]
fn a_datagram_that_is_gathered_counts_with_all_its_parts() {
    let Some(watch) = shared() else { return };
    let to = v4([127, 0, 0, 58], 4031);
    let socket = any();
    let _receiver = UdpSocket::bind(to).unwrap();
    for flags in [SendFlags::MORE, SendFlags::MORE, SendFlags::empty()] {
        rustix::net::sendto(&socket, b"four", flags, &to).unwrap();
    }
    drop(socket);
    let all = watch.records(|c| goes_to(c, to));
    if !has(&watch, "datagrams_without_connect") || !is_exact(&watch) {
        return;
    }
    assert_eq!(all.len(), 1, "{all:#?}");
    let report = watch.handle.capabilities();
    let hook = report.features["datagrams_without_connect"].hook.clone().unwrap();
    if hook.contains("cgroup/") && hook.contains("fexit/") {
        println!("skipped: where the kernel is locked down, nothing tells where further parts go");
        return;
    }
    assert_eq!(sent(&all[0]), (Some(3), Some(12)));
}

#[test]
fn what_is_sent_to_no_address_goes_to_this_host() {
    let Some(watch) = shared() else { return };
    for (from, to, used) in [
        ("0.0.0.0:0", "0.0.0.0:4032", "127.0.0.1:4032"),
        ("127.0.0.59:0", "0.0.0.0:4033", "127.0.0.59:4033"),
        ("[::]:0", "[::]:4034", "[::1]:4034"),
    ] {
        let used: SocketAddr = used.parse().unwrap();
        let _receiver = UdpSocket::bind(used).unwrap();
        let socket = UdpSocket::bind(from).unwrap();
        socket.send_to(b"four", to).unwrap();
        drop(socket);
        if has(&watch, "datagrams_without_connect") {
            let all = watch.records(|c| goes_to(c, used));
            assert_eq!(all.len(), 1, "{to}: {all:#?}");
        }
    }
}
