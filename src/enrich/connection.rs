//! One kernel record to one [`Connection`]: a pure function but for the process it is given.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::errno;
use crate::capture::clock::Clock;
use crate::capture::skel::types::netspy_conn;
use crate::capture::{
    FLAG_BYTES, FLAG_COUNTED, FLAG_INBOUND, FLAG_LISTENER, FLAG_NO_REMOTE, FLAG_NO_START,
    FLAG_OWN_CLOSE, FLAG_PREEXISTING,
};
use crate::event::{
    Close, CloseReason, Connection, ConnectionId, Direction, Endpoint, Evidence, Family, Outcome,
    Process, Protocol, Remote, SocketType, State,
};

/// `enum netspy_phase` of connect.h; what is left unsettled is not sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Pending,
    Open,
    Failed,
    Closed,
    Listening,
}

pub(super) fn build(
    raw: &netspy_conn,
    path: Option<&[u8]>,
    process: Process,
    clock: &Clock,
    host: Arc<str>,
    boot: u32,
) -> Option<Connection> {
    let phase = match raw.phase {
        0 => Phase::Pending,
        1 => Phase::Open,
        2 => Phase::Failed,
        3 => Phase::Closed,
        7 => Phase::Listening,
        _ => return None,
    };
    let socket_type = socket_type(raw.sock_type)?;
    let family = family(raw.family)?;
    let protocol = protocol(family, socket_type, raw.protocol);
    let evidence = evidence(raw.evidence);
    let has = |flag: u16| raw.flags & flag != 0;
    let is_datagram =
        family != Family::Unix && matches!(socket_type, SocketType::Dgram | SocketType::Raw);
    let outcome = match outcome(phase, raw.error, socket_type) {
        _ if has(FLAG_LISTENER) => Outcome::Listening,
        // An error that came later, of a socket that goes on.
        Outcome::Associated if raw.error != 0 => outcome(Phase::Failed, raw.error, socket_type),
        Outcome::Associated if raw.datagrams_sent != 0 => Outcome::Sent,
        // It failed in a call whose return value nobody tells.
        Outcome::Aborted if evidence != Some(Evidence::OwnerClose) => Outcome::Failed,
        outcome => outcome,
    };
    let errno = ((phase == Phase::Failed || is_datagram) && raw.error != 0).then_some(raw.error);
    let is_tcp = matches!(protocol, Protocol::Tcp | Protocol::Mptcp);
    let tells_syns = is_tcp && !has(FLAG_INBOUND) && !has(FLAG_PREEXISTING);
    Some(Connection {
        id: ConnectionId { start_ns: raw.start_ns, tid: raw.tid, boot },
        host,
        time: clock.wall(raw.start_ns),
        direction: if has(FLAG_INBOUND) { Direction::Inbound } else { Direction::Outbound },
        protocol,
        socket_type,
        family,
        local: local(raw, family),
        remote: remote(raw, family, protocol),
        remote_actual: None,
        path: path.filter(|p| !p.is_empty()).map(socket_path),
        process: Some(process),
        state: match phase {
            Phase::Pending => State::Connecting,
            Phase::Open => State::Open,
            Phase::Listening => State::Listening,
            Phase::Failed | Phase::Closed => State::Closed,
        },
        outcome,
        errno,
        error: errno.and_then(errno::name).map(Cow::Borrowed),
        evidence,
        latency_us: (phase != Phase::Pending && !has(FLAG_NO_START))
            .then(|| raw.outcome_ns.saturating_sub(raw.start_ns) / 1_000),
        syn_retransmits: (tells_syns && phase != Phase::Pending)
            .then_some(raw.syn_retransmits.into()),
        drop: None,
        traffic: None,
        // Without a time where no program has seen it.
        close: (phase == Phase::Closed && raw.close_ns != 0)
            .then(|| close(raw, is_datagram, clock)),
        preexisting: has(FLAG_PREEXISTING),
    })
}

fn socket_type(raw: u16) -> Option<SocketType> {
    match i32::from(raw) {
        libc::SOCK_STREAM => Some(SocketType::Stream),
        libc::SOCK_DGRAM => Some(SocketType::Dgram),
        libc::SOCK_RAW => Some(SocketType::Raw),
        libc::SOCK_SEQPACKET => Some(SocketType::Seqpacket),
        _ => None,
    }
}

