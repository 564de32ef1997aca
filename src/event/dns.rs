//! Questions for names and what came of them: one [`DnsRecord`] per question.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};

use super::{ConnectionId, Endpoint, InvalidId, Process, Protocol, time};

/// Names one [`DnsRecord`] on one host. Opaque to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsId {
    /// When the question left, in nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub start_ns: u64,
    /// Number of the record in its capture: several questions may share a nanosecond.
    pub number: u32,
    /// Tag of the boot that `start_ns` counts from.
    pub boot: u32,
}

impl fmt::Display for DnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DnsId { start_ns, number, boot } = self;
        write!(f, "q{}", ConnectionId { start_ns: *start_ns, tid: *number, boot: *boot })
    }
}

impl FromStr for DnsId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId(text.chars().take(80).collect());
        let id = text.strip_prefix('q').ok_or_else(invalid)?;
        let ConnectionId { start_ns, tid, boot } = id.parse().map_err(|_| invalid())?;
        Ok(DnsId { start_ns, number: tid, boot })
    }
}

impl Serialize for DnsId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DnsId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
super::id_schema!(DnsId, "q1f0c22ab-3b9aca00-2");

super::word_enum! {
    /// What came of a question for a name.
    DnsOutcome {
        /// There are records of the type that was asked for.
        Answered,
        /// The name exists, or another server is to be asked: there are no such records (`NOERROR`).
        NoData,
        /// The name does not exist.
        Nxdomain,
        /// The server could not find out.
        Servfail,
        /// The server does not answer whoever asked.
        Refused,
        /// Any other code of the server.
        Failed,
        /// The answer did not fit into a datagram: who asks is to ask again, over TCP.
        Truncated,
        /// Nothing came back within six seconds, whatever the reason.
        TimedOut,
    }
}

impl DnsOutcome {
    /// Whether who asked was left without what it asked for, and not told to ask in another way.
    pub fn is_failure(self) -> bool {
        !matches!(self, DnsOutcome::Answered | DnsOutcome::NoData | DnsOutcome::Truncated)
    }
}

/// A question that a process sent to a name server, with what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DnsRecord {
    /// Opaque, unique on a host.
    pub id: DnsId,
    /// Name of the host.
    pub host: Arc<str>,
    /// When the question was sent first.
    #[serde(serialize_with = "time::serialize")]
    pub time: Timestamp,
    /// The name that was asked for: small letters, and what is no letter of a host name as `\DDD`.
    pub name: Arc<str>,
    /// The type that was asked for, such as `A`, or `TYPE65` where it has no name here.
    #[serde(rename = "type")]
    pub record_type: Cow<'static, str>,
    /// What carried it.
    pub protocol: Protocol,
    /// Who was asked.
    pub server: Endpoint,
    /// Where the question left.
    pub local: Endpoint,
    /// What came of it.
    pub outcome: DnsOutcome,
    /// The number of the server's code (RCODE); `None` without an answer.
    pub rcode: Option<u16>,
    /// The addresses that the answer has for the name, by way of others where it is an alias.
    pub addresses: Vec<IpAddr>,
    /// For how many seconds the answer may be kept: the least that it says of the addresses.
    pub ttl_s: Option<u32>,
    /// When the answer came; `None` without one.
    #[serde(serialize_with = "time::serialize_option")]
    pub answered: Option<Timestamp>,
    /// From the first question to the answer in microseconds; `None` without one.
    pub latency_us: Option<u64>,
    /// How often the question was sent.
    pub sent: u32,
    /// The record of the socket that carried it, if it has a peer.
    pub connection: Option<ConnectionId>,
    /// Who asked.
    pub process: Option<Process>,
    /// The first of the connections that the process made to these addresses by this answer.
    #[serde(default)]
    pub connections: Vec<ConnectionId>,
}

impl DnsRecord {
    /// Of the connections that followed an answer, so many are listed.
    pub const CONNECTIONS: usize = 8;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form_and_is_no_id_of_another_kind() {
        let id = DnsId { start_ns: 123_456_789_012, number: 7, boot: 0xdead_beef };
        assert_eq!(id.to_string().parse::<DnsId>(), Ok(id));
        assert!(id.to_string().parse::<ConnectionId>().is_err());
        for text in ["", "q", "1-2-3", "d1-2-3", "q1-2", "qx-2-3", "é"] {
            assert!(text.parse::<DnsId>().is_err(), "{text}");
        }
    }
}
