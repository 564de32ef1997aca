//! The domain types: one [`Connection`] per connection attempt, with its outcome and the evidence.
//!
//! The JSON form of these types is the contract of the REST API, of recorded files and of the
//! tools built on top; the Rust names are the same. A member that the kernel did not tell is
//! `None` (JSON `null`), never a guess.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};

mod dns;
mod dropped;
mod remote;
mod scope;

pub use dns::{DnsId, DnsOutcome, DnsRecord};
pub use dropped::{DropId, DropRecord};
pub use remote::Remote;
pub use scope::Scope;

/// Times in JSON: always nine digits after the point, so that they sort as text.
pub(crate) mod time {
    use std::fmt;

    use jiff::Timestamp;
    use serde::Serializer;

    /// The start of the year 0: RFC 3339 has none before. What claims to be older (the start of a
    /// window that was counted back, a record of a hostile file) is written as this.
    pub(crate) const OLDEST: Timestamp = Timestamp::constant(-62_167_219_200, 0);

    /// As it is written in answers and recordings.
    pub(crate) struct Shown(pub Timestamp);

    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{:.9}", self.0.max(OLDEST))
        }
    }

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&Shown(*time))
    }

    pub(crate) fn serialize_option<S: Serializer>(
        time: &Option<Timestamp>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serialize(time, to),
            None => to.serialize_none(),
        }
    }
}

/// Names one attempt on one host. Opaque to users; it keeps its value through every version of
/// the record.
///
/// Made of a tag of the boot, the time of the attempt since boot and the thread that made it: one
/// thread makes one attempt at a time, so no counter has to be shared between processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Start of the attempt, in nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub start_ns: u64,
    /// Thread that made the attempt.
    pub tid: u32,
    /// Tag of the boot that `start_ns` counts from.
    pub boot: u32,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:x}-{:x}", self.boot, self.start_ns, self.tid)
    }
}

/// The text is not the id of a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a connection id (they look like 1f0c22ab-3b9aca00-4d2)")]
pub struct InvalidId(String);

impl FromStr for ConnectionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId(text.chars().take(80).collect());
        let mut parts = text.split('-');
        let mut next = || parts.next().filter(|p| !p.is_empty() && !p.starts_with('+'));
        let (Some(boot), Some(start), Some(tid)) = (next(), next(), next()) else {
            return Err(invalid());
        };
        if parts.next().is_some() {
            return Err(invalid());
        }
        let id = ConnectionId {
            boot: u32::from_str_radix(boot, 16).map_err(|_| invalid())?,
            start_ns: u64::from_str_radix(start, 16).map_err(|_| invalid())?,
            tid: u32::from_str_radix(tid, 16).map_err(|_| invalid())?,
        };
        Ok(id)
    }
}

impl Serialize for ConnectionId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConnectionId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An id in JSON is a text that says nothing to its reader.
#[cfg(feature = "schema")]
macro_rules! id_schema {
    ($name:ident, $example:literal) => {
        impl schemars::JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "examples": [$example]})
            }
        }
    };
}
#[cfg(feature = "schema")]
pub(crate) use id_schema;
#[cfg(feature = "schema")]
id_schema!(ConnectionId, "1f0c22ab-3b9aca00-4d2");

macro_rules! word_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
                 Display, EnumString, IntoStaticStr, VariantArray)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "snake_case")]
        #[strum(serialize_all = "snake_case")]
        #[non_exhaustive]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// The word used in JSON, in filters and in tables.
            pub fn as_str(self) -> &'static str {
                self.into()
            }
        }
    };
}

pub(crate) use word_enum;

word_enum! {
    /// Who opened the connection.
    Direction {
        /// A process of this host asked for it.
        Outbound,
        /// A process of this host accepted it.
        Inbound,
    }
}

word_enum! {
    /// The protocol of the socket, as the kernel has it (never from a port number).
    Protocol {
        /// TCP.
        Tcp,
        /// UDP.
        Udp,
        /// UDP-Lite.
        Udplite,
        /// Multipath TCP.
        Mptcp,
        /// SCTP.
        Sctp,
        /// DCCP.
        Dccp,
        /// ICMP echo socket.
        Icmp,
        /// ICMPv6 echo socket.
        Icmpv6,
        /// Raw IP socket, or a protocol that has no name here.
        Raw,
        /// UNIX socket.
        Unix,
    }
}

word_enum! {
    /// The kind of socket (`socket(2)`, second argument).
    SocketType {
        /// `SOCK_STREAM`.
        Stream,
        /// `SOCK_DGRAM`.
        Dgram,
        /// `SOCK_RAW`.
        Raw,
        /// `SOCK_SEQPACKET`.
        Seqpacket,
    }
}

