//! Every connection attempt on a Linux host: which process, where to, with what outcome.
//!
//! The kernel is asked by eBPF programs, and nothing is guessed: the outcome of an attempt is what
//! the kernel made of it, the protocol that of the socket, and what was not told is `None`. The
//! books say where each attempt went, so that nobody has to wonder whether a list is complete.
//!
//! ```no_run
//! use netspy::ConnectionStream;
//!
//! for connection in ConnectionStream::builder().start()? {
//!     println!("{:?} {}", connection.remote, connection.outcome);
//! }
//! # Ok::<(), netspy::CaptureError>(())
//! ```
//!
//! What happens on the way:
//!
//! ```text
//! BPF programs ─> ring buffer ─> capture thread ─> bounded channel ─> ConnectionStream
//!  (in-kernel      (no wake-up     (decode, add       (pushes back        (Stream and
//!   filters)        per event)      process facts)     into the ring)      Iterator)
//! ```
//!
//! A record comes again when it changes: first in progress, if its outcome takes longer than a
//! moment, then with the outcome, then closed. Each version carries the same
//! [`id`](event::Connection::id) and replaces the one before.
//!
//! Loading needs privileges; without them there is an error that says what to do:
//!
//! ```
//! use netspy::ConnectionStream;
//!
//! if let Err(error) = ConnectionStream::builder().start() {
//!     // "no privilege to load BPF programs: ...; run as root (sudo), or ..."
//!     eprintln!("{error}");
//! }
//! ```
//!
//! # Features
//!
//! With `default-features = false` there is the stream alone. `store` adds a bounded memory of
//! records with typed queries, `client` the same questions to a server, `containers` somebody to ask
//! what containers are called ([`stream::Builder::containers`]), `server` and `cli` what the two
//! programs consist of.
#![cfg_attr(docsrs, feature(doc_cfg))]

// Unit tests and fuzzing share the records of the integration tests, which name the crate.
#[cfg(any(test, fuzzing))]
extern crate self as netspy;
#[cfg(any(test, fuzzing))]
#[path = "../tests/common/records.rs"]
mod test_records;

pub mod accounting;
#[cfg(feature = "ai")]
pub mod ai;
#[cfg(feature = "store")]
pub mod analysis;
#[cfg(feature = "server")]
pub mod api;
pub mod capture;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod containers;
mod enrich;
pub mod event;
#[cfg(all(feature = "server", any(test, fuzzing)))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "mcp")]
pub mod mcp;
#[cfg(feature = "server")]
mod private;
#[cfg(feature = "store")]
pub mod query;
pub mod record;
#[cfg(feature = "tools")]
pub mod redact;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "store")]
pub mod store;
pub mod stream;
#[cfg(feature = "tools")]
mod text;
#[cfg(feature = "tools")]
pub mod tools;
mod version;

pub use capture::error::CaptureError;
pub use event::Connection;
pub use stream::ConnectionStream;
pub use version::{COMMIT, VERSION, VERSION_AND_COMMIT};
