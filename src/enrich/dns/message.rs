//! What one DNS message says (RFC 1035, 4.1). Any bytes at all may be in it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use simple_dns::{OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, TYPE};

use super::chain::{self, Told};

/// Addresses that one message may name.
pub(in crate::enrich) const ADDRESSES: usize = 128;
/// The longest text of a name: 255 bytes (RFC 1035, 2.3.4), each of which may be shown by four.
pub(in crate::enrich) const TEXT: usize = 1024;
/// The longest name on the wire.
const NAME: usize = 255;
const HEADER: usize = 12;

/// What the beginning of a message says: the header, and the question if there is one alone.
pub(super) struct Head {
    pub id: u16,
    pub is_response: bool,
    pub is_truncated: bool,
    pub rcode: u16,
    /// Records that answer.
    pub answers: u16,
    pub question: Option<Question>,
}

/// A question for the Internet's records of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub name: Arc<str>,
    pub qtype: u16,
}

/// Reads the beginning of a message; `None` where it is none, or is about something other than
/// records of names.
pub(super) fn head(message: &[u8]) -> Option<Head> {
    let header = message.first_chunk::<HEADER>()?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let flags = word(2);
    let is_response = flags & 0x8000 != 0;
    let question = match word(4) {
        1 => Some(question(&message[HEADER..])?),
        // A server that did not understand the question need not repeat it.
        0 if is_response => None,
        _ => return None,
    };
    (flags & 0x7800 == 0).then_some(Head {
        id: word(0),
        is_response,
        is_truncated: flags & 0x0200 != 0,
        rcode: flags & 0xf,
        answers: word(6),
        question,
    })
}

/// The question at the begin of these bytes. By itself, since the types that a library knows are
/// fewer than those that are asked for.
fn question(bytes: &[u8]) -> Option<Question> {
    let (mut rest, mut labels, mut len) = (bytes, Vec::new(), 1);
    loop {
        let (size, after) = rest.split_first()?;
        let size = usize::from(*size);
        // More is a pointer, of which the first name has no use.
        if size > 63 {
            return None;
        }
        let (label, after) = after.split_at_checked(size)?;
        rest = after;
        if label.is_empty() {
            break;
        }
        len += 1 + size;
        labels.push(label);
    }
    let [t0, t1, c0, c1] = rest.first_chunk::<4>()?;
    let is_internet = matches!(u16::from_be_bytes([*c0, *c1]), 1 | 255);
    (is_internet && len <= NAME).then(|| Question {
        name: text(labels.into_iter()).unwrap_or_else(|| ".".into()),
        qtype: u16::from_be_bytes([*t0, *t1]),
    })
}

/// What a type of records is called.
pub(super) fn type_name(qtype: u16) -> Cow<'static, str> {
    match qtype {
        1 => "A".into(),
        2 => "NS".into(),
        5 => "CNAME".into(),
        6 => "SOA".into(),
        12 => "PTR".into(),
        15 => "MX".into(),
        16 => "TXT".into(),
        28 => "AAAA".into(),
        33 => "SRV".into(),
        35 => "NAPTR".into(),
        43 => "DS".into(),
        48 => "DNSKEY".into(),
        52 => "TLSA".into(),
        64 => "SVCB".into(),
        65 => "HTTPS".into(),
        252 => "AXFR".into(),
        255 => "ANY".into(),
        257 => "CAA".into(),
        // RFC 3597, 5.
        other => format!("TYPE{other}").into(),
    }
}

/// Whether records of a type have addresses.
pub(super) fn has_addresses(qtype: u16) -> bool {
    [u16::from(TYPE::A), u16::from(TYPE::AAAA), u16::from(QTYPE::ANY)].contains(&qtype)
}

/// What an answer says of the name that was asked for.
#[derive(Debug)]
pub(in crate::enrich) struct Answer {
    /// The name that was asked for.
    pub name: Arc<str>,
    /// Its addresses, and for how many seconds they hold.
    pub addresses: Vec<(IpAddr, u32)>,
    /// Whether it has none because its records do not fit together.
    pub is_broken: bool,
    /// The server's code, with what EDNS adds to it; `None` for one that has no name.
    pub rcode: Option<u16>,
}

/// The addresses of the name that a message answers for; `None` if it is no answer to a question for
/// addresses.
pub(in crate::enrich) fn answer(
    message: &[u8],
) -> Result<Option<Answer>, simple_dns::SimpleDnsError> {
    let packet = Packet::parse(message)?;
    let is_answer =
        packet.has_flags(PacketFlag::RESPONSE) && packet.opcode() == OPCODE::StandardQuery;
    let [question] = &packet.questions[..] else { return Ok(None) };
    let asks = matches!(question.qtype, QTYPE::TYPE(TYPE::A | TYPE::AAAA) | QTYPE::ANY);
    let is_internet = matches!(question.qclass, QCLASS::CLASS(simple_dns::CLASS::IN) | QCLASS::ANY);
    if !is_answer || !asks || !is_internet {
        return Ok(None);
    }
    let Told { addresses, is_broken } = match packet.rcode() {
        RCODE::NoError => chain::follow(&packet.answers, &question.qname),
        _ => Told { addresses: Vec::new(), is_broken: false },
    };
    let rcode = match packet.rcode() {
        RCODE::Reserved => None,
        code => Some(code as u16),
    };
    let name = text(question.qname.as_bytes());
    Ok(name.map(|name| Answer { name, addresses, is_broken, rcode }))
}

/// A name as text: small letters, and what is no letter of a host name as `\DDD` (RFC 1035, 5.1).
/// `None` for the root.
fn text<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Arc<str>> {
    let mut text = String::new();
    for label in labels {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' => text.push(char::from(*byte)),
                b'A'..=b'Z' => text.push(char::from(byte.to_ascii_lowercase())),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
    }
    (!text.is_empty() && text.len() <= TEXT).then(|| text.into())
}