word_enum! {
    /// The address family that was used. IPv4-mapped IPv6 addresses are shown as IPv4.
    Family {
        /// IPv4.
        Ipv4,
        /// IPv6.
        Ipv6,
        /// UNIX sockets.
        Unix,
    }
}

word_enum! {
    /// What the connection is doing.
    State {
        /// The attempt has no outcome yet.
        Connecting,
        /// Established (or an associated datagram socket) and not known to be closed.
        Open,
        /// A listening socket.
        Listening,
        /// Closed, or never opened.
        Closed,
    }
}

word_enum! {
    /// How the attempt ended.
    Outcome {
        /// The connection was set up.
        Established,
        /// The other side refused (`ECONNREFUSED`).
        Refused,
        /// No answer in time (`ETIMEDOUT`).
        TimedOut,
        /// No way to the other side (`ENETUNREACH`, `EHOSTUNREACH`, `ENETDOWN`, `EHOSTDOWN`).
        Unreachable,
        /// This host did not allow it (`EACCES`, `EPERM`).
        Denied,
        /// Reset by the other side (`ECONNRESET`).
        Reset,
        /// Closed by its owner, or the owner died, before there was an outcome.
        Aborted,
        /// A datagram socket was given its peer; nothing has been seen to leave yet.
        Associated,
        /// A datagram left.
        Sent,
        /// Any other error.
        Failed,
        /// No outcome yet.
        InProgress,
        /// No attempt: the socket listens, or did until it was closed.
        Listening,
    }
}

word_enum! {
    /// What told the outcome.
    Evidence {
        /// The return value of connect(2).
        ConnectReturn,
        /// A change of the TCP state.
        TcpState,
        /// The error that the kernel left on the socket.
        SkError,
        /// The owner closed the socket, or died.
        OwnerClose,
        /// It was accepted.
        Accept,
        /// The state of the socket, where what led to it was not seen.
        SocketState,
        /// The return value of a call that sends.
        SendReturn,
    }
}

word_enum! {
    /// Why a connection closed.
    CloseReason {
        /// Both sides closed in order.
        Fin,
        /// The other side sent a reset.
        Reset,
        /// This side gave up with a reset (closed with unread data, or with linger 0).
        Abort,
        /// The other side stopped answering.
        Timeout,
        /// Another error on the socket.
        Error,
        /// A datagram socket, or one that listens, was closed, or its owner died.
        OwnerClose,
        /// A datagram socket was given another peer, or none.
        Disconnect,
        /// Nothing was sent for a while by a datagram socket that has no peer.
        Idle,
    }
}

word_enum! {
    /// Where a name came from.
    NameSource {
        /// The process itself got a DNS answer that says so.
        Dns,
        /// Another process of its network namespace did, lately.
        DnsNetns,
        /// A process of another network namespace did, lately.
        DnsHost,
        /// /etc/hosts.
        Hosts,
    }
}

impl Outcome {
    /// Whether the attempt failed for a reason outside the process: the meaning of the filter
    /// word `unsuccessful`. `aborted` is none of these, since racing two address families does
    /// it to the loser.
    pub fn is_unsuccessful(self) -> bool {
        matches!(
            self,
            Outcome::Refused
                | Outcome::TimedOut
                | Outcome::Unreachable
                | Outcome::Denied
                | Outcome::Reset
                | Outcome::Failed
        )
    }
}

/// An address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// Port, host byte order; 0 where the protocol has none, or a socket is not bound yet.
    pub port: u16,
}

/// A container that a process runs in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Container {
    /// Full id; where containers are in one another, that of the innermost.
    pub id: String,
    /// Runtime, such as `docker` or `containerd`; `cri` for one that serves a kubelet and does not
    /// show which it is.
    pub runtime: String,
    /// Name, if the runtime told.
    pub name: Option<String>,
    /// Kubernetes pod.
    pub pod: Option<String>,
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Uid of the Kubernetes pod, which its cgroup tells.
    #[serde(default)]
    pub pod_uid: Option<String>,
    /// The image that it was made from, as it was asked for.
    #[serde(default)]
    pub image: Option<String>,
    /// Labels, if the runtime told; bounded in number and size.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Container {
    /// One of which no more is known.
    pub fn new(id: impl Into<String>, runtime: impl Into<String>) -> Self {
        Container { id: id.into(), runtime: runtime.into(), ..Container::default() }
    }
}

