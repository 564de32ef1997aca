//! The server's own process, under the names that Prometheus' clients have for it.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::text::{Kind, Page};

/// What `/proc/self/stat` tells.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

/// Fields as proc_pid_stat(5) counts them, behind the name, which may hold anything.
fn parse(stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)? + field(15)?,
        start_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

pub(super) fn write(page: &mut Page) {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(parse) {
        let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
        let cpu = stat.cpu_ticks as f64 / ticks;
        page.single(Kind::Counter, "process_cpu_seconds", "User and system time.", cpu);
        let resident = stat.resident_pages * rustix::param::page_size() as u64;
        let help = "Memory that is in RAM.";
        page.single(Kind::Gauge, "process_resident_memory_bytes", help, resident);
        let help = "Size of the address space.";
        page.single(Kind::Gauge, "process_virtual_memory_bytes", help, stat.virtual_bytes);
        if let Some(start) = start_time(stat.start_ticks as f64 / ticks) {
            let help = "Start of the process, in seconds since 1970.";
            page.single(Kind::Gauge, "process_start_time_seconds", help, start);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        let open = open.count().saturating_sub(1);
        page.single(Kind::Gauge, "process_open_fds", "Open file descriptors.", open);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit {
        let help = "The most file descriptors that may be open.";
        page.single(Kind::Gauge, "process_max_fds", help, limit);
    }
}

fn start_time(since_boot: f64) -> Option<f64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    // The two clocks are read one after the other: below a tenth of a second is noise.
    Some(((now - uptime + since_boot) * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_does_not_shift_the_fields() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 12 30 0 0 20 0 5 0 4242 99000 300 1";
        let stat =
            Stat { cpu_ticks: 42, start_ticks: 4242, virtual_bytes: 99_000, resident_pages: 300 };
        assert_eq!(parse(line), Some(stat));
        assert_eq!(parse("7 (a) S 1"), None);
    }
}
