//! Countries of remotes and the networks that they belong to, by databases in MaxMind's format (MaxMind DB
//! File Format Specification, version 2.0).

mod described;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use maxminddb::{MaxMindDbError, PathElement, Reader};

use crate::event::Connection;

/// The largest database that is read, in bytes.
const LARGEST: u64 = 2 << 30;
/// Addresses whose answers are remembered; then all are looked up anew.
const KEPT: usize = 16_384;
/// Characters of a name that are kept.
const NAME: usize = 120;

/// A database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GeoError {
    /// It cannot be read.
    #[error("--geoip {}: cannot be read: {source}; name a database (.mmdb) that this user may read",
            path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is no database, or a damaged one.
    #[error("--geoip {}: is no whole database in MaxMind's format: {why}; fetch it again",
            path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Debug)]
struct Database {
    path: PathBuf,
    reader: Reader<Vec<u8>>,
}

/// Databases that can be replaced while they are used.
#[derive(Debug, Default)]
pub struct Geo {
    databases: RwLock<Arc<Vec<Database>>>,
    /// Look-ups that failed since they were read: such a database is damaged.
    failed: AtomicU64,
    /// All that ever did.
    failures: Arc<AtomicU64>,
}

/// What is known of an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Place {
    country: Option<Arc<str>>,
    asn: Option<u32>,
    as_name: Option<Arc<str>>,
}

/// Answers of the databases that there were when they were given.
#[derive(Debug, Default)]
pub(super) struct Places {
    of: Option<Arc<Vec<Database>>>,
    known: HashMap<IpAddr, Place>,
}

impl Geo {
    /// Reads databases and looks whether they are whole. Of what several know, the first counts.
    pub fn read<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<Self, GeoError> {
        let read = paths.into_iter().map(|path| Database::read(path));
        let databases: Result<Vec<_>, _> = read.collect();
        Ok(Geo { databases: RwLock::new(Arc::new(databases?)), ..Geo::default() })
    }

    /// Where look-ups that fail are counted, whatever databases come.
    pub(super) fn failures(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.failures)
    }

    /// Takes the databases of another.
    pub(super) fn replace(&self, other: Geo) {
        let new = other.databases.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.databases.write().unwrap_or_else(PoisonError::into_inner) = new;
        let failed = self.failed.swap(0, Ordering::AcqRel);
        if failed > 0 {
            tracing::warn!("{failed} look-ups in the databases of before had failed");
        }
    }

    /// Tells records where their remotes are.
    pub(super) fn describe(&self, connections: &mut [Connection], places: &mut Places) {
        let databases = self.databases.read().unwrap_or_else(PoisonError::into_inner);
        if databases.is_empty() {
            return;
        }
        if !places.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &databases)) {
            *places = Places { of: Some(Arc::clone(&databases)), known: HashMap::new() };
        }
        drop(databases);
        for remote in connections.iter_mut().filter_map(|c| c.remote.as_mut()) {
            let place = places.of(remote.ip, self);
            (remote.country, remote.asn, remote.as_name) =
                (place.country, place.asn, place.as_name);
        }
    }
}

impl Places {
    fn of(&mut self, ip: IpAddr, geo: &Geo) -> Place {
        if let Some(known) = self.known.get(&ip) {
            return known.clone();
        }
        let mut place = Place::default();
        for database in self.of.iter().flat_map(|databases| databases.iter()) {
            let Err(error) = database.tell(ip, &mut place) else { continue };
            geo.failures.fetch_add(1, Ordering::AcqRel);
            if geo.failed.fetch_add(1, Ordering::AcqRel) == 0 {
                let path = database.path.display();
                tracing::error!("{path} is damaged: {ip} cannot be looked up: {error}");
            }
        }
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        self.known.insert(ip, place.clone());
        place
    }
}

impl Database {
    fn read(path: &Path) -> Result<Self, GeoError> {
        let failed = |source| GeoError::Read { path: path.to_owned(), source };
        let damaged = |why: String| GeoError::Damaged { path: path.to_owned(), why };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() > LARGEST {
            return Err(failed(io::Error::other("it is no file of at most 2 GiB")));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
        described::described(&mut bytes);
        let reader = Reader::from_source(bytes).map_err(|error| damaged(error.to_string()))?;
        reader.verify().map_err(|error| damaged(error.to_string()))?;
        Ok(Database { path: path.to_owned(), reader })
    }

    /// Adds what this one knows.
    fn tell(&self, ip: IpAddr, place: &mut Place) -> Result<(), MaxMindDbError> {
        // One for IPv4 alone knows no other.
        if ip.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(());
        }
        let found = self.reader.lookup(ip)?;
        let text = |path: &[&'static str]| {
            let path: Vec<_> = path.iter().map(|key| PathElement::Key(key)).collect();
            let text = found.decode_path::<String>(&path)?;
            Ok::<_, MaxMindDbError>(text)
        };
        if place.country.is_none() {
            place.country = text(&["country", "iso_code"])?.and_then(|code| country(&code));
        }
        if place.asn.is_none() {
            place.asn = found.decode_path(&[PathElement::Key("autonomous_system_number")])?;
        }
        if place.as_name.is_none() {
            place.as_name = text(&["autonomous_system_organization"])?.and_then(|text| name(&text));
        }
        Ok(())
    }
}

/// Two letters (ISO 3166-1), whatever the file says.
fn country(code: &str) -> Option<Arc<str>> {
    let is_code = code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic());
    is_code.then(|| code.to_ascii_uppercase().into())
}

/// The name of a network, in which nothing changes more than its own place.
fn name(text: &str) -> Option<Arc<str>> {
    let text: String = text.trim().chars().take(NAME).collect();
    (!text.is_empty()).then(|| crate::text::clean(&text).into())
}

#[cfg(test)]
mod tests;