/// The process (thread group) that made an attempt, shared by the records of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessInfo {
    /// Process id (the kernel's tgid), in the initial pid namespace.
    pub pid: u32,
    /// Name of the process (of its main thread) at the attempt.
    pub comm: Arc<str>,
    /// Path of the executable.
    pub exe: Option<Arc<str>>,
    /// Whether the executable was unlinked while it ran.
    pub exe_deleted: bool,
    /// Device of the executable, as stat(2) has it.
    #[serde(default)]
    pub exe_dev: Option<u64>,
    /// Inode number of the executable.
    #[serde(default)]
    pub exe_inode: Option<u64>,
    /// SHA-256 of the executable in hexadecimal; `None` until it is known, where it cannot be, and
    /// unless it was asked for.
    #[serde(default)]
    pub exe_sha256: Option<Arc<str>>,
    /// Command line, arguments joined by spaces.
    pub cmdline: Option<Arc<str>>,
    /// Working directory at the attempt.
    #[serde(default)]
    pub cwd: Option<Arc<str>>,
    /// systemd unit.
    pub unit: Option<Arc<str>>,
    /// Real user id, in the initial user namespace.
    pub uid: u32,
    /// User name.
    pub user: Option<Arc<str>>,
    /// Parent process id.
    pub ppid: u32,
    /// Name of the parent.
    pub parent: Option<Arc<str>>,
    /// Names of those that it descends from, nearest first, up to pid 1: of each the name at the time
    /// at which it made the next one. Who has ended since stays among them, while `parent` is whose
    /// child it was at the attempt. At most 64.
    pub ancestry: Vec<Arc<str>>,
    /// When the process started; with the pid, this tells it from others on the host.
    #[serde(serialize_with = "time::serialize_option")]
    pub start_time: Option<Timestamp>,
    /// Path in the cgroup v2 hierarchy.
    pub cgroup: Option<Arc<str>>,
    /// Network namespace (inode number) of the socket.
    pub netns: u32,
    /// Container, if it runs in one.
    pub container: Option<Arc<Container>>,
}

/// The process, and the thread of it, that made one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Process {
    /// Thread id.
    pub tid: u32,
    /// Name of the thread.
    pub thread: Arc<str>,
    /// What all threads of the process share.
    #[serde(flatten)]
    pub info: Arc<ProcessInfo>,
}

impl std::ops::Deref for Process {
    type Target = ProcessInfo;

    fn deref(&self) -> &ProcessInfo {
        &self.info
    }
}

/// Packets of the connection that the kernel dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dropped {
    /// The kernel's name of the reason.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// What an open connection has carried so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Traffic {
    /// Payload bytes sent, each counted once however often it was retransmitted; `None` where they
    /// are not counted.
    pub bytes_sent: Option<u64>,
    /// Payload bytes received; `None` for datagrams, whose arrival is not seen.
    pub bytes_received: Option<u64>,
    /// Datagrams sent, one per call that sent; `None` for TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagrams_sent: Option<u64>,
    /// Segments retransmitted so far; `None` where the protocol has none.
    pub retransmits: Option<u32>,
    /// Smoothed round-trip time in microseconds, if the kernel has measured one.
    pub srtt_us: Option<u32>,
}

/// How an established connection, a datagram socket's time with a peer, or a socket that listens,
/// ended, and what it carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Close {
    /// When the socket reached the state CLOSED, or the peer was given up.
    #[serde(serialize_with = "time::serialize")]
    pub time: Timestamp,
    /// From the outcome to the close, in microseconds; `None` for what existed before capture
    /// began, since the kernel keeps no time for it.
    pub duration_us: Option<u64>,
    /// Payload bytes sent, each counted once however often it was retransmitted.
    pub bytes_sent: Option<u64>,
    /// Payload bytes received; `None` for datagrams, whose arrival is not seen.
    pub bytes_received: Option<u64>,
    /// Datagrams sent, one per call that sent; `None` for TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagrams_sent: Option<u64>,
    /// Segments retransmitted over the life of the connection; `None` where the protocol has none.
    pub retransmits: Option<u32>,
    /// Smoothed round-trip time in microseconds at the close, if the kernel had measured one.
    pub srtt_us: Option<u32>,
    /// Why it closed.
    pub reason: CloseReason,
}

impl Close {
    /// What the connection has carried.
    pub fn carried(&self) -> Traffic {
        Traffic {
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
            datagrams_sent: self.datagrams_sent,
            retransmits: self.retransmits,
            srtt_us: self.srtt_us,
        }
    }
}

