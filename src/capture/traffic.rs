//! What open connections have carried so far, for whoever asks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libbpf_rs::{MapHandle, RingBufferBuilder};

use super::loader::{Loaded, io_error};
use super::skel::types::netspy_traffic;
use super::walk::Walk;
use super::{FLAG_BYTES, FLAG_COUNTED, decode};
use crate::enrich::boot;
use crate::event::{ConnectionId, Traffic};

/// How old an answer may be that is given again: who asks often must not keep the kernel busy.
const FRESH: Duration = Duration::from_millis(200);

/// Figures of open connections.
pub(crate) type Figures = Arc<HashMap<ConnectionId, Traffic>>;

/// Asks the kernel side, and remembers the answer for a moment.
#[derive(Debug)]
pub(crate) struct TrafficDesk {
    walks: Mutex<Vec<Walk>>,
    /// Where programs that are run put what they have to say.
    answers: MapHandle,
    last: Mutex<Option<(Instant, Figures)>>,
    boot: u32,
}

impl TrafficDesk {
    pub(super) fn new(loaded: &Loaded<'_>) -> io::Result<Self> {
        let walks = loaded.traffic.iter().map(Walk::try_clone).collect::<Result<_, _>>()?;
        let answers = MapHandle::try_from(&loaded.skel.maps.answers).map_err(|e| io_error(&e))?;
        Ok(TrafficDesk { walks: Mutex::new(walks), answers, last: Mutex::default(), boot: boot() })
    }

    /// Lets the programs be unloaded; from here on there are no figures.
    pub(crate) fn release(&self) {
        self.walks.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The figures of now, or of a moment ago.
    pub(crate) fn figures(&self) -> Figures {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, figures)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Arc::clone(figures);
        }
        let figures = RefCell::default();
        for walk in &*self.walks.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Err(error) = self.read(walk, &figures) {
                tracing::warn!("cannot read what open connections have carried: {error}");
            }
        }
        let figures = Arc::new(figures.into_inner());
        *last = Some((Instant::now(), Arc::clone(&figures)));
        figures
    }

    fn read(&self, walk: &Walk, to: &RefCell<HashMap<ConnectionId, Traffic>>) -> io::Result<()> {
        let add = |bytes: &[u8]| {
            // Never borrowed meanwhile; and nothing may panic inside of libbpf.
            let Ok(mut to) = to.try_borrow_mut() else { return };
            to.extend(bytes.chunks(size_of::<netspy_traffic>()).filter_map(|entry| {
                let raw: netspy_traffic = decode::read(entry).ok()?;
                let id = ConnectionId { start_ns: raw.start_ns, tid: raw.tid, boot: self.boot };
                Some((id, traffic(&raw)))
            }));
        };
        if let Walk::Iterator(_) = walk {
            return walk.run(add, || Ok(()));
        }
        let mut ring = RingBufferBuilder::new();
        let taken = |bytes: &[u8]| {
            add(bytes);
            0
        };
        ring.add(&self.answers, taken).map_err(|e| io_error(&e))?;
        let ring = ring.build().map_err(|e| io_error(&e))?;
        walk.run(add, || ring.consume().map_err(|e| io_error(&e)))
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
