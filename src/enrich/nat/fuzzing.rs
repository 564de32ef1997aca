//! What is fuzzed of the kernel's answers about connections.
#![allow(clippy::panic)]

use std::net::{IpAddr, SocketAddr};

use super::message::{Flow, answer};

/// Bytes that stand for the kernel's answer about one connection: whatever they are, they are the answer to
/// one question at most, to none of another number, and tell of no address and no port that is not in
/// them. That holds for the same bytes as a whole message by its own account, too.
pub fn conntrack_answer(data: &[u8]) {
    check(data);
    let mut whole = data.to_vec();
    if let Some(length) = whole.get_mut(..4) {
        length.copy_from_slice(&(data.len() as u32).to_ne_bytes());
        check(&whole);
    }
}

fn check(data: &[u8]) {
    // That of the message, where it is long enough to have one.
    let number = data.get(8..12).and_then(|bytes| bytes.try_into().ok());
    let number = number.map_or(7, u32::from_ne_bytes);
    let mut answered = 0;
    for asked in questions() {
        assert!(answer(data, &asked, number.wrapping_add(1)).is_err(), "of another number");
        let Ok(Some(left)) = answer(data, &asked, number) else { continue };
        answered += 1;
        assert_eq!(left.protocol, asked.protocol);
        for end in [asked.from, asked.to, left.from, left.to] {
            assert_eq!(end.is_ipv4(), asked.to.is_ipv4());
            assert!(holds(data, end), "{end}");
        }
    }
    assert!(answered <= 1, "the answer to {answered} questions");
}

/// Those of the corpus, and what is easily taken for them.
fn questions() -> impl Iterator<Item = Flow> {
    let v4 = |last, port| SocketAddr::from(([198, 51, 100, last], port));
    let v6 = |last, port| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], port));
    [
        (6, v4(1, 40_001), v4(7, 80)),
        (17, v4(1, 40_001), v4(7, 53)),
        (6, v6(1, 40_001), v6(7, 80)),
        (6, v4(1, 40_003), v4(1, 82)),
        (6, v4(1, 40_002), v4(7, 80)),
        (6, v4(1, 8081), v4(1, 40_001)),
        (6, v6(1, 8081), v6(1, 40_001)),
        (17, v4(1, 40_001), v4(7, 80)),
    ]
    .into_iter()
    .map(|(protocol, from, to)| Flow { protocol, from, to })
}

/// Whether the address and the port are among the bytes.
fn holds(data: &[u8], end: SocketAddr) -> bool {
    let has = |wanted: &[u8]| data.windows(wanted.len()).any(|part| part == wanted);
    let has_address = match end.ip() {
        IpAddr::V4(ip) => has(&ip.octets()),
        IpAddr::V6(ip) => has(&ip.octets()),
    };
    has_address && has(&end.port().to_be_bytes())
}
