//! Capture: the only place that knows libbpf-rs.
//!
//! ```text
//! support (facts) -> plan (pure) -> loader -> driver (thread) -> decode -> bounded channel
//! ```

#[cfg(feature = "server")]
pub(crate) mod allocator;
pub(crate) mod clock;
mod configure;
pub mod decode;
pub mod decoder;
pub(crate) mod driver;
mod drops;
pub(crate) mod drops_skel;
pub mod error;
pub mod features;
#[cfg(feature = "cli")]
pub(crate) mod inherited;
mod join;
mod loader;
mod packets;
pub mod plan;
pub mod privileges;
pub(crate) mod questions;
mod reasons;
pub mod report;
pub(crate) mod shared;
mod shown;
pub(crate) mod skel;
pub mod support;
mod sys;
mod tracefs;
mod traffic;
mod walk;

/// `NETSPY_F_SHOWN` of connect.h: an earlier version of the record went into the ring.
pub(crate) const FLAG_SHOWN: u16 = 0x0001;
/// `NETSPY_F_NO_REMOTE`.
pub(crate) const FLAG_NO_REMOTE: u16 = 0x0004;
/// `NETSPY_F_FILTERED`: the filters leave it out.
pub(crate) const FLAG_FILTERED: u16 = 0x0002;
/// `NETSPY_F_SWEPT`: this version was put into the ring by a sweep.
pub(crate) const FLAG_SWEPT: u16 = 0x0020;
/// `NETSPY_F_OWN_CLOSE`.
pub(crate) const FLAG_OWN_CLOSE: u16 = 0x0010;
/// `NETSPY_F_PREEXISTING`: it was there before capture, and is counted nowhere.
pub(crate) const FLAG_PREEXISTING: u16 = 0x0080;
/// `NETSPY_F_LISTENER`: a socket that listens, which is no attempt and counted nowhere.
pub(crate) const FLAG_LISTENER: u16 = 0x0200;
/// `NETSPY_F_INBOUND`: it was accepted.
pub(crate) const FLAG_INBOUND: u16 = 0x0100;
/// `NETSPY_F_COUNTED`: the datagrams sent are counted, from the first on.
pub(crate) const FLAG_COUNTED: u16 = 0x1000;
/// `NETSPY_F_BYTES`: and so are their bytes.
pub(crate) const FLAG_BYTES: u16 = 0x2000;
/// `NETSPY_F_NO_START`.
pub(crate) const FLAG_NO_START: u16 = 0x0800;
