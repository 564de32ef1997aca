//! What the kernel itself counts of each BPF program: how often it ran, and how long.
//!
//! The count costs two readings of the clock per run, part of which is in the time that is
//! counted: see what an empty program gets. It is on only while [`Stats`] lives, never while
//! calls are timed.
#![allow(unsafe_code, reason = "BPF_ENABLE_STATS has no safe wrapper among the project's crates")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;
use libbpf_rs::query::ProgInfoIter;
use serde::Serialize;

/// The kernel counts as long as this is there.
#[derive(Debug)]
pub struct Stats {
    _held: OwnedFd,
}

impl Stats {
    pub fn enable() -> io::Result<Self> {
        // SAFETY: takes an integer and returns a file descriptor or a negative errno.
        let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(-fd));
        }
        // SAFETY: the call has just made this descriptor, and nobody else knows it.
        Ok(Stats { _held: unsafe { OwnedFd::from_raw_fd(fd) } })
    }
}

/// The runs of one program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Runs {
    pub count: u64,
    pub time_ns: u64,
}

/// By id and name; the kernel keeps 15 bytes of a name.
pub type Programs = BTreeMap<(u32, String), Runs>;

/// The programs of which a process holds file descriptors. Everybody's would be others' too.
pub fn programs_of(pid: u32) -> io::Result<Programs> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed between the two; then it tells nothing.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let id = info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
        ids.extend::<Option<u32>>(id);
    }
    let programs = ProgInfoIter::default().filter(|program| ids.contains(&program.id));
    Ok(programs
        .map(|p| {
            let runs = Runs { count: p.run_cnt, time_ns: p.run_time_ns };
            ((p.id, p.name.to_string_lossy().into_owned()), runs)
        })
        .collect())
}

/// How many programs there are on this machine: all that others have attached costs as well.
pub fn programs_loaded() -> usize {
    ProgInfoIter::default().count()
}

/// What has come since `before`, by name.
pub fn since(before: &Programs, now: Programs) -> BTreeMap<String, Runs> {
    let mut new: BTreeMap<String, Runs> = BTreeMap::new();
    for ((id, name), runs) in now {
        let old = before.get(&(id, name.clone())).cloned().unwrap_or_default();
        let sum = new.entry(name).or_default();
        sum.count += runs.count.saturating_sub(old.count);
        sum.time_ns += runs.time_ns.saturating_sub(old.time_ns);
    }
    new
}
