//! What the capture thread shares with the stream and its handles: requests, figures, the report.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustix::event::{EventfdFlags, eventfd};

use super::error::CaptureError;
use super::loader::Loaded;
use super::packets::{DropDesk, Packets};
use super::privileges::PrivilegeReport;
use super::questions::DnsDesk;
use super::report::AttachReport;
use super::skel::types::netspy_counters;
use super::traffic::TrafficDesk;
use super::{decode, sys};
use crate::accounting::{Counters, Lost};
use crate::enrich::nat::NatDesk;

/// How long a request to drain waits for the thread.
const DRAIN_PATIENCE: Duration = Duration::from_millis(500);
/// How long the thread may take over what existed before, until it gives up its privileges.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);

/// What the thread shares with the stream and its handles.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) wake: OwnedFd,
    stop: AtomicBool,
    drains: Mutex<Drains>,
    drained: Condvar,
    pub delivered: AtomicU64,
    pub(super) slow_consumer: AtomicU64,
    pub(super) undecodable: AtomicU64,
    pub dns: DnsDesk,
    pub(super) updates_lost: AtomicU64,
    counters: MapHandle,
    descendants: MapHandle,
    programs: Vec<OwnedFd>,
    /// Those of return probes. Taken away at the end: an open one keeps its program attached.
    links: Mutex<Vec<OwnedFd>>,
    /// What they had missed by then.
    links_missed: AtomicU64,
    pub drops: DropDesk,
    pub traffic: TrafficDesk,
    pub nat: Arc<NatDesk>,
    /// What the thread gave up, if it was to.
    privileges: Mutex<Option<PrivilegeReport>>,
    pub report: AttachReport,
    pub since: Timestamp,
    pub stopped: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Drains {
    asked: u64,
    done: u64,
    ended: bool,
}

