//! Every connection attempt on a Linux host: which process, where to, with what outcome.
#![cfg_attr(docsrs, feature(doc_cfg))]

// Unit tests share the records of the integration tests, which name the crate.
#[cfg(test)]
extern crate self as netspy;
#[cfg(test)]
#[path = "../tests/common/records.rs"]
mod test_records;

pub mod accounting;
#[cfg(feature = "server")]
pub mod api;
pub mod capture;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
mod enrich;
pub mod event;
#[cfg(feature = "store")]
pub mod query;
pub mod record;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "store")]
pub mod store;
pub mod stream;

pub use capture::error::CaptureError;
pub use event::Connection;
pub use stream::ConnectionStream;
