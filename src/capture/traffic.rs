//! What open connections have carried so far, for whoever asks.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libbpf_rs::Link;

use super::skel::types::netspy_traffic;
use super::{FLAG_BYTES, FLAG_COUNTED, decode, sys};
use crate::enrich::boot;
use crate::event::{ConnectionId, Traffic};

/// How old an answer may be that is given again: who asks often must not keep the kernel busy.
const FRESH: Duration = Duration::from_millis(200);
/// Bytes read at a time: no less than the kernel writes at once.
const BYTES: usize = 1 << 18;

/// Figures of open connections.
pub(crate) type Figures = Arc<HashMap<ConnectionId, Traffic>>;

/// Asks the kernel side, and remembers the answer for a moment.
#[derive(Debug)]
pub(crate) struct TrafficDesk {
    links: Mutex<Vec<OwnedFd>>,
    last: Mutex<Option<(Instant, Figures)>>,
    boot: u32,
}

impl TrafficDesk {
    pub(crate) fn new(links: &[Link]) -> io::Result<Self> {
        let links = links.iter().map(|link| link.as_fd().try_clone_to_owned());
        let links = Mutex::new(links.collect::<Result<_, _>>()?);
        Ok(TrafficDesk { links, last: Mutex::default(), boot: boot() })
    }

    /// Lets the programs be unloaded; from here on there are no figures.
    pub(crate) fn release(&self) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The figures of now, or of a moment ago.
    pub(crate) fn figures(&self) -> Figures {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, figures)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Arc::clone(figures);
        }
        let mut figures = HashMap::new();
        for link in &*self.links.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Err(error) = self.read(link, &mut figures) {
                tracing::warn!("cannot read what open connections have carried: {error}");
            }
        }
        let figures = Arc::new(figures);
        *last = Some((Instant::now(), Arc::clone(&figures)));
        figures
    }

    fn read(&self, link: &OwnedFd, to: &mut HashMap<ConnectionId, Traffic>) -> io::Result<()> {
        let mut iter = File::from(sys::iterator(link.as_fd())?);
        let mut bytes = vec![0; BYTES];
        loop {
            let len = match iter.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(len) => len,
                // After a million entries of which none is open.
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let entries = bytes.get(..len).unwrap_or_default().chunks(size_of::<netspy_traffic>());
            to.extend(entries.filter_map(|entry| {
                let raw: netspy_traffic = decode::read(entry).ok()?;
                let id = ConnectionId { start_ns: raw.start_ns, tid: raw.tid, boot: self.boot };
                Some((id, traffic(&raw)))
            }));
        }
    }
}

fn traffic(raw: &netspy_traffic) -> Traffic {
    let is_datagram = raw.is_datagram != 0;
    let has = |flag: u16| raw.flags & flag != 0;
    Traffic {
        bytes_sent: (!is_datagram || has(FLAG_BYTES)).then_some(raw.bytes_sent),
        bytes_received: (!is_datagram).then_some(raw.bytes_received),
        datagrams_sent: (is_datagram && has(FLAG_COUNTED)).then_some(raw.datagrams_sent),
        retransmits: (!is_datagram).then_some(raw.retransmits),
        srtt_us: (raw.srtt_us != 0).then_some(raw.srtt_us),
    }
}
