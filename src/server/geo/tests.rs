//! With databases that the tests write themselves.

use ipnet::IpNet;

use super::*;
use crate::event::Remote;
use crate::test_records::{info, refused};

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
fn database(kind: &str, networks: &[(&str, Vec<u8>)]) -> Vec<u8> {
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

fn countries(country: &str) -> Vec<u8> {
    let value = map(&[("country", map(&[("iso_code", text(country))]))]);
    database("Test-Country", &[("198.51.100.0/24", value.clone()), ("2001:db8::/32", value)])
}

fn networks(asn: u64) -> Vec<u8> {
    let value = map(&[
        ("autonomous_system_number", number(UINT32, asn)),
        ("autonomous_system_organization", text("Example Networks")),
    ]);
    database("Test-ASN", &[("198.51.100.0/25", value)])
}

/// A file that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("netspy-geo-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Place(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn to(ip: &str) -> Connection {
    let remote = Some(Remote::new(ip.parse().unwrap(), 443));
    Connection { remote, ..refused(1, &info(7, "curl")) }
}

fn told(
    geo: &Geo,
    places: &mut super::Places,
    ip: &str,
) -> (Option<String>, Option<u32>, Option<String>) {
    let mut records = [to(ip)];
    geo.describe(&mut records, places);
    let [Connection { remote: Some(remote), .. }] = records else { unreachable!() };
    let owned = |text: Option<Arc<str>>| text.map(|text| text.to_string());
    (owned(remote.country), remote.asn, owned(remote.as_name))
}

#[test]
fn what_several_databases_know_comes_together_and_changes_with_them() {
    let (country, network) =
        (Place::new("a", &countries("DE")), Place::new("b", &networks(64_500)));
    let geo = Geo::read(&[country.0.clone(), network.0.clone()]).unwrap();
    let mut places = super::Places::default();
    let name = || Some("Example Networks".to_owned());
    let de = || Some("DE".to_owned());
    assert_eq!(told(&geo, &mut places, "198.51.100.7"), (de(), Some(64_500), name()));
    assert_eq!(told(&geo, &mut places, "198.51.100.200"), (de(), None, None));
    assert_eq!(told(&geo, &mut places, "2001:db8::1"), (de(), None, None));
    assert_eq!(told(&geo, &mut places, "192.0.2.1"), (None, None, None));
    // Read again: what was remembered is forgotten.
    std::fs::write(&country.0, countries("FR")).unwrap();
    geo.replace(Geo::read(std::slice::from_ref(&country.0)).unwrap());
    let fr = || Some("FR".to_owned());
    assert_eq!(told(&geo, &mut places, "198.51.100.7"), (fr(), None, None));
    assert_eq!(geo.failed.load(Ordering::Acquire), 0);
}

#[test]
fn without_databases_records_stay_as_they_are() {
    let geo = Geo::read(&[]).unwrap();
    let known = Remote { country: Some("DE".into()), ..Remote::new([192, 0, 2, 1].into(), 1) };
    let mut records = [Connection { remote: Some(known), ..to("192.0.2.1") }];
    let before = records.clone();
    geo.describe(&mut records, &mut super::Places::default());
    assert_eq!(records, before);
}

#[test]
fn a_file_that_is_missing_or_damaged_is_named_with_what_to_do() {
    let missing = PathBuf::from("/nonexistent/x.mmdb");
    let error = Geo::read(&[missing]).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/x.mmdb") && error.contains("may read"), "{error}");
    let whole = countries("DE");
    let mut pointing_nowhere = whole.clone();
    // The first record of the tree: far behind the data.
    pointing_nowhere[..3].copy_from_slice(&[0x7f, 0xff, 0xff]);
    for (name, bytes) in [
        ("text", b"no database at all".to_vec()),
        ("empty", Vec::new()),
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("pointer", pointing_nowhere),
    ] {
        let place = Place::new(name, &bytes);
        let error = Geo::read(std::slice::from_ref(&place.0)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("fetch it again"), "{error}");
    }
}

#[test]
fn damage_anywhere_is_an_error_or_a_wrong_answer_but_never_more() {
    let whole = countries("DE");
    let mut state = 7_u64;
    for round in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] ^= (state >> 11) as u8;
        }
        // As if it had been whole at the start.
        let Ok(reader) = Reader::from_source(bytes) else { continue };
        let database = Database { path: PathBuf::new(), reader };
        let geo = Geo { databases: RwLock::new(Arc::new(vec![database])), ..Geo::default() };
        told(&geo, &mut super::Places::default(), "198.51.100.7");
    }
}
