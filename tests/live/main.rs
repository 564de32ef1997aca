//! The live tier: real sockets on the running kernel, their records compared member by member.
//! Needs root; every test says so where it is skipped.

mod accounting;
mod datagram;
mod filters;
mod harness;
mod identity;
mod refusals;
mod tcp;
mod unix;
