//! What a process has used of the machine: its CPU time and its memory.
#![allow(unsafe_code, reason = "getrusage() has no safe wrapper among the project's crates")]

use std::error::Error;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// CPU seconds of this process, all threads.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct CpuTime {
    pub user_s: f64,
    pub system_s: f64,
}

impl CpuTime {
    pub fn now() -> io::Result<Self> {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: the pointer is valid for a write of a whole `rusage`, which is all that
        // getrusage() asks of it.
        if unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: getrusage() succeeded, so it has written the structure.
        let usage = unsafe { usage.assume_init() };
        let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
        Ok(CpuTime { user_s: seconds(usage.ru_utime), system_s: seconds(usage.ru_stime) })
    }

    /// Of another process, all threads, to a hundredth of a second.
    pub fn of(pid: u32) -> Result<Self, Box<dyn Error>> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path)?;
        // The name, in parentheses, may contain anything; utime and stime are the 12th and 13th
        // field after it, in units that are a hundredth of a second everywhere (proc(5), USER_HZ).
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let seconds = |field: usize| -> Option<f64> {
            Some(fields.split_whitespace().nth(field)?.parse::<f64>().ok()? / 100.0)
        };
        let (user, system) = seconds(11).zip(seconds(12)).ok_or(format!("no times in {path}"))?;
        Ok(CpuTime { user_s: user, system_s: system })
    }

    pub fn since(self, start: CpuTime) -> Self {
        CpuTime { user_s: self.user_s - start.user_s, system_s: self.system_s - start.system_s }
    }

    pub fn total(self) -> f64 {
        self.user_s + self.system_s
    }
}

/// Resident memory of a process in KiB.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Memory {
    pub peak_rss_kib: u64,
    pub rss_kib: u64,
    /// Part of the above: mappings of BPF maps. A ring's data is mapped twice and counts twice,
    /// though the memory is there once.
    pub ring_rss_kib: u64,
}

impl Memory {
    pub fn now() -> Result<Self, Box<dyn Error>> {
        Self::of(std::process::id())
    }

    pub fn of(pid: u32) -> Result<Self, Box<dyn Error>> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path)?;
        let field = |name| kib(&status, name).ok_or(format!("no {name} in {path}"));
        Ok(Memory {
            peak_rss_kib: field("VmHWM:")?,
            rss_kib: field("VmRSS:")?,
            ring_rss_kib: ring_rss(&fs::read_to_string(format!("/proc/{pid}/smaps"))?),
        })
    }

    /// What the process itself holds at its peak. The ring stays mapped from the start, so its
    /// part of the peak is that of now.
    pub fn peak_without_ring_kib(&self) -> u64 {
        self.peak_rss_kib.saturating_sub(self.ring_rss_kib)
    }
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Sums `Rss:` of the mappings that the kernel names `anon_inode:bpf-map`.
fn ring_rss(smaps: &str) -> u64 {
    let mut inside = false;
    let mut sum = 0;
    for line in smaps.lines() {
        // A mapping begins with its address range, in lower case; its fields are capitalised.
        if line.starts_with(|c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()) {
            inside = line.ends_with("anon_inode:bpf-map");
        } else if inside {
            sum += kib(line, "Rss:").unwrap_or(0);
        }
    }
    sum
}
