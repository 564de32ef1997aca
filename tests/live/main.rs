//! The live tier: real sockets on the running kernel, their records compared member by member.
//! Needs root; every test says so where it is skipped.

// Helpers of tests may fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod accounting;
mod calls;
mod cgroup;
mod containers;
mod datagram;
mod descendants;
mod dns;
mod dns_programs;
mod dns_records;
mod dns_server;
mod drops;
mod fast_open;
mod faults;
mod filters;
mod flood;
mod group;
mod harness;
mod icmp_raw;
mod identity;
mod inbound;
mod isolation;
mod kernel;
mod listeners;
mod nat;
mod outcomes;
mod preexisting;
mod processes;
mod refusals;
mod report;
mod ring;
mod roles;
mod send;
mod takeover;
mod tcp;
#[path = "../common/tools.rs"]
mod tools;
mod traffic;
mod unix;
mod unseen;