impl Shared {
    /// For the programs that are loaded.
    pub(super) fn new(
        loaded: &Loaded<'_>,
        packets: Option<&Packets<'_>>,
        nat: NatDesk,
    ) -> Result<Self, CaptureError> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |source: std::io::Error| CaptureError::Io { what, source }
        };
        let counters = MapHandle::try_from(&loaded.skel.maps.counters)
            .map_err(|e| io("cannot share the counters")(std::io::Error::other(e.to_string())))?;
        let descendants = MapHandle::try_from(&loaded.skel.maps.descendants).map_err(|e| {
            io("cannot share the table of descendants")(std::io::Error::other(e.to_string()))
        })?;
        let programs = loaded
            .counted
            .iter()
            .map(|fd| fd.try_clone())
            .collect::<Result<_, _>>()
            .map_err(io("cannot share the programs"))?;
        let links = loaded
            .links
            .of_return_probes()
            .map(|link| link.as_fd().try_clone_to_owned())
            .collect::<Result<_, _>>()
            .map_err(io("cannot share the links"))?;
        Ok(Shared {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|e| io("cannot make an eventfd")(e.into()))?,
            stop: AtomicBool::new(false),
            drains: Mutex::default(),
            drained: Condvar::new(),
            delivered: AtomicU64::new(0),
            slow_consumer: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            dns: DnsDesk::default(),
            updates_lost: AtomicU64::new(0),
            counters,
            descendants,
            programs,
            links: Mutex::new(links),
            links_missed: AtomicU64::new(0),
            traffic: TrafficDesk::new(loaded).map_err(io("cannot share the programs"))?,
            nat: Arc::new(nat),
            drops: DropDesk::of(packets).map_err(io("cannot share the count of drops"))?,
            privileges: Mutex::new(None),
            report: loaded.report.clone(),
            since: Timestamp::now(),
            stopped: Mutex::new(None),
        })
    }

    /// Ends the thread after a last drain.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // Fails only when the counter is at its limit, in which case the thread is woken anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Whether somebody wants the end.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// How often a drain was asked for.
    pub(super) fn drains_asked(&self) -> u64 {
        self.drains.lock().unwrap_or_else(PoisonError::into_inner).asked
    }

    /// Has the ring drained, unless the reader of the stream holds the thread up.
    pub(crate) fn drain(&self) {
        let mut drains = self.drains.lock().unwrap_or_else(PoisonError::into_inner);
        drains.asked += 1;
        let ticket = drains.asked;
        self.wake();
        let _unused = self
            .drained
            .wait_timeout_while(drains, DRAIN_PATIENCE, |d| d.done < ticket && !d.ended)
            .unwrap_or_else(PoisonError::into_inner);
    }

    pub(super) fn drains_done(&self, up_to: u64) {
        self.drains.lock().unwrap_or_else(PoisonError::into_inner).done = up_to;
        self.drained.notify_all();
    }

    fn links_missed(&self) -> u64 {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let now: u64 = links.iter().map(|fd| sys::link_misses(fd.as_fd())).sum();
        now + self.links_missed.load(Ordering::Acquire)
    }

    /// Lets the programs be detached.
    pub(super) fn release_links(&self) {
        self.links_missed.store(self.links_missed(), Ordering::Release);
        self.links.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.traffic.release();
    }

    pub(super) fn ended(&self, why: &str) {
        self.drains.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.drained.notify_all();
        self.drops.subscribers.end();
        self.dns.subscribers.end();
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    /// Notes what the thread gave up.
    pub(super) fn settle(&self, report: PrivilegeReport) {
        *self.privileges.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        // So that nobody who has just looked begins to wait after this.
        drop(self.drains.lock().unwrap_or_else(PoisonError::into_inner));
        self.drained.notify_all();
    }

    /// What the thread gave up, if it was to and has come so far.
    pub(crate) fn privileges(&self) -> Option<PrivilegeReport> {
        self.privileges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the thread has given up what it was to.
    pub(crate) fn settled(&self) -> Option<PrivilegeReport> {
        let drains = self.drains.lock().unwrap_or_else(PoisonError::into_inner);
        let _unused = self
            .drained
            .wait_timeout_while(drains, SETTLE_PATIENCE, |drains| {
                !drains.ended && self.privileges().is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        self.privileges()
    }

    /// Processes that are followed now.
    pub(crate) fn descendants(&self) -> usize {
        self.descendants.keys().count()
    }

    /// Whether the calling thread may read what the kernel side has counted.
    pub(super) fn can_be_read(&self) -> bool {
        let counters = self.counters.lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY);
        counters.is_ok() && self.programs.iter().all(|fd| sys::program_facts(fd.as_fd()).is_ok())
    }

    pub(super) fn kernel(&self) -> netspy_counters {
        let per_cpu = self.counters.lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY);
        let per_cpu = per_cpu.ok().flatten().unwrap_or_default();
        decode::sum_counters(per_cpu.iter().map(Vec::as_slice))
    }

    /// The figures since the start of capture. What is subtracted from `attempts` is read before
    /// it, so that the rest, which is pending, is never negative.
    pub(crate) fn counters(&self) -> Counters {
        let delivered = self.delivered.load(Ordering::Acquire);
        let slow_consumer = self.slow_consumer.load(Ordering::Acquire);
        let undecodable = self.undecodable.load(Ordering::Acquire);
        let skipped: u64 = self
            .programs
            .iter()
            .filter_map(|fd| sys::program_facts(fd.as_fd()).ok())
            .map(|facts| facts.recursion_misses)
            .sum();
        // After what it is subtracted from.
        let kernel = self.kernel();
        let dns = self.dns.counters(kernel.dns_lost);
        let missed =
            skipped.saturating_sub(kernel.stood_in) + self.links_missed() + kernel.unfollowed;
        Counters {
            attempts: kernel.attempts,
            delivered,
            filtered: kernel.filtered,
            lost: Lost {
                ring_full: kernel.ring_full,
                map_full: kernel.map_full,
                slow_consumer,
                undecodable,
                capture_ended: 0,
            },
            updates_lost: kernel.updates_lost + self.updates_lost.load(Ordering::Acquire),
            missed,
            address_unread: kernel.address_unread,
            exec_lost: kernel.exec_lost,
            dns_lost: dns.messages_lost,
            drops: self.drops.counters(),
            dns,
            nat: self.nat.counters(),
        }
    }
}
