//! The live tier: real sockets on the running kernel, their records compared member by member.
//! Needs root; every test says so where it is skipped.

// Helpers of tests may fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod accounting;
mod cgroup;
mod datagram;
mod drops;
mod filters;
mod harness;
mod identity;
mod refusals;
mod report;
mod roles;
mod tcp;
mod unix;