pub(super) fn family(raw: u16) -> Option<Family> {
    match i32::from(raw) {
        libc::AF_INET => Some(Family::Ipv4),
        libc::AF_INET6 => Some(Family::Ipv6),
        libc::AF_UNIX => Some(Family::Unix),
        _ => None,
    }
}

fn protocol(family: Family, socket_type: SocketType, raw: u16) -> Protocol {
    if family == Family::Unix {
        return Protocol::Unix;
    }
    if socket_type == SocketType::Raw {
        return Protocol::Raw;
    }
    match i32::from(raw) {
        libc::IPPROTO_TCP => Protocol::Tcp,
        libc::IPPROTO_UDP => Protocol::Udp,
        libc::IPPROTO_UDPLITE => Protocol::Udplite,
        libc::IPPROTO_MPTCP => Protocol::Mptcp,
        libc::IPPROTO_SCTP => Protocol::Sctp,
        libc::IPPROTO_DCCP => Protocol::Dccp,
        libc::IPPROTO_ICMP => Protocol::Icmp,
        libc::IPPROTO_ICMPV6 => Protocol::Icmpv6,
        _ => Protocol::Raw,
    }
}

/// The outcome of a settled attempt, or that there is none yet.
fn outcome(phase: Phase, error: i32, socket_type: SocketType) -> Outcome {
    match phase {
        Phase::Pending => Outcome::InProgress,
        Phase::Listening => Outcome::Listening,
        Phase::Open | Phase::Closed => match socket_type {
            SocketType::Stream | SocketType::Seqpacket => Outcome::Established,
            SocketType::Dgram | SocketType::Raw => Outcome::Associated,
        },
        Phase::Failed => match error {
            0 => Outcome::Aborted,
            libc::ECONNREFUSED => Outcome::Refused,
            libc::ETIMEDOUT => Outcome::TimedOut,
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
                Outcome::Unreachable
            }
            libc::EACCES | libc::EPERM => Outcome::Denied,
            libc::ECONNRESET => Outcome::Reset,
            _ => Outcome::Failed,
        },
    }
}

fn evidence(raw: u8) -> Option<Evidence> {
    match raw {
        1 => Some(Evidence::ConnectReturn),
        2 => Some(Evidence::TcpState),
        3 => Some(Evidence::SkError),
        4 => Some(Evidence::OwnerClose),
        5 => Some(Evidence::Accept),
        6 => Some(Evidence::SocketState),
        7 => Some(Evidence::SendReturn),
        _ => None,
    }
}

pub(super) fn address(bytes: [u8; 16], family: Family) -> Option<IpAddr> {
    match family {
        Family::Ipv4 => bytes.first_chunk::<4>().map(|v4| IpAddr::V4(Ipv4Addr::from(*v4))),
        Family::Ipv6 => Some(IpAddr::V6(Ipv6Addr::from(bytes))),
        Family::Unix => None,
    }
}

/// This side; a socket that is bound to nothing has no address worth telling.
fn local(raw: &netspy_conn, family: Family) -> Option<Endpoint> {
    let ip = address(raw.local, family)?;
    let bound = !ip.is_unspecified() || raw.local_port != 0;
    bound.then_some(Endpoint { ip, port: raw.local_port })
}

fn remote(raw: &netspy_conn, family: Family, protocol: Protocol) -> Option<Remote> {
    if raw.flags & FLAG_NO_REMOTE != 0 {
        return None;
    }
    let ip = address(raw.remote, family)?;
    let port = raw.remote_port;
    // Of what comes in, the remote port is that of a client.
    let is_service = raw.flags & FLAG_INBOUND == 0;
    let service = is_service.then(|| super::services::name(port, protocol)).flatten();
    Some(Remote { service: service.map(Cow::Borrowed), ..Remote::new(ip, port) })
}

