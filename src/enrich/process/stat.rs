//! /proc/PID/stat.

use std::fs;

/// What of it is of use (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) comm: String,
    pub(super) ppid: u32,
    /// In clock ticks since boot.
    pub(super) start_ticks: u64,
}

/// In clock ticks since boot, rounded down; user space always sees 100 per second (USER_HZ,
/// include/asm-generic/param.h).
pub(super) fn ticks(boot_ns: u64) -> u64 {
    boot_ns / 10_000_000
}

impl Stat {
    /// That of a process; `None` where there is none.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name may hold anything, so what follows counts from its last parenthesis.
    fn parse(stat: &[u8]) -> Option<Self> {
        let stat = String::from_utf8_lossy(stat);
        let (name, rest) = stat.rsplit_once(')')?;
        let (_, comm) = name.split_once('(')?;
        let mut rest = rest.split_ascii_whitespace().skip(1);
        Some(Stat {
            comm: comm.to_owned(),
            ppid: rest.next()?.parse().ok()?,
            start_ticks: rest.nth(17)?.parse().ok()?,
        })
    }

    /// Whether it is of the process that started then, rather than of a later one of its number.
    pub(super) fn is_of(&self, task_start_ns: u64) -> bool {
        self.start_ticks == ticks(task_start_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_members() {
        let stat = b"1 (a) b\xff) S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99 22 33";
        let expected = Stat { comm: "a) b\u{fffd}".into(), ppid: 7, start_ticks: 99 };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse(b"1 (a) S 7"), None);
    }
}