/// One connection attempt: who, where to, with what outcome. Connections that were accepted and
/// sockets that listen have the same form.
///
/// A record changes after it was first shown (outcome, close): each later version carries the
/// same [`id`](Connection::id) and replaces the earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Connection {
    /// Opaque, unique on a host.
    pub id: ConnectionId,
    /// Name of the host.
    pub host: Arc<str>,
    /// Start of the attempt; of an inbound connection, when it was accepted; of what existed before,
    /// the start of capture, since the kernel keeps no time for it.
    #[serde(serialize_with = "time::serialize")]
    pub time: Timestamp,
    /// Who opened it.
    pub direction: Direction,
    /// Protocol of the socket.
    pub protocol: Protocol,
    /// Kind of the socket.
    pub socket_type: SocketType,
    /// Address family in use.
    pub family: Family,
    /// This side; `None` while unknown (not bound) and for UNIX sockets.
    pub local: Option<Endpoint>,
    /// The other side; `None` for UNIX and listening sockets, and where no address could be read.
    pub remote: Option<Remote>,
    /// Where address translation (NAT) of this host sends it, where that is not `remote`; `None`
    /// where it is, and where nobody knows. Of outbound connections alone.
    #[serde(default)]
    pub remote_actual: Option<Endpoint>,
    /// Path of a UNIX socket; abstract names start with `@`.
    pub path: Option<Arc<str>>,
    /// Who made the attempt, accepted the connection or began to listen; of what existed before,
    /// the first process found that holds the socket.
    pub process: Option<Process>,
    /// What it is doing now.
    pub state: State,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// Error number of the outcome (Linux numbering), if it was an error.
    pub errno: Option<i32>,
    /// Its symbol, such as `ECONNREFUSED`.
    pub error: Option<Cow<'static, str>>,
    /// What told the outcome; `None` while there is none.
    pub evidence: Option<Evidence>,
    /// From the attempt to its outcome in microseconds, for success and failure alike; `None`
    /// for inbound connections, listening sockets and what existed before.
    pub latency_us: Option<u64>,
    /// SYNs sent again before the outcome; `None` where the protocol has none, for inbound
    /// connections and what existed before.
    pub syn_retransmits: Option<u32>,
    /// Packets that the kernel dropped.
    pub drop: Option<Dropped>,
    /// What it has carried so far: in answers to queries, of what is open when they are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// The end of an established connection.
    pub close: Option<Close>,
    /// Whether it existed before capture began.
    pub preexisting: bool,
}

impl Connection {
    /// What it has carried: until its end, or so far if that is known.
    pub fn carried(&self) -> Option<Traffic> {
        self.close.map(|close| close.carried()).or(self.traffic)
    }

    /// Whether it is an attempt or an accepted connection, which the books count: what listens, and
    /// what existed before capture began, is none.
    pub fn is_attempt(&self) -> bool {
        !self.preexisting && self.outcome != Outcome::Listening
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form() {
        let id = ConnectionId { start_ns: 123_456_789_012, tid: 4242, boot: 0xdead_beef };
        assert_eq!(id.to_string().parse::<ConnectionId>(), Ok(id));
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in ["", "1", "1-2", "1-2-3-4", "x-1-2", "1--2", "+1-2-3", "1-2-", "é-1-2"] {
            assert!(text.parse::<ConnectionId>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_nine_digits_and_so_sort_as_text() {
        #[derive(Serialize)]
        struct Times {
            #[serde(serialize_with = "time::serialize")]
            time: Timestamp,
            #[serde(serialize_with = "time::serialize_option")]
            start_time: Option<Timestamp>,
        }
        let json = |nanos| {
            let time = Timestamp::from_nanosecond(nanos).unwrap();
            serde_json::to_string(&Times { time, start_time: Some(time) }).unwrap()
        };
        let nanos = [0, 1, 500_000_000, 999_999_999, 1_000_000_000, 1_500_000_000];
        assert!(nanos.map(json).is_sorted());
        let time = "1970-01-01T00:00:00.500000000Z";
        assert_eq!(json(500_000_000), format!("{{\"time\":\"{time}\",\"start_time\":\"{time}\"}}"));
    }

    #[test]
    fn words_are_the_same_in_json_and_in_filters() {
        for outcome in Outcome::VARIANTS {
            let json = serde_json::to_string(outcome).unwrap();
            assert_eq!(json, format!("\"{outcome}\""));
            assert_eq!(outcome.as_str().parse::<Outcome>().unwrap(), *outcome);
        }
        assert_eq!(Outcome::TimedOut.as_str(), "timed_out");
        assert_eq!(Protocol::Icmpv6.as_str(), "icmpv6");
    }
}
