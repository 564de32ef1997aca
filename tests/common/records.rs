//! Records for tests and benches: plain ones, and wild ones from a seeded generator.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use netspy::event::*;
use strum::VariantArray;

/// The start of the tests' time.
pub fn epoch() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

/// A time of the tests, in microseconds after its start.
pub fn micros(micros: i64) -> Timestamp {
    epoch().checked_add(SignedDuration::from_micros(micros)).unwrap()
}

/// A record as of so many seconds ago.
pub fn ago(seconds: i64, connection: Connection) -> Connection {
    let time = Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).unwrap();
    Connection { time, ..connection }
}

pub fn info(pid: u32, comm: &str) -> Arc<ProcessInfo> {
    Arc::new(ProcessInfo {
        pid,
        comm: comm.into(),
        exe: Some(format!("/usr/bin/{comm}").into()),
        exe_deleted: false,
        exe_dev: Some(0x801),
        exe_inode: Some(1_000 + u64::from(pid)),
        exe_sha256: None,
        cmdline: Some(format!("{comm} --secret").into()),
        cwd: Some("/srv".into()),
        unit: None,
        uid: 1000,
        user: Some("ann".into()),
        ppid: 1,
        parent: Some("systemd".into()),
        ancestry: vec!["systemd".into()],
        start_time: Some(epoch()),
        cgroup: Some("/user.slice".into()),
        netns: 4_026_531_840,
        container: None,
    })
}

/// A TCP attempt that was refused, the n-th of the tests' time.
pub fn refused(n: u64, info: &Arc<ProcessInfo>) -> Connection {
    Connection {
        id: ConnectionId { start_ns: 1_000_000 + n * 1_000, tid: info.pid, boot: 0xb007 },
        host: "web-1".into(),
        time: micros(n as i64),
        direction: Direction::Outbound,
        protocol: Protocol::Tcp,
        socket_type: SocketType::Stream,
        family: Family::Ipv4,
        local: Some(Endpoint { ip: Ipv4Addr::LOCALHOST.into(), port: 40_000 }),
        remote: Some(Remote {
            service: Some("https".into()),
            ..Remote::new(Ipv4Addr::new(192, 0, 2, (n % 250) as u8).into(), 443)
        }),
        remote_actual: None,
        path: None,
        process: Some(Process { tid: info.pid, thread: info.comm.clone(), info: info.clone() }),
        state: State::Closed,
        outcome: Outcome::Refused,
        errno: Some(111),
        error: Some("ECONNREFUSED".into()),
        evidence: Some(Evidence::TcpState),
        latency_us: Some(100 + n % 1_000),
        syn_retransmits: Some(0),
        drop: None,
        traffic: None,
        close: None,
        preexisting: false,
    }
}

/// The same attempt while it has no outcome.
pub fn in_progress(n: u64, info: &Arc<ProcessInfo>) -> Connection {
    Connection {
        state: State::Connecting,
        outcome: Outcome::InProgress,
        errno: None,
        error: None,
        evidence: None,
        latency_us: None,
        ..refused(n, info)
    }
}

/// The same attempt if it is established.
pub fn established(n: u64, info: &Arc<ProcessInfo>) -> Connection {
    Connection {
        state: State::Open,
        outcome: Outcome::Established,
        errno: None,
        error: None,
        ..refused(n, info)
    }
}

/// The same connection after its end.
pub fn closed(n: u64, info: &Arc<ProcessInfo>) -> Connection {
    Connection {
        state: State::Closed,
        close: Some(Close {
            time: micros(n as i64 + 5_000),
            duration_us: Some(4_000),
            bytes_sent: Some(512),
            bytes_received: Some(2_048),
            datagrams_sent: None,
            retransmits: Some(0),
            srtt_us: Some(250),
            reason: CloseReason::Fin,
        }),
        ..established(n, info)
    }
}

pub fn udp(n: u64, info: &Arc<ProcessInfo>) -> Connection {
    Connection {
        protocol: Protocol::Udp,
        socket_type: SocketType::Dgram,
        outcome: Outcome::Associated,
        syn_retransmits: None,
        evidence: Some(Evidence::ConnectReturn),
        ..established(n, info)
    }
}

