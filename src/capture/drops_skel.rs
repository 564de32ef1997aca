//! The generated skeleton of `drops.bpf.c`, and the layouts that both sides agree on.

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

include!(concat!(env!("OUT_DIR"), "/drops.skel.rs"));

use plain::Plain;

// SAFETY: these consist of integers and arrays of them, without padding (the sizes below are the
// sums of their members), so every pattern of bytes is a value.
unsafe impl Plain for types::netspy_drop_key {}
// SAFETY: as above.
unsafe impl Plain for types::netspy_drop {}
// SAFETY: as above.
unsafe impl Plain for types::netspy_drop_rest {}

const _: () = assert!(size_of::<types::netspy_drop_key>() == 48);
const _: () = assert!(size_of::<types::netspy_drop>() == 40);
const _: () = assert!(size_of::<types::netspy_drop_rest>() == 32);
