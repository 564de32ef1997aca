//! Packets that the kernel dropped: one [`DropRecord`] per reason and flow, with how many.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ConnectionId, Endpoint, Family, InvalidId, Process, Protocol, time};

/// Names one [`DropRecord`] on one host. Opaque to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DropId {
    /// The first of the drops, in nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub first_ns: u64,
    /// Number of the record in its capture: several drops may share a nanosecond.
    pub number: u32,
    /// Tag of the boot that `first_ns` counts from.
    pub boot: u32,
}

impl fmt::Display for DropId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DropId { first_ns, number, boot } = self;
        write!(f, "d{}", ConnectionId { start_ns: *first_ns, tid: *number, boot: *boot })
    }
}

impl FromStr for DropId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId(text.chars().take(80).collect());
        let id = text.strip_prefix('d').ok_or_else(invalid)?;
        let ConnectionId { start_ns, tid, boot } = id.parse().map_err(|_| invalid())?;
        Ok(DropId { first_ns: start_ns, number: tid, boot })
    }
}

impl Serialize for DropId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DropId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
super::id_schema!(DropId, "d1f0c22ab-3b9aca00-2");

/// Packets of one flow that the kernel dropped for one reason within about half a second.
///
/// The kernel counts, and is asked every so often: a flood of drops makes few records. What found
/// no room in its table of flows, and what is no IP packet, is counted by its reason alone: such
/// records have no addresses, and the sum of the counts is still that of the packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DropRecord {
    /// Opaque, unique on a host.
    pub id: DropId,
    /// Name of the host.
    pub host: Arc<str>,
    /// The first of these drops.
    #[serde(serialize_with = "time::serialize")]
    pub time: Timestamp,
    /// The last of them.
    #[serde(serialize_with = "time::serialize")]
    pub last: Timestamp,
    /// The kernel's name of the reason, without `SKB_DROP_REASON_`.
    pub reason: Arc<str>,
    /// Its number, which is another on other kernels.
    pub reason_code: u32,
    /// Protocol of the packets; `raw` for one that has no name here.
    pub protocol: Option<Protocol>,
    /// The number of the protocol in the IP header.
    pub ip_protocol: Option<u8>,
    /// Address family.
    pub family: Option<Family>,
    /// Where the packets came from; the port is 0 where the protocol has none.
    pub source: Option<Endpoint>,
    /// Where they were to go.
    pub destination: Option<Endpoint>,
    /// How many packets. What the kernel handles as one (GSO, GRO) is one.
    pub count: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
    /// Network namespace (inode number) in which they were dropped, where that is known.
    pub netns: Option<u32>,
    /// Whether there are no addresses only because the kernel's table of flows was full.
    pub no_room: bool,
    /// The attempt whose packets these were, if it was seen.
    pub connection: Option<ConnectionId>,
    /// Who made that attempt.
    pub process: Option<Process>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form_and_is_no_id_of_a_connection() {
        let id = DropId { first_ns: 123_456_789_012, number: 7, boot: 0xdead_beef };
        assert_eq!(id.to_string().parse::<DropId>(), Ok(id));
        assert!(id.to_string().parse::<ConnectionId>().is_err());
        for text in ["", "d", "1-2-3", "d1-2", "dx-2-3", "é"] {
            assert!(text.parse::<DropId>().is_err(), "{text}");
        }
    }
}