/// A socket that listens at port 443.
pub fn listening(n: u64, info: &Arc<ProcessInfo>) -> Connection {
    Connection {
        direction: Direction::Inbound,
        local: Some(Endpoint { ip: Ipv4Addr::UNSPECIFIED.into(), port: 443 }),
        remote: None,
        state: State::Listening,
        outcome: Outcome::Listening,
        evidence: None,
        latency_us: None,
        syn_retransmits: None,
        ..established(n, info)
    }
}

pub fn unix(n: u64, info: &Arc<ProcessInfo>, path: &str) -> Connection {
    Connection {
        protocol: Protocol::Unix,
        family: Family::Unix,
        local: None,
        remote: None,
        path: Some(path.into()),
        syn_retransmits: None,
        ..established(n, info)
    }
}

/// Drops of packets of such an attempt, the n-th of the tests' time.
pub fn dropped(n: u64) -> DropRecord {
    DropRecord {
        id: DropId { first_ns: 1_000_000 + n * 1_000, number: n as u32, boot: 0xb007 },
        host: "web-1".into(),
        time: micros(n as i64),
        last: micros(n as i64 + 400),
        reason: "NO_SOCKET".into(),
        reason_code: 3,
        protocol: Some(Protocol::Tcp),
        ip_protocol: Some(6),
        family: Some(Family::Ipv4),
        source: Some(Endpoint { ip: Ipv4Addr::LOCALHOST.into(), port: 40_000 }),
        destination: Some(Endpoint {
            ip: Ipv4Addr::new(192, 0, 2, (n % 250) as u8).into(),
            port: 443,
        }),
        count: 3,
        bytes: 180,
        netns: Some(4_026_531_840),
        no_room: false,
        connection: None,
        process: None,
    }
}

/// A question for a name that was answered, the n-th of the tests' time.
pub fn asked(n: u64) -> DnsRecord {
    DnsRecord {
        id: DnsId { start_ns: 1_000_000 + n * 1_000, number: n as u32, boot: 0xb007 },
        host: "web-1".into(),
        time: micros(n as i64),
        name: "www.example.com".into(),
        record_type: "A".into(),
        protocol: Protocol::Udp,
        server: Endpoint { ip: Ipv4Addr::new(192, 0, 2, 53).into(), port: 53 },
        local: Endpoint { ip: Ipv4Addr::LOCALHOST.into(), port: 40_000 },
        outcome: DnsOutcome::Answered,
        rcode: Some(0),
        addresses: vec![Ipv4Addr::new(198, 51, 100, 1).into()],
        ttl_s: Some(60),
        answered: Some(micros(n as i64 + 412)),
        latency_us: Some(412),
        sent: 1,
        connection: None,
        process: Some(Process { tid: 7, thread: "curl".into(), info: info(7, "curl") }),
        connections: Vec::new(),
    }
}

