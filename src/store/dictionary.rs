//! What many records share, kept once per segment: strings and processes.
//!
//! A segment owns its dictionaries, so that evicting it frees them without counting references.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::HashMap;
use foldhash::fast::RandomState;

use crate::event::{Endpoint, ProcessInfo, Remote};

/// No entry.
pub(super) const NONE: u16 = u16::MAX;
/// The thread is named as its process.
pub(super) const SAME: u16 = u16::MAX - 1;
/// Entries that a dictionary holds at most.
const FULL: usize = SAME as usize;

/// What a string is used for: each use remembers its last value, since most records repeat it.
#[derive(Clone, Copy)]
pub(super) enum Use {
    Host,
    Thread,
    Name,
    Service,
    Error,
    Reason,
}

#[derive(Debug, Default)]
pub(super) struct Strings {
    list: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, u16>,
    last: [Option<u16>; 6],
    pub(super) bytes: usize,
}

impl Strings {
    /// The number of this string; `None` if the dictionary is full.
    pub(super) fn id(&mut self, used: Use, text: &str) -> Option<u16> {
        let last = &mut self.last[used as usize];
        if let Some(id) = *last
            && self.list.get(usize::from(id)).is_some_and(|known| **known == *text)
        {
            return Some(id);
        }
        if let Some(id) = self.ids.get(text) {
            *last = Some(*id);
            return Some(*id);
        }
        if self.list.len() >= FULL {
            return None;
        }
        let id = self.list.len() as u16;
        let shared: Arc<str> = text.into();
        // The text with the two counters before it, and its places in the table and the list.
        self.bytes += text.len() + 16 + 2 * 16 + 16;
        self.list.push(Arc::clone(&shared));
        self.ids.insert(shared, id);
        *last = Some(id);
        Some(id)
    }

    pub(super) fn get(&self, id: u16) -> Option<&Arc<str>> {
        self.list.get(usize::from(id))
    }

    pub(super) fn list(&self) -> &[Arc<str>] {
        &self.list
    }
}

/// What is known of where an address is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) country: Option<Arc<str>>,
    pub(super) asn: Option<u32>,
    pub(super) as_name: Option<Arc<str>>,
}

#[derive(Debug, Default)]
pub(super) struct Places {
    list: Vec<Place>,
    ids: HashMap<Place, u16>,
    pub(super) bytes: usize,
}

impl Places {
    /// The number of where this remote is, [`NONE`] if nothing is known of it; `None` if the
    /// dictionary is full.
    pub(super) fn id(&mut self, remote: &Remote) -> Option<u16> {
        let Remote { country, asn, as_name, .. } = remote;
        if country.is_none() && asn.is_none() && as_name.is_none() {
            return Some(NONE);
        }
        let place = Place { country: country.clone(), asn: *asn, as_name: as_name.clone() };
        if let Some(id) = self.ids.get(&place) {
            return Some(*id);
        }
        if self.list.len() >= FULL {
            return None;
        }
        let id = self.list.len() as u16;
        let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len() + 16);
        self.bytes += 2 * size_of::<Place>() + 16 + text(country) + text(as_name);
        self.list.push(place.clone());
        self.ids.insert(place, id);
        Some(id)
    }

    pub(super) fn get(&self, id: u16) -> Option<&Place> {
        self.list.get(usize::from(id))
    }

    pub(super) fn list(&self) -> &[Place] {
        &self.list
    }
}

/// Where address translation sends connections: few places, from many rows.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    list: Vec<Endpoint>,
    ids: HashMap<Endpoint, u16>,
}

impl Endpoints {
    /// The number of this one, [`NONE`] of none; `None` if the dictionary is full.
    pub(super) fn id(&mut self, endpoint: Option<Endpoint>) -> Option<u16> {
        let Some(endpoint) = endpoint else { return Some(NONE) };
        if let Some(id) = self.ids.get(&endpoint) {
            return Some(*id);
        }
        if self.list.len() >= FULL {
            return None;
        }
        let id = self.list.len() as u16;
        self.list.push(endpoint);
        self.ids.insert(endpoint, id);
        Some(id)
    }

    pub(super) fn get(&self, id: u16) -> Option<Endpoint> {
        self.list.get(usize::from(id)).copied()
    }

    pub(super) fn bytes(&self) -> usize {
        self.list.len() * (2 * size_of::<Endpoint>() + 8)
    }
}

