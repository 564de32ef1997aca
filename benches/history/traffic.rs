//! Records of a host that is at work, by chance: few processes and few remotes make the most of it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use netspy::Connection;
use netspy::event::ProcessInfo;

use crate::records::{Random, closed, info, refused, udp};

/// Those that connect.
pub fn processes() -> Vec<Arc<ProcessInfo>> {
    let names = ["curl", "nginx", "postgres", "python3", "java", "sshd", "node", "envoy"];
    (0..400).map(|pid| info(pid, names[pid as usize % names.len()])).collect()
}

/// The n-th attempt: two thirds TCP that was closed, refused attempts, datagrams.
pub fn attempt(
    n: u64,
    time: Timestamp,
    random: &mut Random,
    processes: &[Arc<ProcessInfo>],
) -> Connection {
    let which = random.next(20) * random.next(20);
    let info = &processes[which as usize % processes.len()];
    let mut c = match n % 6 {
        0 => refused(n, info),
        1 => udp(n, info),
        _ => closed(n, info),
    };
    c.time = time;
    c.latency_us = c.latency_us.map(|_| 80 + random.next(900));
    if let Some(local) = &mut c.local {
        local.port = 32_768 + random.next(28_000) as u16;
    }
    if let Some(remote) = &mut c.remote {
        let host = random.next(60) * random.next(60);
        remote.ip = Ipv4Addr::from_bits(0x0a00_0000 + host as u32).into();
    }
    if let Some(close) = &mut c.close {
        close.time = time + SignedDuration::from_micros(50_000 + random.next(1_000_000) as i64);
        close.duration_us = Some(50_000 + random.next(1_000_000));
        close.bytes_sent = Some(200 + random.next(5_000));
        close.bytes_received = Some(500 + random.next(100_000));
        close.srtt_us = Some(100 + random.next(1_000) as u32);
    }
    c
}
