//! The addresses of a name among the records of an answer, through the names that it stands for
//! (RFC 1034, 3.6.2).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, ResourceRecord};

use super::message::ADDRESSES;

/// What the records say of the name that was asked for.
pub(super) struct Told {
    /// Its addresses, and for how many seconds they hold.
    pub addresses: Vec<(IpAddr, u32)>,
    /// Whether there are none because the records do not fit together: the names stand for each other
    /// in a circle, or the addresses are of none of them.
    pub is_broken: bool,
}

/// Follows the names as far as the records go: each of them is looked at twice.
pub(super) fn follow(records: &[ResourceRecord<'_>], asked: &Name<'_>) -> Told {
    let mut stands_for: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
    for record in records.iter().filter(|record| is_of_the_internet(record)) {
        if let RData::CNAME(to) = &record.rdata {
            stands_for.entry(key(&record.name)).or_default().push(key(&to.0));
        }
    }
    let mut names = HashSet::from([key(asked)]);
    let mut left = vec![key(asked)];
    let mut is_circle = false;
    while let Some(name) = left.pop() {
        for to in stands_for.remove(&name).unwrap_or_default() {
            if names.insert(to.clone()) {
                left.push(to);
            } else {
                is_circle = true;
            }
        }
    }
    let mut has_any = false;
    let mut addresses = Vec::new();
    for record in records {
        let ip = match &record.rdata {
            RData::A(a) => IpAddr::V4(a.address.into()),
            RData::AAAA(aaaa) => IpAddr::V6(aaaa.address.into()).to_canonical(),
            _ => continue,
        };
        has_any = true;
        if addresses.len() < ADDRESSES
            && is_of_the_internet(record)
            && names.contains(&key(&record.name))
        {
            addresses.push((ip, record.ttl));
        }
    }
    let is_broken = addresses.is_empty() && (has_any || is_circle);
    Told { addresses, is_broken }
}

/// Records of other classes have nothing to do with a question for the Internet's. The library takes
/// the highest bit for multicast DNS's, which makes another class of it here.
fn is_of_the_internet(record: &ResourceRecord<'_>) -> bool {
    record.class == CLASS::IN && !record.cache_flush
}

/// The same for names that are (RFC 4343): labels with their lengths, in small letters.
fn key(name: &Name<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    for label in name.as_bytes() {
        key.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        key.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    key
}
