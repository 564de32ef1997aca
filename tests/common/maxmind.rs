//! Databases of countries and networks in MaxMind's format, as tests need them.
// Not every test that includes this file needs all of it.
#![allow(dead_code)]

use ipnet::IpNet;

/// Values as the data section of a database has them: a control byte, the type in its upper bits.
fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    // From 29 on the rest of the length has a byte of its own.
    let mut bytes = match length {
        0..=28 => vec![(2 << 5) | length],
        _ => vec![(2 << 5) | 29, length - 29],
    };
    bytes.extend(text.as_bytes());
    bytes
}

fn number(kind: u8, value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let used = &bytes[value.leading_zeros() as usize / 8..];
    let size = used.len() as u8;
    let mut all = if kind > 7 { vec![size, kind - 7] } else { vec![(kind << 5) | size] };
    all.extend(used);
    all
}

fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![(7 << 5) | entries.len() as u8];
    for (key, value) in entries {
        bytes.extend(text(key));
        bytes.extend(value);
    }
    bytes
}

const UINT16: u8 = 5;
const UINT32: u8 = 6;
const UINT64: u8 = 9;

/// A database of these networks, in the order of which a narrower one comes after a wider one.
pub fn database(kind: &str, networks: &[(&str, Vec<u8>)]) -> Vec<u8> {
    #[derive(Clone, Copy)]
    enum Record {
        Empty,
        Node(usize),
        Data(usize),
    }
    let (mut nodes, mut data) = (vec![[Record::Empty; 2]], Vec::<u8>::new());
    for (network, value) in networks {
        let network: IpNet = network.parse().unwrap();
        // IPv4 lies at ::/96.
        let (bits, length) = match network {
            IpNet::V4(v4) => (u128::from(v4.network().to_bits()), 96 + v4.prefix_len()),
            IpNet::V6(v6) => (v6.network().to_bits(), v6.prefix_len()),
        };
        let mut node = 0;
        for depth in 0..length {
            let side = (bits >> (127 - depth)) as usize & 1;
            if depth + 1 == length {
                nodes[node][side] = Record::Data(data.len());
                break;
            }
            node = match nodes[node][side] {
                Record::Node(next) => next,
                Record::Empty => {
                    nodes.push([Record::Empty; 2]);
                    let next = nodes.len() - 1;
                    nodes[node][side] = Record::Node(next);
                    next
                }
                Record::Data(_) => panic!("{network} lies in another"),
            };
        }
        data.extend(value);
    }
    let count = nodes.len();
    let mut bytes = Vec::new();
    for record in nodes.into_iter().flatten() {
        let value = match record {
            Record::Empty => count,
            Record::Node(node) => node,
            Record::Data(at) => count + 16 + at,
        };
        bytes.extend(&(value as u32).to_be_bytes()[1..]);
    }
    bytes.extend([0; 16]);
    bytes.extend(data);
    bytes.extend(b"\xab\xcd\xefMaxMind.com");
    bytes.extend(map(&[
        ("binary_format_major_version", number(UINT16, 2)),
        ("binary_format_minor_version", number(UINT16, 0)),
        ("build_epoch", number(UINT64, 1_700_000_000)),
        ("database_type", text(kind)),
        ("description", map(&[("en", text("a test"))])),
        ("ip_version", number(UINT16, 6)),
        ("languages", vec![0, 4]),
        ("node_count", number(UINT32, count as u64)),
        ("record_size", number(UINT16, 24)),
    ]));
    bytes
}

/// A database of countries in which 198.51.100.0/24 and 2001:db8::/32 are of this one.
pub fn countries(country: &str) -> Vec<u8> {
    countries_of(country, &["198.51.100.0/24", "2001:db8::/32"])
}

/// One in which these networks are.
pub fn countries_of(country: &str, networks: &[&str]) -> Vec<u8> {
    let value = map(&[("country", map(&[("iso_code", text(country))]))]);
    let networks: Vec<_> = networks.iter().map(|network| (*network, value.clone())).collect();
    database("Test-Country", &networks)
}

/// A database of networks in which 198.51.100.0/25 is of this one.
pub fn networks(asn: u64) -> Vec<u8> {
    let value = map(&[
        ("autonomous_system_number", number(UINT32, asn)),
        ("autonomous_system_organization", text("Example Networks")),
    ]);
    database("Test-ASN", &[("198.51.100.0/25", value)])
}
