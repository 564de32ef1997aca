//! With databases that the tests write themselves.

use super::*;
use crate::event::Remote;
use crate::test_records::{info, refused};

#[path = "../../../tests/common/maxmind.rs"]
mod maxmind;

use maxmind::{countries, networks};

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

/// A database whose description is another, or none.
fn described_by(whole: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let (key, value_of_test) = (b"\x4bdescription", b"\xe1\x42en\x46a test");
    let before = [&key[..], value_of_test].concat();
    let at = whole.windows(before.len()).rposition(|part| part == before).unwrap();
    let new = value.map_or_else(Vec::new, |value| [&key[..], value].concat());
    let mut bytes = [&whole[..at], &new, &whole[at + before.len()..]].concat();
    if value.is_none() {
        let marker = bytes.windows(11).rposition(|part| part == b"MaxMind.com").unwrap();
        bytes[marker + 11] -= 1;
    }
    bytes
}

#[test]
fn a_database_without_a_description_is_one() {
    for (name, value) in [("empty", Some(&b"\xe0"[..])), ("absent", None)] {
        let place = Place::new(name, &described_by(&countries("DE"), value));
        let geo = Geo::read(std::slice::from_ref(&place.0)).unwrap();
        let told = told(&geo, &mut super::Places::default(), "198.51.100.7");
        assert_eq!(told.0.as_deref(), Some("DE"), "{name}");
    }
}

#[test]
fn a_country_is_two_letters_or_none_and_names_are_harmless() {
    for (says, expected) in
        [("de", Some("DE")), ("DEU", None), ("\x1b[", None), ("", None), ("D1", None), ("é", None)]
    {
        let place = Place::new("country", &countries(says));
        let geo = Geo::read(std::slice::from_ref(&place.0)).unwrap();
        let told = told(&geo, &mut super::Places::default(), "198.51.100.7");
        assert_eq!(told.0.as_deref(), expected, "{says:?}");
    }
    assert_eq!(name(" A\x1b[31m\u{202e}B ").as_deref(), Some("A\u{fffd}[31m\u{fffd}B"));
    assert_eq!(name(" "), None);
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
