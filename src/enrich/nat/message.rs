//! A question about one connection to the kernel's connection tracking (ctnetlink), and the answer.
//!
//! include/uapi/linux/netfilter/nfnetlink_conntrack.h; who answers is `ctnetlink_get_conntrack()` in
//! net/netfilter/nf_conntrack_netlink.c.

use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

/// A direction of a connection, as packets show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    /// Of IP, such as 6 for TCP.
    pub(crate) protocol: u8,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

/// The answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The kernel refused.
    #[error("the kernel refuses to tell: {0}")]
    Refused(#[source] io::Error),
    /// These bytes are no answer.
    #[error("the kernel's answer cannot be understood: {0}")]
    Garbage(String),
}

/// The bytes that ask for what is tracked of packets that were sent like this.
pub(crate) fn question(flow: &Flow, number: u32) -> Vec<u8> {
    let family = match flow.to {
        SocketAddr::V4(_) => NetfilterProtoFamily::IPv4,
        SocketAddr::V6(_) => NetfilterProtoFamily::IPv6,
    };
    let tuple = vec![
        Tuple::Ip(vec![
            IPTuple::SourceAddress(flow.from.ip()),
            IPTuple::DestinationAddress(flow.to.ip()),
        ]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(Protocol::from(flow.protocol)),
            ProtoTuple::SourcePort(flow.from.port()),
            ProtoTuple::DestinationPort(flow.to.port()),
        ]),
    ];
    let get = ConntrackMessage::Get(vec![ConntrackAttribute::CtaTupleOrig(tuple)]);
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), get);
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = number;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// How packets that were sent like this leave, by the answer to a question of that number; `None`
/// where nothing is tracked of them. It is the turned direction of the packets that come back.
pub(crate) fn answer(bytes: &[u8], asked: &Flow, number: u32) -> Result<Option<Flow>, AnswerError> {
    let garbage = |why: &str| AnswerError::Garbage(why.to_owned());
    let message = NetlinkMessage::<NetfilterMessage>::deserialize(bytes)
        .map_err(|error| AnswerError::Garbage(error.to_string()))?;
    if message.header.sequence_number != number {
        return Err(garbage("it has another number"));
    }
    let message = match message.payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Error(error) => {
            // Not by the crate's to_io(): it panics at the least number of all.
            return match error.raw_code().checked_neg() {
                Some(libc::ENOENT) => Ok(None),
                Some(errno) if errno > 0 => {
                    Err(AnswerError::Refused(io::Error::from_raw_os_error(errno)))
                }
                _ => Err(garbage("it is an error without a number")),
            };
        }
        _ => return Err(garbage("it is no message of netfilter")),
    };
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else {
        return Err(garbage("it is about no connection"));
    };
    let (mut sent, mut back) = (None, None);
    for attribute in &attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => sent = flow(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => back = flow(tuple),
            _ => {}
        }
    }
    let (Some(sent), Some(back)) = (sent, back) else {
        return Err(garbage("it lacks a direction"));
    };
    // The kernel also finds a connection by the packets that come back.
    if sent != *asked {
        return Ok(None);
    }
    if back.protocol != asked.protocol || back.to.is_ipv4() != asked.to.is_ipv4() {
        return Err(garbage("packets come back otherwise than they go"));
    }
    Ok(Some(Flow { from: back.to, to: back.from, ..back }))
}

