//! Every connection attempt on a Linux host: which process, where to, with what outcome.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod accounting;
pub mod capture;
mod enrich;
pub mod event;
#[cfg(feature = "store")]
pub mod query;
pub mod stream;

pub use capture::error::CaptureError;
pub use event::Connection;
pub use stream::ConnectionStream;
