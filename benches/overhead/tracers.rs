//! What can be measured: this crate, the least that a tracer can do, and the tools of others.

use std::error::Error;

use netspy::store::Store;

use crate::roles::{self, Cost};

/// One line of the tables.
#[derive(Debug)]
pub struct Tracer {
    pub name: &'static str,
    /// What it reports, in a few words.
    pub tells: &'static str,
    pub start: Start,
}

#[derive(Debug)]
pub enum Start {
    /// A part of this program.
    Own(fn() -> Result<Cost, Box<dyn Error>>),
    /// A program of others, and the package in which Debian has it. Never built, never required:
    /// what is not installed, or does not start on this kernel, is skipped with its own words.
    Command { line: &'static [&'static str], package: &'static str },
}

/// Room for more than a million records.
const STORE_BYTES: u64 = 256 << 20;

const NOTHING: &str = "nothing";
const ONE_RECORD: &str = "that connect() returned";
const ALL: &str = "every attempt with its outcome";
const SESSIONS: &str = "TCP sessions at their end";

/// In the order of the tables.
pub static TRACERS: &[Tracer] = &[
    own("empty-fentry", NOTHING, || roles::empty("empty_fexit")),
    own("empty-kprobe", NOTHING, || roles::empty("empty_kret")),
    own("empty-tracepoint", NOTHING, || roles::empty("empty_trace")),
    own("record-fentry", ONE_RECORD, || roles::record("record_fexit")),
    own("record-kprobe", ONE_RECORD, || roles::record("record_kret")),
    own("record-tracepoint", ONE_RECORD, || roles::record("record_trace")),
    own("netspy-fentry", ALL, || roles::netspy(Some("fentry"), drop)),
    own("netspy-kprobe", ALL, || roles::netspy(Some("kprobe"), drop)),
    own("netspy-tracepoint", ALL, || roles::netspy(Some("tracepoint"), drop)),
    // The backend that netspy chooses by itself.
    own("netspy", ALL, || roles::netspy(None, drop)),
    own("netspy+store", ALL, || {
        let store = Store::new(STORE_BYTES);
        roles::netspy(None, |batch| {
            store.apply(batch);
        })
    }),
    own("naive", "calls of connect()", roles::naive),
    Tracer {
        name: "bt:connect",
        tells: "what connect() returned",
        start: Start::Command {
            line: &["bpftrace", "-e", include_str!("connect.bt")],
            package: "bpftrace",
        },
    },
    bpftrace("bt:tcpconnect", "TCP attempts", &["bpftrace", "/usr/sbin/tcpconnect.bt"]),
    bpftrace("bt:tcplife", SESSIONS, &["bpftrace", "/usr/sbin/tcplife.bt"]),
    libbpf_tool("libbpf:tcpconnect", "TCP attempts", &["tcpconnect"]),
    libbpf_tool("libbpf:tcpconnlat", "TCP handshake times", &["tcpconnlat"]),
    libbpf_tool("libbpf:tcptracer", "TCP connects, accepts, closes", &["tcptracer"]),
    libbpf_tool("libbpf:tcplife", SESSIONS, &["tcplife"]),
    libbpf_tool("libbpf:tcpstates", "TCP state changes", &["tcpstates"]),
    bcc("bcc:tcpconnect", "TCP attempts", &["tcpconnect-bpfcc"]),
    bcc("bcc:tcpconnlat", "TCP handshake times", &["tcpconnlat-bpfcc"]),
    bcc("bcc:tcptracer", "TCP connects, accepts, closes", &["tcptracer-bpfcc"]),
    bcc("bcc:tcplife", SESSIONS, &["tcplife-bpfcc"]),
    bcc("bcc:tcpstates", "TCP state changes", &["tcpstates-bpfcc"]),
];

const fn own(
    name: &'static str,
    tells: &'static str,
    run: fn() -> Result<Cost, Box<dyn Error>>,
) -> Tracer {
    Tracer { name, tells, start: Start::Own(run) }
}

const fn bpftrace(
    name: &'static str,
    tells: &'static str,
    line: &'static [&'static str],
) -> Tracer {
    Tracer { name, tells, start: Start::Command { line, package: "bpftrace" } }
}

const fn libbpf_tool(
    name: &'static str,
    tells: &'static str,
    line: &'static [&'static str],
) -> Tracer {
    Tracer { name, tells, start: Start::Command { line, package: "libbpf-tools" } }
}

const fn bcc(name: &'static str, tells: &'static str, line: &'static [&'static str]) -> Tracer {
    Tracer { name, tells, start: Start::Command { line, package: "bpfcc-tools" } }
}

impl Tracer {
    pub fn named(name: &str) -> Option<&'static Tracer> {
        TRACERS.iter().find(|tracer| tracer.name == name)
    }

    /// Unless others are asked for: each backend of netspy by its name, not once more as the one
    /// that would be chosen.
    pub fn usual() -> Vec<&'static Tracer> {
        TRACERS.iter().filter(|tracer| tracer.name != "netspy").collect()
    }

    /// The least that a tracer can do on the same hook and yet tell something.
    pub fn floor(&self) -> Option<&'static str> {
        match self.name {
            "netspy-fentry" => Some("record-fentry"),
            "netspy-kprobe" => Some("record-kprobe"),
            "netspy-tracepoint" => Some("record-tracepoint"),
            _ => None,
        }
    }
}
