//! What the capture thread, the thread that asks and the handles share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::places;
use crate::accounting::NatCounters;
use crate::capture::report::Feature;

const HOOK: &str = "ctnetlink";

/// Figures, and what stands in the way.
#[derive(Debug, Default)]
pub(crate) struct NatDesk {
    /// Why nobody asks, if nobody does.
    pub(super) off: Mutex<Option<String>>,
    /// Why the kernel did not answer, the last time that it did not.
    pub(super) problem: Mutex<Option<String>>,
    /// Whether the kernel has what answers in itself.
    pub(super) is_built_in: bool,
    /// Whether other network namespaces are asked in.
    pub(super) others: bool,
    pub(super) asked: AtomicU64,
    pub(super) translated: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) skipped: AtomicU64,
}

impl NatDesk {
    pub(crate) fn new(is_built_in: bool, others: bool) -> Self {
        NatDesk { is_built_in, others, ..NatDesk::default() }
    }

    /// Nobody asks, for this reason.
    pub(crate) fn turn_off(&self, why: String) {
        *self.off.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    pub(super) fn answered(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    pub(crate) fn counters(&self) -> NatCounters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        NatCounters {
            asked: read(&self.asked),
            translated: read(&self.translated),
            failed: read(&self.failed),
            skipped: read(&self.skipped),
        }
    }

    /// As it is now: tracking, and what tells of it, may be loaded at any time.
    pub(crate) fn feature(&self) -> Feature {
        let off = self.off.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &*off {
            return Feature::missing(why);
        }
        if !places::is_loaded() {
            let note =
                "no connections are tracked (nf_conntrack is not loaded): none is translated";
            return working(Some(note));
        }
        if places::would_load(self.is_built_in) {
            return Feature::missing(
                "connections are tracked, but what tells of them is not loaded: 'modprobe \
                 nf_conntrack_netlink' brings it",
            );
        }
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = &*problem {
            return Feature { hook: Some(HOOK.to_owned()), ..Feature::missing(problem) };
        }
        match self.others {
            true => working(None),
            false => working(Some(
                "what is translated within the network namespace of a container is not seen \
                 without nat_namespaces",
            )),
        }
    }
}

fn working(note: Option<&str>) -> Feature {
    let (hook, note) = (Some(HOOK.to_owned()), note.map(str::to_owned));
    Feature { hook, ok: true, note, not_used: Vec::new() }
}
