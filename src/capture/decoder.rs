//! From the bytes of ring records to [`Connection`]s: what the capture thread does with each.

use std::sync::Arc;

use super::decode::{self, DecodeError, Raw};
use super::drops_skel::types::{netspy_drop, netspy_drop_key};
use super::{FLAG_LISTENER, FLAG_PREEXISTING, FLAG_SHOWN, FLAG_SWEPT};
use crate::enrich::Enricher;
use crate::enrich::dns::Counts;
use crate::event::{Connection, ConnectionId, DnsRecord, DropRecord};

/// One record of an attempt, or of what is none.
#[derive(Debug)]
pub struct Decoded {
    /// The record.
    pub connection: Connection,
    /// Whether it is of an attempt: what listens, and what existed before, is none and is not
    /// counted.
    pub is_attempt: bool,
    /// Whether the kernel side has put an earlier version of it into the ring, other than by a
    /// sweep.
    pub is_update: bool,
    /// Whether it was put there by a sweep of what waits, beside the events of its socket.
    pub is_swept: bool,
}

/// Decodes ring records in their order, which matters: the start of a program, itself a record,
/// tells what the attempts after it are made by, an answer to a question for
/// names what their remotes are called.
#[derive(Debug)]
pub struct Decoder {
    enricher: Enricher,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { enricher: Enricher::new() }
    }
}

impl Decoder {
    /// Decodes one record; `None` if it is about a process or a name rather than an attempt.
    ///
    /// # Errors
    ///
    /// The bytes are no record that this version knows.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Option<Decoded>, DecodeError> {
        self.enrich(decode::decode(bytes)?)
    }

    pub(crate) fn enrich(&mut self, raw: Raw) -> Result<Option<Decoded>, DecodeError> {
        let (conn, path) = match raw {
            Raw::Conn(conn) => (conn, None),
            Raw::Unix(conn, path) => (conn, Some(path)),
            Raw::Exec(exec) => {
                self.enricher.exec(&exec);
                return Ok(None);
            }
            Raw::Fork(fork) => {
                self.enricher.fork(&fork);
                return Ok(None);
            }
            Raw::Cgroup(id, path) => {
                self.enricher.cgroup(id, &path);
                return Ok(None);
            }
            Raw::Dns(dns, message) => {
                self.enricher.dns(&dns, &message);
                return Ok(None);
            }
        };
        let connection = self.enricher.connection(&conn, path.as_deref());
        let connection = connection.ok_or(DecodeError::UnknownValue)?;
        let has = |flag: u16| conn.flags & flag != 0;
        Ok(Some(Decoded {
            connection,
            is_attempt: !has(FLAG_LISTENER | FLAG_PREEXISTING),
            is_update: has(FLAG_SHOWN),
            is_swept: has(FLAG_SWEPT),
        }))
    }

    /// The id of the attempt that a table of the kernel side holds.
    pub(crate) fn id(&self, bytes: &[u8]) -> Option<ConnectionId> {
        match decode::decode(bytes) {
            Ok(Raw::Conn(conn)) => Some(self.enricher.id(&conn)),
            _ => None,
        }
    }

    /// A record of drops.
    pub(crate) fn dropped(
        &mut self,
        key: &netspy_drop_key,
        drop: &netspy_drop,
        reason: Arc<str>,
    ) -> DropRecord {
        self.enricher.dropped(key, drop, reason)
    }

    /// What came of questions for names since the last time.
    pub(crate) fn take_dns(&mut self) -> Vec<DnsRecord> {
        self.enricher.take_dns()
    }

    /// What became of all questions for names.
    pub(crate) fn dns_counts(&self) -> Counts {
        self.enricher.dns_counts()
    }

    /// DNS messages that could not be understood.
    pub(crate) fn undecodable_dns(&self) -> u64 {
        self.enricher.undecodable_dns()
    }

    /// Follows the wall clock if it was set, and /etc/hosts.
    pub(crate) fn refresh(&mut self) {
        self.enricher.refresh();
    }
}