fn flow(tuple: &[Tuple]) -> Option<Flow> {
    let (mut from, mut to): (Option<IpAddr>, Option<IpAddr>) = (None, None);
    let (mut protocol, mut from_port, mut to_port) = (None, None, None);
    for part in tuple {
        match part {
            Tuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(ip) => from = Some(*ip),
                        IPTuple::DestinationAddress(ip) => to = Some(*ip),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(facts) => {
                for fact in facts {
                    match fact {
                        ProtoTuple::Protocol(number) => protocol = Some(u8::from(*number)),
                        ProtoTuple::SourcePort(port) => from_port = Some(*port),
                        ProtoTuple::DestinationPort(port) => to_port = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let (from, to) = (from?, to?);
    (from.is_ipv4() == to.is_ipv4()).then_some(())?;
    Some(Flow {
        protocol: protocol?,
        from: SocketAddr::new(from, from_port?),
        to: SocketAddr::new(to, to_port?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of Linux 6.18 to question 7: a TCP connection from port 40001 to port 80 of
    /// 198.51.100.7 that goes to port 8081 of 198.51.100.1, from where it comes; and the same in
    /// 2001:db8::/64.
    const V4: &str = "d40000000001020007000000b64e000002000000340001801400018008000100c6336401\
        08000200c63364071c0002800500010006000000060002009c410000060003000050000034000280140001800800\
        0100c633640108000200c63364011c0002800500010006000000060002001f910000060003009c41000008000300\
        000001ae080008000000000008000c00ebc1c75608000b00000000020800070000069780300004802c0001800500\
        010003000000050002000a000000050003000a00000006000400230000000600050023000000";
    const V6: &str = "040100000001020007000000b64e00000a0000004c0001802c0001801400030020010db8\
        0000000000000000000000011400040020010db80000000000000000000000071c00028005000100060000000600\
        02009c41000006000300005000004c0002802c0001801400030020010db800000000000000000000000114000400\
        20010db80000000000000000000000011c0002800500010006000000060002001f910000060003009c4100000800\
        0300000001ae080008000000000008000c009405e26a08000b00000000020800070000069780300004802c000180\
        0500010003000000050002000a000000050003000a00000006000400230000000600050023000000";
    /// That there is no such connection: the answer to question 8.
    const NONE: &str = "5c0000000200000008000000b64e0000feffffff48000000010101000800000000000000\
        02000000340001801400018008000100c633640108000200c63364071c0002800500010006000000060002009c42\
        00000600030000500000";

    fn bytes(hex: &str) -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2);
        pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
    }

    fn flow(from: &str, to: &str) -> Flow {
        Flow { protocol: 6, from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn asked() -> [(&'static str, Flow, Flow); 2] {
        let v6 = "[2001:db8::1]";
        [
            (
                V4,
                flow("198.51.100.1:40001", "198.51.100.7:80"),
                flow("198.51.100.1:40001", "198.51.100.1:8081"),
            ),
            (
                V6,
                flow(&format!("{v6}:40001"), "[2001:db8::7]:80"),
                flow(&format!("{v6}:40001"), &format!("{v6}:8081")),
            ),
        ]
    }

    #[test]
    fn the_kernel_s_answer_says_where_packets_go() {
        for (hex, asked, expected) in asked() {
            assert_eq!(answer(&bytes(hex), &asked, 7).unwrap(), Some(expected));
        }
        let unknown = flow("198.51.100.1:40002", "198.51.100.7:80");
        assert_eq!(answer(&bytes(NONE), &unknown, 8).unwrap(), None);
    }

    #[test]
    fn an_answer_about_another_connection_says_nothing() {
        let (hex, asked, _) = asked()[0];
        let number = answer(&bytes(hex), &asked, 8).unwrap_err().to_string();
        assert!(number.contains("another number"), "{number}");
        // Found by the packets that come back.
        let back = flow("198.51.100.1:8081", "198.51.100.1:40001");
        assert_eq!(answer(&bytes(hex), &back, 7).unwrap(), None);
        let refused = NONE.replace("feffffff", "ffffffff");
        let refused = answer(&bytes(&refused), &asked, 8).unwrap_err().to_string();
        assert!(refused.contains("refuses to tell: Operation not permitted"), "{refused}");
    }

    #[test]
    fn the_question_is_that_of_other_programs() {
        let (_, asked, _) = asked()[0];
        let expected = "5000000001010100070000000000000002000000340001801400018008000100c6336401\
            08000200c63364071c0002800500010006000000060002009c4100000600030000500000";
        let mut expected = bytes(expected);
        expected[0] = expected.len() as u8;
        assert_eq!(question(&asked, 7), expected);
    }

    /// Cut anywhere, with lengths and kinds that lie: what is told is an error, nothing, or a flow that
    /// could be one, and never more than the bytes hold.
    #[test]
    fn bytes_that_lie_cost_an_answer_and_nothing_else() {
        let hold = |told: Result<Option<Flow>, AnswerError>, asked: &Flow| {
            if let Ok(Some(flow)) = told {
                assert_eq!(flow.protocol, asked.protocol);
                assert_eq!(flow.to.is_ipv4(), asked.to.is_ipv4());
            }
        };
        for (hex, asked, _) in asked() {
            let good = bytes(hex);
            for len in 0..good.len() {
                assert!(answer(&good[..len], &asked, 7).is_err(), "{len}");
                // As a whole message by its own account.
                let mut cut = good[..len].to_vec();
                if let Some(length) = cut.get_mut(..4) {
                    length.copy_from_slice(&(len as u32).to_ne_bytes());
                }
                hold(answer(&cut, &asked, 7), &asked);
            }
            for place in 0..good.len() {
                for value in [0, 1, 2, 3, 4, 5, 0x7f, 0x80, 0xfe, 0xff] {
                    let mut changed = good.clone();
                    changed[place] = value;
                    hold(answer(&changed, &asked, 7), &asked);
                    if let Some(next) = changed.get_mut(place + 1) {
                        *next = value;
                    }
                    hold(answer(&changed, &asked, 7), &asked);
                }
            }
        }
    }
}