/// The path of a UNIX socket; abstract names begin with a zero byte, shown as `@`, and may hold
/// more of them.
fn socket_path(bytes: &[u8]) -> Arc<str> {
    match bytes {
        [0, name @ ..] => format!("@{}", String::from_utf8_lossy(name)).into(),
        path => super::text(path).into(),
    }
}

fn close(raw: &netspy_conn, is_datagram: bool, clock: &Clock) -> Close {
    let has = |flag: u16| raw.flags & flag != 0;
    let carries = !is_datagram && !has(FLAG_LISTENER);
    Close {
        time: clock.wall(raw.close_ns),
        duration_us: (!has(FLAG_PREEXISTING))
            .then(|| raw.close_ns.saturating_sub(raw.outcome_ns) / 1_000),
        bytes_sent: (carries || has(FLAG_BYTES)).then_some(raw.bytes_sent),
        bytes_received: carries.then_some(raw.bytes_received),
        datagrams_sent: (is_datagram && has(FLAG_COUNTED)).then_some(raw.datagrams_sent),
        retransmits: carries.then_some(raw.retransmits),
        srtt_us: (raw.srtt_us != 0).then_some(raw.srtt_us),
        reason: match raw.close_error {
            _ if raw.end != 0 => end(raw.end),
            _ if has(FLAG_LISTENER) => CloseReason::OwnerClose,
            0 if raw.flags & FLAG_OWN_CLOSE != 0 => CloseReason::Abort,
            0 => CloseReason::Fin,
            // EPIPE: reset after the peer had closed (tcp_reset() in net/ipv4/tcp_input.c).
            libc::ECONNRESET | libc::EPIPE => CloseReason::Reset,
            libc::ETIMEDOUT => CloseReason::Timeout,
            _ => CloseReason::Error,
        },
    }
}

/// `enum netspy_end` of connect.h.
fn end(raw: u8) -> CloseReason {
    match raw {
        2 => CloseReason::Disconnect,
        3 => CloseReason::Idle,
        _ => CloseReason::OwnerClose,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_outcome_that_it_means() {
        let cases = [
            (libc::ECONNREFUSED, Outcome::Refused),
            (libc::ETIMEDOUT, Outcome::TimedOut),
            (libc::ENETUNREACH, Outcome::Unreachable),
            (libc::EHOSTUNREACH, Outcome::Unreachable),
            (libc::ENETDOWN, Outcome::Unreachable),
            (libc::EHOSTDOWN, Outcome::Unreachable),
            (libc::EACCES, Outcome::Denied),
            (libc::EPERM, Outcome::Denied),
            (libc::ECONNRESET, Outcome::Reset),
            (libc::EADDRNOTAVAIL, Outcome::Failed),
            (libc::EINVAL, Outcome::Failed),
            (0, Outcome::Aborted),
        ];
        for (error, expected) in cases {
            assert_eq!(outcome(Phase::Failed, error, SocketType::Stream), expected, "{error}");
        }
    }

    #[test]
    fn a_datagram_socket_is_associated_and_a_stream_established() {
        assert_eq!(outcome(Phase::Open, 0, SocketType::Dgram), Outcome::Associated);
        assert_eq!(outcome(Phase::Open, 0, SocketType::Stream), Outcome::Established);
        assert_eq!(outcome(Phase::Pending, 0, SocketType::Stream), Outcome::InProgress);
    }

    #[test]
    fn the_protocol_is_that_of_the_socket() {
        assert_eq!(protocol(Family::Ipv4, SocketType::Dgram, 17), Protocol::Udp);
        assert_eq!(protocol(Family::Ipv6, SocketType::Stream, 262), Protocol::Mptcp);
        assert_eq!(protocol(Family::Ipv4, SocketType::Raw, 6), Protocol::Raw);
        assert_eq!(protocol(Family::Unix, SocketType::Stream, 0), Protocol::Unix);
    }

    #[test]
    fn abstract_and_odd_socket_paths_are_text() {
        assert_eq!(&*socket_path(b"/run/x.sock\0garbage"), "/run/x.sock");
        assert_eq!(&*socket_path(b"\0abstract"), "@abstract");
        assert_eq!(&*socket_path(b"/\xff"), "/\u{fffd}");
    }
}