/// A seeded generator: the same records in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % below
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.next(n) == 0
    }

    pub fn one<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next(from.len() as u64) as usize]
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.one_in(2) { Some(make(self)) } else { None }
    }

    fn word(&mut self) -> &'static str {
        self.one(&["curl", "wget", "a,b", "", "ümlaut", "x.example.com", "nginx.service", "docker"])
    }

    fn time(&mut self) -> Timestamp {
        match self.next(20) {
            0 => Timestamp::MAX,
            // What is older is written as this.
            1 => "0000-01-01T00:00:00Z".parse().unwrap(),
            _ => micros(self.next(1_000_000) as i64 - 500_000),
        }
    }

    fn ip(&mut self) -> std::net::IpAddr {
        match self.one_in(2) {
            true => Ipv4Addr::new(10, 0, 0, self.next(6) as u8).into(),
            false => Ipv6Addr::from_bits(u128::from(self.next(6)) << 64 | 1).into(),
        }
    }

    fn container(&mut self) -> Arc<Container> {
        Arc::new(Container {
            id: self.one(&["0123456789abcdef", "fedcba9876543210", "short"]).to_owned(),
            runtime: "docker".to_owned(),
            name: self.maybe(|r| r.word().to_owned()),
            pod: self.maybe(|r| r.word().to_owned()),
            namespace: self.maybe(|r| r.word().to_owned()),
            pod_uid: self.maybe(|r| r.word().to_owned()),
            image: self.maybe(|r| r.word().to_owned()),
            labels: (0..self.next(3)).map(|n| (format!("l{n}"), self.word().to_owned())).collect(),
        })
    }

    pub fn process(&mut self) -> Process {
        let comm = self.word();
        let thread = if self.one_in(2) { comm } else { self.word() };
        let info = ProcessInfo {
            pid: self.next(8) as u32,
            uid: self.next(3) as u32,
            exe: self.maybe(|r| format!("/opt/{}", r.word()).into()),
            exe_dev: self.maybe(|r| r.one(&[0x801, u64::MAX])),
            exe_inode: self.maybe(|r| r.one(&[2, u64::MAX])),
            exe_sha256: self.maybe(|r| format!("{:064x}", r.next(3)).into()),
            cwd: self.maybe(|r| format!("/{}", r.word()).into()),
            unit: self.maybe(|r| r.word().into()),
            container: self.maybe(Self::container),
            start_time: self.maybe(Self::time),
            ..(*info(1, comm)).clone()
        };
        Process { tid: self.next(8) as u32, thread: thread.into(), info: Arc::new(info) }
    }

    /// Any record at all, sensible or not, as a hostile file may hold it.
    pub fn connection(&mut self) -> Connection {
        let number = |r: &mut Self| {
            let small = r.next(1000);
            r.one(&[small, u64::from(u32::MAX), u64::MAX, 255, 71])
        };
        Connection {
            id: ConnectionId {
                start_ns: self.next(200),
                tid: self.next(2) as u32,
                boot: self.next(2) as u32,
            },
            host: self.one(&["web-1", "web-2"]).into(),
            time: self.time(),
            direction: self.one(Direction::VARIANTS),
            protocol: self.one(Protocol::VARIANTS),
            socket_type: self.one(SocketType::VARIANTS),
            family: self.one(Family::VARIANTS),
            local: self.maybe(|r| Endpoint { ip: r.ip(), port: r.next(4) as u16 }),
            remote: self.maybe(|r| Remote {
                name: r.maybe(|r| r.word().into()),
                name_source: r.maybe(|r| r.one(NameSource::VARIANTS)),
                name_time: r.maybe(Self::time),
                service: r.maybe(|r| r.word().into()),
                country: r.maybe(|r| r.one(&["DE", "FR"]).into()),
                asn: r.maybe(|r| r.one(&[64_500, u32::MAX])),
                as_name: r.maybe(|r| r.word().into()),
                ..Remote::new(r.ip(), r.next(4) as u16)
            }),
            remote_actual: self.maybe(|r| Endpoint { ip: r.ip(), port: r.next(4) as u16 }),
            path: self.maybe(|r| r.word().into()),
            process: self.maybe(Self::process),
            state: self.one(State::VARIANTS),
            outcome: self.one(Outcome::VARIANTS),
            errno: self.maybe(|r| r.one(&[0, 111, -1, i32::MIN, i32::MAX, -32768])),
            error: self.maybe(|r| r.word().into()),
            evidence: self.maybe(|r| r.one(Evidence::VARIANTS)),
            latency_us: self.maybe(number),
            syn_retransmits: self.maybe(|r| number(r) as u32),
            drop: if self.one_in(10) {
                Some(Dropped { reason: "NETFILTER_DROP".to_owned(), count: 2 })
            } else {
                None
            },
            traffic: None,
            close: self.maybe(|r| Close {
                time: r.time(),
                duration_us: r.maybe(number),
                bytes_sent: r.maybe(number),
                bytes_received: r.maybe(number),
                datagrams_sent: r.maybe(number),
                retransmits: r.maybe(|r| number(r) as u32),
                srtt_us: r.maybe(|r| number(r) as u32),
                reason: r.one(CloseReason::VARIANTS),
            }),
            preexisting: self.one_in(4),
        }
    }
}
