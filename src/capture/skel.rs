//! The generated skeleton of `connect.bpf.c`, and the layouts that both sides agree on.

#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

include!(concat!(env!("OUT_DIR"), "/connect.skel.rs"));

use plain::Plain;

// SAFETY: these consist of integers and arrays of them, without padding (the sizes below are the
// sums of their members), so every pattern of bytes is a value.
unsafe impl Plain for types::netspy_conn {}
// SAFETY: as above.
unsafe impl Plain for types::netspy_unix {}
// SAFETY: as above.
unsafe impl Plain for types::netspy_exec {}
// SAFETY: as above.
unsafe impl Plain for types::netspy_fork {}
// SAFETY: as above.
unsafe impl Plain for types::netspy_dns {}
// SAFETY: as above.
unsafe impl Plain for types::netspy_cgroup {}
// SAFETY: as above.
unsafe impl Plain for types::netspy_counters {}
// SAFETY: as above.
unsafe impl Plain for types::netspy_traffic {}
// SAFETY: as above.
unsafe impl Plain for types::netspy_walk {}

const _: () = assert!(size_of::<types::netspy_conn>() == 224);
const _: () = assert!(size_of::<types::netspy_unix>() == 336);
const _: () = assert!(size_of::<types::netspy_exec>() == 2392);
const _: () = assert!(size_of::<types::netspy_fork>() == 48);
const _: () = assert!(size_of::<types::netspy_counters>() == 104);
const _: () = assert!(size_of::<types::netspy_dns>() == 248);
const _: () = assert!(size_of::<types::netspy_cgroup>() == 528);
const _: () = assert!(size_of::<types::netspy_traffic>() == 48);
const _: () = assert!(size_of::<types::netspy_walk>() == 16);
