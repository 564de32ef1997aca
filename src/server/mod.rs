//! The daemon: from options to answers.

pub mod listen;
pub mod logging;
pub mod options;
mod patience;
mod run;
mod serve;

pub use options::Options;
pub use run::{ServerError, check, run};
pub use serve::{Listeners, serve};