/// Moments at which names were resolved. Rows that follow one another often have the same.
#[derive(Debug, Default)]
pub(super) struct Moments(Vec<i64>);

impl Moments {
    /// The number of this one, `before` if that is the same; `None` if there is no room.
    pub(super) fn id(&mut self, moment: i64, before: u16) -> Option<u16> {
        if self.get(before) == Some(moment) {
            return Some(before);
        }
        if self.0.last() != Some(&moment) {
            if self.0.len() >= FULL {
                return None;
            }
            self.0.push(moment);
        }
        Some((self.0.len() - 1) as u16)
    }

    pub(super) fn get(&self, id: u16) -> Option<i64> {
        self.0.get(usize::from(id)).copied()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len() * size_of::<i64>()
    }
}

/// Slots of the cache that spares hashing a process that was just seen.
const RECENT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Processes {
    list: Vec<Arc<ProcessInfo>>,
    ids: HashMap<u64, Vec<u16>>,
    hasher: RandomState,
    /// Found by address. It keeps what it compares with, so that an address cannot be used anew.
    recent: Vec<Option<(Arc<ProcessInfo>, u16)>>,
    pub(super) bytes: usize,
}

impl Processes {
    /// The number of this process; `None` if the dictionary is full.
    pub(super) fn id(&mut self, info: &Arc<ProcessInfo>) -> Option<u16> {
        let slot = (Arc::as_ptr(info) as usize >> 4) % RECENT;
        if let Some(Some((known, id))) = self.recent.get(slot)
            && Arc::ptr_eq(known, info)
        {
            return Some(*id);
        }
        let id = self.id_by_content(info)?;
        if self.recent.is_empty() {
            self.recent.resize(RECENT, None);
        }
        if let Some(place) = self.recent.get_mut(slot) {
            *place = Some((Arc::clone(info), id));
        }
        Some(id)
    }

    fn id_by_content(&mut self, info: &Arc<ProcessInfo>) -> Option<u16> {
        let same = self.ids.entry(hash(&self.hasher, info)).or_default();
        for id in &*same {
            if self.list.get(usize::from(*id)).is_some_and(|known| known == info) {
                return Some(*id);
            }
        }
        if self.list.len() >= FULL {
            return None;
        }
        let id = self.list.len() as u16;
        same.push(id);
        self.list.push(Arc::clone(info));
        self.bytes += size_of_process(info) + 64;
        Some(id)
    }

    pub(super) fn get(&self, id: u16) -> Option<&Arc<ProcessInfo>> {
        self.list.get(usize::from(id))
    }

    pub(super) fn list(&self) -> &[Arc<ProcessInfo>] {
        &self.list
    }

    /// Frees the cache, once no more records come.
    pub(super) fn seal(&mut self) {
        self.recent = Vec::new();
    }
}

/// Processes that are equal have equal hashes; what rarely differs alone is left out.
fn hash(state: &RandomState, info: &ProcessInfo) -> u64 {
    let mut hasher = state.build_hasher();
    (info.pid, info.uid, info.netns, info.start_time).hash(&mut hasher);
    (&info.comm, &info.exe, &info.cmdline, &info.unit, &info.cgroup, &info.cwd).hash(&mut hasher);
    hasher.finish()
}

fn size_of_process(info: &ProcessInfo) -> usize {
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len() + 16);
    let container = info.container.as_ref().map_or(0, |c| {
        let more = [&c.name, &c.pod, &c.namespace, &c.pod_uid, &c.image];
        let more: usize = more.iter().map(|text| text.as_ref().map_or(0, String::capacity)).sum();
        let label = |(key, value): (&String, &String)| {
            key.capacity() + value.capacity() + 2 * size_of::<String>()
        };
        let labels: usize = c.labels.iter().map(label).sum();
        size_of_val(&**c) + c.id.capacity() + c.runtime.capacity() + more + labels
    });
    size_of::<ProcessInfo>()
        + info.comm.len()
        + 32
        + [&info.exe, &info.cmdline, &info.unit, &info.user, &info.parent, &info.cgroup]
            .map(text)
            .iter()
            .sum::<usize>()
        + [&info.exe_sha256, &info.cwd].map(text).iter().sum::<usize>()
        + info.ancestry.iter().map(|name| name.len() + 32).sum::<usize>()
        + container
}
